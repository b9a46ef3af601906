"""A session, as the operation that runs in it sees it: where it says what it does, and hears that it is to end.

What it says is kept here and goes out from here at the agent's pace; nothing that an operation says can block or break.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, cast

from labwright.core.errors import Stopped, UsageError
from labwright.core.model import (
    LONGEST,
    ErrorRecord,
    Progress,
    SessionMessage,
    SessionSnapshot,
    SessionState,
    utc_now,
)
from labwright.core.plain import to_plain
from labwright.journal.session_fold import MOST_MESSAGES

if TYPE_CHECKING:
    from labwright.agents.script import Script
    from labwright.agents.script_folder import ScriptEnd

ABSENT: Any = object()
"""In place of a result that was never set."""

NEXT_STATES: Mapping[SessionState, frozenset[SessionState]] = {
    SessionState.STARTING: frozenset(SessionState) - {SessionState.STARTING},
    SessionState.RUNNING: frozenset(SessionState) - {SessionState.STARTING},
    SessionState.STOPPING: frozenset(SessionState) - {SessionState.STARTING, SessionState.RUNNING},
    SessionState.SUCCEEDED: frozenset(),
    SessionState.FAILED: frozenset(),
    SessionState.ABORTED: frozenset(),
    SessionState.LOST: frozenset(),
}
"""Which state may follow which; a session only moves forward."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """When a line was said (None: now), and where in its script's output it stands, so that it is logged once."""

    at: datetime | None = None
    place: str = ""


NOW = Said()


class SessionHost(Protocol):
    """What a session needs of its agent."""

    def changed(self, session: Session) -> None:
        """Note that what the session shows has changed."""
        ...

    def keep(self, session: Session) -> None:
        """Write down what the session keeps, before this returns."""
        ...

    def say(self, session: Session, level: str, text: str, fields: Mapping[str, Any], said: Said = NOW) -> None:
        """Put a line into the session's log."""
        ...

    async def start_script(
        self, session: Session, number: int, path: str, args: Sequence[object], options: Mapping[str, Any]
    ) -> Script:
        """Start the session's script of that number, or find it where it was started before."""
        ...

    async def follow_script(self, session: Session, script: Script, heard: ScriptEars) -> ScriptEnd:
        """Bring what a script says to its session until it has ended; ends the script when cancelled."""
        ...


@dataclass(frozen=True, kw_only=True)
class ScriptEars:
    """Where the output of a script goes beside the session's log."""

    log: bool = True
    on_line: Callable[[Any], None] | None = None
    on_message: Callable[[dict[str, Any]], None] | None = None
    on_datagram: Callable[[bytes], None] | None = None


class Session:
    """One execution of an operation on its agent."""

    def __init__(self, snapshot: SessionSnapshot, host: SessionHost, *, timeout_s: float | None = None) -> None:
        self.timeout_s = timeout_s
        """How many seconds it may last; None: as many as it likes."""
        self.has_begun = False
        """Whether its operation may have been called, rather than only waits for its turn."""
        self.is_stopping = False
        """Whether it was asked to end."""
        self.reason = ""
        """Why it is to end, once it was asked to."""
        self.is_left = False
        """Whether its agent ends and leaves it, with its scripts, to the agent's successor."""
        self.heard: dict[int, int] = {}
        """Up to which offset the output of each of its scripts has been taken in."""
        self.logged: dict[int, int] = {}
        """Up to which offset the output of each of its scripts stands in its log."""
        self.kept: Mapping[str, Any] = {}
        """What the operation has kept, here or in a process of its agent before this one."""
        self._host = host
        self._known = snapshot
        self._shown: SessionSnapshot | None = None
        """The snapshot of now, if nothing has changed since it was made."""
        self._data: dict[str, Any] = dict(snapshot.data)
        self._messages: deque[SessionMessage] = deque(snapshot.messages, MOST_MESSAGES)
        self._messages_dropped = snapshot.messages_dropped
        self._unrecorded: deque[SessionMessage] = deque(maxlen=MOST_MESSAGES)
        self._result: Any = ABSENT
        self._scripts = 0
        self._asked = asyncio.Event()

    # --- who it is ---------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """Its id, unique among all sessions of all agents."""
        return self._known.id

    @property
    def agent(self) -> str:
        """The name of its agent."""
        return self._known.agent

    @property
    def operation(self) -> str:
        """The name of its operation."""
        return self._known.operation

    @property
    def params(self) -> dict[str, Any]:
        """The parameters that it was started with, as JSON has them."""
        return dict(self._known.params)

    @property
    def run(self) -> str | None:
        """The run whose step asked for it, if one did."""
        return self._known.run

    @property
    def by(self) -> str:
        """Who asked for it."""
        return self._known.by

    @property
    def started_at(self) -> datetime:
        """When it was started."""
        return self._known.started_at

    @property
    def left_s(self) -> float | None:
        """How many seconds are left until its deadline, whatever process it began in; None if it has none."""
        if self.timeout_s is None:
            return None
        return max(0.0, self.timeout_s - max(0.0, (utc_now() - self.started_at).total_seconds()))

    @property
    def state(self) -> SessionState:
        """Where it stands."""
        return self._known.state

    @property
    def data(self) -> dict[str, Any]:
        """What it shows now; a copy."""
        return cast("dict[str, Any]", to_plain(self._data))

    @property
    def snapshot(self) -> SessionSnapshot:
        """All of it, as it stands now."""
        if self._shown is None:
            self._shown = self._known.model_copy(
                update={
                    "data": self._data,
                    "messages": tuple(self._messages),
                    "messages_dropped": self._messages_dropped,
                }
            )
        return self._shown

    # --- what it says ------------------------------------------------------------------------------------------------

    def log(self, text: str, level: str = "info", **fields: Any) -> None:
        """Say a line: it stands in the session's messages and, with its fields, in its log."""
        message = SessionMessage(at=utc_now(), text=as_text(text)[:LONGEST])
        if len(self._messages) == MOST_MESSAGES:
            self._messages_dropped += 1
        self._messages.append(message)
        self._unrecorded.append(message)
        self._host.say(self, level, as_text(text), fields)
        self._changed()

    def output(self, text: str, level: str = "info", said: Said = NOW, **fields: Any) -> None:
        """Put a line into the session's log only, as the output of a script is."""
        self._host.say(self, level, as_text(text), fields, said)

    def update(self, mapping: Mapping[str, Any] | None = None, /, **values: Any) -> None:
        """Merge values deeply into what the session shows: mappings are merged, anything else is replaced.

        Any Python value may be given. Who watches sees it at once, though not more than ten times a second.
        """
        self._data = merged(self._data, cast("dict[str, Any]", to_plain({**(mapping or {}), **values})))
        self._changed()

    def replace(self, mapping: Mapping[str, Any]) -> None:
        """Show this, and nothing of what was shown before."""
        self._data = cast("dict[str, Any]", to_plain(dict(mapping)))
        self._changed()

    def progress(self, done: float, total: float | None = None, text: str = "") -> None:
        """Say how far it is: `done` of `total` (None: unknown), in whatever unit `text` names.

        A `done` that is no finite number counts as 0, such a `total` as unknown.
        """
        known = Progress(done=_finite(done) or 0.0, total=_finite(total), text=as_text(text)[:LONGEST])
        self._know(progress=known)

    def keep(self, **values: Any) -> None:
        """Keep values (as JSON has them) for the case that the agent dies: its successor has them in `kept`.

        They have survived this process when this returns; it is for operations with `adopt`, that are called again.
        """
        self.kept = {**self.kept, **cast("dict[str, Any]", to_plain(values))}
        self._host.keep(self)

    def set_result(self, value: Any) -> None:
        """Set the result; without it, the result is what the operation returns."""
        self._result = to_plain(value)

    def note(self, text: str) -> None:
        """Say in a few words what came of it."""
        self._know(note=as_text(text)[:LONGEST])

    # --- what it hears -----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Go on, unless the session was asked to end.

        Raises:
            Stopped: it was.
        """
        if self.is_stopping:
            raise Stopped(f"{self.operation} was asked to end", because=self.reason)

    async def sleep(self, seconds: float) -> bool:
        """Sleep; gives True after the whole time, False as soon as the session is asked to end."""
        try:
            async with asyncio.timeout(seconds):
                await self._asked.wait()
        except TimeoutError:
            return not self.is_stopping
        return False

    async def every(self, seconds: float) -> AsyncIterator[int]:
        """Give 0, 1, 2 ... at even distances, the first at once, until the session is asked to end.

        A point that was missed, because what was done at one before took longer, is left out.

        Raises:
            UsageError: `seconds` is not above 0.
        """
        if not seconds > 0:
            raise UsageError(f"session.every cannot take {seconds!r} seconds", because="it is a number above 0")
        begun = time.monotonic()
        number = 0
        while not self.is_stopping:
            yield number
            number = max(number + 1, int((time.monotonic() - begun) / seconds))
            if not await self.sleep(max(0.0, begun + number * seconds - time.monotonic())):
                return

    # --- scripts -----------------------------------------------------------------------------------------------------

    async def start_script(self, path: str, args: Sequence[object] = (), **options: Any) -> Script:
        """Start a file as a process of its own, held by a keeper; after a restart of the agent, find it again.

        The n-th call in a session is its n-th script, whoever makes the call. `options` are those of
        `ScriptRunner.start`. What still runs at the session's end is ended then.
        """
        self._scripts += 1
        return await self._host.start_script(self, self._scripts, str(path), args, options)

    async def script(
        self,
        path: str,
        args: Sequence[object] = (),
        *,
        log: bool = True,
        on_line: Callable[[Any], None] | None = None,
        on_message: Callable[[dict[str, Any]], None] | None = None,
        on_datagram: Callable[[bytes], None] | None = None,
        **options: Any,
    ) -> ScriptEnd:
        """Run a script to its end, its output in the session's log, and tell how it ended.

        What it says over its side channel is done to this session. `on_line`, `on_message` and `on_datagram` are given
        what comes, too; with `log` False nothing of the output is logged. An abort of the session ends the script.
        """
        script = await self.start_script(path, args, **options)
        return await self.follow_script(
            script, log=log, on_line=on_line, on_message=on_message, on_datagram=on_datagram
        )

    async def follow_script(
        self,
        script: Script,
        *,
        log: bool = True,
        on_line: Callable[[Any], None] | None = None,
        on_message: Callable[[dict[str, Any]], None] | None = None,
        on_datagram: Callable[[bytes], None] | None = None,
    ) -> ScriptEnd:
        """Do what `script` does with one that `start_script` has started."""
        ears = ScriptEars(log=log, on_line=on_line, on_message=on_message, on_datagram=on_datagram)
        return await self._host.follow_script(self, script, ears)

    # --- for the agent's server --------------------------------------------------------------------------------------

    def ask_to_end(self, reason: str) -> None:
        """Tell the operation that it is to end; it notices at its next `sleep`, `every` or `check`."""
        if not self.is_stopping:
            self.is_stopping = True
            self.reason = reason
            self._asked.set()

    async def asked(self) -> None:
        """Wait until the session is asked to end."""
        await self._asked.wait()

    def move(self, state: SessionState) -> bool:
        """Go on to a state, if it may follow the one of now; tells whether it did."""
        if state not in NEXT_STATES[self.state]:
            return False
        self._know(state=state)
        return True

    def end(self, state: SessionState, *, returned: Any = None, error: ErrorRecord | None = None) -> bool:
        """End, once; tells whether it had not ended before."""
        if state not in NEXT_STATES[self.state]:
            return False
        result = to_plain(returned) if self._result is ABSENT else self._result
        is_success = state is SessionState.SUCCEEDED
        self._know(state=state, ended_at=utc_now(), error=error, result=result if is_success else None)
        return True

    @property
    def standing(self) -> dict[str, Any]:
        """What a successor of the agent needs beside the snapshot to go on with it."""
        known = {"timeout_s": self.timeout_s, "has_begun": self.has_begun, "heard": self.heard}
        return {**known, "kept": dict(self.kept)} if self.kept else known

    def take_messages(self) -> tuple[SessionMessage, ...]:
        """Give the messages that no record has yet."""
        taken = tuple(self._unrecorded)
        self._unrecorded.clear()
        return taken

    def _know(self, **changes: Any) -> None:
        self._known = self._known.model_copy(update=changes)
        self._changed()

    def _changed(self) -> None:
        self._shown = None
        self._host.changed(self)


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Merge one mapping deeply into another; neither is changed.

    >>> merged({"a": {"b": 1}, "c": 2}, {"a": {"d": 3}, "c": {"e": 4}})
    {'a': {'b': 1, 'd': 3}, 'c': {'e': 4}}
    """
    result = dict(old)
    for name, value in new.items():
        before = result.get(name)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            value = merged(cast("Mapping[str, Any]", before), cast("Mapping[str, Any]", value))  # noqa: PLW2901 - merged
        result[name] = value
    return result


def _finite(value: Any) -> float | None:
    """Make a number that JSON can carry; None where there is none."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def as_text(value: object) -> str:
    """Make text that JSON can carry, whatever is given."""
    text = to_plain(value)
    return text if isinstance(text, str) else str(text)
