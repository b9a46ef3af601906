"""The log of a script whose agent was killed: each line once, in order, with the time at which it was said."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from labwright.agents.handle import AgentHandle, SessionHandle
from labwright.core.model import SessionState
from tests.agents.conftest import LONG_S, Start
from tests.support.waiting import until

TICKS = 60
SCRIPT = f"""
import time

for number in range({TICKS}):
    print("tick", number, flush=True)
    time.sleep(0.05)
"""
PLACE = "tests.agents.instrument:Instrument"


async def _ticks(session: SessionHandle) -> list[tuple[str, str]]:
    return [(line["text"], line["at"]) async for line in session.log() if line["text"].startswith("tick")]


async def _has_logged(session: SessionHandle, text: str) -> bool:
    async for line in session.log():
        if line["text"] == text:
            return True
    return False


async def test_a_killed_agents_successor_logs_each_line_once(
    start_agent: Start, handle: Callable[..., AgentHandle], tmp_path: Path
) -> None:
    script = tmp_path / "ticks.py"
    script.write_text(SCRIPT)
    first = await start_agent(PLACE)
    await until(lambda: _answers(handle()))
    session = await handle().run.start(script=str(script))
    assert await _has_logged(session, "tick 5")

    first.kill()
    await first.ended()
    await start_agent(PLACE)
    await until(lambda: _answers(handle()))

    again = handle().session(session.id)
    assert (await again.wait(LONG_S)).state is SessionState.SUCCEEDED
    ticks = await _ticks(again)
    assert [text for text, _ in ticks] == [f"tick {number}" for number in range(TICKS)]
    times = [datetime.fromisoformat(at) for _, at in ticks]
    assert times == sorted(times)
    assert len(set(times)) > TICKS // 2  # their own, and not all that of the reading


async def _answers(agent: AgentHandle) -> bool:
    try:
        await agent.ping()
    except Exception:  # noqa: BLE001 - it is not here yet, for whatever reason
        return False
    return True
