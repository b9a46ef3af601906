"""The targets of a site: those of its file, read again when it changes, and those that its sources tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from labwright.core.model import Target
from labwright.facts.targets import TargetSource, load_targets
from labwright.run.kept_targets import KeptTargets

FOLDER = "targets"
"""Where in the state folder it is kept what sources have told."""
PATIENCE_S = 10.0
"""How long one source may take; whoever asked the lab waits meanwhile."""


class SiteTargets:
    """The targets of the file and of the sources."""

    def __init__(self, sources: Sequence[TargetSource], state: Path, patience_s: float) -> None:
        self._stamp: object = None
        self._of_file: dict[str, Target] = {}
        patience_s = min(PATIENCE_S, patience_s)
        self._kept = {source.name: KeptTargets(source, state / FOLDER, patience_s) for source in sources}
        self._twice: tuple[str, ...] = ()

    async def all(self, path: Path | None) -> dict[str, Target]:
        """Give all of them by name; where two have one name, that of the file counts, else that of the first source.

        Raises:
            SiteError: the file is not valid, or what a source gives and has given nothing before.
            TransientError, TerminalError: a source cannot tell, and has told nothing before.
        """
        stamp = _stamp_of(path)
        if stamp != self._stamp:
            self._of_file = load_targets(path) if path is not None else {}
            self._stamp = stamp
        targets = dict(self._of_file)
        told_by = dict.fromkeys(targets, str(path))
        twice: list[str] = []
        for name, kept in self._kept.items():
            for target in (await kept.targets()).values():
                if (other := told_by.setdefault(target.name, name)) != name:
                    twice.append(f"two targets are named {target.name!r}: in {other} and of {name}; the first counts")
                else:
                    targets[target.name] = target
        self._twice = tuple(twice)
        return targets

    def warnings(self) -> Iterator[str]:
        """Tell what is wrong with the targets that were given last."""
        yield from self._twice
        yield from (kept.warning for kept in self._kept.values() if kept.warning)


def _stamp_of(path: Path | None) -> object:
    if path is None:
        return None
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return path, status.st_mtime_ns, status.st_size
