"""The shapes that users, records and answers share: events, requests, targets, runs and errors, as frozen models.

The names of the fields are promises (see the reference of JSON shapes); fields may be added, not renamed.
"""

from __future__ import annotations

import traceback
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer

from labwright.core.clock import to_text
from labwright.core.errors import LabwrightError
from labwright.core.request import Request

Instant = Annotated[AwareDatetime, PlainSerializer(to_text, return_type=str, when_used="json")]
"""An aware moment; in JSON it is RFC 3339 in UTC."""
LONGEST = 4_000
"""The most characters of a message that are kept; a traceback may have twice as many."""


class Model(BaseModel):
    """A frozen record whose fields are given by name; what a newer version adds is kept aside, not refused."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class RunState(StrEnum):
    """Where a run stands."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ABORTED = "aborted"
    EXPIRED = "expired"

    @property
    def is_final(self) -> bool:
        """Tell whether a run in this state has ended."""
        return self in FINAL_STATES


FINAL_STATES = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.ABORTED, RunState.EXPIRED})


class StepState(StrEnum):
    """Where a step of a run stands."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"


class ErrorRecord(Model):
    """An error as it is shown everywhere: in runs and steps, and on standard error with `--json`."""

    kind: str
    message: str
    because: str = ""
    cure: str = Field(default="", alias="try")
    traceback: str = ""

    @classmethod
    def of(cls, error: BaseException, *, kind: str | None = None, with_traceback: bool = False) -> Self:
        """Describe an exception; one that Labwright does not know is a `bug` and brings its traceback."""
        if isinstance(error, LabwrightError):
            text = _traceback_of(error) if with_traceback else ""
            return cls(
                kind=kind or error.kind,
                message=_text(error.message)[:LONGEST],
                because=_text(error.because)[:LONGEST],
                cure=_text(error.cure)[:LONGEST],  # pyright: ignore[reportCallIssue] - pydantic takes the name too
                traceback=_text(text[-2 * LONGEST :]),
            )
        return cls(
            kind=kind or "bug",
            message=f"{type(error).__name__}: {_text(error)}"[:LONGEST],
            traceback=_text("".join(traceback.format_exception(error))[-2 * LONGEST :]),
        )


def _traceback_of(error: LabwrightError) -> str:
    """Write the traceback of an error without its own why and what to try, which stand beside it."""
    told = traceback.TracebackException.from_exception(error)
    told.__notes__ = []
    return "".join(told.format())


class Event(Model):
    """Something happened: a CloudEvents 1.0 record.

    `source` and `id` together are its identity. See https://github.com/cloudevents/spec, version 1.0.2.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    specversion: str = "1.0"
    id: str
    source: str
    type: str
    subject: str | None = None
    time: Instant
    datacontenttype: str | None = None
    data: Any = None


class Cause(Model):
    """Why a run exists: an event, a schedule's time point, a finished run (trigger), a parent run or an operator."""

    kind: str
    id: str
    source: str | None = None
    point: Instant | None = None
    """Of a schedule: the planned moment of its time point."""


class Target(Model):
    """What a run acts on, with the labels that choose it and the facts known about it."""

    name: str
    labels: dict[str, str] = Field(default_factory=dict)
    facts: dict[str, Any] = Field(default_factory=dict)


class RequestRecord(Model):
    """A request in JSON; `rules` lists who asked."""

    id: str = ""
    task: str
    params: dict[str, Any] = Field(default_factory=dict)
    on: str | None = None
    priority: int = 0
    not_before: Instant | None = None
    not_after: Instant | None = None
    key: str | None = None
    approve: bool = False
    rules: tuple[str, ...] = ()

    @classmethod
    def of(cls, request: Request, *, request_id: str = "", rules: tuple[str, ...] = ()) -> Self:
        """Describe a request."""
        return cls(
            id=request_id,
            task=request.task,
            params=dict(request.params),
            on=request.on,
            priority=request.priority,
            not_before=request.not_before,
            not_after=request.not_after,
            key=request.key,
            approve=request.approve,
            rules=rules,
        )

    def to_request(self) -> Request:
        """Make the request that this describes; raises UsageError where it is not valid."""
        return Request(
            self.task,
            on=self.on,
            priority=self.priority,
            not_before=self.not_before,
            not_after=self.not_after,
            key=self.key,
            approve=self.approve,
            params=self.params,
        )


class WaitingFor(Model):
    """What a waiting run waits for."""

    kind: str
    detail: str = ""
    seen: int = 0
    """Of kind `runs`: the sequence up to which the run has seen its children; it goes on once one ends after that."""


class Approval(Model):
    """That a person has let a run start: who, with which proven role (empty for the lab's own credential), and why."""

    by: str = ""
    role: str = ""
    reason: str = ""
    at: Instant


class Step(Model):
    """One step of a run, as far as it has come."""

    name: str
    position: int
    state: StepState = StepState.PENDING
    attempts: int = 0
    started_at: Instant | None = None
    ended_at: Instant | None = None
    output: Any = None
    note: str | None = None
    error: ErrorRecord | None = None
    finding: bool = False
    """Whether it is a check that found something due."""
    result: Any = None
    """What the step gave to `ctx.set_result`, as the result of the whole run."""
    caught: bool = False
    """Whether the task's function caught this failure and went on."""


class Run(Model):
    """One execution of one task on one target."""

    id: str
    task: str
    target: str | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    priority: int = 0
    key: str | None = None
    by: str = ""
    role: str = ""
    """That of the key with which somebody asked for it; empty for the lab's own credential, and for runs of runs."""
    state: RunState = RunState.PENDING
    cause: Cause
    parent: str | None = None
    attempt: int = 0
    requested_at: Instant
    started_at: Instant | None = None
    ended_at: Instant | None = None
    not_before: Instant | None = None
    not_after: Instant | None = None
    next_attempt_at: Instant | None = None
    waiting_for: WaitingFor | None = None
    approve: bool = False
    """Whether a person has to approve it before it starts."""
    approved: Approval | None = None
    worker: str | None = None
    result: Any = None
    note: str | None = None
    error: ErrorRecord | None = None
    steps: tuple[Step, ...] = ()
    finding: bool = False
    refused: ErrorRecord | None = None
    """Why the run could never start, where that was known when it was requested."""
    failures: int = 0
    """Failed attempts that were tried again, since the request or the last `runs retry`."""
    reopened: int = 0
    """How often `runs retry` has opened it again after its end."""
    alone: bool = False
    """Whether it was opened again when the run that made it had ended: an abort of that one does not concern it."""
    waits: dict[str, Instant] = Field(default_factory=dict)
    """Until when each durable sleep lasts, by `position:number`."""
    lost_in_step: int = 0
    """Attempts lost to dead workers since the last recorded step."""
    token: int = 0
    """Sequence of the newest hand-out that counts; only its attempt may write."""
    aborting: str | None = None
    """Why the run is to end early, once somebody has asked for it."""
    stuck: RunState | None = None
    """How the run ends as soon as the worker that cannot stop its step is gone."""
    content: str = ""

    @property
    def awaits_approval(self) -> bool:
        """Tell whether it must not start before a person has approved it."""
        return self.approve and self.approved is None


class OperationKind(StrEnum):
    """What an operation is: a task ends by itself, a process runs until it is stopped."""

    TASK = "task"
    PROCESS = "process"


class SessionState(StrEnum):
    """Where a session of an operation stands."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ABORTED = "aborted"
    LOST = "lost"

    @property
    def is_final(self) -> bool:
        """Tell whether a session in this state has ended."""
        return self in FINAL_SESSION_STATES


FINAL_SESSION_STATES = frozenset({SessionState.SUCCEEDED, SessionState.FAILED, SessionState.ABORTED, SessionState.LOST})


class SessionMessage(Model):
    """One line that an operation said about itself."""

    at: Instant
    text: str


class Progress(Model):
    """How far something is: `done` of `total` (None: unknown), in whatever unit `text` names."""

    done: float
    total: float | None = None
    text: str = ""


class SessionSnapshot(Model):
    """One execution of an operation on an agent, as it stands at a moment.

    `data` is what the operation shows while it runs, `result` or `error` what it ended with; `run` is the run whose
    step asked for it. `messages` are the newest ones, `messages_dropped` counts those before them.
    """

    id: str
    agent: str
    operation: str
    kind: OperationKind = OperationKind.TASK
    state: SessionState = SessionState.STARTING
    params: dict[str, Any] = Field(default_factory=dict)
    key: str | None = None
    run: str | None = None
    by: str = ""
    started_at: Instant
    ended_at: Instant | None = None
    messages: tuple[SessionMessage, ...] = ()
    messages_dropped: int = 0
    data: dict[str, Any] = Field(default_factory=dict)
    progress: Progress | None = None
    result: Any = None
    error: ErrorRecord | None = None
    note: str | None = None
    content: str = ""
    """Recognises the same id with other parameters."""


class FileEntry(Model):
    """A file that an instrument has written, as it was announced.

    `path` is as announced on `host`, however odd; `size` (bytes) and `sha256` are None while they are not known, and
    `note` says why where they never will be. `action` and `action_at` group the files of one action.
    """

    id: str
    path: str
    agent: str
    session: str | None = None
    source: str = ""
    kind: str = ""
    format: str = ""
    archive: str = ""
    action: str = ""
    action_at: Instant | None = None
    written_at: Instant | None = None
    registered_at: Instant
    host: str = ""
    is_plot: bool = False
    size: int | None = None
    sha256: str | None = None
    note: str | None = None


class AgentStay(Model):
    """One agent, from when it was seen to come to when it was seen to go.

    With `is_found` the lab found it here when it began to look: `came_at` is that moment, or None where nothing is left
    of it, and `since` says when its process began. `why` it is gone: `farewell`, `silent` (killed, frozen or cut off),
    `replaced` by another of its name, or `unseen`: it went while no lab looked, and `gone_at` is when that was found.
    """

    agent: str
    class_name: str = Field(default="", alias="class")
    labels: dict[str, str] = Field(default_factory=dict)
    host: str = ""
    pid: int | None = None
    version: str = ""
    identity: str = ""
    since: str | None = None
    came_at: Instant | None = None
    is_found: bool = False
    gone_at: Instant | None = None
    why: str | None = None


def _text(value: object) -> str:
    """Make text that JSON can carry: a stranger's message may be no string, or hold half a surrogate pair."""
    try:
        return str(value).encode("utf-8", "backslashreplace").decode()
    except Exception:  # noqa: BLE001 - a stranger's __str__ may raise anything
        return "(its text cannot be read)"


def utc_now() -> datetime:
    """Tell the wall-clock time; for defaults only, loops take a clock."""
    return datetime.now(UTC)
