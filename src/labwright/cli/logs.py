"""Logs of a command: one that only asks says nothing below an error, `serve` says what happens."""

from __future__ import annotations

import logging


def configure_logs(*, as_json: bool, verbose: bool) -> None:
    """Set up logging to standard error once, as readable lines or, with `--json`, as JSON lines."""
    from labwright.run.log_output import configure_logs as configure

    level = logging.INFO if verbose else logging.CRITICAL if as_json else logging.ERROR
    configure(level, as_json=as_json)
