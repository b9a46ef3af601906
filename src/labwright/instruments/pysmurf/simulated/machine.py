"""The machine that a control object speaks to: settings, clock, faults, detectors, and what is set on the card."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from labwright.instruments.pysmurf.publisher import Publisher, Send
from labwright.instruments.pysmurf.simulated.clock import Clock
from labwright.instruments.pysmurf.simulated.detectors import Detectors, Floats, detectors
from labwright.instruments.pysmurf.simulated.faults import Faults, read_faults
from labwright.instruments.pysmurf.simulated.hardware import Hardware
from labwright.instruments.pysmurf.simulated.settings import Settings
from labwright.instruments.pysmurf.simulated.transition import Transitions


class Machine:
    """One simulated card, by its stream id."""

    def __init__(self, stream_id: str, settings: Settings | None = None) -> None:
        self.stream_id = stream_id
        self.settings = settings or Settings.of()
        self.clock = Clock(self.settings.speed)
        self.hardware = Hardware(self.settings.data / "card" / f"{stream_id}.json")
        self._draw = np.random.default_rng()
        faults = read_faults(self.settings.faults)
        self.faults = Faults(faults, sleep=self.clock.sleep, publish=self._publish)
        self.pub = Publisher(Path(sys.argv[0]).name or "pysmurf", through=self._lossy)

    @functools.cached_property
    def detectors(self) -> Detectors:
        """All detectors of the card."""
        empty = self.faults.value("empty")
        band = None if empty is None else int(empty or 0)
        return detectors(self.stream_id, self.settings.seed, self.settings.resonators, empty_band=band)

    @functools.cached_property
    def transitions(self) -> Transitions:
        """The curves of all detectors."""
        return Transitions(self.detectors)

    @property
    def random(self) -> np.random.Generator:
        """What draws noise: other noise each time, as in life."""
        return self._draw

    @property
    def timestreams(self) -> Path:
        """The folder of streams."""
        return self.settings.data / "so" / "timestreams"

    def spoiled(self, values: Floats) -> Floats:
        """Give results as they are, or with the fault `nan` none that is a number."""
        if self.faults.value("nan") is None:
            return values
        spoiled = np.full_like(values, np.nan)
        spoiled.reshape(-1)[:1] = np.inf
        return spoiled

    def _publish(self, *message: Any) -> None:
        self.pub.publish(*message)

    def _lossy(self, send: Send) -> Send:
        """Lose or double messages where that was asked for."""
        lost, twice = self.faults.fraction("udp_loss"), self.faults.fraction("udp_twice")
        draw = np.random.default_rng(self.settings.seed)

        def send_lossily(message: bytes) -> None:
            if draw.random() >= lost:
                send(message)
                if draw.random() < twice:
                    send(message)

        return send_lossily if lost or twice else send


class HasMachine(Protocol):
    """What the commands of the control object share."""

    machine: Machine

    def log(self, text: object, level: object = ...) -> None:
        """Say a line."""
        ...

    def get_timestamp(self) -> str:
        """Tell the time, whole epoch seconds as text."""
        ...
