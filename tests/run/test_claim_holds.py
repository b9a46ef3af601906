"""Claims by labels hold back runs also after a restart of the lab, and on agents that come later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from labwright import Agent, Session, operation
from labwright.access.claims import Claim
from labwright.agents.serving import AgentServer, serving
from labwright.client import AsyncLab, connect_async
from labwright.core.model import RunState
from labwright.core.request import Request
from labwright.journal.connection import Address
from labwright.run.settings import Settings, load_settings
from labwright.server import Server
from labwright.server import serving as serving_lab
from tests.support.waiting import until

TASKS = """\
from labwright import Task, step

@step
async def greet(ctx):
    return "hello"

easy = Task("easy", steps=[greet])
"""


class Card(Agent):
    """A card."""

    @operation
    async def read(self, session: Session) -> str:
        return session.by


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    folder = tmp_path / "site"
    (folder / "held").mkdir(parents=True)
    (folder / "held" / "__init__.py").write_text(TASKS)
    (folder / "targets.yaml").write_text("- {name: t1, labels: {kind: pump}}\n")
    (folder / "labwright.toml").write_text('[site]\npackage = "held"\n')
    return load_settings(folder, {})


@dataclass
class People:
    """A lab that runs, and two who use it."""

    server: Server
    ada: AsyncLab
    bob: AsyncLab


@asynccontextmanager
async def lab_of(settings: Settings) -> AsyncGenerator[People]:
    """Start the lab; at the end its nats-server ends with it."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving_lab(settings, tied=True, workers=1))
        lab = await stack.enter_async_context(connect_async(settings=settings))
        ada, bob = (AsyncLab(lab.journal.connection, settings, by=name) for name in ("ada", "bob"))
        yield People(server, ada, bob)


def card(settings: Settings, name: str, **labels: str) -> AbstractAsyncContextManager[AgentServer]:
    state = settings.state_dir
    return serving(
        Card, name=name, locate=lambda: Address.read(state / "connection.json"), state_dir=state, labels=labels
    )


async def waits_for(lab: AsyncLab, run_id: str) -> str:
    shown = await lab.run_shown(run_id)
    assert shown["state"] == "pending"
    return shown["waiting_for"]["detail"]


async def test_a_claim_by_the_labels_of_agents_holds_back_runs_after_a_restart_of_the_lab(settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        async with lab_of(settings) as before:
            await stack.enter_async_context(card(settings, "c1", crate="1"))
            await until(lambda: "c1" in before.server.agents.agents)
            await before.ada.claim("crate=1", 600)
            await until(lambda: before.server.dispatcher._claims)
            waits = (await before.bob.request(Request("easy", on="c1"))).runs[0]
            assert "the claim of ada" in await waits_for(before.bob, waits)

        async with lab_of(settings) as after:
            own = await after.ada.request(Request("easy", on="t1"))
            ended = await after.ada.wait(after.ada.follow_runs(own), timeout_s=30)
            assert [run.state for run in ended.values()] == [RunState.SUCCEEDED]
            assert "the claim of ada" in await waits_for(after.bob, waits)


async def test_a_claim_by_labels_holds_back_runs_on_agents_that_come_later(settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        lab = await stack.enter_async_context(lab_of(settings))
        await stack.enter_async_context(card(settings, "c1", crate="1"))
        await until(lambda: "c1" in lab.server.agents.agents)
        claim = await lab.ada.claim("crate=1", 600)
        await until(lambda: lab.server.dispatcher._claims)

        await stack.enter_async_context(card(settings, "c2", crate="1"))
        await until(lambda: "c2" in lab.server.agents.agents)
        waits = await lab.bob.request(Request("easy", on="c2"))
        own = await lab.ada.request(Request("easy", on="c1"))
        await lab.ada.wait(lab.ada.follow_runs(own), timeout_s=30)
        assert "the claim of ada" in await waits_for(lab.bob, waits.runs[0])

        await lab.ada.release_claim(claim["id"])
        ended = await lab.bob.wait(lab.bob.follow_runs(waits), timeout_s=30)
        assert [run.state for run in ended.values()] == [RunState.SUCCEEDED]


async def test_the_dispatcher_is_told_of_claims_when_something_has_changed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lab_of(settings) as lab:
        told: list[tuple[Claim, ...]] = []
        monkeypatch.setattr(lab.server.dispatcher, "note_claims", lambda claims, _: told.append(claims))
        claim = await lab.ada.claim("t1", 600)
        await until(lambda: told)
        async with card(settings, "c1", crate="1"):
            await until(lambda: len(told) == 2)  # an agent with labels: who is chosen may be others now
        await lab.server.reload()
        await lab.ada.release_claim(claim["id"])
        await until(lambda: told[-1] == ())
        looked = asyncio.Event()
        monkeypatch.setattr(lab.server.claim_holds._watch, "_changed", looked.set)
        await asyncio.wait_for(looked.wait(), 30)  # what was heard is read once more, and says the same
        lab.server.claim_holds.site_changed()
        await until(lambda: not lab.server.claim_holds._changed.is_set())

        assert [len(claims) for claims in told] == [1, 1, 0]
