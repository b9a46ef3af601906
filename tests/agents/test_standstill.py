"""A process that was stopped does not do afterwards what was asked meanwhile, once nobody waits for it any more."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from labwright.agents.asking import _aged
from labwright.agents.handle import AgentHandle
from labwright.agents.standstill import BEAT_S, OLD_FOR_S, Standstill
from labwright.core.errors import LabwrightError, RefusedError, UnreachableError
from tests.agents.conftest import LONG_S, Start
from tests.support.waiting import until


def test_a_loop_that_was_awake_takes_in_what_is_new() -> None:
    now = 100.0
    standstill = Standstill(lambda: now)
    now += BEAT_S
    assert standstill.age_s == 0


def test_what_is_taken_in_just_after_a_standstill_may_be_as_old() -> None:
    now = 100.0
    standstill = Standstill(lambda: now)
    now += 12
    assert standstill.age_s == 12
    now += OLD_FOR_S / 2
    standstill.beat()
    assert standstill.age_s == 12
    now += OLD_FOR_S
    standstill.beat()
    assert standstill.age_s == 0


def test_a_command_that_is_repeated_is_waited_for_however_late_it_is() -> None:
    assert _aged({"do": "start", "within_s": 2.0}, 1.5)["within_s"] == 0.5
    assert _aged({"do": "start", "within_s": 2.0}, 3.0)["within_s"] > 0
    with pytest.raises(RefusedError, match="expired"):
        _aged({"do": "start", "within_s": 2.0, "valid_for_s": 2.0}, 3.0)


async def test_a_command_to_a_stopped_agent_is_not_followed_after_its_sender_has_given_up(
    start_agent: Start, handle: Callable[..., AgentHandle]
) -> None:
    agent = await start_agent("tests.agents.instrument:Instrument")
    await until(lambda: _answers(handle()))
    agent.kill(signal.SIGSTOP)
    try:
        with pytest.raises(UnreachableError, match="did not answer") as caught:
            await handle(patience_s=3.0).nothing.with_options(session="ses_late").start()
        assert "ses_late" in caught.value.cure
    finally:
        agent.kill(signal.SIGCONT)
    await until(lambda: _answers(handle()))
    assert await handle().nothing.status() is None
    assert (await handle().nothing.with_options(session="ses_late").start()).id == "ses_late"
    assert (await handle().session("ses_late").wait(LONG_S)).state == "succeeded"


async def _answers(agent: AgentHandle) -> bool:
    try:
        await agent.ping()
    except LabwrightError:
        return False
    return True
