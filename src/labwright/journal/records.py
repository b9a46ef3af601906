"""What the journal holds: small, typed, versioned, tagged records, one class for each thing that can happen.

The field `type` tells the class apart. A record of a type that this version does not know becomes an `UnknownRecord`,
which every fold skips; fields that it does not know are ignored.
"""

# pyright: reportIncompatibleVariableOverride=none
# (each class narrows its tag; that is sound because records are frozen)

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, TypeAdapter, ValidationError

from labwright.core.ids import new_id
from labwright.core.model import (
    Cause,
    ErrorRecord,
    Event,
    FileEntry,
    Instant,
    Model,
    OperationKind,
    Progress,
    Run,
    SessionMessage,
    Step,
    WaitingFor,
    utc_now,
)
from labwright.plan.durable import DuePoint, MissedPoint, ScheduleDefinition


class Record(Model):
    """What all records have: an id made before the first try to write it, and a moment."""

    whole: ClassVar[frozenset[str]] = frozenset()
    """Fields whose type is known, so that a reader must get them back where they were too large as a whole."""

    type: str
    v: int = 1
    record_id: str = Field(default_factory=lambda: new_id("rec"))
    at: Instant = Field(default_factory=utc_now)


class UnknownRecord(Record):
    """A record of a type that a newer version writes."""


# --- event.<key> -----------------------------------------------------------------------------------------------------


class Received(Record):
    """An event came in; `content` recognises the same identity with other content."""

    whole = frozenset({"event"})

    type: Literal["received"] = "received"
    event: Event
    content: str
    by: str = ""


class PlannedRunRecord(Model):
    """A run that a decision causes: `request` is the index of its request; with `error` it fails at once."""

    id: str
    request: int
    target: str | None = None
    error: ErrorRecord | None = None


class Decided(Record):
    """All rules have seen an event: the decision, and the runs that must follow from it (an outbox).

    The decision is JSON text in the shape of the reference: it is written and shown as it is, and seldom read.
    """

    whole = frozenset({"decision_json", "runs"})

    type: Literal["decided"] = "decided"
    decision_json: str
    runs: tuple[PlannedRunRecord, ...] = ()


class SetAside(Record):
    """An event was given up: deciding it killed the process, or hung, `tries` times."""

    type: Literal["set_aside"] = "set_aside"
    tries: int
    error: ErrorRecord


class Released(Record):
    """An operator wants an event that was set aside to be decided once more."""

    type: Literal["released"] = "released"
    by: str = ""


# --- run.<id> --------------------------------------------------------------------------------------------------------


class Requested(Record):
    """A run was asked for; `content` recognises the same id with other content.

    `role` is that of the key with which it was asked for, empty for the lab's own credential, and for runs that a task
    of the site makes; what somebody has run on a fleet keeps it.
    """

    type: Literal["requested"] = "requested"
    task: str
    target: str | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    priority: int = 0
    not_before: Instant | None = None
    not_after: Instant | None = None
    key: str | None = None
    by: str = ""
    role: str = ""
    origin: str = ""
    cause: Cause
    parent: str | None = None
    approve: bool = False
    """Whether a person has to approve the run before it starts."""
    content: str = ""
    error: ErrorRecord | None = None
    """Why the run cannot be started at all; it then fails at once."""


class Approved(Record):
    """A person lets the run start; `role` is proven, empty for the lab's own credential."""

    type: Literal["approved"] = "approved"
    by: str = ""
    role: str = ""
    reason: str = ""


class Started(Record):
    """A worker took the run up, under the hand-out whose sequence is `token`; `steps` only where they are new."""

    whole = frozenset({"steps"})

    type: Literal["started"] = "started"
    token: int
    attempt: int
    worker: str
    steps: tuple[str, ...] | None = None


class StepStarted(Record):
    """A step that must not be repeated is about to run."""

    type: Literal["step_started"] = "step_started"
    token: int
    step: Step


class StepEnded(Record):
    """A step has ended, and will not run again."""

    type: Literal["step_ended"] = "step_ended"
    token: int
    step: Step


class Waiting(Record):
    """The run gives its worker back until a moment; target and locks stay its own."""

    type: Literal["waiting"] = "waiting"
    token: int
    until: Instant
    waiting_for: WaitingFor
    position: int
    number: int
    step: Step | None = None


class Retrying(Record):
    """The attempt failed with an error that may pass; the next one is due at `next_attempt_at`."""

    type: Literal["retrying"] = "retrying"
    token: int
    error: ErrorRecord
    next_attempt_at: Instant
    step: Step | None = None


class Aborting(Record):
    """Somebody wants the run ended early."""

    type: Literal["aborting"] = "aborting"
    by: str = ""
    reason: str = ""


class Stuck(Record):
    """A step did not end when it had to: its worker ends hard, and then the run ends in this way."""

    type: Literal["stuck"] = "stuck"
    token: int
    state: Literal["failed", "aborted"]
    error: ErrorRecord
    step: Step | None = None


class AttemptLost(Record):
    """The worker of an attempt is gone; whatever it still says does not count.

    `counts` is False where a worker that was told to end gave the run back in good order.
    """

    type: Literal["attempt_lost"] = "attempt_lost"
    token: int
    reason: str = ""
    counts: bool = True


class Finished(Record):
    """The run has ended; `step` is its last step, `token` is zero where no worker was in it."""

    type: Literal["finished"] = "finished"
    token: int = 0
    state: Literal["succeeded", "failed", "aborted", "expired"]
    result: Any = None
    error: ErrorRecord | None = None
    note: str | None = None
    finding: bool = False
    step: Step | None = None


class Reopened(Record):
    """An operator wants an ended run to be tried again, from the step that failed or from the start.

    `token` is the sequence of the run's end: hand-outs made before do not count any more. A run that is opened `alone`
    goes on although the one that made it has ended, and may have been aborted.
    """

    type: Literal["reopened"] = "reopened"
    token: int = 0
    by: str = ""
    from_start: bool = False
    alone: bool = False


class Snapshot(Record):
    """The whole state of a run, so that what came before may leave the journal."""

    whole = frozenset({"run"})

    type: Literal["snapshot"] = "snapshot"
    run: Run


# --- dispatch.<partition> --------------------------------------------------------------------------------------------


class Led(Record):
    """A dispatcher has taken the lead; what an older one decides from here on does not exist."""

    type: Literal["led"] = "led"
    leader: str


class HandOut(Model):
    """One run for one worker of a pool."""

    run: str
    attempt: int
    target: str | None = None
    locks: tuple[str, ...] = ()
    pool: str = "default"


class HandedOut(Record):
    """These runs may start; the sequence of this record is the token of each."""

    whole = frozenset({"items"})

    type: Literal["handed_out"] = "handed_out"
    leader: str
    items: tuple[HandOut, ...]


# --- pool.<name>, audit.<...>, claim.all --------------------------------------------------------------------------


class PoolChanged(Record):
    """A pool was paused (nothing new starts), drained (the same, until all has ended) or resumed."""

    type: Literal["pool_changed"] = "pool_changed"
    pool: str
    state: Literal["active", "paused", "draining"]
    by: str = ""


class ClockStepped(Record):
    """The wall clock of a host was set by more than five seconds, forwards or (negative) backwards."""

    type: Literal["clock_stepped"] = "clock_stepped"
    host: str
    by_s: float


class Refused(Record):
    """Somebody asked for something that was refused; `role` is proven, empty for the lab's own credential.

    `agent` is the one that refused it, empty where the lab or nats-server did. `origin` is where it came from, as they
    say themselves.
    """

    type: Literal["refused"] = "refused"
    what: str
    by: str = ""
    role: str = ""
    origin: str = ""
    agent: str = ""
    error: ErrorRecord


class ClaimEntry(Model):
    """One claim in force: for so many `seconds` since it was made or renewed, of which `left_s` were left.

    `names` are those whom the selector chose by labels: an agent does not know what the site calls it beside its own.
    """

    id: str
    selector: str
    by: str
    since: Instant
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    left_s: Annotated[float, Field(allow_inf_nan=False)]
    reason: str = ""
    names: tuple[str, ...] = ()


class ClaimsChanged(Record):
    """A claim was made, renewed, or given back (by its holder or an admin); `claims` are all that are in force then."""

    type: Literal["claims_changed"] = "claims_changed"
    did: Literal["claimed", "renewed", "released"]
    claim: str
    selector: str = ""
    by: str = ""
    reason: str = ""
    claims: tuple[ClaimEntry, ...] = ()


# --- session.<agent>.<id> --------------------------------------------------------------------------------------------


class SessionStarted(Record):
    """An agent began a session; `content` recognises the same id with other parameters.

    `token` is that of the run's attempt that asked for it, zero where no run did. `origin` is host and process of who
    asked, as they say themselves.
    """

    type: Literal["session_started"] = "session_started"
    agent: str
    operation: str
    kind: OperationKind
    params: dict[str, Any] = Field(default_factory=dict)
    key: str | None = None
    run: str | None = None
    step: str | None = None
    token: int = 0
    by: str = ""
    origin: str = ""
    content: str = ""


class SessionChanged(Record):
    """What a session shows has changed: `data` as a whole, `messages` since the record before; written seldom."""

    type: Literal["session_changed"] = "session_changed"
    state: Literal["running", "stopping"] = "running"
    data: dict[str, Any] | None = None
    messages: tuple[SessionMessage, ...] = ()
    progress: Progress | None = None


class SessionAdopted(Record):
    """The agent came back and found what it had begun still going on."""

    type: Literal["session_adopted"] = "session_adopted"
    note: str = ""


class SessionEnded(Record):
    """A session has ended, with a result or with an error; `data` and `messages` as in `SessionChanged`."""

    type: Literal["session_ended"] = "session_ended"
    state: Literal["succeeded", "failed", "aborted", "lost"]
    result: Any = None
    error: ErrorRecord | None = None
    data: dict[str, Any] | None = None
    messages: tuple[SessionMessage, ...] = ()
    progress: Progress | None = None
    note: str | None = None


# --- file.<id> -------------------------------------------------------------------------------------------------------


class FileRegistered(Record):
    """An instrument has announced a file; a second record of it brings what was found out later."""

    type: Literal["file_registered"] = "file_registered"
    file: FileEntry


# --- agent.<name> ----------------------------------------------------------------------------------------------------


class AgentCame(Record):
    """An agent was seen to come, or (`is_found`) was here already when a lab began to look.

    `owner` is what one stay of one process is recognised by; `since` is when the process began, as it says.
    """

    type: Literal["agent_came"] = "agent_came"
    owner: str
    class_name: str = Field(default="", alias="class")
    labels: dict[str, str] = Field(default_factory=dict)
    host: str = ""
    pid: int | None = None
    version: str = ""
    identity: str = ""
    since: str | None = None
    is_found: bool = False


class AgentGone(Record):
    """An agent said farewell, fell silent, was replaced by another of its name, or went while no lab looked."""

    type: Literal["agent_gone"] = "agent_gone"
    owner: str = ""
    why: Literal["farewell", "silent", "replaced", "unseen"]


# --- schedule.<name> -------------------------------------------------------------------------------------------------


class ScheduleDefined(Record):
    """A durable schedule was added or changed; its points count from this moment.

    `origin` is `site` where the site's package holds it, else `operator`; `role` is that of the key with which it was
    added, empty for the lab's own credential and for the site.
    """

    whole = frozenset({"definition"})

    type: Literal["schedule_defined"] = "schedule_defined"
    definition: ScheduleDefinition
    origin: Literal["operator", "site"] = "operator"
    by: str = ""
    role: str = ""


class SchedulePaused(Record):
    """No planned point is made until the schedule is resumed; `reason` where no person wanted that."""

    type: Literal["schedule_paused"] = "schedule_paused"
    by: str = ""
    reason: str = ""


class ScheduleResumed(Record):
    """A paused schedule goes on."""

    type: Literal["schedule_resumed"] = "schedule_resumed"
    by: str = ""


class ScheduleSkipped(Record):
    """The next `count` points are to be left out."""

    type: Literal["schedule_skipped"] = "schedule_skipped"
    count: Annotated[int, Field(ge=1)] = 1
    by: str = ""


class ScheduleFired(Record):
    """Somebody wants a point now; the record's id tells it from others."""

    type: Literal["schedule_fired"] = "schedule_fired"
    by: str = ""


class ScheduleRemoved(Record):
    """A durable schedule is no more; its name may be used again."""

    type: Literal["schedule_removed"] = "schedule_removed"
    by: str = ""


class ScheduleTicked(Record):
    """All points up to `watermark` are settled: they have their runs, a row in `missed`, or a place in `waiting`.

    `fired` are the acts whose points have got their runs; `skips` is how many of the next points are to be left out.
    """

    whole = frozenset({"missed", "waiting"})

    type: Literal["schedule_ticked"] = "schedule_ticked"
    generation: str
    watermark: Instant
    missed: tuple[MissedPoint, ...] = ()
    waiting: tuple[DuePoint, ...] = ()
    skips: int = 0
    fired: tuple[str, ...] = ()


AnyRecord = (
    Received
    | Decided
    | SetAside
    | Released
    | Requested
    | Approved
    | Started
    | StepStarted
    | StepEnded
    | Waiting
    | Retrying
    | Aborting
    | Stuck
    | AttemptLost
    | Finished
    | Reopened
    | Snapshot
    | Led
    | HandedOut
    | PoolChanged
    | ClockStepped
    | Refused
    | ClaimsChanged
    | SessionStarted
    | SessionChanged
    | SessionAdopted
    | SessionEnded
    | FileRegistered
    | AgentCame
    | AgentGone
    | ScheduleDefined
    | SchedulePaused
    | ScheduleResumed
    | ScheduleSkipped
    | ScheduleFired
    | ScheduleRemoved
    | ScheduleTicked
)

_ADAPTER: TypeAdapter[Record] = TypeAdapter(Annotated[AnyRecord, Field(discriminator="type")])
_CLASSES: dict[str, type[Record]] = {
    cls.model_fields["type"].default: cls
    for cls in AnyRecord.__args__  # the members of the union, which are classes of this module
}


def encode(record: Record) -> bytes:
    """Write a record as JSON, without the fields that have their defaults."""
    return (
        record.model_dump_json(exclude_defaults=True, by_alias=True)
        .replace("{", f'{{"type":"{record.type}",', 1)
        .encode()
    )


def decode(data: bytes) -> Record:
    """Read a record; one that this version cannot understand becomes an `UnknownRecord`."""
    try:
        return _ADAPTER.validate_json(data)
    except ValidationError:
        try:
            return UnknownRecord.model_validate_json(data)
        except ValidationError:
            return UnknownRecord(type="unreadable")


def whole_fields(record_type: str) -> frozenset[str] | None:
    """Tell which fields of records of that type a reader must get back where they were cut out as a whole.

    None for a type that this version does not know.
    """
    cls = _CLASSES.get(record_type)
    return cls.whole if cls else None
