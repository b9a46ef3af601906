"""What an execution is given from outside: time, target, clients, chance; all that a test may want to replace."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from labwright.core.clock import Clock, SystemClock
from labwright.core.model import Event, Step, Target
from labwright.plan.providers import Provider


def _no_one(_: Step) -> None:
    """Nobody watches."""


@dataclass(frozen=True, kw_only=True)
class Services:
    """What one attempt may use.

    `agent` and `fleet` make the handles behind `ctx.agent(name)` and `ctx.fleet(selector)`. `http_transport` replaces
    the network under `ctx.http`. `watch` is told each step as it begins, and never blocks.
    """

    clock: Clock = field(default_factory=SystemClock)
    target: Target | None = None
    event: Event | None = None
    providers: Mapping[str, Provider] = field(default_factory=dict[str, Provider])
    agent: Callable[[str], Any] | None = None
    fleet: Callable[[str], Any] | None = None
    http_transport: Any = None
    random: Callable[[], float] = random.random
    watch: Callable[[Step], None] = _no_one
