"""How a child process speaks for its session: over the side channel, as its keeper spools it for the agent."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import structlog

from labwright.agents.feeds import Feed
from labwright.agents.script_folder import ScriptEnd
from labwright.agents.session import Session, merged
from labwright.agents.side_line import SideLine
from labwright.core.errors import LabwrightError, NotProvidedError, Stopped
from labwright.core.logs import get_logger
from labwright.core.model import FileEntry
from labwright.core.plain import to_plain


class ScriptNotRunError(LabwrightError):
    """The agent could not run the script that a blocking operation asked for."""

    kind = "script"


class ChildLine:
    """Carries the words of a session from a child process; see `SessionLine`.

    Words are `{"do": word, "args": [...], "named": {...}}`, or `publish` with `subject` and `data`, or `register_file`
    with `file`. A script is asked for by `{"do": "script", "number", "path", "args", "options"}` and answered by
    `{"answer": number, "end": {...}}`, or with `error` for `end`. `{"end": reason}` asks to end. SIGTERM raises
    `Stopped` in the main thread, once: what follows is the grace for the clean-up.
    """

    def __init__(self, operation: str, data: Mapping[str, Any]) -> None:
        self._operation = operation
        self._line = SideLine()
        self._data = dict(data)
        self._reason: str | None = None
        self._heard = threading.Condition()
        self._answers: dict[int, dict[str, Any]] = {}
        self._asked = 0
        self._is_sending = False
        self._is_told = False
        self._was_raised = False

    def listen(self) -> None:
        """Begin to hear the word to end, from the agent and as SIGTERM; in the main thread."""
        signal.signal(signal.SIGTERM, self._hear_signal)
        threading.Thread(target=self._hear, name="side channel", daemon=True).start()

    @property
    def reason(self) -> str | None:
        """Why the session is to end; None while it is not."""
        return self._reason

    def tell(self, word: str, /, *args: Any, **named: Any) -> None:
        """Have the session's method of that name called."""
        if word == "update":
            self._data = merged(self._data, to_plain(args[0]))
        elif word == "replace":
            self._data = to_plain(args[0])
        self.say({"do": word, "args": to_plain(args), "named": to_plain(named)})

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until the session is asked to end; tells whether it was."""
        with self._heard:
            return self._heard.wait_for(lambda: self._reason is not None, seconds)

    def data(self) -> dict[str, Any]:
        """Give what the session shows now, as far as this process knows."""
        return merged({}, self._data)

    def script(self, path: str, args: Sequence[object], options: Mapping[str, Any]) -> ScriptEnd:
        """Run a script to its end; the agent starts it, as the next one of the session.

        Raises:
            ScriptNotRunError: the agent could not.
        """
        with self._heard:
            self._asked += 1
            number = self._asked
        words = [str(arg) for arg in args]
        self.say({"do": "script", "number": number, "path": path, "args": words, "options": to_plain(options)})
        with self._heard:
            self._heard.wait_for(lambda: number in self._answers)
            answer = self._answers.pop(number)
        if "end" not in answer:
            error: Mapping[str, Any] = answer.get("error") or {}
            raise ScriptNotRunError(
                str(error.get("message", "the script was not run")),
                because=str(error.get("because", "")),
                cure=str(error.get("try", "")),
            )
        return ScriptEnd(**answer["end"])

    def say(self, message: dict[str, Any]) -> None:
        """Send a message whole; the word to end waits for that."""
        with self._undisturbed():
            self._line.say(message)

    def deaf(self) -> None:
        """Hear SIGTERM no more: the operation has ended, and only says so."""
        self._was_raised = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    @contextmanager
    def _undisturbed(self) -> Generator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._is_sending = True
        try:
            yield
        finally:
            self._is_sending = False
        if self._is_told:
            self._raise()

    def _hear(self) -> None:
        while (messages := self._line.hear(None)) is not None:
            with self._heard:
                for message in messages:
                    if "answer" in message:
                        self._answers[int(message["answer"])] = message
                    elif "end" in message:
                        self._reason = str(message["end"])
                self._heard.notify_all()

    def _hear_signal(self, *_: object) -> None:
        if self._reason is None:
            self._reason = "it was told to end by a signal"
        self._is_told = True
        if not self._is_sending:
            self._raise()

    def _raise(self) -> None:
        if not self._was_raised:
            self._was_raised = True
            raise Stopped(f"{self._operation} was asked to end", because=self._reason or "")


class ChildHost:
    """What an agent's class is given in a child process: as in the agent itself, with the side channel between."""

    def __init__(self, line: ChildLine, job: Mapping[str, Any]) -> None:
        self._line = line
        self.name = str(job["name"])
        self.labels: Mapping[str, str] = dict(job.get("labels") or {})
        self.state_dir = Path(job["state_dir"])
        self.site = Path(job["site"]) if job.get("site") else None
        self.log: structlog.stdlib.BoundLogger = get_logger(self.name)
        self.sessions: Mapping[str, Session] = MappingProxyType({})

    def feed(self, name: str, *, buffer_s: float) -> Feed:
        """Make a feed whose samples the agent sends on; it, not this process, may gather them."""
        del buffer_s
        return Feed(self.name, name, 0, self._send)

    async def register_file(self, file: FileEntry) -> None:
        """Have the agent write a file into the catalogue."""
        self._line.say({"do": "register_file", "file": file.model_dump(mode="json")})

    @property
    def journal(self) -> NoReturn:
        """Refuse: the connection is the agent's."""
        raise NotProvidedError(
            "a blocking operation has no journal",
            because="it runs in a process of its own",
            cure="write `async def`, or use @operation(thread=True)",
        )

    def operations_changed(self) -> None:
        """Do nothing: the agent itself knows what it can do."""

    async def abort(self, session_id: str, *, reason: str, by: str) -> None:
        """Refuse: other sessions are out of a child process's reach."""
        raise NotProvidedError(
            "a blocking operation cannot abort another session",
            because=f"it runs in a process of its own, and {session_id} does not ({by}: {reason})",
            cure="write `async def`, or use @operation(thread=True)",
        )

    def _send(self, subject: str, data: bytes) -> None:
        self._line.say({"do": "publish", "subject": subject, "data": data.decode()})
