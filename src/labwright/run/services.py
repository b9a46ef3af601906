"""What an execution is given from outside: time, target, clients, chance; all that a test may want to replace."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from labwright.core.clock import Clock, SystemClock
from labwright.core.model import Event, Step, Target
from labwright.plan.providers import Provider

if TYPE_CHECKING:
    from labwright.run.fleets import RunFleets


def _no_one(_: Step) -> None:
    """Nobody watches."""


def _as_it_is(handle: Any, _: Callable[..., Any]) -> Any:
    """Give a handle that blocks already."""
    return handle


class Caller(Protocol):
    """The step that asks for an agent."""

    cancelled: bool
    """Whether it was told to end."""

    def next_call(self) -> tuple[str, str]:
        """Give the step's name, and what tells this call of it from all others of the run."""
        ...


@dataclass(frozen=True, kw_only=True)
class Services:
    """What one attempt may use.

    `agent` and `fleet` make the handles behind `ctx.agent(name)` and `ctx.fleet(selector)`; `fleets` is for the
    built-in tasks. `blocking` makes the twin of such a handle for `def` steps; it is given what runs a coroutine to its
    end. `http_transport` replaces the
    network under `ctx.http`. `watch` is told each step as it begins, and never blocks.
    """

    clock: Clock = field(default_factory=SystemClock)
    target: Target | None = None
    event: Event | None = None
    providers: Mapping[str, Provider] = field(default_factory=dict[str, Provider])
    agent: Callable[[str, Caller], Any] | None = None
    fleet: Callable[[str, Mapping[str, Any], Any], Any] | None = None
    fleets: RunFleets | None = None
    blocking: Callable[[Any, Callable[..., Any]], Any] = _as_it_is
    http_transport: Any = None
    random: Callable[[], float] = random.random
    watch: Callable[[Step], None] = _no_one
