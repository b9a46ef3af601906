"""Where the logs of our own processes go: to standard error, as readable lines or as JSON lines."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import structlog


def configure_logs(level: int = logging.INFO, *, as_json: bool = False) -> None:
    """Send what is at least of that level to standard error; only a process of ours calls this, once."""
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty() and not os.environ.get("NO_COLOR"),
            exception_formatter=structlog.dev.plain_traceback,
            pad_event_to=0,
        )
    )
    processors = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
    if as_json:
        processors.insert(1, structlog.processors.format_exc_info)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=processors))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))
    logging.getLogger("labwright").setLevel(level)
