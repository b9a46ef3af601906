"""`Tasks`: what a Mimas implementor inherits from to say what shall be done; also `zocalo.mimas.tasks`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeAlias

from labwright.compat.mimas.classes import (
    MimasEvent,
    MimasISPyBJobInvocation,
    MimasRecipeInvocation,
    MimasScenario,
)

Invocation: TypeAlias = MimasRecipeInvocation | MimasISPyBJobInvocation


class Tasks(ABC):
    """Decides for scenarios of one beamline, one event or both; None stands for any."""

    beamline: str | None = None
    event: MimasEvent | None = None
    enabled: bool = True

    @abstractmethod
    def run(self, scenario: MimasScenario) -> Sequence[Invocation]:
        """List the invocations that follow from a scenario."""

    def do_run(self, scenario: MimasScenario) -> Sequence[Invocation]:
        """List them if this is enabled and the scenario is of its beamline and event; else list nothing."""
        is_meant = (
            self.enabled
            and self.beamline in {None, scenario.beamline}
            and (self.event is None or self.event == scenario.event)
        )
        return self.run(scenario) if is_meant else []
