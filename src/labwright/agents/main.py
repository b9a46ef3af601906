"""The door of an agent's process: `python -m labwright.agents.main MODULE:CLASS --name NAME ...`."""

from __future__ import annotations

import sys


def main() -> None:
    """Serve an agent until told to end; leaves with the exit code of what went wrong, if something did."""
    # structlog takes rich wherever it is installed; an agent prints plain lines, and saves the memory
    sys.modules.setdefault("rich", None)  # pyright: ignore[reportArgumentType] - None says: not to be imported

    from labwright.agents.process import run_agent

    run_agent(sys.argv[1:])


if __name__ == "__main__":
    main()
