"""What is known of a controller's stream_id before its hardware is touched: what the system's configuration says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from labwright.instruments.pysmurf.simulated import usual_stream_id

SYSTEM_FILE = "sys_config.yml"
"""The configuration of all slots, as sodetlib reads it, in the folder OCS_CONFIG_DIR."""


def known_stream_id(
    slot: int | None, labels: Mapping[str, str], *, simulate: bool, environ: Mapping[str, str] | None = None
) -> str | None:
    """Tell a slot's stream_id, where it can be known; a simulated card is named after labels `crate` and `slot`."""
    environ = os.environ if environ is None else environ
    number = str(slot) if slot is not None else environ.get("SLOT", "").strip()
    system = _system(environ.get("OCS_CONFIG_DIR", ""))
    if system is not None:
        return _configured(system, number)
    crate, place = labels.get("crate", ""), labels.get("slot") or number
    return usual_stream_id(crate, place) if simulate and place.isalnum() and (crate or "1").isalnum() else None


def _system(folder: str) -> Mapping[str, Any] | None:
    """Read the system's configuration; None where there is none, or none that can be read."""
    import yaml

    if not folder:
        return None
    try:
        read: object = yaml.safe_load((Path(folder) / SYSTEM_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return cast("Mapping[str, Any]", read) if isinstance(read, Mapping) else None


def _configured(system: Mapping[str, Any], number: str) -> str | None:
    slots: object = system.get("slots")
    if not isinstance(slots, Mapping):
        return None
    tables = cast("Mapping[str, Any]", slots)
    table: object = tables.get(f"SLOT[{number}]") if number else next(iter(tables.values()), None)
    if not isinstance(table, Mapping) or not (number or len(tables) == 1):
        return None
    found: object = cast("Mapping[str, Any]", table).get("stream_id")
    return found if isinstance(found, str) and found else None
