"""`serve`: assembles the loops of a lab around its journal, and takes them down again in order."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import json
import os
import shutil
import signal
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from nats.aio.msg import Msg

from labwright.access.identity import Identities
from labwright.access.listening import listening
from labwright.access.nats_log import watch_log
from labwright.access.reads import pass_on
from labwright.agents.members import members
from labwright.client.acts import Acts
from labwright.core.clock import Clock, SystemClock, to_text
from labwright.core.errors import ConflictError, LabwrightError, UnreachableError, UsageError
from labwright.core.logs import get_logger
from labwright.core.model import utc_now
from labwright.core.selectors import select
from labwright.journal.connection import Connection, is_inbox
from labwright.journal.journal import Entry, Journal
from labwright.journal.logs import ensure_logs
from labwright.journal.nats_server import EmbeddedServer, write_private
from labwright.journal.presence import ProcessIdentity, ensure_presence, lead, this_host, watch
from labwright.journal.records import ClockStepped
from labwright.journal.state import Changes
from labwright.plan.tasks import TaskDescription
from labwright.run.abandoned import AbandonedSessions
from labwright.run.agent_history import AgentHistory
from labwright.run.agents_here import AgentsHere
from labwright.run.answers import Answers
from labwright.run.claim_holds import ClaimHolds
from labwright.run.clock_watch import ClockWatch
from labwright.run.decider import Decider
from labwright.run.departures import Departures
from labwright.run.dispatcher import SUBJECT as DISPATCH_LOG
from labwright.run.dispatcher import Dispatcher, worker_of
from labwright.run.engine import DIALECTS, locator
from labwright.run.folding import Folding
from labwright.run.processes import hold_lock, lock_holder
from labwright.run.room import is_short
from labwright.run.schedule_answers import ScheduleAnswers
from labwright.run.session_answers import SessionAnswers
from labwright.run.settings import Settings, load_settings
from labwright.run.signals import ABORTING, RELOAD
from labwright.run.site_host import SiteHost
from labwright.run.ticker import Ticker
from labwright.run.work import ensure_work
from labwright.run.worker_keeper import WorkerKeeper, slots_held, stop_holder

ABORT_AGAIN_S = 1.0
PART = 700_000
DISK_EVERY_S = 5.0
CLOCK_EVERY_S = 1.0
SELDOM = (50_000, 20, 50)
"""When garbage is collected: a server that holds many records would else spend its time on looking at them."""

log = get_logger(__name__)


class Server:
    """A running lab: made by `serving`. `running` ends only when the lab breaks."""

    running: asyncio.Task[None]

    def __init__(self, settings: Settings, journal: Journal, host: SiteHost, embedded: EmbeddedServer | None) -> None:
        clock: Clock = SystemClock()
        self._clock = clock
        self.settings = settings
        self.journal = journal
        self.host = host
        self.embedded = embedded
        self.folding = Folding(journal, settings.state_dir / "view.sqlite")
        self.dispatcher = Dispatcher(journal, self.folding.present, settings, self.tasks, clock)
        self.decider = Decider(journal, self.folding.present, host, self.tasks, clock)
        self.agents = AgentsHere()
        host.agents = self.agents.brief
        self.agent_history = AgentHistory(journal, self.folding, self.agents)
        sessions = SessionAnswers(journal, self.folding, self.agents)
        self.ticker = Ticker(
            journal,
            self.folding,
            self.tasks,
            choose=self._chosen,
            prepare=self._prepared,
            clock=clock,
            of_site=lambda: host.description.schedules,
        )
        self.answers = Answers(
            self.folding,
            self.dispatcher,
            self.decider,
            host,
            sessions=sessions,
            schedules=ScheduleAnswers(self.folding),
            agents=self.agents,
            status=self.status,
            reload=self.reload,
        )
        self.acts = Acts(journal.connection, settings, reload=self.reload, seen=lambda: self.folding.present.seq)
        self.abandoned = AbandonedSessions(journal, self.folding.present)
        self.claim_holds = ClaimHolds(journal, self.dispatcher, host, self.agents)
        self.identity = str(ProcessIdentity.mine())
        self.ready = asyncio.Event()
        self._answering: set[asyncio.Task[None]] = set()
        self._started_at = utc_now()
        self._descriptions: Mapping[str, TaskDescription] = {}
        self._described: object = None
        self._disk_full = False

    def tasks(self) -> Mapping[str, TaskDescription]:
        """Give the tasks of the site that is loaded, by name."""
        if self._described is not self.host.description:
            self._described = self.host.description
            self._descriptions = {task.name: task for task in self.host.description.tasks}
        return self._descriptions

    async def _chosen(self, on: str) -> list[str]:
        """Name the targets, and the agents that are here, that a name or selector chooses now."""
        known = members(await self.host.targets(), self.agents.agents)
        return [on] if on in known else [target.name for target in select(on, known.values())]

    async def _prepared(self, task: str, params: Mapping[str, Any]) -> dict[str, Any]:
        return await self.host.validate(task, dict(params))

    async def run(self) -> None:
        """Run all loops until cancelled."""
        self.folding.listeners.append(self._tell)
        self.journal.connection.on_reconnect(self._reconnected)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.folding.run())
                await self.folding.caught_up.wait()
                await self.journal.connection.listen("ask.*", self._asked, queue="serve")
                await self.journal.connection.listen("act.*.*", self._asked, queue="serve")
                await self.journal.connection.listen(
                    "read.>", functools.partial(pass_on, self.journal.connection), queue="serve"
                )
                group.create_task(self.claim_holds.run())
                group.create_task(self._watch_workers())
                group.create_task(self.agents.follow(self.journal.connection))
                group.create_task(self._lead())
                group.create_task(self._repeat_aborts())
                group.create_task(self._watch_clock())
                if self.embedded is not None:
                    group.create_task(self._watch_disk(self.embedded))
                    group.create_task(watch_log(self.journal, self.embedded))
                    group.create_task(Departures(self.journal, locator(self.settings)).run())
                self.ready.set()
        finally:
            await self.decider.close()
            await self.dispatcher.close()
            self.folding.view.close()

    async def _lead(self) -> None:
        leading: list[asyncio.Task[None]] = []
        try:
            async for is_mine in lead(self.journal, "dispatcher", {"name": self.identity}):
                if is_mine and not leading:
                    loops = (self._dispatch(), self._keep_history(), self.abandoned.lead(), self._tick())
                    leading += [asyncio.create_task(loop) for loop in loops]
                    self.decider.lead()
                elif not is_mine and leading:
                    log.warning("the lead may be lost")
                    await _all_cancelled(leading)
                    await self.decider.close()
        finally:
            await _all_cancelled(leading)

    async def _keep_history(self) -> None:
        """Begin again with what is here whenever writing who came and who went broke."""
        while True:
            try:
                await self.agent_history.lead()
            except Exception:  # a border: whatever breaks one round must not end the history
                log.exception("the history of agents broke")
            await asyncio.sleep(0.5)

    async def _tick(self) -> None:
        """Lead again whenever the ticker as a whole broke."""
        while True:
            try:
                await self.ticker.lead()
            except Exception:  # a border: whatever breaks one round must not end all schedules
                log.exception("the ticker broke")
            await asyncio.sleep(0.5)

    async def _dispatch(self) -> None:
        """Lead again whenever the log was taken over while the presence was still ours."""
        await self.claim_holds.told.wait()
        while True:
            try:
                await self.dispatcher.lead(self.identity, self.folding.folded)
            except Exception:  # a border: whatever breaks one round must not end all dispatching
                log.exception("dispatching broke")
            await asyncio.sleep(0.5)

    async def _watch_workers(self) -> None:
        are_survivors = True
        async for seen in watch(self.journal.connection, "worker"):
            if seen is None:
                are_survivors = False
            elif seen.body is None:
                self.dispatcher.worker_silent(seen.name)
            elif (here := worker_of(seen.body)) is not None:
                self.dispatcher.worker_here(seen.name, here)
                if are_survivors and here.revision != self.host.description.revision:
                    await self._renew(seen.name)

    async def _renew(self, worker: str) -> None:
        """Have a worker that an earlier `serve` has left replaced: the site's code has changed since."""
        log.info("a worker has older code and is replaced", worker=worker)
        with contextlib.suppress(UnreachableError):
            await self.journal.connection.publish(RELOAD, worker.encode())

    def _tell(self, entries: list[Entry], changes: Changes) -> None:
        for entry in entries:
            if entry.subject == DISPATCH_LOG:
                self.dispatcher.note_log(entry.seq)
        self.dispatcher.note(changes)
        self.decider.note(changes)
        self.abandoned.note(changes)
        self.ticker.note(changes)

    def _reconnected(self) -> None:
        """After a restart of the server, what was in its memory must be made again."""
        asyncio.get_running_loop().create_task(self._restore())

    async def _restore(self) -> None:
        with contextlib.suppress(LabwrightError, TimeoutError):
            await ensure_presence(self.journal)
            await ensure_work(self.journal)
            self.dispatcher.hand_over_all()

    async def _repeat_aborts(self) -> None:
        """Tell workers again of runs that are to end early, until they have."""
        while True:
            await asyncio.sleep(ABORT_AGAIN_S)
            for entry in list(self.folding.present.runs.values()):
                if entry.run.aborting is not None and entry.run.worker is not None:
                    data = json.dumps({"run": entry.run.id, "reason": entry.run.aborting}).encode()
                    with contextlib.suppress(UnreachableError):
                        await self.journal.connection.publish(ABORTING, data)

    async def _watch_clock(self) -> None:
        """Record a step of the wall clock, have nobody given up because of it, and look again at what is due."""
        clock = ClockWatch(self._clock)
        while True:
            await asyncio.sleep(CLOCK_EVERY_S)
            step = clock.look()
            if step is not None:
                log.warning("the clock was set", by_s=round(step, 1))
                self.dispatcher.clock_was_set()
                self.ticker.clock_was_set()
                record = ClockStepped(host=this_host(), by_s=step)
                await self.journal.append(f"audit.clock.{record.record_id}", record, after=0)

    async def _watch_disk(self, embedded: EmbeddedServer) -> None:
        """Once a full disk has space again, restart a server that no longer stores."""
        while True:
            usage = shutil.disk_usage(self.settings.state_dir)
            is_full = is_short(usage.free, usage.total)
            if self._disk_full and not is_full and not await self._stores():
                await embedded.restart()
            self._disk_full = is_full
            await asyncio.sleep(DISK_EVERY_S)

    async def _stores(self) -> bool:
        with contextlib.suppress(LabwrightError, TimeoutError):
            answer = await self.journal.connection.request("audit.probe", b"{}", timeout_s=3)
            return "error" not in json.loads(answer.data)
        return False

    # --- questions ---------------------------------------------------------------------------------------------------

    async def _asked(self, message: Msg) -> None:
        """Answer each question beside the others, so that a slow one holds up none; but only what is one."""
        if not message.subject.startswith(("ask.", "act.")) or not is_inbox(message.reply):
            return
        task = asyncio.create_task(self._answer(message))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, message: Msg) -> None:
        kind, _, name = message.subject.partition(".")
        if kind == "act":
            answer = await self.acts.answer(message.subject, message.data)
        else:
            answer = await self.answers.answer(name, message.data)
        data = json.dumps(answer).encode()
        parts = [data[start : start + PART] for start in range(0, len(data), PART)]
        for number, part in enumerate(parts):
            headers = {"Parts": str(len(parts)), "Part": str(number)}
            with contextlib.suppress(UnreachableError):  # whoever asked asks again
                await self.journal.connection.publish(message.reply, part, headers=headers)

    def status(self) -> dict[str, Any]:
        """Tell what this process is."""
        usage = shutil.disk_usage(self.settings.state_dir)
        return {
            "server": self.identity,
            "pid": os.getpid(),
            "started_at": to_text(self._started_at),
            "site": str(self.settings.folder),
            "embedded": self.embedded is not None,
            "nats_pid": self.embedded.pid() if self.embedded else None,
            "disk_free": usage.free,
            "accepts": not (self.embedded is not None and is_short(usage.free, usage.total)),
            "now": to_text(utc_now()),
        }

    async def reload(self) -> dict[str, Any]:
        """Load the site again, all or nothing, and have the workers follow."""
        description = await self.host.reload(load_settings(self.settings.folder, os.environ))
        self.dispatcher.note_all()
        self.claim_holds.site_changed()
        self.ticker.look_again()
        await self.journal.connection.publish(RELOAD)
        return description.model_dump(mode="json", by_alias=True)


@asynccontextmanager
async def serving(
    settings: Settings, *, tied: bool = False, workers: int | None = None, say: Callable[[str], None] | None = None
) -> AsyncGenerator[Server]:
    """Start a lab and give it once it answers; at the end everything that it started is ended.

    `tied` makes nats-server and workers die with this process, whatever happens to it; `workers` overrides the setting.

    Raises:
        ConflictError: a lab of this site runs already.
        SiteError: the site does not load.
        EngineError: the embedded server cannot be started.
    """
    tell = say or _silent
    settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    settings.state_dir.chmod(0o700)  # parameters and results are nobody else's business
    async with AsyncExitStack() as stack:
        _hold(stack, settings.state_dir)
        tell("loading the site")
        host = await stack.enter_async_context(
            SiteHost(settings, dialects=DIALECTS, deadline_s=settings.site.decide_timeout)
        )
        embedded = await _embedded(stack, settings, tied=tied, tell=tell)
        connection = await stack.enter_async_context(
            Connection(locator(settings), name="serve", patience_s=None if embedded else 30)
        )
        journal = Journal(connection)
        await journal.prepare(replicas=settings.nats.replicas, journal_days=int(settings.retention.journal_days))
        disk = shutil.disk_usage(settings.state_dir).total if embedded else None
        await ensure_logs(journal, days=settings.retention.log_days, replicas=settings.nats.replicas, disk=disk)
        await ensure_presence(journal)
        await ensure_work(journal)
        server = Server(settings, journal, host, embedded)
        await stack.enter_async_context(_running(server))
        keeper = WorkerKeeper(
            settings.folder, settings.state_dir, settings.workers.processes if workers is None else workers, tied=tied
        )
        await stack.enter_async_context(_kept(keeper))
        tell("ready")
        yield server


def _hold(stack: AsyncExitStack, state_dir: Path) -> None:
    """Make sure that one lab serves a state folder."""
    lock = state_dir / "serve.lock"
    descriptor = hold_lock(lock)
    if descriptor is None:
        raise ConflictError(
            "this site is being served already",
            because=f"pid {lock_holder(lock) or '?'} holds {lock}",
            cure="use that lab, or end it: labwright serve --stop",
        )
    stack.callback(os.close, descriptor)


async def _embedded(
    stack: AsyncExitStack, settings: Settings, *, tied: bool, tell: Callable[[str], None]
) -> EmbeddedServer | None:
    if settings.nats.url:
        if settings.nats.listen:
            raise UsageError(
                f"nothing listens at {settings.nats.listen}",
                because=f"the journal is at {settings.nats.url}, and no server is started here",
                cure="have that NATS listen there, or leave out --listen and nats.listen",
            )
        return None
    listen = listening(
        settings.nats.listen,
        cert=settings.tls_file("cert"),
        key=settings.tls_file("key"),
        ca=settings.tls_file("ca"),
        identities=Identities(settings.state_dir),
    )
    tell("starting the journal")
    embedded = EmbeddedServer(settings.state_dir, tied=tied, listen=listen)
    await embedded.start()
    stack.push_async_callback(embedded.stop)
    keeping = asyncio.create_task(embedded.keep())
    stack.push_async_callback(_cancelled, keeping)
    return embedded


@asynccontextmanager
async def _running(server: Server) -> AsyncGenerator[None]:
    running = server.running = asyncio.create_task(server.run(), name="server")
    ready = asyncio.create_task(server.ready.wait())
    await asyncio.wait([running, ready], return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
    try:
        yield
    finally:
        await _cancelled(running)


@asynccontextmanager
async def _kept(keeper: WorkerKeeper) -> AsyncGenerator[None]:
    keeping = asyncio.create_task(keeper.run())
    try:
        yield
    finally:
        await _cancelled(keeping)
        await keeper.stop()


async def _all_cancelled(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel tasks, wait for their end, and forget them."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    tasks.clear()


async def _cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _silent(_: str) -> None:
    """Say nothing."""


async def serve(
    settings: Settings, say: Callable[[str], None], *, on_ready: Callable[[Server], None] | None = None
) -> None:
    """Serve a site until told to end by SIGTERM or Ctrl-C; `on_ready` is called once it answers."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    async with serving(settings, say=say) as server:
        gc.freeze()
        gc.set_threshold(*SELDOM)
        write_private(settings.state_dir / "serve.json", json.dumps(server.status()))
        if on_ready is not None:
            on_ready(server)
        waiting = asyncio.create_task(told.wait())
        await asyncio.wait([waiting, server.running], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if server.running.done():
            server.running.result()
        say("ending")


async def stop(settings: Settings) -> list[str]:
    """End a lab, whatever is left of it: `serve`, its workers, its embedded server; tells what was ended."""
    ended: list[str] = []
    lock = settings.state_dir / "serve.lock"
    if lock_holder(lock):
        await asyncio.to_thread(stop_holder, lock, 40.0)
        ended.append("serve")
    for slot in slots_held(settings.state_dir):
        await asyncio.to_thread(stop_holder, slot)
        ended.append(f"worker {slot.stem}")
    embedded = EmbeddedServer(settings.state_dir)
    if embedded.is_locked():
        await embedded.stop()
        ended.append("nats-server")
    return ended
