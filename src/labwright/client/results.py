"""What a command gives back: what was written, and whether it is new."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Emitted:
    """An event that is in the journal; `is_new` is False where it was there already."""

    id: str
    source: str
    key: str
    seq: int
    is_new: bool


@dataclass(frozen=True, kw_only=True)
class RequestedRuns:
    """Runs that were asked for, by target; `is_new` is False where the same key had made them already."""

    runs: tuple[str, ...]
    targets: tuple[str | None, ...]
    seq: int
    is_new: bool = True
