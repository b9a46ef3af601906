"""A session as its clients see it: asked, waited for, ended, followed; shown as lost while its agent is away."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from nats.aio.msg import Msg
from pydantic import ValidationError

from labwright.agents.asking import Asked, gone
from labwright.agents.following import AgentWatch, Hearing, answers, recorded, shown_lost
from labwright.agents.wire import ENDED, is_left_out
from labwright.core.errors import AgentGoneError, NotFoundError, SessionFailedError, UnreachableError, WaitTimeoutError
from labwright.core.model import SessionSnapshot, SessionState
from labwright.journal.follow import follow
from labwright.journal.journal import Journal
from labwright.journal.logs import STREAM as LOGS
from labwright.journal.session_fold import encoded

POLL_S = 10.0
"""A reply that was lost on its way is asked for again after this time."""
RETRY_S = 0.2
RECORDED_S = 30.0
"""How long the journal may take to get what was too large for a reply."""
LAST_LINES_S = 5.0
"""How long after the end of a session its last line may take to arrive; it never does if its agent was killed."""


class SessionHandle:
    """A handle on one session of one agent."""

    def __init__(
        self, journal: Journal, asked: Asked, session_id: str, *, by: str = "", snapshot: SessionSnapshot | None = None
    ) -> None:
        self.id = session_id
        self.is_new: bool | None = None
        """Whether the command that gave this handle has started it; None where that is not known."""
        self.brings_whole = True
        """Whether what is too large for a reply is brought from the journal at its end."""
        self._journal = journal
        self._asked = asked
        self._by = by
        self._snapshot = snapshot

    def __repr__(self) -> str:
        known = self._snapshot
        what = f"{known.operation} on {self.agent}, {known.state.value} when last seen" if known else f"on {self.agent}"
        return f"<session {self.id}: {what}>"

    @property
    def agent(self) -> str:
        """The name of its agent."""
        return self._asked.agent

    @property
    def snapshot(self) -> SessionSnapshot:
        """The session as it was last seen here.

        Raises:
            NotFoundError: it was never seen; ask for its `status`.
        """
        if self._snapshot is None:
            raise NotFoundError(f"nothing is known of session {self.id} yet", cure="ask for its status")
        return self._snapshot

    async def status(self) -> SessionSnapshot:
        """Ask how it stands; while its agent is away the journal answers, and what has not ended is shown as lost.

        Raises:
            NotFoundError: nobody knows it.
        """
        try:
            return await self.take(await self._asked.ask(None, {"do": "status", "session": self.id}))
        except AgentGoneError as error:
            known = await self._known()
            if known is None:
                raise NotFoundError(
                    f"nobody knows the session {self.id}", because=error.message, cure="see labwright sessions list"
                ) from None
            return known

    async def wait(self, timeout: float | None = None, *, hearing: Hearing | None = None) -> SessionSnapshot:
        """Wait until it has ended, at most `timeout` seconds, and give it as it then stands.

        Who waits for many sessions lets them share a `hearing`.

        Raises:
            WaitTimeoutError: the time has passed; it goes on.
            AgentGoneError: its agent went away, `error.session` is what is known.
        """
        if self._snapshot is not None and self._snapshot.state.is_final:
            return self._snapshot
        watch = AgentWatch(self._asked.connection, self.agent, self._asked.sender, hearing)
        try:
            async with asyncio.timeout(timeout), watch.watching() as away:
                return await self._ended(away)
        except TimeoutError:
            raise WaitTimeoutError(
                f"session {self.id} has not ended after {timeout:g} s", because="it goes on", cure="wait again"
            ) from None

    async def result(self, timeout: float | None = None) -> SessionSnapshot:
        """Wait for its end as `wait` does, and insist on success.

        Raises:
            SessionFailedError: it ended otherwise.
        """
        return succeeded(await self.wait(timeout))

    async def stop(self, reason: str = "") -> SessionSnapshot:
        """Ask a process to end, which is its success; does not wait for it.

        Raises:
            UsageError: it is a task.
        """
        return await self._end("stop", reason)

    async def abort(self, reason: str = "") -> SessionSnapshot:
        """Have it ended early, if it still runs; does not wait for it."""
        return await self._end("abort", reason)

    async def log(self, *, follow_on: bool = True) -> AsyncGenerator[dict[str, Any]]:
        """Give the entries of its log from the first, and with `follow_on` what comes, until it has ended."""
        ended = asyncio.create_task(self._over())
        batches = aiter(follow(self._asked.connection, LOGS, [f"log.session.{self.id}"], after=0))
        coming = asyncio.ensure_future(anext(batches))
        is_whole = False
        try:
            while True:
                waited_for = {coming} if ended.done() else {coming, ended}
                limit = LAST_LINES_S if ended.done() and is_whole else None
                done, _ = await asyncio.wait(waited_for, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
                if coming in done:
                    batch = coming.result()
                    is_whole = is_whole or not batch
                    coming = asyncio.ensure_future(anext(batches))
                    for entry in (entry for message in batch for entry in _entries(message.data)):
                        if ENDED in entry.get("fields", {}):
                            return
                        yield entry
                if is_whole and (not follow_on or not done):
                    return
        finally:
            ended.cancel()
            coming.cancel()

    async def updates(self) -> AsyncGenerator[SessionSnapshot]:
        """Give how it stands now, and then whenever that changes, until it has ended."""
        states: asyncio.Queue[SessionSnapshot] = asyncio.Queue()

        async def hear(message: Msg) -> None:
            with contextlib.suppress(ValidationError):
                states.put_nowait(SessionSnapshot.model_validate_json(message.data))

        unlisten = await self._asked.connection.listen(f"live.session.{encoded(self.agent)}.{self.id}", hear)
        ended = asyncio.create_task(self._last())
        ended.add_done_callback(lambda task: states.put_nowait(task.result()) if not task.cancelled() else None)
        try:
            yield await self.status()
            while not (self._snapshot is not None and self._snapshot.state.is_final):
                state = await states.get()
                if state.state.is_final:
                    state = await ended
                yield state
                if state.state.is_final:
                    return
        finally:
            ended.cancel()
            await unlisten()

    # --- inside ------------------------------------------------------------------------------------------------------

    async def _ended(self, away: asyncio.Task[None]) -> SessionSnapshot:
        while True:
            asking = asyncio.create_task(self._ask_for_end())
            try:
                await asyncio.wait({asking, away}, return_when=asyncio.FIRST_COMPLETED)
                if asking.done():
                    session = asking.result()
                    if session is not None:
                        return session
                    continue
            finally:
                asking.cancel()
            known = await self._known()
            if known is not None and known.state.is_final and known.state is not SessionState.LOST:
                return known
            raise gone(self.agent, known or self._shown())

    async def _ask_for_end(self) -> SessionSnapshot | None:
        """Ask for the session once it has ended; None where no answer came, or not in time."""
        body = {"do": "wait", "session": self.id, "timeout_s": POLL_S}
        try:
            reply, _ = await self._asked.ask_twice(None, body, second_s=0, reply_s=POLL_S + 2)
        except AgentGoneError:
            await asyncio.sleep(RETRY_S)
            return None
        except UnreachableError:  # the reply was lost, perhaps with an agent that has come back since
            if await answers(self._asked.connection, self.agent, self._asked.sender):
                return None
            raise
        session = await self.take(reply)
        return session if session.state.is_final else None

    async def _end(self, verb: str, reason: str) -> SessionSnapshot:
        body = {"do": verb, "session": self.id, "by": self._by, "reason": reason}
        return await self.take(await self._asked.ask(None, body))

    async def take(self, reply: Mapping[str, Any]) -> SessionSnapshot:
        """Take the session as a reply shows it; what was too large for it is brought from the journal."""
        body: dict[str, Any] = reply["session"]
        session = SessionSnapshot.model_validate(body)
        if self.brings_whole and is_left_out(body) and session.state.is_final:
            session = await self._whole(session)
        self._snapshot = session
        return session

    async def _whole(self, session: SessionSnapshot) -> SessionSnapshot:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RECORDED_S):
                while True:
                    with contextlib.suppress(UnreachableError, TimeoutError):
                        known = await recorded(self._journal, self.agent, self.id)
                        if known is not None and known.state.is_final:
                            return known
                    await asyncio.sleep(RETRY_S)
        return session

    async def _known(self) -> SessionSnapshot | None:
        """Give what the journal knows, while the agent is away."""
        with contextlib.suppress(UnreachableError, TimeoutError):
            known = await recorded(self._journal, self.agent, self.id)
            if known is not None:
                self._snapshot = known
        return self._shown()

    def _shown(self) -> SessionSnapshot | None:
        return None if self._snapshot is None else shown_lost(self._snapshot)

    async def _over(self) -> None:
        with contextlib.suppress(AgentGoneError):
            await self.wait()

    async def _last(self) -> SessionSnapshot:
        try:
            return await self.wait()
        except AgentGoneError:
            return self._shown() or self.snapshot


def snapshot_of(reply: Mapping[str, Any]) -> SessionSnapshot | None:
    """Take the session out of a reply, if there is one."""
    return None if reply.get("session") is None else SessionSnapshot.model_validate(reply["session"])


def succeeded(session: SessionSnapshot) -> SessionSnapshot:
    """Give a session that succeeded.

    Raises:
        SessionFailedError: it did not.
    """
    if session.state is SessionState.SUCCEEDED:
        return session
    error = session.error
    said = error.message if error else "no reason is known"
    failed = SessionFailedError(
        f"{session.operation} on {session.agent} {session.state.value}: {said}",
        session=session,
        because=error.because if error else "",
        cure=error.cure if error else "",
    )
    failed.kind = error.kind if error else session.state.value  # pyright: ignore[reportAttributeAccessIssue] - of this one
    raise failed


def _entries(data: bytes) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for line in data.decode("utf-8", "replace").splitlines():
        with contextlib.suppress(ValueError):
            entries.append(json.loads(line))
    return entries
