"""The file that a controller runs as a script for each operation on the hardware."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    sys.path.pop(0)  # this folder: its modules must not stand in for anybody's
    from labwright.instruments.pysmurf.on_smurf.child import main

    sys.exit(main())
