"""`python -m labwright` is the command `labwright`."""

import sys

from labwright.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
