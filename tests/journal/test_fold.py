"""The one fold: whatever comes in whatever order, the state of a run stays sound."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from labwright.core.model import ErrorRecord, Run, RunState, StepState, WaitingFor
from labwright.journal.fold import apply, fold, is_open_attempt
from labwright.journal.records import (
    Aborting,
    AttemptLost,
    Finished,
    Record,
    Reopened,
    Requested,
    Retrying,
    Snapshot,
    Started,
    StepEnded,
    Stuck,
    UnknownRecord,
    Waiting,
)
from tests.journal.history import BY_CLASS, NOW, any_record, ended, requested, run_records, started

histories = st.builds(lambda first, more: [first, *more], BY_CLASS[Requested], st.lists(run_records, max_size=12))
ERROR = ErrorRecord(kind="transient", message="busy")


def folded(*records: Record) -> Run:
    run = fold([requested(), *records], "r")
    assert run is not None
    return run


@given(st.lists(any_record, max_size=12))
def test_any_records_in_any_order_fold(records: list[Record]) -> None:
    fold(records, "r")


@given(histories, any_record)
def test_an_ended_run_is_changed_by_reopening_only(records: list[Record], more: Record) -> None:
    run = fold(records, "r")
    assert run is not None
    after = apply(run, more, "r")
    if run.state.is_final and not isinstance(more, Reopened):
        assert after == run


@given(histories)
def test_a_snapshot_says_what_came_before_it(records: list[Record]) -> None:
    run = fold(records, "r")
    assert run is not None
    assert fold([Snapshot(run=run)], "r") == run
    assert fold([*records, Snapshot(run=run)], "r") == run


@given(histories, st.integers(0, 12))
def test_a_fold_can_start_at_any_snapshot(records: list[Record], place: int) -> None:
    before = fold(records[: place + 1], "r")
    assert before is not None
    assert fold([Snapshot(run=before), *records[place + 1 :]], "r") == fold(records, "r")


@given(histories, run_records)
def test_a_late_word_of_a_closed_attempt_changes_nothing(records: list[Record], late: Record) -> None:
    run = fold(records, "r")
    assert run is not None
    token: int = getattr(late, "token", 0)
    belongs_to_an_attempt = not isinstance(late, Reopened | AttemptLost | Started) and token > 0
    if belongs_to_an_attempt and not is_open_attempt(run, token):
        assert apply(run, late, "r") == run
    if isinstance(late, Started) and late.token <= run.token:
        assert apply(run, late, "r") == run
    if isinstance(late, AttemptLost) and late.token < run.token:
        assert apply(run, late, "r") == run


@given(histories)
def test_an_unknown_record_is_skipped(records: list[Record]) -> None:
    with_unknown = [each for record in records for each in (record, UnknownRecord(type="of the future"))]
    assert fold(with_unknown, "r") == fold(records, "r")


@given(histories)
def test_the_token_never_goes_back(records: list[Record]) -> None:
    run: Run | None = None
    for record in records:
        before, run = run, apply(run, record, "r")
        assert run is not None
        assert before is None or run.token >= before.token


@given(st.lists(run_records.filter(lambda record: not isinstance(record, Requested)), max_size=5))
def test_only_a_request_or_a_snapshot_begins_a_run(records: list[Record]) -> None:
    assert fold(records, "r") is None


def test_a_run_goes_from_request_to_end() -> None:
    run = folded(started(10, "a", "b"), ended(10, 0, "a", 1))
    assert run.state is RunState.RUNNING
    assert [step.state for step in run.steps] == [StepState.SUCCEEDED, StepState.PENDING]
    run = folded(started(10, "a", "b"), ended(10, 0, "a", 1), Finished(token=10, state="succeeded", result=2))
    assert (run.state, run.result, run.attempt) == (RunState.SUCCEEDED, 2, 1)


def test_steps_that_a_success_has_left_out_are_skipped_and_those_of_a_failure_are_still_to_come() -> None:
    begun = (started(10, "a", "b"), ended(10, 0, "a", 1))
    run = folded(*begun, Finished(token=10, state="succeeded"))
    assert [step.state for step in run.steps] == [StepState.SUCCEEDED, StepState.SKIPPED]
    run = folded(*begun, Finished(token=10, state="failed"))
    assert [step.state for step in run.steps] == [StepState.SUCCEEDED, StepState.PENDING]


def test_a_lost_attempt_is_counted_until_a_step_is_recorded() -> None:
    run = folded(started(10, "a", "b"), AttemptLost(token=10), started(20, attempt=2), AttemptLost(token=20))
    assert (run.state, run.lost_in_step, run.attempt) == (RunState.PENDING, 2, 2)
    run = folded(started(10, "a", "b"), AttemptLost(token=10), started(20, attempt=2), ended(20, 0, "a"))
    assert run.lost_in_step == 0


def test_an_attempt_given_back_in_good_order_is_not_counted() -> None:
    assert folded(started(10, "a"), AttemptLost(token=10, counts=False)).lost_in_step == 0


def test_a_wait_frees_the_worker_and_is_remembered() -> None:
    until = NOW + timedelta(hours=1)
    run = folded(
        started(10, "a"),
        Waiting(token=10, until=until, waiting_for=WaitingFor(kind="sleep"), position=0, number=0),
    )
    assert (run.state, run.worker, run.next_attempt_at) == (RunState.WAITING, None, until)
    assert run.waits == {"0:0": until}


def test_a_stuck_run_ends_once_its_worker_is_gone() -> None:
    stuck = Stuck(token=10, state="aborted", error=ERROR)
    assert folded(started(10, "a"), stuck).state is RunState.RUNNING
    assert folded(started(10, "a"), stuck, AttemptLost(token=10)).state is RunState.ABORTED


def test_a_retry_keeps_the_finished_steps() -> None:
    records = [started(10, "a", "b"), ended(10, 0, "a"), Finished(token=10, state="failed", error=ERROR)]
    run = folded(*records, Reopened(token=30))
    assert run.state is RunState.PENDING
    assert [step.state for step in run.steps] == [StepState.SUCCEEDED, StepState.PENDING]
    assert folded(*records, Reopened(token=30, from_start=True)).steps == ()


def test_a_hand_out_made_before_the_end_does_not_start_a_reopened_run() -> None:
    """Else a run could act on a target that was given to another meanwhile."""
    run = folded(Aborting(), Finished(state="aborted"), Reopened(token=12))
    assert apply(run, started(10, "a"), "r") == run
    assert folded(Aborting(), Finished(state="aborted"), Reopened(token=12), started(20, "a")).state is RunState.RUNNING


def test_a_failure_that_may_pass_is_counted_against_the_policy() -> None:
    run = folded(started(10, "a"), Retrying(token=10, error=ERROR, next_attempt_at=NOW))
    assert (run.state, run.failures, run.worker) == (RunState.RETRYING, 1, None)


def test_steps_of_a_function_grow_as_it_goes() -> None:
    run = folded(started(10), ended(10, 0, "a"), ended(10, 1, "b"))
    assert [step.name for step in run.steps] == ["a", "b"]
    assert isinstance(ended(10, 0, "a"), StepEnded)
