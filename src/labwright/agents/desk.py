"""Where an agent's commands are followed: what may start starts, once, and every question has its exact answer."""

from __future__ import annotations

import asyncio
import difflib
import functools
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from labwright.access.guard import Guard
from labwright.agents.book import Book
from labwright.agents.commands import Answer, Command, CommandError, read_command
from labwright.agents.execution import Execution, Limits, Told, holder_of
from labwright.agents.ledger import Ledger
from labwright.agents.locks import Locks
from labwright.agents.operation import AnyOperation
from labwright.agents.session import Session
from labwright.agents.session_scripts import SessionScripts
from labwright.agents.wire import error_reply, session_reply
from labwright.core.clock import to_text
from labwright.core.errors import (
    ConflictError,
    LabwrightError,
    LockedError,
    NotAllowedError,
    NotFoundError,
    NotRunningError,
    RefusedError,
    UnreachableError,
    UsageError,
)
from labwright.core.ids import content_hash, hashed_id, new_id
from labwright.core.logs import get_logger
from labwright.core.model import OperationKind, SessionSnapshot, utc_now

log = get_logger(__name__)


class Calls(Protocol):
    """What runs operations' code."""

    def call_of(
        self, session: Session, operation: AnyOperation, params: dict[str, Any]
    ) -> Callable[[], Coroutine[Any, Any, Any]]:
        """Give what runs an operation in a session, whichever way it is to run."""
        ...


class Desk:
    """Follows commands for one agent."""

    def __init__(
        self,
        agent: str,
        operations: dict[str, AnyOperation],
        *,
        ledger: Ledger,
        book: Book,
        scripts: SessionScripts,
        calls: Calls,
        describe: Callable[[], dict[str, Any]],
        last_resort: Callable[[Session], None],
        age_s: Callable[[], float],
        guard: Guard,
    ) -> None:
        self.locks = Locks()
        self._guard = guard
        self._age_s = age_s
        self._agent = agent
        self._operations = operations
        self._ledger = ledger
        self._book = book
        self._scripts = scripts
        self._calls = calls
        self._describe = describe
        self._last_resort = last_resort
        self._executions: dict[str, Execution] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closing = False

    # --- the border --------------------------------------------------------------------------------------------------

    async def answer(self, data: bytes, *, sender: str, operation: str | None) -> Answer:
        """Follow a command, or say why not; never raises."""
        try:
            return await self._judged(read_command(data, sender=sender, operation=operation))
        except CommandError as error:
            return _said(error_reply(error.error, error.session))
        except LabwrightError as error:
            return _said(error_reply(error))
        except Exception as error:  # a border: a fault of ours must not leave the client without an answer
            log.exception("a command failed", operation=operation)
            fault = LabwrightError(f"the agent failed at this command: {error!r}", cure="see the agent's log")
            return _said(error_reply(fault))

    async def _judged(self, command: Command) -> Answer:
        """Follow a command; that somebody may not do it is recorded."""
        try:
            return await self._follow(command)
        except (CommandError, LabwrightError) as error:
            what = f"{command.do} {command.operation or command.session or ''}".strip()
            why = error.error if isinstance(error, CommandError) else error
            self._guard.note(why, command.asker, what, command.origin)
            raise

    async def _follow(self, command: Command) -> Answer:  # noqa: PLR0911 - one return for each verb
        match command.do:
            case "start":
                return await self._start(command)
            case "check":
                self._operation(command.operation).parameters.validated(command.params)
                return _said(session_reply(None, fits=True))
            case "stop":
                return self._end(command, Told.STOP)
            case "abort":
                return self._end(command, Told.ABORT)
            case "status":
                return _said(session_reply(self._meant(command)))
            case "wait":
                return self._wait(command)
            case "describe":
                return _said(session_reply(None, agent=self._describe()))
            case "ping":
                return _said(session_reply(None, pong=True))
            case "sessions":
                shown = [session.snapshot for session in self._book.running.values()]
                return _said(session_reply(None, sessions=[_brief(session) for session in shown]))

    # --- start -------------------------------------------------------------------------------------------------------

    async def _start(self, command: Command) -> Answer:
        await self._guard.ready()
        operation = self._operation(command.operation)
        self._guard.may_start(command.asker, operation.name, operation.options.role)
        session, is_new, waits = self.start(command)
        try:
            if is_new and command.token:
                await self._ledger.make_durable()
        except LabwrightError as error:
            self._executions[session.id].tell(Told.ABORT, error.message)
            raise
        finally:
            if waits is not None:
                waits.set()
        now = functools.partial(session_reply, session, is_new=is_new)
        end = functools.partial(self._end_of, session.id, is_new=is_new) if command.wait else None
        return Answer(now, end, has_begun=is_new)

    def start(self, command: Command) -> tuple[SessionSnapshot, bool, asyncio.Event | None]:
        """Start a session, or find the one that the same command has started; gives it, and whether it is new.

        A new one begins when the event that comes with it is set.

        Raises:
            CommandError, LabwrightError: it may not start.
        """
        operation = self._operation(command.operation)
        params = operation.parameters.validated(command.params)
        name = command.session or self._keyed(operation, command) or new_id("ses")
        content = content_hash({"operation": operation.name, "params": params})
        existing = self._book.find(name)
        if existing is not None:
            return self._same(existing, command, content), False, None
        self._check(command, operation)
        operation.admit(params)
        snapshot = SessionSnapshot(
            id=name,
            agent=self._agent,
            operation=operation.name,
            kind=operation.kind,
            params=params,
            key=command.key,
            run=command.run,
            by=command.by or command.sender,
            started_at=utc_now(),
            content=content,
        )
        timeout_s = operation.options.timeout if command.timeout_s is None else command.timeout_s
        session = Session(snapshot, self._scripts.host, timeout_s=timeout_s)
        self._take_locks(session, operation)
        session.has_begun = not operation.options.queue
        try:
            self._book.open(session, command, locks=operation.options.locks)
        except LabwrightError:
            self.locks.release(name)
            raise
        begin = asyncio.Event()
        self.execute(session, operation, Limits(timeout_s=timeout_s, valid_for_s=command.valid_for_s), begin)
        return session.snapshot, True, begin

    def execute(self, session: Session, operation: AnyOperation, limits: Limits, begin: asyncio.Event | None) -> None:
        """Have a session run to its end, beside everything else."""
        call = self._calls.call_of(session, operation, operation.parameters.typed(session.params))
        execution = Execution(
            session,
            operation,
            call,
            book=self._book,
            locks=self.locks,
            scripts=self._scripts,
            limits=limits,
            last_resort=self._last_resort,
        )
        self._executions[session.id] = execution

        async def run() -> None:
            if begin is not None:
                await begin.wait()
            try:
                await execution.run()
            finally:
                self._executions.pop(session.id, None)
                if session.state.is_final and self._book.is_written(session.id):
                    self._scripts.forget(session.id)

        task = asyncio.create_task(run(), name=f"execution {session.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _keyed(self, operation: AnyOperation, command: Command) -> str | None:
        return None if command.key is None else hashed_id("ses", self._agent, operation.name, command.key)

    def _same(self, existing: SessionSnapshot, command: Command, content: str) -> SessionSnapshot:
        if command.asker.is_proven and existing.by != command.by:
            raise NotAllowedError(
                f"the session {existing.id} is not {command.by}'s",
                because=f"{existing.by or 'somebody else'} has asked for it, and a command counts for who gave it",
                cure="start one of your own, with another id or key",
            )
        if existing.operation == command.operation and existing.content == content:
            return existing
        error = ConflictError(
            f"the session {existing.id} exists already with other content",
            because=f"it is one of {existing.operation}, started {to_text(existing.started_at)} with other parameters",
            cure="use another id or key",
        )
        raise CommandError(error, existing)

    def _check(self, command: Command, operation: AnyOperation) -> None:
        """Refuse what must not start now."""
        if self._is_closing:
            raise UnreachableError("the agent is about to end", because="it was told to", cure="ask again later")
        self._check_age(command)
        for lock in operation.options.locks if command.fence else ():
            highest = self._ledger.highest_token(lock)
            if command.fence < highest:
                raise RefusedError(
                    f"the token {command.token} for {lock!r} is outdated",
                    because=f"a newer attempt has used {highest} since",
                    cure="nothing is to be done: the newer attempt goes on",
                )
        running = self._book.running_of(operation.name)
        has_turns = operation.options.queue and operation.options.locks
        if len(running) >= operation.options.at_once and not has_turns:
            error = LockedError(
                f"{operation.name} is running already",
                because=f"by {holder_of(running[0])}",
                cure=f"wait for that session, or end it: labwright abort {running[0].id}",
            )
            raise CommandError(error, running[0].snapshot)

    def _check_age(self, command: Command) -> None:
        """Refuse what may have come in while this process stood still, and is not waited for any more."""
        limits = [limit for limit in (command.valid_for_s, command.within_s) if limit is not None]
        if limits and min(limits) <= (age_s := self._age_s()):
            because = f"this agent stood still for {age_s:.1f} s" if age_s else "valid_for_s has passed"
            raise RefusedError("the command has expired", because=because, cure="ask again")

    def _take_locks(self, session: Session, operation: AnyOperation) -> None:
        if operation.options.queue:
            return
        try:
            self.locks.take(operation.options.locks, holder_of(session))
        except LockedError as error:
            holders = [self.locks.held.get(lock) for lock in operation.options.locks]
            names = [holder.session for holder in holders if holder is not None]
            raise CommandError(error, self._book.find(names[0]) if names else None) from None

    # --- end, wait ---------------------------------------------------------------------------------------------------

    def _end(self, command: Command, told: Told) -> Answer:
        self._guard.may_end(command.asker)
        session = self._to_end(command, told)
        if session.state.is_final:
            return _said(session_reply(session, is_new=False))
        who = command.by or command.sender or "somebody"
        said = f": {command.reason}" if command.reason else ""
        verb = "stopped" if told is Told.STOP else "aborted"
        execution = self._executions.get(session.id)
        if execution is not None:
            execution.tell(told, f"{verb} by {who}{said}")
        return _said(session_reply(self._book.find(session.id), is_new=True))

    def abort(self, session_id: str, *, reason: str, by: str) -> None:
        """Abort a session as a command would; one that has ended stays as it is.

        Raises:
            NotFoundError: it is not known here.
        """
        self._end(Command(do="abort", session=session_id, reason=reason, by=by), Told.ABORT)

    def _to_end(self, command: Command, told: Told) -> SessionSnapshot:
        """Find the session that is to end; with an id it may have ended already."""
        if command.session is not None:
            session = self._by_id(command)
            if told is Told.STOP and session.kind is OperationKind.TASK:
                raise CommandError(_no_stop(session.operation), session)
            return session
        operation = self._operation(command.operation)
        if told is Told.STOP and operation.kind is OperationKind.TASK:
            raise CommandError(_no_stop(operation.name))
        running = self._book.running_of(operation.name)
        if running:
            return running[-1].snapshot
        last = self._book.newest(operation.name)
        raise CommandError(_not_running(operation.name, last), last)

    def _wait(self, command: Command) -> Answer:
        session = self._meant(command)
        if session is None or session.state.is_final:
            return _said(session_reply(session, timed_out=False))
        return Answer(None, functools.partial(self._end_of, session.id, command.timeout_s))

    async def _end_of(self, session_id: str, patience_s: float | None = None, **more: Any) -> bytes:
        try:
            async with asyncio.timeout(patience_s):
                return session_reply(await self._book.ended(session_id), timed_out=False, **more)
        except TimeoutError:
            return session_reply(self._book.find(session_id), timed_out=True, **more)

    def _meant(self, command: Command) -> SessionSnapshot | None:
        """Find the session that a question is about: by its id, or the operation's newest."""
        if command.session is not None:
            return self._by_id(command)
        return self._book.newest(self._operation(command.operation).name)

    def _by_id(self, command: Command) -> SessionSnapshot:
        session = self._book.find(command.session or "")
        if session is None or (command.operation is not None and session.operation != command.operation):
            raise NotFoundError(
                f"{self._agent} has no session {command.session}"
                + (f" of {command.operation}" * (session is not None)),
                because="it was never started here, or it ended long ago",
                cure=f"see labwright sessions list --agent {self._agent}",
            )
        return session

    def _operation(self, name: str | None) -> AnyOperation:
        operation = self._operations.get(name or "")
        if operation is None:
            near = difflib.get_close_matches(name or "", self._operations, n=1, cutoff=0.5)
            known = ", ".join(self._operations) or "none"
            raise NotFoundError(
                f"{self._agent} has no operation {name!r}" if name else "the command names no operation",
                because=f"did you mean {near[0]!r}?" if near else f"its operations are: {known}",
                cure=f"see labwright agents show {self._agent}",
            )
        return operation

    # --- the end of the agent ----------------------------------------------------------------------------------------

    async def close(self, *, leave: bool, patience_s: float) -> None:
        """End everything that runs, at the latest after so many seconds; with `leave`, leave what can be adopted."""
        self._is_closing = True
        for execution in list(self._executions.values()):
            if leave and execution.operation.is_adoptable:
                execution.tell(Told.LEAVE, "the agent ends, and its successor goes on")
            elif execution.operation.kind is OperationKind.PROCESS:
                execution.tell(Told.STOP, "the agent was told to end")
            else:
                execution.tell(Told.ABORT, "the agent was told to end")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience_s)
        for execution in list(self._executions.values()):
            log.error("a session does not end", session=execution.session.id)
        for task in list(self._tasks):
            task.cancel()


def _said(body: bytes) -> Answer:
    return Answer(lambda: body)


def _no_stop(operation: str) -> UsageError:
    return UsageError(
        f"{operation} is a task, which cannot be stopped",
        because="only a process can be asked to end well; a task ends by itself",
        cure="abort it",
    )


def _not_running(operation: str, last: SessionSnapshot | None) -> NotRunningError:
    ended = "it never ran here"
    if last is not None:
        when = f" at {to_text(last.ended_at)}" if last.ended_at else ""
        ended = f"its last session {last.id} ended as {last.state.value}{when}"
    return NotRunningError(f"{operation} is not running", because=ended, cure="start it first")


def _brief(session: SessionSnapshot) -> dict[str, Any]:
    names = {"id", "agent", "operation", "kind", "state", "key", "run", "by", "started_at", "ended_at"}
    return session.model_dump(mode="json", include=names, by_alias=True)
