"""Which record each end of an attempt becomes."""

from typing import Any

import pytest

from labwright.core.model import ErrorRecord, RunState, WaitingFor
from labwright.journal import records
from labwright.journal.fold import apply
from labwright.run.execution import Aborted, End, Failed, RetryLater, Stuck, Succeeded, Waiting
from labwright.run.recording import record_of
from tests.run.memory import AT, make_run

ERROR = ErrorRecord(kind="bug", message="bug")


@pytest.mark.parametrize(
    ("end", "state"),
    [
        (Succeeded(result=5, note="n", finding=True), RunState.SUCCEEDED),
        (Failed(error=ERROR), RunState.FAILED),
        (Aborted(reason="enough"), RunState.ABORTED),
        (RetryLater(error=ERROR, at=AT), RunState.RETRYING),
        (Waiting(until=AT, waiting_for=WaitingFor(kind="sleep"), position=0, number=0), RunState.WAITING),
        (Stuck(reason="timeout", error=ERROR), RunState.RUNNING),
    ],
)
def test_an_end_brings_the_run_into_its_state(end: End, state: RunState) -> None:
    run = make_run(state=RunState.RUNNING, token=7)

    after = apply(run, record_of(end, 7), run.id)

    assert after is not None
    assert after.state is state


@pytest.mark.parametrize(("reason", "state"), [("timeout", RunState.FAILED), ("aborted", RunState.ABORTED)])
def test_a_stuck_run_ends_when_its_worker_is_gone(reason: Any, state: RunState) -> None:
    run = make_run(state=RunState.RUNNING, token=7)

    stuck = apply(run, record_of(Stuck(reason=reason, error=ERROR), 7), run.id)
    after = apply(stuck, records.AttemptLost(token=7), run.id)

    assert after is not None
    assert (after.state, after.error) == (state, ERROR)
