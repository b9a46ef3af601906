"""The targets of a site: those of its file, read again when it changes, and those that its sources tell."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

from labwright.core.errors import LabwrightError, TerminalError, TransientError
from labwright.core.model import Target
from labwright.facts.targets import TargetSource, load_targets

FRESH_S = 5.0
"""How long the answers of sources are used again."""


class SiteTargets:
    """The targets of the file and of the sources, kept as long as they are fresh."""

    def __init__(self) -> None:
        self._stamp: object = None
        self._of_file: dict[str, Target] = {}
        self._asked_at = -math.inf
        self._of_sources: dict[str, Target] = {}

    async def all(self, path: Path | None, sources: Sequence[TargetSource]) -> dict[str, Target]:
        """Give all of them by name; those of the file win.

        Raises:
            SiteError: the file, or what a source gives, is not valid.
            TransientError: a source cannot tell now.
            TerminalError: a source failed.
        """
        stamp = _stamp_of(path)
        if stamp != self._stamp:
            self._of_file = load_targets(path) if path is not None else {}
            self._stamp = stamp
        if sources and time.monotonic() - self._asked_at > FRESH_S:
            self._of_sources = {name: target for source in sources for name, target in (await _ask(source)).items()}
            self._asked_at = time.monotonic()
        return {**self._of_sources, **self._of_file}


def _stamp_of(path: Path | None) -> object:
    if path is None:
        return None
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return path, status.st_mtime_ns, status.st_size


async def _ask(source: TargetSource) -> dict[str, Target]:
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
