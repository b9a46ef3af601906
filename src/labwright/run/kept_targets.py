"""What one target source of the site has told, kept: for a while instead of asking, and for longer where it fails.

It is kept in a file, too, beside a mark of when the source was asked last. So a source that crashes or blocks its whole
process is not asked again at once, and processes of one lab ask each source in turn, not each for itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from labwright.core.errors import LabwrightError, TerminalError, TransientError
from labwright.core.ids import hashed_id
from labwright.core.model import Model, Target
from labwright.facts.targets import TargetSource
from labwright.journal.nats_server import write_private


class Told(Model):
    """What a source has told; moments are seconds since the epoch, zero for never, and `failure` says why not since."""

    targets: dict[str, Target] = Field(default_factory=dict[str, Target])
    told_at: float = 0.0
    asked_at: float = 0.0
    failure: str = ""

    @property
    def is_owed(self) -> bool:
        """Tell whether the source was asked after it has answered last."""
        return self.asked_at > self.told_at


class KeptTargets:
    """The targets of one source; its `folder` is the lab's own, and may not be there."""

    def __init__(self, source: TargetSource, folder: Path, patience_s: float) -> None:
        self._source = source
        self._file = folder / f"{hashed_id('targets', source.name)}.json"
        self._patience_s = patience_s
        self._loaded_at = time.time()
        self._told = Told()
        self._asking: asyncio.Task[dict[str, Target]] | None = None

    async def targets(self) -> Mapping[str, Target]:
        """Give what the source tells: asked anew if that is due, else as it was told last.

        Raises:
            SiteError: what it tells is not valid, and nothing was told before.
            TransientError, TerminalError: it cannot tell, and nothing was told before.
        """
        self._read()
        if not self._told.told_at or self._told.asked_at <= max(self._loaded_at, time.time() - self._pause_s):
            await self._refresh()
        return self._told.targets

    @property
    def _pause_s(self) -> float:
        """How long after it was asked the source is asked again; longer where that may have ended a process."""
        is_out = self._told.is_owed and not self._told.failure
        return max(self._source.every, self._patience_s) if is_out else self._source.every

    @property
    def warning(self) -> str:
        """What is wrong with what is given: since when it is old, and why; empty where nothing is."""
        told = self._told
        if not told.failure and not (told.is_owed and time.time() - told.asked_at > self._patience_s):
            return ""
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(told.told_at))
        because = told.failure or f"the target source {self._source.name} did not come back when it was asked"
        return f"targets as they were told at {since}: {because}"

    async def _refresh(self) -> None:
        self._note(asked_at=time.time(), failure="")
        try:
            targets = await self._ask()
        except LabwrightError as error:
            self._note(failure=": ".join(filter(None, (error.message, error.because))))
            if not self._told.told_at:
                raise
        else:
            self._note(targets=targets, told_at=time.time(), failure="")

    async def _ask(self) -> dict[str, Target]:
        """Ask the source; a plain function that still runs from before is not called a second time."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(_asked(self._source))
        asking = self._asking
        done, _ = await asyncio.wait([asking], timeout=self._patience_s)
        if done and not asking.cancelled():  # another who has waited for it longer may have given it up
            return asking.result()
        if inspect.iscoroutinefunction(self._source.function):
            asking.cancel()
        raise TransientError(
            f"the target source {self._source.name} did not answer",
            because=f"it was asked for {self._patience_s:g} s",
            cure="see what holds it up",
        )

    def _note(self, **changes: object) -> None:
        self._told = self._told.model_copy(update=changes)
        if self._file.parent.parent.is_dir():
            with contextlib.suppress(OSError):  # it is known here all the same
                self._file.parent.mkdir(exist_ok=True)
                write_private(self._file, self._told.model_dump_json())

    def _read(self) -> None:
        """Take up what another process of this lab was told."""
        try:
            told = Told.model_validate_json(self._file.read_bytes())
        except (OSError, ValidationError):
            return
        if told.asked_at >= self._told.asked_at:
            self._told = told


async def _asked(source: TargetSource) -> dict[str, Target]:
    try:
        return await source.targets()
    except LabwrightError:
        raise
    except (OSError, TimeoutError) as error:
        raise TransientError(
            f"the target source {source.name} cannot tell its targets now",
            because=f"{type(error).__name__}: {error}",
            cure="see that what it asks is up",
        ) from error
    except Exception as error:
        raise TerminalError(
            f"the target source {source.name} failed",
            because=f"{type(error).__name__}: {error}",
            cure="mend the function, then `labwright reload`",
        ) from error
