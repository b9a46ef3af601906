"""Agents from Python: the blocking and the asynchronous client on a real lab and a real agent."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from labwright.agents.blocking_handles import BlockingSessionHandle
from labwright.client import Lab, connect, connect_async
from labwright.core.errors import (
    AgentGoneError,
    LockedError,
    NotFoundError,
    ParameterError,
    SessionFailedError,
    WaitTimeoutError,
)
from labwright.core.model import SessionSnapshot, SessionState
from tests.cli.conftest import Terminal, end, running, served, wait_until


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    with served(tmp_path_factory.mktemp("lab")) as terminal:
        yield terminal


@pytest.fixture(scope="module")
def pump(site: Terminal) -> Iterator[str]:
    with running(site, "pump-1"):
        yield "pump-1"


@pytest.fixture
def lab(site: Terminal, pump: str) -> Iterator[Lab]:
    with connect(site.folder) as lab:
        yield lab


def test_a_task_is_called(lab: Lab) -> None:
    done = lab.agent("pump-1").dispense(volume_ml=2.5)
    assert isinstance(done, SessionSnapshot)
    assert (done.state, done.result, done.params["volume_ml"]) == (SessionState.SUCCEEDED, 2.5, 2.5)


def test_a_task_that_fails_raises_and_tells_how(lab: Lab) -> None:
    with pytest.raises(SessionFailedError, match="the tube is empty") as raised:
        lab.agent("pump-1").prime()
    assert isinstance(raised.value.session, SessionSnapshot)
    assert raised.value.session.state is SessionState.FAILED


def test_a_session_is_started_watched_and_aborted(lab: Lab) -> None:
    session = lab.agent("pump-1").dispense.start(volume_ml=1, seconds=60)
    assert session.snapshot.id == session.id
    with pytest.raises(WaitTimeoutError):
        session.wait(0.1)
    assert session.status().state is SessionState.RUNNING
    with pytest.raises(LockedError, match=r".*"):
        lab.agent("pump-1").prime.start()
    session.abort()
    assert session.wait(30).state is SessionState.ABORTED
    assert any("dispensing" in line["text"] for line in session.log())


def test_a_process_is_started_and_stopped(lab: Lab) -> None:
    session = lab.agent("pump-1").pressure()
    assert isinstance(session, BlockingSessionHandle)
    for snapshot in session.updates():
        if snapshot.data.get("bar", 0) > 1:
            break
    assert {feed["feed"] for feed in lab.feeds("pump-1")} == {"pressure"}
    session.stop()
    assert session.wait(30).state is SessionState.SUCCEEDED
    assert lab.agent("pump-1").pressure.status() == session.status()


def test_options_stand_on_the_handle_and_names_that_collide_are_called_by_name(lab: Lab) -> None:
    operation = lab.agent("pump-1").operation("dispense").with_options(key="one", timeout_s=30)
    assert operation.start(volume_ml=1).id == operation.start(volume_ml=1).id
    assert lab.agent("pump-1").operation("self-test")().result == "well"


def test_what_is_wrong_is_raised_as_what_it_is(lab: Lab) -> None:
    with pytest.raises(ParameterError) as raised:
        lab.agent("pump-1").dispense.start(volume_ml="much")
    assert "volume_ml" in raised.value.findings[0]
    with pytest.raises(NotFoundError, match="fly"):
        lab.agent("pump-1").fly.start()
    with pytest.raises(AgentGoneError, match="nobody"):
        lab.agent("nobody").dispense.start(volume_ml=1)
    with pytest.raises(NotFoundError, match="ses_zz"):
        lab.session_shown("ses_zz")


def test_handles_say_what_they_are(lab: Lab) -> None:
    session = lab.agent("pump-1").dispense.start(volume_ml=1)
    session.wait(30)
    assert repr(lab.agent("pump-1")) == "<agent pump-1>"
    assert repr(lab.agent("pump-1").dispense) == "<operation dispense of pump-1>"
    assert repr(session) == f"<session {session.id}: dispense on pump-1, succeeded when last seen>"


def test_an_agent_that_is_not_here_names_who_is(lab: Lab) -> None:
    with pytest.raises(AgentGoneError, match="pump-2") as raised:
        lab.agent("pump-2").dispense.start(volume_ml=1)
    assert (raised.value.because, raised.value.cure) == ("here are: pump-1", "did you mean 'pump-1'?")


def test_agents_sessions_and_files_are_listed(lab: Lab) -> None:
    assert [agent["name"] for agent in lab.agents()] == ["pump-1"]
    done = lab.agent("pump-1").operation("self-test")()
    assert isinstance(done, SessionSnapshot)
    wait_until(lambda: lab.sessions(operation="self-test", state="succeeded")["items"])
    assert lab.session_shown(done.id)["result"] == "well"
    assert lab.files(agent="nobody")["items"] == []


async def test_the_asynchronous_client_has_the_same_names(site: Terminal, pump: str) -> None:
    async with connect_async(site.folder) as lab:
        done = await lab.agent(pump).dispense(volume_ml=2)
        assert done.result == 2
        session = await lab.agent(pump).pressure.start()
        async with aclosing(lab.watch_feed(pump)) as samples:
            assert (await anext(samples))["data"]["ok"] is True
        await session.stop()
        assert (await session.wait(30)).state is SessionState.SUCCEEDED


async def test_who_waits_is_told_when_the_agent_dies(site: Terminal) -> None:
    async with connect_async(site.folder) as lab:
        with running(site, "doomed") as process:
            session = await lab.agent("doomed").dispense.start(volume_ml=1, seconds=60)
            end(process, signal.SIGKILL)
            with pytest.raises(AgentGoneError, match="doomed"):
                await session.wait(60)
        shown = await lab.session_shown(session.id)
        assert (shown["state"], shown["error"]["kind"]) == ("lost", "lost")
