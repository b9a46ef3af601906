"""The server's side of a site: asks its code in processes of their own, and survives whatever that code does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Any, Self

from labwright.core.clock import to_text
from labwright.core.errors import LabwrightError, SiteError, TransientError
from labwright.core.model import ErrorRecord, Event, Target
from labwright.run.branch import Branch, BranchEndedError, CallMovedError
from labwright.run.settings import Settings
from labwright.run.site import NOBODY, DecidedEvent
from labwright.run.site_description import SiteDescription
from labwright.run.site_link import SiteLink

TRIES = 3
RESTART_S = 5.0
"""After how long a site that did not load any more is tried again."""

MOST_STUCK = 2
"""How many branches may be stuck while others go on; beyond that, one waits for them."""


class PoisonedError(LabwrightError):
    """What was asked killed, or hung, the process that executed it, `tries` times."""

    kind = "poisoned"

    def __init__(self, tries: int, error: ErrorRecord) -> None:
        super().__init__(error.message, because=error.because, cure=error.cure)
        self.tries = tries
        self.error = error


class _Lane:
    """A branch for one call at a time, where a call that is suspected harms no other."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.branch: Branch | None = None
        self.link: SiteLink | None = None

    async def ready(self, link: SiteLink) -> Branch:
        """Give a branch of that process, a new one if need be."""
        if self.branch is None or not self.branch.accepts or self.link is not link:
            if self.branch is not None:
                await self.branch.closed()
            self.branch, self.link = await link.branch(), link
        return self.branch


class SiteHost:
    """Runs a site's code for deciding in other processes: `async with SiteHost(settings) as site`.

    `dialects` are import paths, `module:function`, of loaders for packages of other systems. Deciding is pure, so a
    call whose process ends is simply made again: alone, so that a call that kills or hangs its process is recognised.
    After three times it is refused with `PoisonedError`; the others go on.
    """

    def __init__(self, settings: Settings, *, dialects: Sequence[str] = (), deadline_s: float | None = None) -> None:
        self.settings = settings
        self.agents: Callable[[], Mapping[str, Mapping[str, Any]]] = lambda: NOBODY
        """Tells which agents are here, for requests that choose among them: by name, as they announce themselves."""
        self._chooses = False
        """Whether a rule of this site has ever chosen targets; until then nobody tells its processes of agents."""
        self._dialects = tuple(dialects)
        self._deadline_s = deadline_s
        self._warnings: tuple[str, ...] = ()
        """What was wrong with the targets when they were asked for last."""
        self._link: SiteLink | None = None
        self._links: set[SiteLink] = set()
        self._description: SiteDescription | None = None
        self._shared: Branch | None = None
        self._opening = asyncio.Lock()
        self._reloading = asyncio.Lock()
        self._restarting = asyncio.Lock()
        self._next_restart_at = 0.0
        self._broken = ""
        self._suspects = _Lane()
        self._culprits = _Lane()
        self._stuck: set[Branch] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Load the site.

        Raises:
            SiteError: it cannot be loaded; its findings say why.
        """
        self._link = await self._start_link(self.settings)
        self._description = await self._describe()

    @property
    def description(self) -> SiteDescription:
        """What is loaded; its targets are those of the moment of loading, its findings tell what is wrong with them."""
        if self._description is None:
            raise RuntimeError("the site host has not been started")
        return (
            self._description.model_copy(update={"findings": self._warnings}) if self._warnings else self._description
        )

    async def decide(self, event: Event, at: datetime) -> DecidedEvent:
        """Decide an event.

        Raises:
            PoisonedError: that killed or hung the process three times.
            TransientError: the facts cannot be known now.
            LabwrightError: the facts, or the targets asked for, cannot be known.
        """
        what = f"deciding the event {event.id}"
        agents = self.agents() if self._chooses else NOBODY
        decided: DecidedEvent = await self._ask(what, call="decide", event=event, at=to_text(at), agents=dict(agents))
        if not self._chooses and any(request["on"] is not None for request in decided.decision["requests"]):
            self._chooses = True
            if agents := self.agents():
                decided = await self._ask(what, call="decide", event=event, at=to_text(at), agents=dict(agents))
        return decided

    async def facts(self, subject: str) -> dict[str, Any]:
        """Ask all sources what is known about a subject."""
        return await self._ask(f"looking up the facts of {subject}", call="facts", subject=subject)

    async def validate(self, task: str, params: dict[str, Any]) -> dict[str, Any]:
        """Check a task's parameters and give them with the defaults filled in.

        Raises:
            ParameterError: something does not fit.
            NotFoundError: the site has no such task; it names the nearest.
        """
        return await self._ask(f"checking the parameters of {task}", call="validate", task=task, params=params)

    async def resolve(self, on: str) -> list[str]:
        """Name the targets that a name or selector chooses, perhaps none.

        Raises:
            SelectorError: the selector cannot be read.
        """
        return await self._ask(f"resolving {on}", call="resolve", on=on)

    async def targets(self) -> dict[str, Target]:
        """Give all targets by name.

        Raises:
            LabwrightError: a source of them cannot tell, and has told nothing before.
        """
        try:
            answer: dict[str, Any] = await self._ask("listing the targets", call="targets")
        except LabwrightError as error:
            self._warnings = (": ".join(filter(None, (error.message, error.because))),)
            raise
        self._warnings = tuple(answer["warnings"])
        return {name: Target.model_validate(target) for name, target in answer["targets"].items()}

    async def reload(self, settings: Settings | None = None) -> SiteDescription:
        """Load the site again, all or nothing; calls under way are finished with what was loaded before.

        Raises:
            SiteError: it cannot be loaded; the former one stays.
        """
        async with self._reloading:
            chosen = settings or self.settings
            fresh = await self._start_link(chosen)
            former = self._link
            self.settings, self._link, self._shared = chosen, fresh, None
            self._description = await self._describe()
            if former is not None:
                self._later(self._end_link(former, drain=True))
            return self.description

    async def close(self) -> None:
        """End all processes."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._link = None
        for link in tuple(self._links):
            await self._end_link(link)

    async def _ask(self, what: str, **call: Any) -> Any:
        while True:
            try:
                return await (await self._shared_branch()).call(**call)
            except CallMovedError:
                continue
            except BranchEndedError as end:
                return await self._ask_alone(what, end, call)

    async def _ask_alone(self, what: str, end: BranchEndedError, call: dict[str, Any]) -> Any:
        """Ask again, one suspect at a time; those that were seen to do harm have a lane of their own."""
        tries = int(end.is_culprit)
        while tries < TRIES:
            lane = self._culprits if tries else self._suspects
            async with lane.lock:
                try:
                    return await (await lane.ready(await self._alive())).call(**call)
                except CallMovedError:
                    continue
                except BranchEndedError as again:
                    tries, end = tries + again.is_suspect, again
        raise PoisonedError(tries, _poison(what, tries, end))

    async def _shared_branch(self) -> Branch:
        if self._shared is not None and self._shared.accepts:
            return self._shared
        async with self._opening:
            if self._shared is None or not self._shared.accepts:
                self._shared = await (await self._alive()).branch()
                self._shared.on_stuck = self._on_stuck
            return self._shared

    async def _alive(self) -> SiteLink:
        """Give the site process; one that was killed from outside is started again."""
        link = self._link
        if link is None:
            raise RuntimeError("the site host has not been started, or has been closed")
        if link.is_alive:
            return link
        async with self._restarting:
            if self._link is link:
                fresh = await self._restart()
                self._link, self._description = fresh, fresh.description.model_copy(update=self._targets())
                await self._end_link(link)
        return await self._alive()

    async def _restart(self) -> SiteLink:
        """Load again what was loaded; the files may have been edited since, and broken."""
        wait_s = self._next_restart_at - time.monotonic()
        if wait_s <= 0:
            try:
                return await self._start_link(self.settings)
            except SiteError as error:
                self._next_restart_at, wait_s = time.monotonic() + RESTART_S, RESTART_S
                self._broken = error.because
        raise TransientError(
            "the process that had loaded the site was killed, and the site does not load any more",
            wait_s,
            because=self._broken,
            cure="mend what is found; `labwright check` lists all of it",
        )

    async def _start_link(self, settings: Settings) -> SiteLink:
        link = await SiteLink.start(settings, self._dialects, self._deadline_s or settings.site.decide_timeout)
        self._links.add(link)
        return link

    async def _end_link(self, link: SiteLink, *, drain: bool = False) -> None:
        if drain:
            await link.drained()
        await link.close()
        self._links.discard(link)

    def _targets(self) -> dict[str, Any]:
        return {"targets": self._description.targets} if self._description else {}

    async def _describe(self) -> SiteDescription:
        description = (await self._alive()).description
        try:
            targets = await self.targets()
        except LabwrightError:  # the findings tell
            return description
        return description.model_copy(update={"targets": tuple(sorted(targets.values(), key=lambda each: each.name))})

    def _on_stuck(self, branch: Branch) -> bool:
        if len(self._stuck) >= MOST_STUCK:
            return False
        self._stuck.add(branch)
        self._later(self._finish(branch))
        return True

    async def _finish(self, branch: Branch) -> None:
        await branch.idle()
        await branch.closed()
        self._stuck.discard(branch)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _poison(what: str, tries: int, end: BranchEndedError) -> ErrorRecord:
    error = LabwrightError(
        f"{what} ended the process {tries} times: {end.how}",
        because="code of the site crashed, called exit, or never came to its end",
        cure="mend that code, then `labwright reload`",
    )
    return ErrorRecord.of(error, kind=PoisonedError.kind).model_copy(update={"traceback": end.report})
