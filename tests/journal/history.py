"""Records for the tests of the journal: made by hand, and by hypothesis."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from hypothesis import strategies as st

from labwright.core.model import (
    Cause,
    ErrorRecord,
    Event,
    FileEntry,
    OperationKind,
    Progress,
    Run,
    RunState,
    SessionMessage,
    Step,
    StepState,
    WaitingFor,
)
from labwright.journal import records
from labwright.journal.records import Record, Requested
from labwright.plan.durable import MissedPoint, PointOutcome, ScheduleDefinition
from labwright.plan.policies import Overlap

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OPERATOR = Cause(kind="operator", id="anna@lab")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
names = st.text("abc.-_:1", min_size=1, max_size=6)
moments = st.integers(0, 10**9).map(lambda seconds: NOW + timedelta(microseconds=seconds * 1000))
tokens = st.integers(0, 6)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
json_objects = st.dictionaries(texts, json_values, max_size=3)
errors = st.builds(ErrorRecord, kind=names, message=texts, because=texts, traceback=texts)
steps = st.builds(
    Step,
    name=names,
    position=st.integers(0, 4),
    state=st.sampled_from(StepState),
    attempts=st.integers(0, 3),
    started_at=st.none() | moments,
    output=json_values,
    note=st.none() | texts,
    error=st.none() | errors,
)
causes = st.builds(Cause, kind=st.sampled_from(["event", "operator", "run"]), id=names, source=st.none() | names)
runs = st.builds(
    Run,
    id=names,
    task=names,
    params=json_objects,
    state=st.sampled_from(RunState),
    cause=causes,
    requested_at=moments,
    steps=st.lists(steps, max_size=2).map(tuple),
    token=tokens,
    waits=st.dictionaries(names, moments, max_size=2),
    stuck=st.none() | st.sampled_from([RunState.FAILED, RunState.ABORTED]),
)
events = st.builds(Event, id=names, source=names, type=names, subject=st.none() | texts, time=moments, data=json_values)
messages = st.lists(st.builds(SessionMessage, at=moments, text=texts), max_size=2).map(tuple)
progress = st.builds(Progress, done=st.floats(0, 1e6), total=st.none() | st.floats(0, 1e6), text=texts)
common = {"record_id": names, "at": moments}


definitions = st.builds(
    ScheduleDefinition,
    task=names,
    on=st.none() | names,
    params=json_objects,
    points=st.just({"every": 60.0, "after": 60.0}),
    overlap=st.sampled_from(Overlap),
    window_s=st.none() | st.integers(0, 100),
)


def built(kind: type[Record], /, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Record]:
    return st.builds(kind, **common, **fields)


BY_CLASS: dict[type[Record], st.SearchStrategy[Record]] = {
    kind: built(kind, **fields)
    for kind, fields in cast(
        "dict[type[Record], dict[str, st.SearchStrategy[Any]]]",
        {
            records.Received: {"event": events, "content": texts, "by": texts},
            records.Decided: {
                "decision_json": json_objects.map(json.dumps),
                "runs": st.lists(
                    st.builds(records.PlannedRunRecord, id=names, request=st.integers(0, 3), error=st.none() | errors),
                    max_size=2,
                ).map(tuple),
            },
            records.SetAside: {"tries": st.integers(1, 3), "error": errors},
            records.Released: {"by": texts},
            records.Requested: {
                "task": names,
                "target": st.none() | names,
                "params": json_objects,
                "priority": st.integers(-3, 3),
                "not_before": st.none() | moments,
                "not_after": st.none() | moments,
                "key": st.none() | texts,
                "cause": causes,
                "approve": st.booleans(),
                "error": st.none() | errors,
            },
            records.Approved: {"by": texts, "role": names, "reason": texts},
            records.Started: {
                "token": tokens,
                "attempt": st.integers(1, 4),
                "worker": names,
                "steps": st.none() | st.lists(names, max_size=3).map(tuple),
            },
            records.StepStarted: {"token": tokens, "step": steps},
            records.StepEnded: {"token": tokens, "step": steps},
            records.Waiting: {
                "token": tokens,
                "until": moments,
                "waiting_for": st.builds(WaitingFor, kind=names, detail=texts),
                "position": st.integers(-1, 4),
                "number": st.integers(0, 3),
                "step": st.none() | steps,
            },
            records.Retrying: {
                "token": tokens,
                "error": errors,
                "next_attempt_at": moments,
                "step": st.none() | steps,
            },
            records.Aborting: {"by": texts, "reason": texts},
            records.Stuck: {
                "token": tokens,
                "state": st.sampled_from(["failed", "aborted"]),
                "error": errors,
                "step": st.none() | steps,
            },
            records.AttemptLost: {"token": tokens, "reason": texts, "counts": st.booleans()},
            records.Finished: {
                "token": tokens,
                "state": st.sampled_from(["succeeded", "failed", "aborted", "expired"]),
                "result": json_values,
                "error": st.none() | errors,
                "note": st.none() | texts,
                "finding": st.booleans(),
                "step": st.none() | steps,
            },
            records.Reopened: {"by": texts, "from_start": st.booleans(), "token": tokens},
            records.Snapshot: {"run": runs},
            records.Led: {"leader": names},
            records.HandedOut: {
                "leader": names,
                "items": st.lists(
                    st.builds(records.HandOut, run=names, attempt=st.integers(1, 3), target=st.none() | names),
                    max_size=2,
                ).map(tuple),
            },
            records.PoolChanged: {"pool": names, "state": st.sampled_from(["active", "paused", "draining"])},
            records.ClockStepped: {"host": names, "by_s": st.floats(-1e6, 1e6)},
            records.Refused: {"what": texts, "error": errors},
            records.ClaimsChanged: {"did": st.sampled_from(["claimed", "renewed", "released"]), "claim": names},
            records.SessionStarted: {
                "agent": names,
                "operation": names,
                "kind": st.sampled_from(OperationKind),
                "params": json_objects,
                "key": st.none() | texts,
                "run": st.none() | names,
                "token": tokens,
                "by": texts,
            },
            records.SessionChanged: {
                "state": st.sampled_from(["running", "stopping"]),
                "data": st.none() | json_objects,
                "messages": messages,
                "progress": st.none() | progress,
            },
            records.SessionAdopted: {"note": texts},
            records.SessionEnded: {
                "state": st.sampled_from(["succeeded", "failed", "aborted", "lost"]),
                "result": json_values,
                "error": st.none() | errors,
                "data": st.none() | json_objects,
                "messages": messages,
                "progress": st.none() | progress,
                "note": st.none() | texts,
            },
            records.FileRegistered: {
                "file": st.builds(FileEntry, id=names, path=texts, agent=names, registered_at=moments)
            },
            records.AgentCame: {
                "owner": names,
                "class_name": texts,
                "labels": st.dictionaries(texts, texts, max_size=3),
                "pid": st.none() | st.integers(0, 2**22),
                "since": st.none() | texts,
                "is_found": st.booleans(),
            },
            records.AgentGone: {
                "owner": names,
                "why": st.sampled_from(["farewell", "silent", "replaced", "unseen"]),
            },
            records.ScheduleDefined: {"definition": definitions, "by": texts, "role": texts},
            records.SchedulePaused: {"by": texts, "reason": texts},
            records.ScheduleResumed: {"by": texts},
            records.ScheduleSkipped: {"count": st.integers(1, 9), "by": texts},
            records.ScheduleFired: {"by": texts},
            records.ScheduleRemoved: {"by": texts},
            records.ScheduleTicked: {
                "generation": names,
                "watermark": moments,
                "missed": st.lists(
                    st.builds(
                        MissedPoint,
                        planned_at=moments,
                        due_at=moments,
                        name=texts,
                        outcome=st.sampled_from(PointOutcome),
                        reason=texts,
                    ),
                    max_size=2,
                ).map(tuple),
                "skips": st.integers(0, 3),
                "fired": st.lists(names, max_size=2).map(tuple),
            },
        },
    ).items()
}

any_record = st.one_of(list(BY_CLASS.values()))
run_records = st.one_of([BY_CLASS[kind] for kind in BY_CLASS if kind is not records.Snapshot]) | st.builds(
    records.UnknownRecord, type=names
)


def requested(task: str = "measure", **fields: Any) -> Requested:
    return Requested(task=task, cause=OPERATOR, content=task, at=NOW, **fields)


def started(token: int, *names: str, attempt: int = 1) -> records.Started:
    return records.Started(token=token, attempt=attempt, worker="w1", steps=names or None)


def ended(token: int, position: int, name: str, output: Any = None) -> records.StepEnded:
    return records.StepEnded(
        token=token, step=Step(name=name, position=position, state=StepState.SUCCEEDED, output=output, attempts=1)
    )
