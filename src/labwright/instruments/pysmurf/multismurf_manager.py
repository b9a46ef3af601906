"""The MultiSmurf manager: an agent that commands any combination of controllers as one, and shows what each does.

What the controllers can do, it can do: its operations are learned from them while it runs, and none is written here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from labwright.agents.agent import Agent
from labwright.agents.fleet import Asked, Reach
from labwright.agents.operation import AnyOperation, Made, made_operation, process
from labwright.agents.passed_parameters import PassedParameters
from labwright.agents.session import Session
from labwright.core.errors import UsageError
from labwright.core.ids import hashed_id
from labwright.core.model import Model, OperationKind, utc_now
from labwright.core.roles import Role
from labwright.core.selectors import parse_selector
from labwright.instruments.pysmurf.controller_watch import ControllerWatch
from labwright.instruments.pysmurf.managed_smurf import Controllers, ManagedSmurfInstance, recalled, remembered
from labwright.instruments.pysmurf.passing import Passing, summary
from labwright.plan.fan_out import LONGEST_S, FanOut, Seconds, Share

__all__ = ["ManagedSmurfInstance", "MultiSmurfManager"]

DEADLINE_S = 3600.0
"""How long a task that has no deadline of its own may take on the controllers."""
REST_S = 5.0
"""By so much earlier than the manager the controllers have to end, so that it can tell how they did."""
GRACE_S = 20.0
"""How long the controllers may take for their clean-up when the operation is told to end."""
VALID_S = 30.0
"""How old a command may be when a controller follows it."""
RETURN_S = 30.0
READY_S = 3.0
"""How long the manager waits, when it starts, for controllers to tell what they can do."""
SHOW_S = 0.1
MEMORY = "controllers.json"


class ManagerOptions(Model):
    """What an operation of the manager takes beside what it passes on."""

    stream_ids: tuple[str, ...] | None = Field(
        None, description="The controllers, by stream_id; without it all that are not expired."
    )
    quorum: Share = Field("all", description="How many must succeed: a number, a percentage, or all.")
    timeout_s: Annotated[float, Field(gt=0, le=LONGEST_S, allow_inf_nan=False)] | None = Field(
        None, description="The deadline of each controller in seconds; the default is that of its operation."
    )
    return_within_s: Seconds = Field(
        RETURN_S, description="How many seconds a controller that goes away has to come back with its session."
    )


class MultiSmurfManager(Agent):
    """Command any combination of pysmurf controllers, and read the sessions of each.

    Every operation of the controllers is an operation of this agent, with the additional parameters `stream_ids`
    (default: all that are not expired), `quorum`, `timeout_s` and `return_within_s`. It waits until all have ended, and
    succeeds if all did, or as many as `quorum` says; its data are their sessions by stream_id.

    `controllers` is the selector of the agents that are managed.
    """

    def __init__(self, controllers: str = "class=PysmurfController") -> None:
        self._selector = parse_selector(controllers)
        self._controllers = Controllers()

    async def open(self) -> None:
        """Begin to watch for controllers, and learn from those that are here."""
        self._watch = ControllerWatch(self.journal, self.name, self._selector, self._controllers, self._take_up)
        self._watching = asyncio.create_task(self._watch.run(), name="watch of controllers")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                await self._watch.ready.wait()

    async def close(self) -> None:
        """Watch no longer."""
        self._watching.cancel()
        await asyncio.wait({self._watching})
        self._remember()

    @process(startup=True)
    async def monitor(self, session: Session) -> None:
        """Show the controllers: `smurfs` has each by address, with expired, last_refresh, stream_id and sessions."""
        while not session.is_stopping:
            self._watch.changed.clear()
            session.replace({"smurfs": self._controllers.encoded()})
            await self._news(session)
            await session.sleep(SHOW_S)

    async def _news(self, session: Session) -> None:
        """Wait until something is new, or the session is to end; a watch that has broken is told, not hidden."""
        waits = [asyncio.create_task(self._watch.changed.wait()), asyncio.create_task(session.asked())]
        try:
            await asyncio.wait({self._watching, *waits}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self._watching.done() and not session.is_stopping:
            self._watching.result()

    # --- its operations ----------------------------------------------------------------------------------------------

    def more_operations(self) -> Iterable[AnyOperation]:
        """Give those of the controllers; before anybody is seen, what they could do when this agent ran last."""
        if not self._controllers.known:
            self._controllers.known = self._recalled()
        return [
            self._operation(name, described)
            for name, described in self._controllers.operations().items()
            if name != "monitor"
        ]

    def _operation(self, name: str, described: Sequence[Mapping[str, Any]]) -> AnyOperation:
        kind = OperationKind(described[0]["kind"])
        deadlines = [DEADLINE_S if each["timeout"] is None else float(each["timeout"]) for each in described]
        parameters = PassedParameters(name, ManagerOptions, [each["params"] for each in described])

        async def pass_on(_: MultiSmurfManager, session: Session, /, **params: Any) -> Any:
            options = {option: params[option] for option in ManagerOptions.model_fields}
            return await self._pass_on(session, kind, ManagerOptions(**options), parameters.passed(params))

        return made_operation(
            pass_on,
            Made(
                doc=f"{described[0]['doc']}\n\nOn controllers: see stream_ids.",
                parameters=parameters,
                admit=self._admit,
            ),
            name=name,
            kind=kind,
            timeout=None if kind is OperationKind.PROCESS else max(deadlines) + REST_S,
            grace=GRACE_S,
            role=_highest(described),
            adopt=True,
        )

    def _admit(self, params: Mapping[str, Any]) -> None:
        """Refuse what names the wrong controllers, before anything starts."""
        targets = self._controllers.chosen(params["stream_ids"])
        FanOut.given(quorum=params["quorum"]).needed(len(targets))

    async def _pass_on(
        self, session: Session, kind: OperationKind, options: ManagerOptions, params: Mapping[str, Any]
    ) -> Any:
        """Do it on the controllers chosen when the session began, even if that was in a process before this one."""
        if "targets" not in session.kept:
            session.keep(targets=self._controllers.chosen(options.stream_ids))
        how = FanOut.given(
            quorum=options.quorum,
            timeout_s=_left_s(session, options.timeout_s),
            return_within_s=options.return_within_s,
        )
        asked = Asked(operation=session.operation, params=params, how=how, to_the_end=kind is OperationKind.PROCESS)
        reach = Reach(
            journal=self.journal,
            sender=self.journal.connection.identity or self.name,
            by=self.name,
            session_id=lambda name, number: hashed_id("ses", session.id, name, session.operation, number),
            options={"valid_for_s": VALID_S},
        )
        result = await Passing(session, self._watch, reach, asked, session.kept["targets"]).run()
        result.raise_if_failed()
        return summary(result)

    # --- what it remembers -------------------------------------------------------------------------------------------

    def _take_up(self) -> None:
        """Serve what the controllers can do now."""
        self._controllers.forget_old(time.time())
        self.operations_changed()
        self._remember()

    def _remember(self) -> None:
        """Write down what a successor of this process must know before it has seen anybody."""
        path = self.state_dir / MEMORY
        new = path.with_suffix(".new")
        try:
            new.write_text(json.dumps(remembered(self._controllers.known.values())), encoding="utf-8")
            new.replace(path)
        except OSError as error:
            self.log.warning("the controllers were not written down", because=str(error))

    def _recalled(self) -> dict[str, ManagedSmurfInstance]:
        try:
            return recalled(json.loads((self.state_dir / MEMORY).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            self.log.warning("what was known of the controllers cannot be read", because=str(error))
            return {}


def _highest(described: Iterable[Mapping[str, Any]]) -> Role:
    """Give the role that an operation needs on every controller."""
    roles = [Role(each.get("role", Role.OPERATOR)) for each in described]
    return next(role for role in roles if all(role.covers(other) for other in roles))


def _left_s(session: Session, timeout_s: float | None) -> float | None:
    """Tell how long the controllers have, so that the manager can still tell how they ended.

    Raises:
        UsageError: they are given more than the session itself has.
    """
    limits: list[float] = []
    if session.timeout_s is not None:
        limits.append(session.timeout_s - min(REST_S, session.timeout_s / 4))
        if timeout_s is not None and timeout_s > session.timeout_s:
            raise UsageError(
                f"the controllers cannot have {timeout_s:g} s",
                because=f"the session itself ends after {session.timeout_s:g} s",
                cure="give the session a later deadline, too: labwright call --timeout",
            )
    if timeout_s is not None:
        limits.append(timeout_s)
    if not limits:
        return None
    age_s = max(0.0, (utc_now() - session.started_at).total_seconds())
    return max(min(limits) - age_s, 0.1)
