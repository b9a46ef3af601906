"""Announced files on their way into the catalogue: written there at once, and once more when they have been read.

Whoever hears an announcement, a monitor or the controller whose script it is, gives the file the same id, so that what
one of them knows completes what the other does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, Final

from labwright.core.errors import LabwrightError
from labwright.instruments.pysmurf.announced import Announced, announced_file, examine
from labwright.instruments.pysmurf.packets import Packet

FILE_TYPES: Final = frozenset({"data_file", "g3_file"})
CLOSING_S: Final = 4.0
"""An agent has five seconds to close; what is then not catalogued is lost."""

Register = Callable[..., Awaitable[Any]]
Tell = Callable[[str, str], None]


class Catalogue:
    """Registers announced files with `register`, an agent's; `tell` hears the path and the error of one that fails."""

    def __init__(self, register: Register, tell: Tell) -> None:
        self._register = register
        self._tell = tell
        self._announced: asyncio.Queue[tuple[Announced, str | None]] = asyncio.Queue()
        self._unexamined: asyncio.Queue[tuple[Announced, str | None]] = asyncio.Queue()
        self._counts: Counter[str] = Counter()
        self._tasks = [asyncio.create_task(self._register_files()), asyncio.create_task(self._examine_files())]

    async def close(self) -> None:
        """Catalogue what was announced, within a few seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_S):
                await self._announced.join()
                await self._unexamined.join()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def announce(self, packet: Packet, session: str | None = None) -> None:
        """Take an announcement, and whose file it is, where that is known; returns at once.

        Raises:
            ValueError: it cannot be read.
        """
        self._counts["announced"] += 1
        self._announced.put_nowait((announced_file(packet), session))

    def shown(self) -> dict[str, int]:
        """Count the files."""
        counts = {name: self._counts[name] for name in ("announced", "catalogued", "examined")}
        return {**counts, "waiting": self._announced.qsize() + self._unexamined.qsize()}

    async def _register_files(self) -> None:
        while True:
            announced, session = await self._announced.get()
            if await self._is_registered({**asdict(announced), "session": session}):
                self._counts["catalogued"] += 1
                self._unexamined.put_nowait((announced, session))
            self._announced.task_done()

    async def _examine_files(self) -> None:
        while True:
            announced, session = await self._unexamined.get()
            examined = await asyncio.to_thread(examine, announced.path)
            note = announced.note or examined.note
            if await self._is_registered({**asdict(announced), **asdict(examined), "note": note, "session": session}):
                self._counts["examined"] += 1
            self._unexamined.task_done()

    async def _is_registered(self, fields: dict[str, Any]) -> bool:
        try:
            await self._register(**fields)
        except (LabwrightError, ValueError) as error:  # the catalogue goes on with the next file
            self._tell(fields["path"], str(error))
            return False
        return True
