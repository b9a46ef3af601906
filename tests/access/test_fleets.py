"""Fleets and roles: a call on many targets may no more than its caller may on each."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from labwright import Agent, Session, operation
from labwright.agents.fleet_handle import FleetAsked
from labwright.agents.serving import serving
from labwright.client import AsyncLab, connect_async
from labwright.core.errors import ClaimedError, NotAllowedError, UsageError
from labwright.core.fleet import FleetResult
from labwright.core.model import RunState
from labwright.core.request import Request
from labwright.core.roles import Role
from labwright.journal.connection import Address
from labwright.plan.fan_out import FanOut
from labwright.run.fleets import call_request, run_request
from labwright.server import serving as serving_lab
from tests.access.test_lab import Here, write_site
from tests.support.waiting import until

pytestmark = [pytest.mark.asyncio(loop_scope="module")]

BURN = {"operation": "burn", "selector": "c1|t1"}


class Card(Agent):
    """A card with an operation for everybody and one for experts."""

    @operation
    async def read(self, session: Session) -> str:
        """Read."""
        return session.by

    @operation(at_once=10, grace=0.2)
    async def hold(self, session: Session) -> None:
        """Hold."""
        await asyncio.sleep(600)

    @operation(role="expert")
    async def burn(self, session: Session) -> str:
        """Burn."""
        return session.by


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Here]:
    """A lab with two cards."""
    settings = write_site(tmp_path_factory.mktemp("fleets") / "site")
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving_lab(settings, tied=True))
        here = Here(settings, server, await stack.enter_async_context(connect_async(settings=settings)))
        state: Path = settings.state_dir
        for name in ("c1", "c2"):
            locate = lambda: Address.read(state / "connection.json")  # noqa: E731 - one expression
            await stack.enter_async_context(serving(Card, name=name, locate=locate, state_dir=state))
        async with asyncio.timeout(30):
            while len(here.server.agents.agents) < 2:
                await asyncio.sleep(0.01)
        yield here


def outcomes(result: FleetResult) -> dict[str, str]:
    return {name: row.outcome.value for name, row in result.rows.items()}


async def test_agents_judge_a_call_of_a_fleet_by_the_role_of_its_caller(here: Here) -> None:
    async with here.as_("ada", Role.OPERATOR) as lab:
        read, burnt = await lab.fleet("class=Card").read(), await lab.fleet("class=Card").burn()
    assert outcomes(read) == {"c1": "succeeded", "c2": "succeeded"}
    assert {row.result for row in read.rows.values()} == {"ada"}
    assert outcomes(burnt) == {"c1": "refused", "c2": "refused"}
    assert {row.error.kind for row in burnt.rows.values() if row.error} == {"not_allowed"}
    async with here.as_("eve", Role.EXPERT) as lab:
        assert (await lab.fleet("class=Card").burn()).succeeded


async def test_a_viewer_calls_no_fleet(here: Here) -> None:
    async with here.as_("vic", Role.VIEWER) as lab:
        with pytest.raises(NotAllowedError):
            await lab.fleet("class=Card").read()


async def test_who_may_not_run_a_task_may_not_have_it_run_on_many_targets(here: Here) -> None:
    wanted = run_request(Request("hard", on="kind=pump"), FanOut())
    async with here.as_("ada", Role.OPERATOR) as lab:
        with pytest.raises(NotAllowedError, match="may not run hard"):
            await lab.request(wanted)
    async with here.as_("eve", Role.EXPERT) as lab:
        await lab.request(wanted)


async def test_nobody_retries_a_call_with_a_higher_role_than_their_own(here: Here) -> None:
    async with here.as_("eve", Role.EXPERT) as lab:
        call = {"operation": "no_such_operation", "selector": "class=Card"}
        runs = await lab.request(Request("fleet-call", params=call))
        ((run_id, ended),) = (await lab.wait(lab.follow_runs(runs), timeout_s=30)).items()
        assert ended.state is RunState.FAILED
    async with here.as_("ada", Role.OPERATOR) as lab:
        with pytest.raises(NotAllowedError):
            await lab.retry(run_id)


NESTED = {
    "a fleet of fleets": {"task": "fleet-run", "selector": "t2", "params": {"task": "hard", "selector": "t3"}},
    "two deep": {
        "task": "fleet-run",
        "selector": "t1",
        "params": {"task": "fleet-run", "selector": "t2", "params": {"task": "hard", "selector": "t3"}},
    },
}


@pytest.mark.parametrize("params", NESTED.values(), ids=NESTED)
async def test_nobody_has_a_task_run_by_a_fleet_of_fleets_that_they_may_not_run(
    here: Here, params: dict[str, object]
) -> None:
    async with here.as_("ada", Role.OPERATOR) as lab:
        with pytest.raises(NotAllowedError, match="may not run hard"):
            await lab.request(Request("fleet-run", params=params))


async def test_what_a_fleet_of_fleets_runs_is_named_where_it_is_asked_for(here: Here) -> None:
    """What stands for a value that lies elsewhere is no name: behind it any task could be."""
    mark = {"$blob": "b_00000000000000000000000000", "size": 40, "sha256": "0" * 64}
    async with here.as_("ada", Role.OPERATOR) as lab:
        with pytest.raises(UsageError, match="names none"):
            await lab.request(Request("fleet-run", params={"task": "fleet-run", "selector": "t2", "params": mark}))


async def test_a_call_that_is_run_on_a_fleet_is_judged_by_the_role_of_who_asked(here: Here) -> None:
    call = {"operation": "burn", "selector": "class=Card"}
    wanted = Request("fleet-run", params={"task": "fleet-call", "selector": "t1", "params": call})
    async with here.as_("ada", Role.OPERATOR) as lab:
        made = await lab.request(wanted)
        await lab.wait(lab.follow_runs(made), timeout_s=60)
        (child,) = (await lab.runs(parent=made.runs[0]))["items"]
        assert child["role"] == "operator"
        assert outcomes(FleetResult.model_validate(child["result"])) == {"c1": "refused", "c2": "refused"}


async def test_what_a_task_for_experts_has_called_is_not_retried_by_an_operator(here: Here) -> None:
    """The child acts with the lab's own credential: who may not run the task may not have it act once more."""
    async with here.as_("eve", Role.EXPERT) as lab:
        made = await lab.request(Request("sweep"))
        await lab.wait(lab.follow_runs(made), timeout_s=60)
        (child,) = (await lab.runs(parent=made.runs[0]))["items"]
    assert (child["task"], child["role"], child["state"]) == ("fleet-call", "", "failed")
    async with here.as_("ada", Role.OPERATOR) as lab:
        with pytest.raises(NotAllowedError, match="may not"):
            await lab.retry(child["id"])
    async with here.as_("eve", Role.EXPERT) as lab:
        await lab.retry(child["id"])


async def test_what_was_asked_for_with_the_labs_own_credential_only_an_admin_retries(here: Here) -> None:
    assert not (await here.lab.fleet("c1|t1").burn()).succeeded
    call_id = (await here.lab.runs(task="fleet-call", state="failed", limit=1))["items"][0]["id"]
    made = await here.lab.request(run_request(Request("fleet-call", params=BURN, on="t1"), FanOut()))
    await here.lab.wait(here.lab.follow_runs(made), timeout_s=60)
    (child,) = (await here.lab.runs(parent=made.runs[0]))["items"]
    async with here.as_("eve", Role.EXPERT) as lab:
        for run_id in (call_id, made.runs[0], child["id"]):
            with pytest.raises(NotAllowedError, match="may not retry"):
                await lab.retry(run_id)
    async with here.as_("root", Role.ADMIN) as lab:
        await lab.retry(call_id)


async def test_who_may_not_run_a_task_does_not_retry_it_on_many_targets(here: Here) -> None:
    async with here.as_("eve", Role.EXPERT) as lab:
        made = await lab.request(run_request(Request("hard", on="t3"), FanOut()))
        await lab.wait(lab.follow_runs(made), timeout_s=60)
    async with here.as_("ada", Role.OPERATOR) as lab:
        with pytest.raises(NotAllowedError, match="may not run hard"):
            await lab.retry(made.runs[0], from_start=True)


async def test_what_reaches_claimed_targets_through_a_fleet_is_not_ended_by_others(here: Here) -> None:
    async with here.as_("ada", Role.OPERATOR) as ada, here.as_("bob", Role.OPERATOR) as bob:
        claim = await ada.claim("c1", 600)
        try:
            asked = FleetAsked(verb="call", selector="c1|c2", operation="hold", params={}, how=FanOut())
            call = call_request(asked)
            calling = (await ada.request(call)).runs[0]
            whole = run_request(Request(call.task, params=call.params, on="t2"), FanOut())
            running = (await ada.request(whole)).runs[0]
            for run_id in (calling, running):
                await until(functools.partial(_has_begun, ada, run_id))
                with pytest.raises(ClaimedError, match="c1 is claimed by ada"):
                    await bob.abort(run_id)
                await ada.abort(run_id)
        finally:
            await ada.release_claim(claim["id"])


async def _has_begun(lab: AsyncLab, run_id: str) -> bool:
    """Tell whether it, or the call that it has made, has chosen its targets and begun with them."""
    runs = [run_id, *(run["id"] for run in (await lab.runs(tree=run_id))["items"])]
    return bool([found for run in runs if (found := (await lab.sessions(run=run))["items"])])
