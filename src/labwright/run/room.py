"""Room on the disk: below a limit a lab takes no new work, and lets what runs go on."""

from __future__ import annotations

from pathlib import Path

from labwright.core.errors import EngineError

LEAST_FREE = 1_000_000_000
LEAST_SHARE = 0.05


def is_short(free: int, total: int) -> bool:
    """Tell whether a disk has too little room, in bytes: below 1 GB, or below 5 % of it."""
    return free < min(LEAST_FREE, total) or free < total * LEAST_SHARE


def refuse_if_full(free: int, total: int, place: Path) -> None:
    """Refuse new work where the journal's disk is nearly full.

    Raises:
        EngineError: it is.
    """
    if is_short(free, total):
        message = "the lab takes no new work: its disk is nearly full"
        raise EngineError(
            message,
            because=f"{free / 1e9:.1f} GB of {total / 1e9:.0f} GB are free at {place}",
            cure="make room, or shorten [retention]; what runs goes on",
        )
