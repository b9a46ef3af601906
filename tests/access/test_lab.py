"""A whole lab with identities: what it does for them, refuses them, and records; spoken to by nats-py, and by ours."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from nats.aio.client import Client

from labwright.access.identity import Identities
from labwright.client import AsyncLab, connect_async
from labwright.client.acting import ActingLab
from labwright.core.errors import ClaimedError, NotAllowedError, NotFoundError
from labwright.core.model import RunState
from labwright.core.request import Request
from labwright.core.roles import Role
from labwright.journal.connection import Address
from labwright.journal.key_file import KeyFile
from labwright.journal.nats_server import EmbeddedServer, write_private
from labwright.journal.records import Refused
from labwright.plan.durable import ScheduleDefinition
from labwright.run.settings import Settings, load_settings
from labwright.server import Server, serving
from tests.access.conftest import connected
from tests.support.waiting import until

pytestmark = [pytest.mark.asyncio(loop_scope="module")]

TASKS = """\
from labwright import Task, step

@step
async def greet(ctx):
    return "hello"

@step
async def fail(ctx):
    raise ValueError("no")

@step
async def burn_all(ctx):
    return (await ctx.fleet("c1|c2", quorum=2).no_such_operation()).succeeded

easy = Task("easy", steps=[greet])
sweep = Task("sweep", steps=[burn_all], role="expert")
hard = Task("hard", steps=[greet], role="expert")
broken = Task("broken", steps=[fail])
"""
TARGETS = "- {name: t1, labels: {kind: pump}}\n- {name: t2, labels: {kind: pump}}\n- {name: t3}\n"


def write_site(folder: Path) -> Settings:
    """Write a site with tasks for operators and for experts."""
    (folder / "guarded").mkdir(parents=True)
    (folder / "guarded" / "__init__.py").write_text(TASKS)
    (folder / "targets.yaml").write_text(TARGETS)
    (folder / "labwright.toml").write_text('[site]\npackage = "guarded"\n')
    return load_settings(folder, {})


class Here:
    """A lab that is served, with users."""

    def __init__(self, settings: Settings, server: Server, lab: AsyncLab) -> None:
        self.settings = settings
        self.server = server
        self.lab = lab
        self.keys: dict[str, Path] = {}
        self._embedded = EmbeddedServer(settings.state_dir)

    def key(self, name: str, role: Role) -> Path:
        """Give the key file of a user, who is added if need be."""
        if name not in self.keys:
            identity, seed = Identities(self.settings.state_dir).add(name, role)
            url = Address.read(self.settings.state_dir / "connection.json").url
            key = KeyFile(name=name, role=identity.role, seed=seed, url=url)
            self.keys[name] = self.settings.folder / f"{name}.key"
            write_private(self.keys[name], key.text())
            self._embedded.reload()
        return self.keys[name]

    @asynccontextmanager
    async def raw(self, name: str, role: Role) -> AsyncGenerator[Client]:
        """Connect nats-py itself with somebody's key."""
        key = KeyFile.read(self.key(name, role))
        assert key is not None
        client = await connected(key.url, nkeys_seed_str=key.seed, inbox_prefix=f"_INBOX.{key.sender}".encode())
        try:
            yield client
        finally:
            await client.close()

    @asynccontextmanager
    async def as_(self, name: str, role: Role) -> AsyncGenerator[AsyncLab]:
        """Open the lab with nothing but somebody's key file, as from another machine."""
        elsewhere = self.settings.folder.parent / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        settings = load_settings(elsewhere, {"LABWRIGHT_CREDS": str(self.key(name, role))})
        async with connect_async(settings=settings) as lab:
            yield lab

    async def refusals(self, of: str) -> list[Refused]:
        """Give what somebody was refused; or, of a key that was merely shown, who showed it."""
        records = [entry.record for entry in await self.lab.journal.read("audit.>")]
        shown = f"connect with the key {of}"
        return [each for each in records if isinstance(each, Refused) and (each.by == of or each.what == shown)]


async def act(client: Client, sender: str, verb: str, body: object) -> dict[str, Any]:
    """Ask the lab to do something, and give its answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return json.loads((await client.request(f"act.{sender}.{verb}", data, timeout=30)).data)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Here]:
    settings = write_site(tmp_path_factory.mktemp("lab") / "site")
    async with serving(settings, tied=True) as server, connect_async(settings=settings) as lab:
        yield Here(settings, server, lab)


HOURLY = {"every": 3600.0, "after": 3600.0}
REQUEST = {"request": {"task": "easy", "params": {}}}


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("request", REQUEST),
        ("emit", {"event": {"type": "x"}}),
        ("abort", {"run_id": "run_1"}),
        ("retry", {"run_id": "run_1"}),
        ("approve", {"run_id": "run_1"}),
        ("release", {"event_id": "1"}),
        ("claim", {"selector": "t1", "seconds": 60}),
        ("unclaim", {"claim_id": "clm"}),
        ("pool", {"pool": "default", "state": "paused"}),
        ("reload", {}),
        ("add_schedule", {"name": "s", "definition": {"task": "easy", "points": HOURLY}}),
        ("change_schedule", {"name": "s", "change": "pause"}),
    ],
)
async def test_a_viewer_has_nothing_done_and_that_is_recorded(here: Here, verb: str, body: dict[str, Any]) -> None:
    name = f"vera-{verb}"
    async with here.raw(name, Role.VIEWER) as vera:
        answer = await act(vera, f"viewer={name}", verb, {**body, "origin": "far:1", "by": "root"})

    assert answer["error"]["kind"] == "not_allowed"
    assert answer["exit_code"] == 4
    (refusal,) = await here.refusals(name)
    assert (refusal.what, refusal.role, refusal.origin) == (verb, "viewer", "far:1")
    assert len(refusal.error.message.removeprefix(f"{name} may not ").split()) > 1  # it tells what


async def test_an_operator_runs_what_is_for_operators_under_the_own_name(here: Here) -> None:
    async with here.raw("olaf", Role.OPERATOR) as olaf:
        done = await act(olaf, "operator=olaf", "request", {**REQUEST, "by": "root"})
        hard = await act(olaf, "operator=olaf", "request", {"request": {"task": "hard", "params": {}}})
        pool = await act(olaf, "operator=olaf", "pool", {"pool": "default", "state": "paused"})

    (run_id,) = done["result"]["runs"]
    record = (await here.lab.journal.read(f"run.{run_id}"))[0].record
    assert (getattr(record, "by", ""), getattr(record, "cause", None) and record.cause.id) == ("olaf", "olaf")  # pyright: ignore[reportAttributeAccessIssue]
    assert hard["error"]["kind"] == pool["error"]["kind"] == "not_allowed"
    assert "expert" in hard["error"]["because"]
    assert [refusal.what for refusal in await here.refusals("olaf")] == ["request", "pool"]


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("dance", {}),
        ("request", b"nonsense"),
        ("request", b"[" * 100_000),
        ("request", []),
        ("request", {}),
        ("request", {"request": {"task": "easy", "priority": "high"}}),
        ("request", {"request": {"task": "no-such-task"}}),
        ("emit", {"event": 5}),
        ("abort", {"run": 1}),
        ("abort", {"run_id": "run.>"}),
        ("claim", {"selector": "((", "seconds": 60}),
        ("claim", {"selector": "t1", "seconds": "long"}),
        ("claim", {"selector": "t1", "seconds": -1}),
        ("claim", {"selector": 5, "seconds": 60}),
        ("claim", {"selector": "t1", "seconds": 10**400}),
        ("unclaim", {"claim_id": ["clm"]}),
        ("release", {"event_id": "never"}),
        ("add_schedule", {"name": "a b", "definition": {"task": "easy", "points": HOURLY}}),
        ("add_schedule", {"name": "s", "definition": 5}),
        ("add_schedule", {"name": "s", "definition": {"task": "easy", "points": [1]}}),
        ("change_schedule", {"name": "never", "change": "fire"}),
        ("change_schedule", {"name": "never", "change": "dance"}),
    ],
)
async def test_nonsense_is_answered_with_an_error(here: Here, verb: str, body: object) -> None:
    async with here.raw("olga", Role.OPERATOR) as olga:
        answer = await act(olga, "operator=olga", verb, body)

    assert answer["error"]["message"]
    assert answer["error"]["kind"] != "bug"
    assert answer["exit_code"] != 0


async def test_a_reply_of_the_lab_goes_to_inboxes_only(here: Here) -> None:
    heard: list[str] = []

    async def hear(message: Any) -> None:
        heard.append(message.subject)

    end = await here.lab.journal.connection.listen("command.>", hear)
    async with here.raw("vito", Role.VIEWER) as vito:
        for subject in ("ask.status", "act.viewer=vito.request"):
            await vito.publish(subject, b"{}", reply="command.labwright.pump-1.dispense")
        await act(vito, "viewer=vito", "request", REQUEST)  # those before were heard, too
    await here.lab.ask("status")
    await end()

    assert not heard


async def test_with_a_key_file_alone_the_lab_is_used_from_elsewhere(here: Here) -> None:
    async with here.as_("ellen", Role.EXPERT) as lab:
        assert isinstance(lab, ActingLab)
        runs = await lab.request(Request("hard", on="t3"))
        ended = await lab.wait(lab.follow_runs(runs), timeout_s=30)
        emitted = await lab.emit({"type": "thing", "id": "e1"})
        again = await lab.emit({"type": "thing", "id": "e1", "source": emitted.source})
        failed = await lab.request(Request("broken"))
        await lab.wait(lab.follow_runs(failed), timeout_s=30)
        retried = await lab.retry(failed.runs[0])
        aborted = await lab.abort(retried.id, reason="enough")
        await lab.change_pool("default", "active")
        site = await lab.ask("reload")
        shown = await lab.run_shown(runs.runs[0])

    assert [run.state for run in ended.values()] == [RunState.SUCCEEDED]
    assert shown["by"] == "ellen"
    assert (emitted.is_new, aborted.id) == (True, failed.runs[0])
    assert again.key == emitted.key
    assert "hard" in [task["name"] for task in site["tasks"]]


async def test_a_client_with_a_key_is_told_at_once_what_it_may_not(here: Here) -> None:
    async with here.as_("vanda", Role.VIEWER) as lab:
        with pytest.raises(NotAllowedError):
            await lab.request(Request("easy"))
        with pytest.raises(NotAllowedError, match="viewer=vanda"):
            await AsyncLab(lab.journal.connection, here.settings).emit({"type": "thing"})
        assert (await lab.runs())["items"] is not None


async def test_what_nats_server_refuses_is_recorded(here: Here) -> None:
    async with here.raw("mallory", Role.VIEWER) as mallory:
        await mallory.publish("command.operator=olaf.pump-1.dispense", b"{}")
        await mallory.publish("run.run_1", b"{}")
        await mallory.flush()

    async def both() -> bool:
        return len(await here.refusals("mallory")) == 2

    await until(both)
    found = {(refusal.what, refusal.role) for refusal in await here.refusals("mallory")}
    assert found == {
        ("speak on command.operator=olaf.pump-1.dispense", "viewer"),
        ("speak on run.run_1", "viewer"),
    }


async def test_a_revoked_key_is_refused_once_at_once_and_under_its_owners_name(here: Here) -> None:
    here.key("rita", Role.OPERATOR)
    shown = Identities(here.settings.state_dir).revoke("rita").key
    EmbeddedServer(here.settings.state_dir).reload()

    begun = time.monotonic()
    with pytest.raises(NotAllowedError, match="does not accept this key"):
        async with here.as_("rita", Role.OPERATOR):
            pass
    took_s = time.monotonic() - begun

    async def told() -> bool:
        return bool(await here.refusals(shown))

    await until(told)
    (refusal,) = await here.refusals(shown)
    assert (refusal.by, refusal.role, refusal.error.because) == ("", "", "this key of rita was revoked")
    assert took_s < 2


async def test_runs_of_others_wait_while_their_target_is_claimed(here: Here) -> None:
    async with here.as_("ada", Role.OPERATOR) as ada, here.as_("bob", Role.OPERATOR) as bob:
        claim = await ada.claim("kind=pump", 600, reason="alignment")
        try:
            await until(lambda: here.server.dispatcher._claims)
            with pytest.raises(ClaimedError, match="t1 is claimed by ada"):
                await bob.claim("t1", 60)
            with pytest.raises(NotAllowedError):
                await bob.release_claim(claim["id"])
            waits = await bob.request(Request("easy", on="t1"))
            own = await ada.request(Request("easy", on="t1"))
            free = await bob.request(Request("easy", on="t3"))
            await bob.wait(bob.follow_runs(free), timeout_s=30)
            await ada.wait(ada.follow_runs(own), timeout_s=30)
            shown = await bob.run_shown(waits.runs[0])
            listed = await bob.claims()
        finally:
            await here.lab.release_claim(claim["id"], reason="the lab needs it")
        ended = await bob.wait(bob.follow_runs(waits), timeout_s=30)

    assert shown["state"] == "pending"
    assert "the claim of ada on kind=pump, until" in shown["waiting_for"]["detail"]
    assert [(each["by"], each["reason"]) for each in listed] == [("ada", "alignment")]
    assert [run.state for run in ended.values()] == [RunState.SUCCEEDED]
    assert [refusal.error.kind for refusal in await here.refusals("bob")] == ["claimed", "not_allowed"]
    told = [item["kind"] for item in await here.lab.audit(limit=500)]
    assert {"claimed", "released", "refused"} <= set(told)


async def test_a_run_on_a_claimed_target_is_not_touched_by_others(here: Here) -> None:
    async with here.as_("carl", Role.OPERATOR) as carl, here.as_("dora", Role.EXPERT) as dora:
        failed = await carl.request(Request("broken", on="t3"))
        await carl.wait(carl.follow_runs(failed), timeout_s=30)
        claim = await carl.claim("t3", 600)
        try:
            for touching in (dora.retry(failed.runs[0]), dora.abort(failed.runs[0])):
                with pytest.raises(ClaimedError, match="t3 is claimed by carl"):
                    await touching
            await carl.retry(failed.runs[0])
        finally:
            await carl.release_claim(claim["id"])

    assert [refusal.what for refusal in await here.refusals("dora")] == ["retry", "abort"]


async def test_what_an_expert_has_run_is_not_retried_by_an_operator(here: Here) -> None:
    runs = await here.lab.request(Request("hard"))
    await here.lab.wait(here.lab.follow_runs(runs), timeout_s=30)
    async with here.as_("erik", Role.OPERATOR) as erik:
        with pytest.raises(NotAllowedError, match="may not run hard"):
            await erik.retry(runs.runs[0], from_start=True)


async def test_who_may_run_a_task_approves_its_runs_and_nobody_less(here: Here) -> None:
    runs = await here.lab.request(Request("hard", approve=True))
    (run_id,) = runs.runs
    async with (
        here.as_("olga", Role.OPERATOR) as olga,
        here.as_("vera", Role.VIEWER) as vera,
        here.as_("emil", Role.EXPERT) as emil,
    ):
        for refused, why in ((olga, "may not approve hard"), (vera, "may not approve runs")):
            with pytest.raises(NotAllowedError, match=why):
                await refused.approve(run_id)
        assert (await here.lab.run_shown(run_id))["state"] == "waiting"
        run = await emil.approve(run_id, reason="looked at it")
    assert run.approved is not None
    assert (run.approved.by, run.approved.role, run.approved.reason) == ("emil", "expert", "looked at it")
    ended = await here.lab.wait(here.lab.follow_runs(runs), timeout_s=30)
    assert ended[run_id].state is RunState.SUCCEEDED
    for name in ("olga", "vera"):
        assert [refusal.what for refusal in await here.refusals(name)] == ["approve"]


async def test_runs_on_a_fleet_are_approved_as_their_task_is(here: Here) -> None:
    params = {"task": "hard", "selector": "kind=pump", "params": {}}
    (run_id,) = (await here.lab.request(Request("fleet-run", params=params, approve=True))).runs
    call = {"operation": "burn", "selector": "t1"}
    (call_id,) = (await here.lab.request(Request("fleet-call", params=call, approve=True))).runs
    async with here.as_("otto", Role.OPERATOR) as otto, here.raw("agnes", Role.AGENT) as agnes:
        with pytest.raises(NotAllowedError, match="may not approve hard"):
            await otto.approve(run_id)
        with pytest.raises(NotAllowedError, match="may not approve what"):
            await otto.approve(call_id)
        for run in (run_id, call_id):
            await here.lab.abort(run)
        with pytest.raises(TimeoutError):
            await act(agnes, "agent=agnes", "approve", {"run_id": run_id})


async def test_a_schedule_runs_under_the_role_of_who_has_added_it_and_others_do_not_borrow_that(here: Here) -> None:
    hard, easy = (ScheduleDefinition(task=task, points=HOURLY) for task in ("hard", "easy"))
    async with here.as_("otto", Role.OPERATOR) as otto, here.as_("eva", Role.EXPERT) as eva:
        with pytest.raises(NotAllowedError, match="may not run hard"):
            await otto.add_schedule("otto's", hard)
        await otto.add_schedule("otto", easy)
        await otto.change_schedule("otto", "fire")
        await eva.add_schedule("eva", easy)
        with pytest.raises(NotAllowedError, match="may not fire what eva has added"):
            await otto.change_schedule("eva", "fire")
        await otto.change_schedule("eva", "pause")

    async def fired() -> list[dict[str, Any]]:
        return (await here.lab.runs(cause="otto"))["items"]

    (run,) = await until(fired)
    assert (run["by"], run["role"], run["cause"]["kind"]) == ("otto", "operator", "schedule")
    for name in ("otto", "eva"):
        await here.lab.change_schedule(name, "remove")


async def test_a_run_goes_on_when_the_claim_before_it_has_expired(here: Here) -> None:
    async with here.as_("anna", Role.OPERATOR) as anna:
        await anna.claim("t2", 3.0)
        await until(lambda: here.server.dispatcher._claims)
        runs = await here.lab.request(Request("easy", on="t2"))

        ended = await here.lab.wait(here.lab.follow_runs(runs), timeout_s=30)
        await until(lambda: no_claims(here.lab))

    assert [run.state for run in ended.values()] == [RunState.SUCCEEDED]


async def no_claims(lab: AsyncLab) -> bool:
    return not await lab.claims()


async def test_a_claim_of_nothing_is_refused(here: Here) -> None:
    with pytest.raises(NotFoundError, match="chooses no target"):
        await here.lab.claim("t9", 60)


async def test_many_identities_are_added_at_once(here: Here) -> None:
    before = len(Identities(here.settings.state_dir).all())
    adding = (
        asyncio.to_thread(Identities(here.settings.state_dir).add, f"many-{number}", Role.VIEWER) for number in range(8)
    )
    await asyncio.gather(*adding)

    assert len(Identities(here.settings.state_dir).all()) == before + 8


ERROR = {"kind": "not_allowed", "message": "no"}
FORGED = {
    "file.abc": {"type": "pool_changed", "pool": "default", "state": "draining", "by": "root"},
    "audit.agent.judas.rec_1": {"type": "pool_changed", "pool": "default", "state": "draining", "by": "root"},
    "audit.agent.judas.rec_2": {"type": "claims_changed", "did": "claimed", "claim": "clm_1", "by": "mal"},
    "audit.agent.judas.rec_3": {
        "type": "refused",
        "what": "x",
        "by": "mal",
        "agent": "t9",
        "error": {"message": "m"},
    },
    "session.judas.ses_1": {"type": "session_started", "agent": "t9", "operation": "x", "kind": "task", "by": "mal"},
}


async def test_what_an_agent_writes_is_what_its_subject_says_and_nothing_else(here: Here) -> None:
    """A pool is not paused by a file, no claim stands among refusals, and no session is that of another agent."""
    seq = 0
    async with here.raw("judas", Role.AGENT) as judas:
        for number, (subject, body) in enumerate(FORGED.items()):
            record = {"record_id": f"rec_forged_{number}", "at": "2026-01-01T00:00:00Z", **body}
            answer = json.loads((await judas.request(subject, json.dumps(record).encode(), timeout=30)).data)
            assert "error" not in answer
            seq = answer["seq"]

    pools = await here.lab.ask("pools", seq=seq)
    assert "draining" not in {pool["state"] for pool in pools}
    assert not [line for line in await here.lab.audit(limit=500) if line["by"] == "mal"]
    assert (await here.lab.sessions(agent="t9"))["items"] == []
