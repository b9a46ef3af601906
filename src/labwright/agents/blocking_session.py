"""A session, as a blocking operation (`def`) sees it: the names of `Session`, without `await`.

What carries its words to the agent is given: calls across threads, or a channel from a child process.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from labwright.core.errors import Stopped

if TYPE_CHECKING:
    from labwright.agents.script_folder import ScriptEnd


class SessionLine(Protocol):
    """What carries a blocking session's words to its agent, and the word to end back."""

    @property
    def reason(self) -> str | None:
        """Why the session is to end; None while it is not."""
        ...

    def tell(self, word: str, /, *args: Any, **named: Any) -> None:
        """Have the session's method of that name called; raises what ends an aborted operation."""
        ...

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until the session is asked to end; tells whether it was."""
        ...

    def script(self, path: str, args: Sequence[object], options: Mapping[str, Any]) -> ScriptEnd:
        """Run a script to its end."""
        ...

    def data(self) -> dict[str, Any]:
        """Give what the session shows now."""
        ...


@dataclass(frozen=True, kw_only=True)
class BlockingSession:
    """One execution of an operation on its agent."""

    id: str
    agent: str
    operation: str
    params: Mapping[str, Any]
    started_at: datetime
    run: str | None = None
    by: str = ""
    line: SessionLine = field(repr=False)

    @property
    def is_stopping(self) -> bool:
        """Whether it was asked to end."""
        return self.line.reason is not None

    @property
    def reason(self) -> str:
        """Why it is to end, once it was asked to."""
        return self.line.reason or ""

    @property
    def data(self) -> dict[str, Any]:
        """What it shows now; a copy."""
        return self.line.data()

    def log(self, text: str, level: str = "info", **fields: Any) -> None:
        """Say a line: it stands in the session's messages and, with its fields, in its log."""
        self.line.tell("log", text, level, **fields)

    def output(self, text: str, level: str = "info", **fields: Any) -> None:
        """Put a line into the session's log only."""
        self.line.tell("output", text, level, **fields)

    def update(self, mapping: Mapping[str, Any] | None = None, /, **values: Any) -> None:
        """Merge values deeply into what the session shows."""
        self.line.tell("update", {**(mapping or {}), **values})

    def replace(self, mapping: Mapping[str, Any]) -> None:
        """Show this, and nothing of what was shown before."""
        self.line.tell("replace", dict(mapping))

    def progress(self, done: float, total: float | None = None, text: str = "") -> None:
        """Say how far it is: `done` of `total` (None: unknown), in whatever unit `text` names."""
        self.line.tell("progress", done, total, text)

    def set_result(self, value: Any) -> None:
        """Set the result; without it, the result is what the operation returns."""
        self.line.tell("set_result", value)

    def note(self, text: str) -> None:
        """Say in a few words what came of it."""
        self.line.tell("note", text)

    def check(self) -> None:
        """Go on, unless the session was asked to end.

        Raises:
            Stopped: it was.
        """
        if self.is_stopping:
            raise Stopped(f"{self.operation} was asked to end", because=self.reason)

    def sleep(self, seconds: float) -> bool:
        """Sleep; gives True after the whole time, False as soon as the session is asked to end."""
        return not self.line.wait(seconds)

    def every(self, seconds: float) -> Iterator[int]:
        """Give 0, 1, 2 ... at even distances, the first at once, until the session is asked to end.

        A point that was missed is left out.
        """
        begun = time.monotonic()
        number = 0
        while not self.is_stopping:
            yield number
            number = max(number + 1, int((time.monotonic() - begun) / seconds))
            if not self.sleep(max(0.0, begun + number * seconds - time.monotonic())):
                return

    def script(self, path: str, args: Sequence[object] = (), **options: Any) -> ScriptEnd:
        """Run a script to its end, its output in the session's log, and tell how it ended."""
        return self.line.script(str(path), args, options)
