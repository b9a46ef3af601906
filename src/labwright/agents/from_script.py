"""What a script may say to its session: `from labwright import script_session`.

It needs no network and no third party. Run by hand, outside an agent, a script says these things to nobody.
"""

from __future__ import annotations

import atexit
import signal
import threading
from collections.abc import Mapping
from typing import Any

from labwright.agents.side_line import SideLine
from labwright.core.errors import Stopped
from labwright.core.plain import to_plain


class ScriptSession:
    """The session for which this script runs.

    >>> script_session.update(bands={"0": "tuned"})
    >>> script_session.progress(1, 8, "bands")
    >>> script_session.check()
    """

    def __init__(self, line: SideLine | None = None) -> None:
        self._line = line
        self._reason: str | None = None
        self._is_watching = False

    def update(self, mapping: Mapping[str, Any] | None = None, /, **values: Any) -> None:
        """Merge values deeply into what the session shows; any Python value may be given."""
        self._tell("update", {**(mapping or {}), **values})

    def progress(self, done: float, total: float | None = None, text: str = "") -> None:
        """Say how far the script is: `done` of `total` (None: unknown), in whatever unit `text` names."""
        self._tell("progress", done, total, text)

    def log(self, text: str, level: str = "info") -> None:
        """Say a line: it stands in the session's messages and in its log."""
        self._tell("log", text, level)

    def set_result(self, value: Any) -> None:
        """Set the session's result; it counts if the script then ends well."""
        self._tell("set_result", value)

    def check(self) -> None:
        """Go on, unless the script was asked to end.

        Who calls it ends by itself: from the first call on, in the main thread, SIGTERM only means that the next one
        raises, and no longer ends the script at once.

        Raises:
            Stopped: the script was asked to end; what remains of the grace is for its clean-up.
        """
        self._watch()
        for message in self._side.hear() or ():
            if "end" in message:
                self._reason = str(message["end"])
        if self._reason is not None:
            raise Stopped("the script was asked to end", because=self._reason)

    @property
    def _side(self) -> SideLine:
        if self._line is None:
            self._line = SideLine()
        return self._line

    def _tell(self, word: str, *args: Any) -> None:
        self._side.say({"do": word, "args": to_plain(args)})

    def _watch(self) -> None:
        if self._is_watching or threading.current_thread() is not threading.main_thread():
            return
        self._is_watching = True
        if self._side.hear() is not None and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._hear_signal)
            atexit.register(signal.signal, signal.SIGTERM, signal.SIG_IGN)  # it ends: nothing is to end it otherwise

    def _hear_signal(self, *_: object) -> None:
        if self._reason is None:
            self._reason = "it was told to end by a signal"


script_session = ScriptSession()
"""The session of this process."""
