"""An agent at work: its folder, its name, its commands and its sessions, from `open` to `close`.

It needs no `serve`. While nats-server is away it goes on with what it does, and delivers afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import structlog
from nats.aio.msg import Msg

from labwright.access.claim_watch import ClaimWatch
from labwright.access.claims import labels_of
from labwright.access.guard import Guard
from labwright.agents.adoption import Adoption
from labwright.agents.agent import Agent, Leftovers, attach
from labwright.agents.announcing import EXPIRY_S, PING_S, Announcing
from labwright.agents.arguments import make_agent
from labwright.agents.blocking_session import BlockingSession
from labwright.agents.book import Book
from labwright.agents.child_calls import ChildCall
from labwright.agents.commands import Answer, Command, CommandError
from labwright.agents.delivery import Delivery
from labwright.agents.description import Description
from labwright.agents.desk import Desk
from labwright.agents.feeds import Feed
from labwright.agents.ledger import Ledger, agent_folder
from labwright.agents.operation import GRACE_S, AnyOperation, operations_of
from labwright.agents.pulse import HARD_EXIT
from labwright.agents.script import Script, ScriptRunner
from labwright.agents.script_folder import ScriptEnd
from labwright.agents.session import NOW, Said, ScriptEars, Session
from labwright.agents.session_scripts import SessionScripts
from labwright.agents.standstill import Standstill
from labwright.agents.threads import run_in_thread
from labwright.agents.wire import command_subject, part_text
from labwright.core.errors import LabwrightError, UnreachableError, UsageError
from labwright.core.ids import checked_name
from labwright.core.logs import get_logger
from labwright.core.model import FileEntry
from labwright.journal.connection import Address, Connection, is_inbox
from labwright.journal.journal import Journal
from labwright.journal.logs import Logs
from labwright.journal.records import FileRegistered, Record
from labwright.journal.session_fold import encoded

AWAY_S = 2.0
"""An agent that cannot reach nats-server after so many seconds begins without it."""
TELL_S = AWAY_S + 2 * EXPIRY_S
"""A server that is there but cannot tell who has the agent's name is not waited for any longer."""
LOOK_S = 0.1
MOMENT_S = 0.05
"""What ends within so many seconds of its start is told at once with its end."""
RECORDED_S = 0.5
"""How long a start is not told while the journal takes no record; agents work without it."""
CLOSE_S = 5.0
DELIVER_S = 2.0
END_MARGIN_S = 4.0

log = get_logger(__name__)


def connection_name(agent: str) -> str:
    """Give the name by which nats-server knows the connection of an agent."""
    return f"agent {agent}"


class AgentServer:
    """Serves one agent: `async with AgentServer(...)`, or `serving(...)`."""

    def __init__(
        self,
        agent: type[Agent] | Agent,
        *,
        name: str,
        locate: Callable[[], Address],
        state_dir: Path,
        labels: Mapping[str, str] | None = None,
        arguments: Mapping[str, Any] | None = None,
        leftovers: Leftovers | None = None,
        site: Path | None = None,
        exit_hard: Callable[[int], object] = os._exit,
    ) -> None:
        self.name = checked_name(name, "agent")
        self.labels: Mapping[str, str] = MappingProxyType(dict(labels or {}))
        self.state_dir = agent_folder(Path(state_dir).absolute(), name)
        self.site = site
        self.log: structlog.stdlib.BoundLogger = get_logger(f"labwright.agent.{name}")
        self.arguments = dict(arguments or {})
        self.agent = make_agent(agent, self.arguments) if isinstance(agent, type) else agent
        self.operations = operations_of(type(self.agent))
        self.leave_scripts = False
        """Whether, at the end, what a successor can adopt is left running."""
        self.failure: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        """What has brought the agent down, once something has."""
        self._policy: Leftovers = leftovers or type(self.agent).leftovers
        self._exit_hard = exit_hard
        self._feeds: dict[str, Feed] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._connection = Connection(locate, name=connection_name(name), ping_s=PING_S)
        self._journal = Journal(self._connection)

    # --- life --------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            self._ledger = stack.enter_context(Ledger(self.state_dir))
            self._runner = await stack.enter_async_context(ScriptRunner(self.state_dir))
            self._logs = Logs(self._connection)
            self._delivery = Delivery(self._ledger, self._journal)
            self._book = Book(self.name, self._ledger, self._delivery, self._connection, self._logs)
            self._scripts = SessionScripts(self._runner, self._grace_of)
            self._scripts.host = self
            self._description = Description(self)
            self._announcing = Announcing(self._journal, self.name, lambda: self._description.brief)
            self._standstill = Standstill()
            self._claims = ClaimWatch(self._journal)
            self._desk = self._make_desk()
            attach(self.agent, self)
            self.labels = MappingProxyType({**self.agent.own_labels(), **self.labels})
            self.operations_changed()
            stack.push_async_callback(self._end_tasks)
            self._connection.on_reconnect(self._book.push_all)
            self._begin(self._connection.__aenter__())
            stack.push_async_callback(self._connection.close)
            self._begin(self._announcing.run())
            self._begin(self._standstill.run())
            self._begin(self._claims.run())
            stack.push_async_callback(self._announcing.leave)
            adoption = self._make_adoption()
            stack.push_async_exit(functools.partial(self._give_up, adoption))
            await self._may_act()
            await adoption.clear()
            await self.agent.open()
            stack.push_async_callback(self._close_agent)
            for loop in (self._delivery.run(), self._logs.run(), self._book.run()):
                self._begin(loop)
            await adoption.adopt(self._desk)
            self._start_startups()
            await self._listen()
            self._open = stack.pop_all()
        self.log.info("serving", operations=len(self.operations))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End what runs, deliver what there is, say farewell, and let go of everything."""
        grace = max((operation.options.grace for operation in self.operations.values()), default=0.0)
        async with self._open:
            await self._desk.close(leave=self.leave_scripts, patience_s=grace + END_MARGIN_S)
            for feed in self._feeds.values():
                feed.flush()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DELIVER_S):
                    await self._book.push()
                    await self._logs.flush()
                    self._delivery.wake()
                    await self._delivery.drain(DELIVER_S)

    async def failed(self) -> None:
        """Wait for ever, unless something brings the agent down.

        Raises:
            Exception: what did.
        """
        raise await self.failure

    async def _give_up(self, adoption: Adoption, kind: type[BaseException] | None, *_: object) -> None:
        """Leave nothing behind where the agent was told to end before it was up; its predecessor's scripts run."""
        if kind is not None and issubclass(kind, asyncio.CancelledError) and not self.leave_scripts:
            await self._desk.close(leave=False, patience_s=END_MARGIN_S)
            await adoption.give_up()

    async def _close_agent(self) -> None:
        """Have the agent let go of its instrument; what fails there is logged."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.agent.close()
        except Exception:  # a border: a user's clean-up must not keep the agent from ending
            log.exception("the agent was not closed well", agent=self.name)

    async def _may_act(self) -> None:
        """Wait until no other agent of that name can be there, or nobody can tell."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        may = asyncio.create_task(self._announcing.may_act.wait())
        try:
            while not may.done():
                await asyncio.wait({may, self.failure}, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                if self.failure.done():
                    raise self.failure.result()
                if loop.time() - begun > (TELL_S if self._connection.is_connected else AWAY_S):
                    return
        finally:
            may.cancel()

    def _begin(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do something beside everything else; when it fails, the agent does."""

        def look(task: asyncio.Task[Any]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None and not self.failure.done():
                self.failure.set_result(error)

        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(look)

    async def _end_tasks(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_S)
        if not self.failure.done():
            self.failure.cancel()

    # --- commands ----------------------------------------------------------------------------------------------------

    def _make_desk(self) -> Desk:
        return Desk(
            self.name,
            self.operations,
            ledger=self._ledger,
            book=self._book,
            scripts=self._scripts,
            calls=self,
            describe=self.describe,
            last_resort=self._last_resort,
            age_s=lambda: self._standstill.age_s,
            guard=Guard(self.name, self._claimed_by, self._claims, self._post),
        )

    @property
    def _claimed_by(self) -> dict[str, str]:
        """Give the labels by which selectors choose this agent."""
        return labels_of({"labels": self.labels, "class": type(self.agent).__name__})

    def _make_adoption(self) -> Adoption:
        return Adoption(
            ledger=self._ledger,
            book=self._book,
            runner=self._runner,
            scripts=self._scripts,
            operations=self.operations,
            policy=self._policy,
        )

    async def _listen(self) -> None:
        subject = command_subject("*", self.name, "*").replace("%2A", "*")
        await self._connection.listen(subject, self._hear)

    async def _hear(self, message: Msg) -> None:
        """Take a command; what a stream gives on somebody's behalf is none, since its subject proves nothing."""
        if not message.subject.startswith("command.") or "Nats-Stream" in (message.headers or {}):
            self.log.warning("what came from a stream was not followed", subject=message.subject)
            return
        self._begin(self._answer(message.subject, message.data, message.reply))

    async def _answer(self, subject: str, data: bytes, reply: str) -> None:
        """Follow one command and send its replies; who asked may be gone meanwhile."""
        parts = subject.split(".")
        operation = part_text(parts[3])
        answer = await self._desk.answer(
            data, sender=part_text(parts[1]), operation=None if operation == "_" else operation
        )
        if not is_inbox(reply):
            return
        try:
            await self._reply(reply, answer)
        except UnreachableError:
            pass
        except Exception:  # a border: who asked may ask again, and nobody else is to notice
            log.exception("a reply was not sent", operation=operation)

    async def _reply(self, reply: str, answer: Answer) -> None:
        """Send the replies to one command: of what has ended in a moment, where that is waited for, the end alone.

        A session that lasts is mostly in the journal before its start is told, so that whoever is told can find it
        there, also after a kill of this agent. It may not be: nobody waits longer than `RECORDED_S` for a journal that
        is away or behind, and who repeats a start is answered at once.
        """
        end = None
        if answer.end is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(MOMENT_S):
                    end = await answer.end()
        if end is None:
            if answer.has_begun:
                await self._delivery.drain(RECORDED_S)
            if answer.now is not None:
                await self._connection.publish(reply, answer.now())
            if answer.end is None:
                return
            end = await answer.end()
        await self._connection.publish(reply, end)

    def _start_startups(self) -> None:
        for operation in self.operations.values():
            startup = operation.options.startup
            if startup is False or self._book.running_of(operation.name):
                continue
            params = dict(startup) if isinstance(startup, Mapping) else {}
            command = Command(do="start", operation=operation.name, params=params, by="startup")
            try:
                _, _, begin = self._desk.start(command)
            except (CommandError, LabwrightError) as error:
                log.error("a startup operation was not started", operation=operation.name, because=str(error))  # noqa: TRY400 - said, not traced
            else:
                if begin is not None:
                    begin.set()

    # --- calls of operations -----------------------------------------------------------------------------------------

    def call_of(
        self, session: Session, operation: AnyOperation, params: dict[str, Any]
    ) -> Callable[[], Coroutine[Any, Any, Any]]:
        """Give what runs an operation in a session: on this loop, in a thread, or in a child process."""
        if operation.in_child:
            return ChildCall(self, session, operation).run
        bound: Callable[..., Any] = operation.__get__(self.agent, type(self.agent))
        if operation.is_blocking:

            def in_thread(twin: BlockingSession) -> Any:
                return bound(twin, **params)

            return functools.partial(run_in_thread, session, in_thread)
        return functools.partial(bound, session, **params)

    def _last_resort(self, session: Session) -> None:
        log.critical("a thread cannot be ended; the agent ends itself", session=session.id, exit_code=HARD_EXIT)
        self._exit_hard(HARD_EXIT)

    def _grace_of(self, operation: str) -> float:
        known = self.operations.get(operation)
        return GRACE_S if known is None else known.options.grace

    def operations_changed(self) -> None:
        """Serve what the agent now has beside the operations of its class.

        Raises:
            UsageError: two operations have one name.
        """
        known = operations_of(type(self.agent))
        for operation in self.agent.more_operations():
            if operation.name in known:
                raise UsageError(
                    f"{self.name} has two operations named {operation.name!r}",
                    because="`more_operations` gives one that is there already",
                    cure="leave it out there, or give it another name",
                )
            known[operation.name] = operation
        self.operations.clear()
        self.operations.update(known)
        self._description.renew()

    # --- what sessions need ------------------------------------------------------------------------------------------

    def changed(self, session: Session) -> None:
        """Note that what a session shows has changed."""
        self._book.changed(session)

    def keep(self, session: Session) -> None:
        """Write down what a session keeps."""
        self._book.keep(session)

    def say(self, session: Session, level: str, text: str, fields: Mapping[str, Any], said: Said = NOW) -> None:
        """Put a line into a session's log."""
        self._book.say(session, level, text, fields, said)

    async def start_script(
        self, session: Session, number: int, path: str, args: Sequence[object], options: Mapping[str, Any]
    ) -> Script:
        """Start a session's script of that number, or find it; what was decided before is on the disk first."""
        await self._ledger.make_durable()
        return await self._scripts.start(session, number, path, args, options)

    async def start_command(
        self, session: Session, number: int, command: Sequence[str], options: Mapping[str, Any]
    ) -> Script:
        """Start a session's program of that number, or find it; what was decided before is on the disk first."""
        await self._ledger.make_durable()
        return await self._scripts.start_command(session, number, command, options)

    async def follow_script(self, session: Session, script: Script, heard: ScriptEars) -> ScriptEnd:
        """Bring what a script says to its session until it has ended."""
        return await self._scripts.follow(session, script, heard)

    @property
    def is_connected(self) -> bool:
        """Tell whether nats-server is there now."""
        return self._connection.is_connected

    # --- what the agent is given -------------------------------------------------------------------------------------

    @property
    def journal(self) -> Journal:
        """The journal that it is served on."""
        return self._journal

    @property
    def sessions(self) -> Mapping[str, Session]:
        """What runs now, by id."""
        return self._book.running

    def feed(self, name: str, *, buffer_s: float) -> Feed:
        """Give the feed of that name."""
        if name not in self._feeds:
            self._feeds[name] = Feed(self.name, name, buffer_s, self.send)
        return self._feeds[name]

    async def register_file(self, file: FileEntry) -> None:
        """Write a file into the catalogue."""
        self._post(f"file.{encoded(file.id)}", FileRegistered(file=file))

    def _post(self, subject: str, record: Record) -> None:
        """Have a record delivered, however long the journal is away."""
        self._ledger.post(subject, record)
        self._delivery.wake()

    async def abort(self, session_id: str, *, reason: str, by: str) -> None:
        """Abort a session, and wait for its end."""
        self._desk.abort(session_id, reason=reason, by=by)
        await self._book.ended(session_id)

    def send(self, subject: str, data: bytes) -> None:
        """Publish what nobody acknowledges, and who is away misses."""

        async def send() -> None:
            with contextlib.suppress(UnreachableError):
                await self._connection.publish(subject, data)

        self._begin(send())

    # --- what it says of itself --------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Tell everything about the agent: what it is, what it can do, and what it does."""
        newest = [self._book.newest(name) for name in self.operations]
        running = [session.snapshot for session in self._book.running.values()]
        return self._description.whole([*running, *newest], list(self._feeds.values()))


@contextlib.asynccontextmanager
async def serving(
    agent: type[Agent] | Agent,
    *,
    name: str,
    locate: Callable[[], Address],
    state_dir: Path,
    labels: Mapping[str, str] | None = None,
    arguments: Mapping[str, Any] | None = None,
    leftovers: Leftovers | None = None,
    site: Path | None = None,
    exit_hard: Callable[[int], object] = os._exit,
) -> AsyncGenerator[AgentServer]:
    """Serve an agent inside the block.

    Raises:
        FolderInUseError: another process here serves an agent of that name.
        NameTakenError: an agent of that name is elsewhere.
        ParameterError: the arguments do not fit the class.
    """
    server = AgentServer(
        agent,
        name=name,
        locate=locate,
        state_dir=state_dir,
        labels=labels,
        arguments=arguments,
        leftovers=leftovers,
        site=site,
        exit_hard=exit_hard,
    )
    async with server:
        yield server
