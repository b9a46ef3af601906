"""A fleet as its users see it: operations that run on all that a selector chooses, and a row for each.

`await fleet.uxm_setup(bands=[0])` runs a task everywhere, or starts a process; options stand on the handle, parameters
in the call. What runs a call is given: a lab's client, or a step.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from labwright.core.fleet import FleetResult
from labwright.plan.fan_out import FanOut

Verb = Literal["call", "start", "status", "stop", "abort"]


@dataclass(frozen=True, kw_only=True)
class FleetAsked:
    """What is asked of a fleet: `call` waits for the ends, `start` does not; the others are about what runs."""

    verb: Verb
    selector: str
    operation: str
    params: Mapping[str, Any]
    how: FanOut


Answer = Callable[[FleetAsked], Awaitable[FleetResult]]


class FleetHandle:
    """The targets that a selector chooses whenever something is asked of them."""

    def __init__(self, selector: str, how: FanOut, answer: Answer) -> None:
        self.selector = selector
        self._how = how
        self._answer = answer

    def __repr__(self) -> str:
        return f"<fleet {self.selector}>"

    def operation(self, name: str) -> FleetOperation:
        """Give an operation, whatever its name."""
        return FleetOperation(self.selector, name, self._how, self._answer)

    def __getattr__(self, name: str) -> FleetOperation:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.operation(name)


class FleetOperation:
    """One operation of all agents of a fleet; each method gives a `FleetResult` with a row for each target."""

    def __init__(self, selector: str, name: str, how: FanOut, answer: Answer) -> None:
        self.name = name
        self._selector = selector
        self._how = how
        self._answer = answer

    def __repr__(self) -> str:
        return f"<operation {self.name} of fleet {self._selector}>"

    async def __call__(self, **params: Any) -> FleetResult:
        """Run a task on every target and wait for all ends, or start a process on each.

        Raises:
            NotFoundError: nobody is chosen, or nobody of them who is here has the operation.
            ParameterError: nobody of them who is here takes these parameters; nothing was started.
            UsageError: the quorum cannot be reached.
        """
        return await self._ask("call", params)

    async def start(self, **params: Any) -> FleetResult:
        """Start it everywhere, and do not wait: a row has succeeded once its session has begun."""
        return await self._ask("start", params)

    async def status(self) -> FleetResult:
        """Ask for the newest session on each target; it is the row's result, None where it never ran."""
        return await self._ask("status", {})

    async def stop(self) -> FleetResult:
        """Ask the newest session on each target to end, which is the success of a process; waits a while for it."""
        return await self._ask("stop", {})

    async def abort(self) -> FleetResult:
        """Have the newest session on each target ended early; waits a while for it."""
        return await self._ask("abort", {})

    async def _ask(self, verb: Verb, params: Mapping[str, Any]) -> FleetResult:
        return await self._answer(
            FleetAsked(verb=verb, selector=self._selector, operation=self.name, params=params, how=self._how)
        )


class BlockingFleetHandle:
    """The blocking twin of `FleetHandle`; `do` runs what that gives to await."""

    def __init__(self, handle: Any, do: Callable[[Any], Any]) -> None:
        self._handle = handle
        self._do = do

    def __repr__(self) -> str:
        return repr(self._handle)

    @property
    def selector(self) -> str:
        """What chooses its targets."""
        return self._handle.selector

    def operation(self, name: str) -> BlockingFleetOperation:
        """Give an operation, whatever its name."""
        return BlockingFleetOperation(self._handle.operation(name), self._do)

    def __getattr__(self, name: str) -> BlockingFleetOperation:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.operation(name)


class BlockingFleetOperation:
    """The blocking twin of `FleetOperation`."""

    def __init__(self, operation: Any, do: Callable[[Any], Any]) -> None:
        self._operation = operation
        self._do = do

    def __call__(self, **params: Any) -> FleetResult:
        """Run a task on every target and wait for all ends, or start a process on each."""
        return self._do(self._operation(**params))

    def start(self, **params: Any) -> FleetResult:
        """Start it everywhere, and do not wait."""
        return self._do(self._operation.start(**params))

    def status(self) -> FleetResult:
        """Ask for the newest session on each target."""
        return self._do(self._operation.status())

    def stop(self) -> FleetResult:
        """Ask the newest session on each target to end."""
        return self._do(self._operation.stop())

    def abort(self) -> FleetResult:
        """Have the newest session on each target ended early."""
        return self._do(self._operation.abort())
