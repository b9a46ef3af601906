"""How a manager learns of controllers, by push alone: who is here, what each can do, and how its sessions stand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from nats.aio.msg import Msg
from pydantic import ValidationError

from labwright.agents.handle import AgentHandle
from labwright.core.errors import LabwrightError
from labwright.core.logs import get_logger
from labwright.core.model import SessionSnapshot
from labwright.core.selectors import Selector
from labwright.instruments.pysmurf.managed_smurf import Controllers, ManagedSmurfInstance
from labwright.journal.journal import Journal
from labwright.journal.presence import Seen, watch
from labwright.journal.session_fold import decoded, encoded

REFRESH_SHOWN_S = 1.0
"""That a controller still is here is shown so late at most; everything else at once."""

log = get_logger(__name__)

Heard = Callable[[SessionSnapshot], None]
Identity = tuple[Any, Any]


class ControllerWatch:
    """Keeps what is known of the controllers that a selector chooses true, as long as `run` runs.

    `changed` is set whenever something is new; `learned` is called after what controllers can do may have changed.
    """

    def __init__(
        self, journal: Journal, name: str, selector: Selector, controllers: Controllers, learned: Callable[[], None]
    ) -> None:
        self.changed = asyncio.Event()
        self.ready = asyncio.Event()
        """Set once everybody who was here at first is known."""
        self._journal = journal
        self._name = name
        self._selector = selector
        self._controllers = controllers
        self._learned = learned
        self._ears: dict[str, Heard] = {}
        self._identities: dict[str, Identity] = {}
        """Who each controller was, and what it could do, when it was asked last."""
        self._learning: dict[str, asyncio.Task[None]] = {}
        self._beginnings = 0
        self._unlisten: dict[str, Callable[[], Awaitable[None]]] = {}
        self._showing: asyncio.TimerHandle | None = None

    def listen(self, session_id: str, ear: Heard) -> None:
        """Have each new state of a session told to a function."""
        self._ears[session_id] = ear

    def unlisten(self, session_id: str) -> None:
        """Tell it no longer."""
        self._ears.pop(session_id, None)

    async def run(self) -> None:
        """Watch, for ever."""
        try:
            async with asyncio.TaskGroup() as group:
                async for seen in watch(self._journal.connection, "agent"):
                    if seen is None:
                        self._begin_anew(group)
                    else:
                        self._see(seen, group)
        finally:
            if self._showing is not None:
                self._showing.cancel()
            for unlisten in self._unlisten.values():
                await unlisten()

    # --- presence ----------------------------------------------------------------------------------------------------

    def _see(self, seen: Seen, group: asyncio.TaskGroup) -> None:
        address = decoded(seen.name)
        body = seen.body
        labels = {} if body is None else _labels(body)
        if body is None or address == self._name or not self._selector.matches(address, labels):
            self._lose(address)
            return
        controller = self._controllers.known.setdefault(address, ManagedSmurfInstance(address=address))
        controller.last_refresh = time.time()
        if controller.expired or controller.labels != labels:
            controller.expired, controller.labels = False, labels
            self.changed.set()
        self._show_soon()
        identity = (body.get("identity"), body.get("revision"))
        if self._identities.get(address) != identity and address not in self._learning:
            self._learning[address] = group.create_task(self._learn(controller, identity))

    def _lose(self, address: str) -> None:
        controller = self._controllers.known.get(address)
        if controller is not None and not controller.expired:
            controller.expired = True
            self._identities.pop(address, None)
            self.changed.set()

    def _begin_anew(self, group: asyncio.TaskGroup) -> None:
        """Ask everybody once more: what was pushed while the connection was away was missed."""
        self._beginnings += 1
        self._identities.clear()
        if not self.ready.is_set():
            group.create_task(self._get_ready(tuple(self._learning.values())))

    async def _get_ready(self, learning: tuple[asyncio.Task[None], ...]) -> None:
        if learning:
            await asyncio.wait(learning)
        self.ready.set()

    def _show_soon(self) -> None:
        if self._showing is None:
            self._showing = asyncio.get_running_loop().call_later(REFRESH_SHOWN_S, self._show)

    def _show(self) -> None:
        self._showing = None
        self.changed.set()

    # --- what a controller can do, and does --------------------------------------------------------------------------

    async def _learn(self, controller: ManagedSmurfInstance, identity: Identity) -> None:
        """Ask a controller for everything; unanswered, it is asked again when it says once more that it is here."""
        address = controller.address
        agent = AgentHandle(self._journal, address, sender=self._journal.connection.identity or self._name)
        beginning = self._beginnings
        try:
            await self._hear_sessions(address)
            described = await agent.describe()
            controller.operations = described["operations"]
            self._learned()
            handles = [agent.session(each["id"]) for each in described["sessions"]]
            for session in await asyncio.gather(*(handle.status() for handle in handles)):
                self._take(controller, session)
            if beginning == self._beginnings:
                self._identities[address] = identity
        except (LabwrightError, TimeoutError) as error:
            log.warning("a controller did not tell what it does", controller=address, because=str(error))
        finally:
            del self._learning[address]

    async def _hear_sessions(self, address: str) -> None:
        if address in self._unlisten:
            return

        async def hear(message: Msg) -> None:
            try:
                session = SessionSnapshot.model_validate_json(message.data)
            except ValidationError:
                return
            controller = self._controllers.known.get(address)
            if controller is not None and session.agent == address:
                self._take(controller, session)

        subject = f"live.session.{encoded(address)}.*"
        self._unlisten[address] = await self._journal.connection.listen(subject, hear)

    def _take(self, controller: ManagedSmurfInstance, session: SessionSnapshot) -> None:
        named = controller.stream_id
        if controller.take(session):
            self.changed.set()
        if controller.stream_id != named:
            self._learned()
        if ear := self._ears.get(session.id):
            ear(session)


def _labels(body: Mapping[str, Any]) -> dict[str, str]:
    """Give the labels by which selectors choose an agent, its class among them."""
    labels = {str(label): str(value) for label, value in dict(body.get("labels") or {}).items()}
    return {**labels, "class": str(body.get("class", ""))}
