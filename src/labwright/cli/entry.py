"""The door of the command line: small, so that Ctrl-C is understood even while the commands are still being loaded."""

from __future__ import annotations

import sys

INTERRUPTED = 130


def main() -> int:
    """Run one command and give its exit code."""
    try:
        from labwright.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
