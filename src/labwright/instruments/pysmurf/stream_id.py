"""What is known of a controller's stream_id before its hardware is touched: what the system's configuration says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from labwright.instruments.pysmurf.simulated import usual_stream_id

SYSTEM_FILE = "sys_config.yml"
"""The configuration of all slots, as sodetlib reads it, in the folder OCS_CONFIG_DIR."""


def configured_stream_id(slot: int | None, environ: Mapping[str, str] | None = None) -> str | None:
    """Tell the stream_id that the system's configuration has for a slot; None where it has none."""
    environ = os.environ if environ is None else environ
    system = _system(environ.get("OCS_CONFIG_DIR", ""))
    return None if system is None else _configured(system, _number(slot, environ))


def simulated_stream_id(
    slot: int | None, labels: Mapping[str, str], environ: Mapping[str, str] | None = None
) -> str | None:
    """Tell what the simulated card of a slot is named, after the labels `crate` and `slot`, if they can name one."""
    crate, place = (
        labels.get("crate", "1"),
        labels.get("slot") or _number(slot, os.environ if environ is None else environ),
    )
    return usual_stream_id(crate, place) if place.isalnum() and crate.isalnum() else None


def _number(slot: int | None, environ: Mapping[str, str]) -> str:
    return str(slot) if slot is not None else environ.get("SLOT", "").strip()


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
