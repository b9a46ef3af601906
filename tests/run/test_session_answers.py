"""What a lab answers about sessions, agents and files, from the records of agents and their presence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from labwright.client import AsyncLab
from labwright.core.errors import NotFoundError, UsageError
from labwright.core.ids import new_id
from labwright.core.model import FileEntry, OperationKind, utc_now
from labwright.core.request import Request
from labwright.journal.presence import Presence
from labwright.journal.records import FileRegistered, SessionChanged, SessionEnded, SessionStarted
from labwright.journal.session_fold import encoded, session_subject
from labwright.testing.lab import lab as lab_of
from tests.run.lab_site import write_lab

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(90)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[AsyncLab]:
    folder = tmp_path_factory.mktemp("site")
    write_lab(folder)
    async with lab_of(folder) as lab:
        yield lab


async def begun(lab: AsyncLab, agent: str, session_id: str | None = None, **fields: Any) -> str:
    """Write what an agent writes when a session begins."""
    session_id = session_id or new_id("ses")
    record = SessionStarted(agent=agent, operation="take_noise", kind=OperationKind.TASK, **fields)
    await lab.journal.append(session_subject(agent, session_id), record, after=0)
    return session_id


@asynccontextmanager
async def present(lab: AsyncLab, name: str) -> AsyncGenerator[None]:
    """Have an agent be here, as far as its presence says so."""
    presence = Presence(lab.journal, "agent", encoded(name), lambda: {"name": name, "labels": {"crate": "1"}})

    async def refreshed() -> None:
        while True:
            await presence.refresh()
            await asyncio.sleep(0.5)

    refreshing = asyncio.create_task(refreshed())
    try:
        await until(lab, name, is_here=True)
        yield
    finally:
        refreshing.cancel()
        await asyncio.gather(refreshing, return_exceptions=True)
        await presence.leave()
        await until(lab, name, is_here=False)


async def until(lab: AsyncLab, name: str, *, is_here: bool) -> None:
    async with asyncio.timeout(30):
        while (name in [agent["name"] for agent in await lab.ask("agents")]) is not is_here:
            await asyncio.sleep(0.05)


async def test_an_open_session_is_lost_while_its_agent_is_absent_and_goes_on_when_it_comes_back(lab: AsyncLab) -> None:
    session_id = await begun(lab, "bench.1", params={"duration": 30})
    shown = await lab.ask("session", session_id=session_id)
    assert (shown["state"], shown["error"]["kind"], shown["ended_at"]) == ("lost", "lost", None)
    assert shown["params"] == {"duration": 30}
    async with present(lab, "bench.1"):
        assert (await lab.ask("session", session_id=session_id))["state"] == "running"
        assert (await lab.sessions(agent="bench.1", state="lost"))["items"] == []
        (agent,) = [agent for agent in await lab.ask("agents") if agent["name"] == "bench.1"]
        assert (agent["sessions"], agent["labels"]) == ([session_id], {"crate": "1"})
        found = await lab.ask("agent", name="bench.1")
        assert [session["id"] for session in found["newest"]] == [session_id]
    assert (await lab.ask("session", session_id=session_id[:-3]))["state"] == "lost"
    assert [session["id"] for session in (await lab.sessions(agent="bench.1", state="lost"))["items"]] == [session_id]
    with pytest.raises(NotFoundError, match="no agent"):
        await lab.ask("agent", name="bench.1")


async def test_what_has_ended_stays_as_it_ended_whoever_is_here(lab: AsyncLab) -> None:
    session_id = await begun(lab, "s2")
    subject = session_subject("s2", session_id)
    seq = await lab.journal.append(subject, SessionChanged(data={"bands": [0]}), after=await last(lab, subject))
    await lab.journal.append(subject, SessionEnded(state="succeeded", result=5), after=seq)
    shown = await lab.ask("session", session_id=session_id)
    assert (shown["state"], shown["result"], shown["data"], shown["error"]) == ("succeeded", 5, {"bands": [0]}, None)


async def last(lab: AsyncLab, subject: str) -> int:
    return (await lab.journal.read(subject))[-1].seq


async def test_the_story_of_a_run_names_its_sessions(lab: AsyncLab) -> None:
    requested = await lab.request(Request("one"))
    run_id = requested.runs[0]
    await lab.wait(lab.follow_runs(requested), timeout_s=30)
    first = await begun(lab, "s3", run=run_id)
    second = await begun(lab, "s3", run=run_id)
    story = await lab.why(run_id)
    assert [(part["kind"], part["id"]) for part in story[-2:]] == [("session", first), ("session", second)]
    assert story[-1]["summary"].startswith("take_noise on s3 lost")


async def test_one_id_on_two_agents_is_told_apart_by_the_agent(lab: AsyncLab) -> None:
    session_id = new_id("ses")
    for agent in ("s4", "s5"):
        await begun(lab, agent, session_id)
    with pytest.raises(UsageError, match="several agents"):
        await lab.ask("session", session_id=session_id)
    assert (await lab.ask("session", session_id=session_id, agent="s5"))["agent"] == "s5"


async def test_files_are_listed_as_they_were_announced_last(lab: AsyncLab) -> None:
    entry = FileEntry(id=new_id("fil"), path="/data/a b\n", agent="s6", registered_at=utc_now())
    subject = f"file.{entry.id}"
    seq = await lab.journal.append(subject, FileRegistered(file=entry), after=0)
    await lab.journal.append(subject, FileRegistered(file=entry.model_copy(update={"size": 3})), after=seq)
    (file,) = (await lab.files(agent="s6"))["items"]
    assert (file["path"], file["size"]) == ("/data/a b\n", 3)


@pytest.mark.parametrize("question", ["session", "sessions"])
async def test_what_is_not_known_is_not_found_and_what_is_wrong_is_usage(lab: AsyncLab, question: str) -> None:
    if question == "session":
        with pytest.raises(NotFoundError, match="no session"):
            await lab.ask("session", session_id="ses_none")
    else:
        with pytest.raises(UsageError, match="cannot be filtered"):
            await lab.sessions(colour="red")


async def test_the_view_is_rebuilt_with_its_sessions(tmp_path: Path) -> None:
    from labwright.journal.view import View
    from labwright.run.folding import Folding

    write_lab(tmp_path)
    async with lab_of(tmp_path, workers=0) as lab:
        session_id = await begun(lab, "s7")
        folding = Folding(lab.journal, tmp_path / "again.sqlite")
        running = asyncio.create_task(folding.run())
        await folding.folded(lab.journal.seen)
        assert folding.present.sessions[f"s7.{session_id}"].session.operation == "take_noise"
        assert await folding.view.wait_for(lab.journal.seen, 30)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        folding.view.close()
    assert [entry.session.id for entry in View(tmp_path / "again.sqlite").open_sessions()] == [session_id]
