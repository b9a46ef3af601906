"""What is set on the card, kept in a file: it outlives the script that set it, and other scripts see it at once."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labwright.instruments.pysmurf.simulated.settings import BANDS, BIAS_LINES

AMPLIFIERS = ("hemt", "50k")


def freshly_booted() -> dict[str, Any]:
    """Give the state of a card after power-up."""
    return {
        "tes_bias": [0.0] * BIAS_LINES,
        "high_current": [False] * BIAS_LINES,
        "amplifiers": {name: {"gate_volt": 0.0, "drain_current": 0.0} for name in AMPLIFIERS},
        "power_supply": 0,
        "att_uc": [0] * BANDS,
        "att_dc": [0] * BANDS,
        "band_delay_us": [None] * BANDS,
        "feedback_enable": [0] * BANDS,
        "amplitude": {},
        "center": {},
        "resonances": {},
        "tune_file": None,
        "flux_ramp": {"rate_khz": 4.0, "is_on": False, "fraction": 0.0, "fixed_bias": 0.0},
        "downsample_factor": 20,
        "downsample_mode": "internal",
        "filter_disable": 0,
        "registers": {},
        "newest_session": 0,
    }


class Hardware:
    """The card: named values in one file, written whole and at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._known: dict[str, Any] = {}
        self._version: tuple[int, int, int] | None = None

    def get(self, name: str) -> Any:
        """Read a value, as it is now, whoever set it."""
        return self._state()[name]

    def set(self, **values: Any) -> None:
        """Set values."""
        self.change(lambda state: state.update(values))

    def change(self, how: Callable[[dict[str, Any]], object]) -> None:
        """Change the state in place, while no other process does."""
        with self._alone():
            state = self._state()
            how(state)
            self._write(state)

    def _state(self) -> dict[str, Any]:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return freshly_booted()
        version = (status.st_ino, status.st_mtime_ns, status.st_size)
        if version != self._version:
            self._known = {**freshly_booted(), **json.loads(self._path.read_text(encoding="utf-8"))}
            self._version = version
        return self._known

    def _write(self, state: dict[str, Any]) -> None:
        new = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        new.write_text(json.dumps(state), encoding="utf-8")
        new.replace(self._path)

    @contextmanager
    def _alone(self) -> Generator[None]:
        with self._path.with_name(self._path.name + ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
