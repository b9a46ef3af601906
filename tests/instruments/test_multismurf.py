"""The MultiSmurf manager as a user meets it: real controllers on simulated cards, commanded as one, killed and slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.support.real_agents import House, RealAgent, RefusedError, house, nothing_left

pytestmark = pytest.mark.timeout(150)

CONTROLLER = "labwright.instruments.pysmurf:PysmurfController"
MANAGER = "labwright.instruments.pysmurf:MultiSmurfManager"
OCS_KEYS = {
    *("session_id", "op_name", "op_code", "cred_level", "status", "degraded", "success"),
    *("start_time", "end_time", "messages", "data"),
}
OWN_KEYS = {"agent", "state", "result", "error"}
BY_SLOT = """
    import os, pathlib, socket, json, sys, time
    what, *slots = sys.argv[1:]
    folder, slot = pathlib.Path(os.environ["OCS_CONFIG_DIR"]), os.environ["SLOT"]
    with (folder / "started").open("a") as started:
        started.write(slot + "\\n")
    place = (os.environ["SMURFPUB_UDP_HOST"], int(os.environ["SMURFPUB_UDP_PORT"]))
    packet = {"host": "h", "id": "i", "script": "s", "time": 1.5, "seq_no": 0, "type": "session_log", "payload": "on"}
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(json.dumps(packet).encode(), place)
    while slot in slots and "wait" in what and not (folder / "go").exists():
        time.sleep(0.02)
    sys.exit(7 if slot in slots and "fail" in what else 0)
"""
"""A script that waits, fails, or both, on the slots that it is given, and says that it is on."""
SYSTEM = 'slots: {{"SLOT[5]": {{stream_id: ufm_mv5, device_config: "{folder}/dev_cfg.yaml"}}}}'
CONTROLLERS = """
from labwright import Agent, Session, operation

class First(Agent):
    @operation
    async def old(self, session: Session) -> None: ...

class Second(Agent):
    @operation(role="expert")
    async def new(self, session: Session) -> None: ...
"""


class Crate:
    """A crate of simulated cards, with a controller for each, and a manager."""

    def __init__(self, home: House, folder: Path) -> None:
        self.home = home
        self.folder = folder
        self.go = folder / "go"
        folder.mkdir()

    async def slot(self, slot: int, *, faults: str = "", speed: int = 10_000, **labels: str) -> RealAgent:
        """Start the controller of a slot, `smurf-sN`, whose stream_id is `crate1slotN`."""
        variables = {
            "OCS_CONFIG_DIR": str(self.folder),
            "LABWRIGHT_SMURF_RESONATORS": "2",
            "LABWRIGHT_SMURF_SPEED": str(speed),
            "LABWRIGHT_SMURF_FAULTS": faults,
        }
        return await self.home.agent(
            CONTROLLER,
            f"smurf-s{slot}",
            arguments={"slot": slot, "simulate": True, "poll_interval": 600},
            env=variables,
            labels={"crate": "1", "slot": str(slot), **labels},
        )

    def script(self, name: str, text: str) -> str:
        """Write a script; gives the name by which it is run."""
        (self.folder / name).write_text(dedent(text), encoding="utf-8")
        return name

    def started(self) -> list[str]:
        """Give the slots on which the script was started, once for each start."""
        return (self.folder / "started").read_text().split()

    async def manager(self) -> RealAgent:
        """Start the manager."""
        return await self.home.agent(MANAGER, "multismurf")


@pytest.fixture
async def crate(tmp_path: Path) -> AsyncGenerator[Crate]:
    async with house(tmp_path / "state") as home:
        yield Crate(home, tmp_path / "config")
    await nothing_left(str(tmp_path))


async def monitor(manager: RealAgent, condition: Callable[[dict[str, Any]], Any], what: str) -> dict[str, Any]:
    """Give the controllers as the manager shows them, once they fit."""
    session = (await manager.ask("status", "monitor"))["session"]

    def fits(known: Mapping[str, Any]) -> Any:
        return condition(known["data"].get("smurfs", {}))

    return (await manager.shown(session, fits, what))["data"]["smurfs"]


async def until_async(
    ask: Callable[[], Awaitable[dict[str, Any]]], condition: Callable[[dict[str, Any]], Any], what: str
) -> dict[str, Any]:
    """Ask until the answer fits."""
    async with asyncio.timeout(30):
        while not condition(known := await ask()):
            await asyncio.sleep(0.02)
    assert condition(known), what
    return known


def messages_of(session: Mapping[str, Any], name: str) -> list[Any]:
    return session["data"].get(name, {}).get("messages", [])


def outcomes(session: Mapping[str, Any]) -> dict[str, str]:
    return {name: row["outcome"] for name, row in session["data"].items()}


async def test_an_operation_runs_on_all_and_shows_their_sessions_by_stream_id(crate: Crate) -> None:
    for slot in (2, 3):
        await crate.slot(slot)
    manager = await crate.manager()

    ended = await manager.call("set_biases", bias=1.5, bgs=[0, 1])

    assert ended["state"] == "succeeded", ended
    assert outcomes(ended) == {"crate1slot2": "succeeded", "crate1slot3": "succeeded"}
    for slot in (2, 3):
        row = ended["data"][f"crate1slot{slot}"]
        assert row.keys() == OCS_KEYS | OWN_KEYS | {"outcome"}
        assert (row["agent"], row["status"], row["success"]) == (f"smurf-s{slot}", "done", True)
    assert ended["result"]["targets"].keys() == ended["data"].keys()


async def test_an_option_may_name_controllers_and_say_how_many_must_succeed(crate: Crate) -> None:
    for slot in (2, 3, 4):
        await crate.slot(slot)
    manager = await crate.manager()
    script = crate.script("by_slot.py", BY_SLOT)

    one = await manager.call("run", script=script, args=["fail", 3], stream_ids=["crate1slot2"])
    all_of_three = await manager.call("run", script=script, args=["fail", 3])
    two_of_three = await manager.call("run", script=script, args=["fail", 3], quorum=2)

    assert outcomes(one) == {"crate1slot2": "succeeded"}
    assert all_of_three["state"] == "failed"
    assert all_of_three["error"]["kind"] == "fleet_failed"
    assert "crate1slot3 failed" in all_of_three["error"]["because"]
    assert all_of_three["data"]["crate1slot3"]["success"] is False
    assert "exit code 7" in all_of_three["data"]["crate1slot3"]["error"]["message"]
    assert two_of_three["state"] == "succeeded"
    assert outcomes(two_of_three) == outcomes(all_of_three)


async def test_a_controller_that_is_dead_and_one_that_is_slow_do_not_hold_up_the_others(crate: Crate) -> None:
    for slot in (2, 3):
        await crate.slot(slot)
    dead = await crate.slot(4)
    manager = await crate.manager()
    script = crate.script("by_slot.py", BY_SLOT)
    await monitor(manager, lambda smurfs: len(smurfs) == 3, "all three")
    await dead.kill()
    names = ["crate1slot2", "crate1slot3", "crate1slot4"]

    ended = await manager.call("run", script=script, args=["wait", 3], stream_ids=names, quorum=1, timeout_s=10)

    expected = {"crate1slot2": "succeeded", "crate1slot3": "timeout", "crate1slot4": "unreachable"}
    assert (ended["state"], outcomes(ended)) == ("succeeded", expected)
    assert ended["data"]["crate1slot4"]["session_id"] is None
    assert ended["data"]["crate1slot4"]["success"] is False
    assert ended["data"]["crate1slot3"]["status"] == "done"


async def test_a_controller_that_vanishes_in_the_middle_is_unreachable(crate: Crate) -> None:
    await crate.slot(2)
    doomed = await crate.slot(3)
    manager = await crate.manager()
    script = crate.script("by_slot.py", BY_SLOT)

    session = await manager.begin("run", script=script, args=["wait", 3], return_within_s=0.5)
    await manager.shown(session, lambda known: messages_of(known, "crate1slot3"), "a message of the one that vanishes")
    await doomed.kill()
    ended = await manager.ended(session)

    assert ended["state"] == "failed"
    assert outcomes(ended) == {"crate1slot2": "succeeded", "crate1slot3": "unreachable"}
    assert ended["data"]["crate1slot3"]["op_code"] == 7
    assert ended["data"]["crate1slot3"]["error"]


async def test_a_controller_that_comes_back_with_its_session_answers_with_its_end(crate: Crate) -> None:
    await crate.slot(2)
    restarted = await crate.slot(3)
    manager = await crate.manager()
    script = crate.script("by_slot.py", BY_SLOT)

    session = await manager.begin("run", script=script, args=["wait", 3])
    await manager.shown(session, lambda known: messages_of(known, "crate1slot3"), "a message of the one that restarts")
    await restarted.kill()
    await monitor(manager, lambda smurfs: smurfs["smurf-s3"]["expired"], "that it is away")
    await restarted.start()
    crate.go.touch()
    ended = await manager.ended(session)

    assert ended["state"] == "succeeded", ended
    assert outcomes(ended) == {"crate1slot2": "succeeded", "crate1slot3": "succeeded"}


async def test_a_manager_that_is_killed_in_the_middle_tells_the_truth_when_it_is_back(crate: Crate) -> None:
    for slot in (2, 3):
        await crate.slot(slot)
    manager = await crate.manager()
    script = crate.script("by_slot.py", BY_SLOT)
    session = await manager.begin("run", script=script, args=["wait", 2, 3])
    shown = await manager.shown(
        session, lambda known: messages_of(known, "crate1slot2") and messages_of(known, "crate1slot3"), "both"
    )

    await manager.kill()
    await manager.start()
    again = await manager.status(session)
    crate.go.touch()
    ended = await manager.ended(session)

    assert again["state"] == "running"
    assert ended["state"] == "succeeded", ended
    assert outcomes(ended) == {"crate1slot2": "succeeded", "crate1slot3": "succeeded"}
    for name in outcomes(ended):
        assert ended["data"][name]["session_id"] == shown["data"][name]["session_id"]
    assert sorted(crate.started()) == ["2", "3"]


async def test_what_ended_while_the_manager_was_dead_is_told_as_it_ended(crate: Crate) -> None:
    agents = [await crate.slot(2), await crate.slot(3)]
    manager = await crate.manager()
    script = crate.script("by_slot.py", BY_SLOT)
    session = await manager.begin("run", script=script, args=["fail-after-wait", 2, 3], quorum=1)
    shown = await manager.shown(
        session, lambda known: messages_of(known, "crate1slot2") and messages_of(known, "crate1slot3"), "both"
    )
    await manager.kill()
    crate.go.touch()
    for number, agent in enumerate(agents):
        await agent.ended({"id": shown["data"][f"crate1slot{2 + number}"]["session_id"]})

    await manager.start()
    ended = await manager.ended(session)

    assert ended["state"] == "failed"
    assert outcomes(ended) == {"crate1slot2": "failed", "crate1slot3": "failed"}
    assert "exit code 7" in ended["data"]["crate1slot2"]["error"]["message"]


async def test_an_abort_of_the_manager_ends_what_it_has_started(crate: Crate) -> None:
    agent = await crate.slot(2)
    manager = await crate.manager()
    script = crate.script("by_slot.py", BY_SLOT)
    session = await manager.begin("run", script=script, args=["wait", 2])
    await manager.shown(session, lambda known: messages_of(known, "crate1slot2"), "that it runs")

    await manager.ask("abort", session=session["id"], reason="enough")
    ended = await manager.ended(session)

    assert ended["state"] == "aborted"
    assert outcomes(ended) == {"crate1slot2": "aborted"}
    assert (await agent.ask("status", "run"))["session"]["state"] == "aborted"


async def test_a_process_runs_on_all_until_it_is_stopped(crate: Crate) -> None:
    agents = [await crate.slot(2), await crate.slot(3)]
    manager = await crate.manager()

    session = await manager.begin("stream", load_tune=False)
    await manager.shown(
        session,
        lambda known: len(known["data"]) == 2 and all(row["data"].get("stream_on") for row in known["data"].values()),
        "streams that are on",
    )
    await manager.ask("stop", "stream")
    ended = await manager.ended(session)

    assert session["kind"] == "process"
    assert ended["state"] == "succeeded", ended
    assert outcomes(ended) == {"crate1slot2": "succeeded", "crate1slot3": "succeeded"}
    for agent in agents:
        assert (await agent.ask("status", "stream"))["session"]["state"] == "succeeded"


# --- monitor ---------------------------------------------------------------------------------------------------------


async def test_the_monitor_is_told_who_comes_who_goes_and_what_each_does(crate: Crate) -> None:
    manager = await crate.manager()
    empty = await monitor(manager, lambda _: True, "anything")
    agent = await crate.slot(2)
    here = await monitor(manager, lambda smurfs: smurfs and not smurfs["smurf-s2"]["expired"], "the controller")

    session = await agent.begin("run", script=crate.script("by_slot.py", BY_SLOT), args=["wait", 2])
    busy = await monitor(manager, lambda smurfs: "run" in smurfs["smurf-s2"]["sessions"], "its session")
    crate.go.touch()
    done = await monitor(
        manager, lambda smurfs: smurfs["smurf-s2"]["sessions"]["run"]["status"] == "done", "the session's end"
    )
    await agent.kill()
    gone = await monitor(manager, lambda smurfs: smurfs["smurf-s2"]["expired"], "that it is gone")
    await agent.start()
    back = await monitor(manager, lambda smurfs: not smurfs["smurf-s2"]["expired"], "that it is back")

    assert empty == {}
    assert here["smurf-s2"].keys() == {"expired", "last_refresh", "stream_id", "address", "sessions"}
    assert (here["smurf-s2"]["address"], here["smurf-s2"]["stream_id"]) == ("smurf-s2", "crate1slot2")
    assert busy["smurf-s2"]["sessions"]["run"]["session_id"] == session["id"]
    assert done["smurf-s2"]["sessions"]["run"]["success"] is True
    assert done["smurf-s2"]["sessions"]["run"].keys() == OCS_KEYS | OWN_KEYS
    assert gone["smurf-s2"]["sessions"]["check_state"]["state"] == "lost"
    assert back["smurf-s2"]["last_refresh"] > here["smurf-s2"]["last_refresh"]
    assert back["smurf-s2"]["sessions"]["run"]["session_id"] == session["id"]


async def test_controllers_whose_stream_id_is_not_known_stand_side_by_side_and_are_named_by_address(
    crate: Crate,
) -> None:
    for name in ("bare-1", "bare-2"):
        await crate.home.agent(CONTROLLER, name, env={"OCS_CONFIG_DIR": str(crate.folder)})
    manager = await crate.manager()

    shown = await monitor(manager, lambda smurfs: len(smurfs) == 2, "both")
    ended = await manager.call("run_test_func", stream_ids=["bare-2"])

    assert [controller["stream_id"] for controller in shown.values()] == [None, None]
    assert outcomes(ended).keys() == {"bare-2"}


async def test_a_stream_id_without_a_label_is_what_check_state_says(crate: Crate) -> None:
    (crate.folder / "sys_config.yml").write_text(SYSTEM.format(folder=crate.folder))
    env = {"OCS_CONFIG_DIR": str(crate.folder), "LABWRIGHT_SMURF_RESONATORS": "2", "SLOT": "5"}
    await crate.home.agent(CONTROLLER, "smurf", arguments={"simulate": True}, env=env, labels={"stream_id": ""})
    manager = await crate.manager()

    shown = await monitor(manager, lambda smurfs: smurfs and smurfs["smurf"]["stream_id"], "a stream_id")

    assert shown["smurf"]["stream_id"] == "ufm_mv5"


# --- operations come and go ------------------------------------------------------------------------------------------


async def operations(manager: RealAgent) -> dict[str, dict[str, Any]]:
    described = (await manager.ask("describe"))["agent"]
    return {operation["name"]: operation for operation in described["operations"]}


async def test_the_manager_can_do_what_controllers_can_do_now(crate: Crate) -> None:
    manager = await crate.manager()
    before = await operations(manager)
    revision = (await manager.ask("describe"))["agent"]["revision"]
    agent = await crate.slot(2)
    known = await until_async(lambda: operations(manager), lambda known: "uxm_setup" in known, "what it can do")
    own = await operations(agent)

    assert list(before) == ["monitor"]
    assert known.keys() == own.keys() | {"monitor"}
    assert (await manager.ask("describe"))["agent"]["revision"] != revision
    for name, described in own.items():
        properties = known[name]["params"]["properties"]
        assert known[name]["kind"] == described["kind"]
        assert properties.keys() >= described["params"].get("properties", {}).keys() | {"stream_ids", "quorum"}
        assert known[name]["doc"].startswith(described["doc"])


async def test_an_operation_that_no_controller_has_any_more_is_gone(crate: Crate, tmp_path: Path) -> None:
    module = tmp_path / "config" / "bench_controllers.py"
    module.write_text(CONTROLLERS)
    env = {"PYTHONPATH": str(module.parent)}
    manager = await crate.home.agent(MANAGER, "multismurf", arguments={"controllers": "kind=bench"})
    first = await crate.home.agent("bench_controllers:First", "c1", env=env, labels={"kind": "bench"})
    await until_async(lambda: operations(manager), lambda known: "old" in known, "what the first can do")
    await first.terminate()
    await crate.home.agent("bench_controllers:Second", "c1", env=env, labels={"kind": "bench"})

    known = await until_async(lambda: operations(manager), lambda known: "new" in known, "what the second can do")

    assert known.keys() == {"monitor", "new"}
    assert known["new"]["role"] == "expert"
    with pytest.raises(RefusedError, match="no operation 'old'"):
        await manager.begin("old")


# --- refusals --------------------------------------------------------------------------------------------------------


REFUSED = (
    ({"stream_ids": ["crate1slot2", "crate1slot2"]}, "usage", "crate1slot2 stands twice"),
    ({"stream_ids": ["crate1slot9"]}, "not_found", "no controller has the stream_id 'crate1slot9'"),
    ({"stream_ids": []}, "usage", "stream_ids is empty"),
    ({"stream_ids": "crate1slot2"}, "usage", "stream_ids"),
    ({"quorum": 2}, "usage", "quorum of 2 cannot be reached"),
    ({"quorum": "most"}, "usage", "quorum"),
    ({"timeout_s": -1}, "usage", "timeout_s"),
    ({"bia": 1}, "usage", "did you mean 'bias'"),
)


async def test_what_cannot_be_meant_is_refused(crate: Crate) -> None:
    await crate.slot(2)
    manager = await crate.manager()

    for params, kind, said in REFUSED:
        with pytest.raises(RefusedError) as refused:
            await manager.ask("start", "set_biases", params={"bias": 1.0, **params})
        assert (refused.value.kind, said in str(refused.value)) == (kind, True), str(refused.value)
    with pytest.raises(RefusedError, match="bias: it is required and not given"):
        await manager.begin("set_biases")


async def test_without_a_controller_there_is_nobody_to_command(crate: Crate) -> None:
    agent = await crate.slot(2)
    manager = await crate.manager()
    await agent.terminate()
    await monitor(manager, lambda smurfs: smurfs["smurf-s2"]["expired"], "that it is gone")

    with pytest.raises(RefusedError, match="there is no controller that is not expired") as refused:
        await manager.begin("set_biases", bias=1.0)

    assert refused.value.kind == "not_found"


async def test_two_controllers_with_one_stream_id_are_not_both_commanded(crate: Crate) -> None:
    await crate.slot(2, stream_id="crate1slot3")
    await crate.slot(3)
    manager = await crate.manager()

    with pytest.raises(RefusedError, match="smurf-s2 and smurf-s3 have the same stream_id, crate1slot3") as refused:
        await manager.begin("set_biases", bias=1.0)

    assert refused.value.kind == "conflict"


async def test_what_a_controller_refuses_is_its_row(crate: Crate) -> None:
    await crate.slot(2)
    busy = await crate.slot(3)
    manager = await crate.manager()
    script = crate.script("by_slot.py", BY_SLOT)
    await busy.begin("run", script=script, args=["wait", 3])

    ended = await manager.call("set_biases", bias=1.0)
    unfit = await manager.call("set_biases", bias="much", stream_ids=["crate1slot2"])

    assert outcomes(ended) == {"crate1slot2": "succeeded", "crate1slot3": "refused"}
    assert ended["data"]["crate1slot3"]["error"]["kind"] == "locked"
    assert outcomes(unfit) == {"crate1slot2": "refused"}
    assert "bias" in unfit["data"]["crate1slot2"]["error"]["because"]
