"""What the wire lets through, spoken to by nats-py alone: each test has a credential that is not enough."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nats.errors
import pytest
from nats.aio.msg import Msg

from labwright.access.claim_watch import read_claims
from labwright.access.claiming import Claiming
from labwright.agents.handle import AgentHandle
from labwright.agents.serving import AgentServer, serving
from labwright.core.errors import ClaimedError, ConflictError, NotAllowedError
from labwright.core.ids import new_id
from labwright.core.model import Cause
from labwright.core.roles import Role
from labwright.journal.records import Requested
from tests.access.conftest import LIMIT_S, House, Pump, Raw, connected
from tests.support.waiting import until


async def test_a_viewer_starts_nothing_and_that_is_recorded(house: House, pump: AgentServer) -> None:
    async with house.raw("vera", Role.VIEWER) as vera:
        reply = await vera.start("pump-1", "dispense", by="root", origin="elsewhere:1")

    assert reply["session"] is None
    assert reply["error"]["kind"] == "not_allowed"
    assert reply["exit_code"] == 4
    assert not pump.sessions
    (refusal,) = await house.refusals()
    assert (refusal.by, refusal.role, refusal.origin, refusal.agent) == ("vera", "viewer", "elsewhere:1", "pump-1")
    assert refusal.what == "start dispense"


async def test_a_viewer_ends_nothing_and_sees_all(house: House, pump: AgentServer) -> None:
    async with house.raw("olaf", Role.OPERATOR) as olaf, house.raw("vera", Role.VIEWER) as vera:
        session = (await olaf.start("pump-1", "stir"))["session"]["id"]

        for verb in ("stop", "abort"):
            assert (await vera.command("pump-1", None, do=verb, session=session))["error"]["kind"] == "not_allowed"
        assert (await vera.command("pump-1", "stir", do="status"))["session"]["state"] == "running"
        assert (await vera.command("pump-1", None, do="describe"))["agent"]["name"] == "pump-1"

        await olaf.command("pump-1", None, do="stop", session=session)
    assert len(await house.refusals(2)) == 2


@pytest.mark.parametrize(
    ("role", "name", "may"),
    [
        (Role.VIEWER, "blink", True),
        (Role.OPERATOR, "dispense", True),
        (Role.OPERATOR, "calibrate", False),
        (Role.EXPERT, "calibrate", True),
        (Role.ADMIN, "calibrate", True),
        (Role.AGENT, "dispense", False),
    ],
)
async def test_an_operation_asks_for_its_role(
    house: House, pump: AgentServer, role: Role, name: str, may: bool
) -> None:
    async with house.raw("someone", role) as someone:
        reply = await someone.start("pump-1", name, wait=True)

    assert ("error" not in reply) is may, reply


async def test_a_session_is_by_who_proved_it_and_not_by_whom_the_command_names(house: House, pump: AgentServer) -> None:
    async with house.raw("olaf", Role.OPERATOR) as olaf:
        session = (await olaf.start("pump-1", "dispense", by="root", origin="bench:7"))["session"]

    assert session["by"] == "olaf"
    await house.journal.connection.request("audit.probe", b"{}")
    entries = await house.journal.read(f"session.pump-1.{session['id']}")
    while not entries:
        entries = await house.journal.read(f"session.pump-1.{session['id']}")
    assert getattr(entries[0].record, "by", "") == "olaf"
    assert getattr(entries[0].record, "origin", "") == "bench:7"


async def test_nobody_speaks_as_another(house: House, pump: AgentServer, heard: list[Msg]) -> None:
    async with house.raw("vera", Role.VIEWER) as vera:
        for sender in ("operator=olaf", "operator=vera", "admin=vera", "labwright", "vera@bench", "viewer=vera2"):
            subject = f"command.{sender}.pump-1.dispense"
            said = await vera.refused(lambda subject=subject: vera.client.publish(subject, b'{"do": "start"}'))
            assert subject in said

    assert not heard


@pytest.mark.parametrize(
    "subject",
    [
        "presence.agent.pump-1",
        "session.pump-1.ses_1",
        "live.session.pump-1.ses_1",
        "feed.pump-1.pressure",
        "audit.agent.pump-1.rec_1",
        "command.agent=pump-1.pump-3.dispense",
        "command.operator=pump-2.pump-3.dispense",
        "run.run_1",
        "event.evt_1",
        "claim.all",
        "dispatch.0",
        "pool.default",
        "signal.reload",
        "ask.reload",
        "act.agent=pump-2.request",
        "$JS.API.STREAM.DELETE.JOURNAL",
        "$JS.API.STREAM.PURGE.JOURNAL",
        "$JS.API.STREAM.UPDATE.JOURNAL",
        "$JS.API.CONSUMER.DELETE.JOURNAL.follow_1",
        "$SYS.REQ.SERVER.PING",
    ],
)
async def test_an_agent_speaks_only_as_that_agent(house: House, subject: str) -> None:
    async with house.raw("pump-2", Role.AGENT) as other:
        assert subject.lower() in await other.refused(lambda: other.client.publish(subject, b"{}"))


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, Role.EXPERT, Role.AGENT])
@pytest.mark.parametrize(
    "subject",
    [
        "_INBOX.>",
        "_INBOX.*.>",
        "_INBOX.operator=olaf.>",
        "_DELIVER.>",
        "command.>",
        "command.*.pump-1.*",
        "ask.>",
        "act.>",
        "$JS.API.>",
        ">",
    ],
)
async def test_nobody_listens_to_what_is_said_to_others(house: House, role: Role, subject: str) -> None:
    async with house.raw("mallory", role) as mallory:
        assert "subscription" in await mallory.refused(lambda: mallory.client.subscribe(subject))


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, Role.EXPERT, Role.ADMIN])
@pytest.mark.parametrize("subject", ["run.run_1", "claim.all", "audit.x", "presence.agent.pump-1", "live.session.a.b"])
async def test_people_do_not_write_to_the_journal_nor_speak_for_agents(house: House, role: Role, subject: str) -> None:
    async with house.raw("mallory", role) as mallory:
        assert subject in await mallory.refused(lambda: mallory.client.publish(subject, b"{}"))


async def test_a_replayed_command_is_refused_and_recorded(house: House, pump: AgentServer) -> None:
    command: dict[str, Any] = {"do": "start", "session": new_id("ses"), "params": {"volume_ml": 2.0}}
    async with house.raw("olaf", Role.OPERATOR) as olaf, house.raw("mallory", Role.EXPERT) as mallory:
        first = await olaf.command("pump-1", "dispense", **command)
        again = await olaf.command("pump-1", "dispense", **command)
        replayed = await mallory.command("pump-1", "dispense", **command)

    assert first["is_new"] is True
    assert again["is_new"] is False
    assert again["session"]["id"] == first["session"]["id"]
    assert replayed["session"] is None
    assert "olaf has asked for it" in replayed["error"]["because"]
    (refusal,) = await house.refusals()
    assert refusal.by == "mallory"


async def test_a_reply_goes_to_inboxes_only(house: House, pump: AgentServer, heard: list[Msg]) -> None:
    async with house.raw("vera", Role.VIEWER) as vera:
        subject = "command.viewer=vera.pump-1._"
        await vera.client.publish(subject, b'{"do": "ping"}', reply="command.labwright.pump-1.dispense")
        await vera.command("pump-1", None, do="ping")  # the one before was followed, too

    assert {message.subject for message in heard} == {subject}


async def test_what_a_stream_says_on_an_agents_behalf_is_no_command(house: House, pump: AgentServer) -> None:
    body = json.dumps({"do": "start", "session": "ses_forged"}).encode()
    await house.journal.connection.request("session.pump-2.ses_1", body)
    stored = "$JS.API.DIRECT.GET.JOURNAL.session.pump-2.ses_1"
    await house.journal.connection.publish(stored, b"", reply="command.labwright.pump-1.dispense")
    async with house.raw("vera", Role.VIEWER) as vera:
        found = await vera.command("pump-1", None, do="status", session="ses_forged")

    assert found["error"]["kind"] == "not_found"


@pytest.mark.parametrize("role", list(Role))
async def test_nobody_has_nats_server_harm_the_journal_by_its_own_answers(house: House, role: Role) -> None:
    harm = "$JS.API.STREAM.DELETE.JOURNAL"
    async with house.raw("mallory", role) as mallory:
        for subject in ("$JS.API.DIRECT.GET.JOURNAL.run.none", "$JS.API.STREAM.INFO.JOURNAL"):
            await mallory.refused(lambda subject=subject: mallory.client.publish(subject, b"", reply=harm))
        for request in ("DIRECT.GET.JOURNAL.run.none", "STREAM.INFO.JOURNAL", "STREAM.DELETE.JOURNAL"):
            await mallory.client.publish(f"read.{mallory.sender}.{request}", b"", reply=harm)
        push = {"name": "p", "deliver_subject": harm}
        create = json.dumps({"stream_name": "JOURNAL", "config": push}).encode()
        follow = f"read.{mallory.sender}.CONSUMER.CREATE.JOURNAL.follow_0123456789abcdef"
        await mallory.client.publish(follow, create, reply=f"_INBOX.{mallory.sender}.1")
        for verb in ("DELETE", "PURGE", "MSG.DELETE") if role is Role.AGENT else ():
            for body in (b"", b"{}"):
                await mallory.client.publish("session.mallory.ses_1", body, reply=f"$JS.API.STREAM.{verb}.JOURNAL")
        info = await mallory.client.request(f"read.{mallory.sender}.STREAM.INFO.JOURNAL", b"", timeout=30)

    assert json.loads(info.data)["config"]["name"] == "JOURNAL"
    now = await house.journal.api("STREAM.INFO.JOURNAL")
    assert now["state"]["messages"] == now["state"]["last_seq"] == (6 if role is Role.AGENT else 0)


async def acknowledged(house: House, mallory: Raw, subject: str) -> None:
    """Have nats-server write its acknowledgement of what an agent wrote onto another subject of the journal."""
    before = len(await house.journal.read(subject))
    await mallory.client.publish("session.mallory.ses_1", b"{}", reply=subject)

    async def is_there() -> bool:
        return len(await house.journal.read(subject)) > before

    await until(is_there)


async def test_an_acknowledgement_among_claims_sets_none_aside(house: House, pump: AgentServer) -> None:
    targets = {"pump-1": {"bench": "2"}}
    ada, bob = (Claiming(journal=house.journal, by=name) for name in ("ada", "bob"))
    await ada.claim("bench=2", 600, targets=targets)
    async with house.raw("mallory", Role.AGENT) as mallory, house.raw("bob", Role.EXPERT) as user:
        await acknowledged(house, mallory, "claim.all")
        pump._claims._reconnected()
        await until(pump._claims.is_known.is_set)
        refused = await user.start("pump-1", "dispense")
        with pytest.raises(ClaimedError):
            await bob.claim("pump-1", 60, targets=targets)
        await ada.claim("bench=2", 900, targets=targets)
        await acknowledged(house, mallory, "claim.all")

    assert refused["error"]["kind"] == "claimed"
    _, claims = await read_claims(house.journal)
    assert [claim.entry.seconds for claim in claims] == [900]


async def test_an_acknowledgement_where_nothing_was_claimed_is_no_claim(house: House) -> None:
    async with house.raw("mallory", Role.AGENT) as mallory:
        await acknowledged(house, mallory, "claim.all")

    assert (await read_claims(house.journal))[1] == ()
    await Claiming(journal=house.journal, by="ada").claim("pump-1", 60, targets={})
    assert len((await read_claims(house.journal))[1]) == 1


async def test_an_acknowledgement_in_the_place_of_a_run_keeps_nobody_from_making_it(house: House) -> None:
    record = Requested(task="measure", cause=Cause(kind="operator", id="ada"), content="measure")
    async with house.raw("mallory", Role.AGENT) as mallory:
        await acknowledged(house, mallory, "run.run_1")
        seq, is_new = await house.journal.create("run.run_1", record, content="measure")
        await acknowledged(house, mallory, "run.run_1")

    again = record.model_copy(update={"record_id": "rec_again"})
    assert is_new
    assert await house.journal.create("run.run_1", again, content="measure") == (seq, False)
    with pytest.raises(ConflictError):
        await house.journal.create("run.run_1", again, content="clean")


async def test_a_revoked_identity_is_cut_off(house: House) -> None:
    async with house.raw("olaf", Role.OPERATOR) as olaf:
        house.identities.revoke("olaf")
        house.server.reload()
        with pytest.raises((nats.errors.Error, TimeoutError, OSError)):  # noqa: PT012 - until the client hears of it
            while True:
                await olaf.client.flush(timeout=2)

    with pytest.raises(nats.errors.Error, match="Authorization"):
        await connected(house.address.url, nkeys_seed_str=house.seeds["olaf"])


async def test_an_agent_whose_key_was_revoked_does_not_begin(house: House, tmp_path: Path) -> None:
    house.add("pump-3", Role.AGENT)
    address = house.located("pump-3")
    house.identities.revoke("pump-3")
    house.server.reload()

    with pytest.raises(NotAllowedError, match="does not accept this key"):
        async with serving(Pump, name="pump-3", locate=lambda: address, state_dir=tmp_path / "agents"):
            pass


async def test_others_stay_connected_while_somebody_is_added(house: House) -> None:
    async with house.raw("olaf", Role.OPERATOR) as olaf:
        generation = house.journal.connection.generation
        async with house.raw("vera", Role.VIEWER) as vera:
            await vera.client.flush()

            assert olaf.client.is_connected
            assert house.journal.connection.generation == generation


async def test_who_has_no_key_is_not_let_in(house: House) -> None:
    for options in ({}, {"user": "labwright", "password": "guess"}):
        with pytest.raises(nats.errors.Error, match="Authorization"):
            await connected(house.address.url, **options)


async def test_an_agent_with_a_key_serves_and_records(house: House, tmp_path: Path) -> None:
    house.add("pump-2", Role.AGENT)
    async with (
        serving(Pump, name="pump-2", locate=lambda: house.located("pump-2"), state_dir=tmp_path / "agents") as served,
        house.raw("olaf", Role.OPERATOR) as olaf,
        house.raw("vera", Role.VIEWER) as vera,
    ):
        done = await olaf.start("pump-2", "dispense", wait=True)
        assert (await vera.start("pump-2", "dispense"))["error"]["kind"] == "not_allowed"
        assert served.is_connected
        (refusal,) = await house.refusals()
        assert refusal.agent == "pump-2"
        subject = f"session.pump-2.{done['session']['id']}"
        records = await house.journal.read(subject)
        while len(records) < 2:
            records = await house.journal.read(subject)

    assert [entry.record.type for entry in records] == ["session_started", "session_ended"]


async def test_an_agent_with_the_key_of_another_does_not_begin(house: House, tmp_path: Path) -> None:
    house.add("pump-2", Role.AGENT)

    with pytest.raises(NotAllowedError, match="agent=pump-2"):
        async with serving(Pump, name="pump-1", locate=lambda: house.located("pump-2"), state_dir=tmp_path / "agents"):
            pass


async def test_nobody_with_a_key_outdates_the_attempts_of_the_labs_runs(
    house: House, pump: AgentServer, handle: Callable[[str], AgentHandle]
) -> None:
    """A run's attempt gives a token, and older ones are refused; whoever has a key could give one that none beats."""
    async with house.raw("ada", Role.OPERATOR) as ada:
        high = await ada.start("pump-1", "flush", token=2**63 - 1, run="run_1", wait=True)
        assert "error" not in high
        await handle("a-run").session(high["session"]["id"]).result(LIMIT_S)

    flush = handle("a-run").operation("flush").with_options(run="run_2", token=5)
    assert (await flush()).result == "flushed"
