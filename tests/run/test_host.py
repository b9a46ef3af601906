"""The host keeps real agents up as the configuration says, whatever dies, and leaves nothing behind when it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from labwright.agents.wire import command_subject
from labwright.core.ids import new_id
from labwright.run.host import Host
from labwright.run.kept_agent import KeptState, Launch
from labwright.run.wanted import Manage, Sources
from tests.support.real_agents import House, house, nothing_left, processes_naming
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(150)

PUMPS = """
    import os
    from labwright import Agent, operation

    class Pump(Agent):
        def __init__(self, port: str = "none", speed: int = 1) -> None:
            self.port, self.speed = port, speed

        @operation
        async def tell(self, session):
            return {"port": self.port, "speed": self.speed, "pid": os.getpid()}

    class Scripted(Agent):
        @operation(startup=True)
        async def go(self, session):
            await session.script(os.environ["LABWRIGHT_SITE"] + "/sleeps.py")

    class Broken(Agent):
        def __init__(self) -> None:
            raise RuntimeError("the pump is not plugged in")
"""
TOML = """
    [state]
    dir = "state"
    [agents.pump-1]
    class = "pumps:Pump"
    labels = {bench = 2}
    arguments = {port = "/dev/ttyUSB0", speed = 7}
"""


class HostSite:
    """A site with pumps, and the process of its host."""

    def __init__(self, folder: Path, home: House | None) -> None:
        self.folder = folder
        self._home = home
        self.log = folder / "host.log"
        self._process: Process | None = None
        (folder / "pumps.py").write_text(dedent(PUMPS))
        self.configure(TOML)

    @property
    def home(self) -> House:
        assert self._home is not None
        return self._home

    @property
    def host_pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def configure(self, toml: str) -> None:
        (self.folder / "labwright.toml").write_text(dedent(toml))

    async def start(self, *options: str) -> None:
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "labwright", "host", "--site", str(self.folder), "--name", "host-1"),
                *options,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def send(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def ended(self) -> int:
        assert self._process is not None
        async with asyncio.timeout(60):
            return await self._process.wait()

    async def close(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self.send(signal.SIGTERM)
            await self.ended()

    def pid(self, agent: str) -> int | None:
        """Tell the process of an agent, if it is there; its lock is left alone: the agent may be about to take it."""
        name = f"--name {agent} "
        found = processes_naming(f"{self.folder}/state")
        return next((each.pid for each in found if name in f"{' '.join(each.cmdline())} "), None)

    async def ask(self, agent: str, do: str, operation: str | None = None, **fields: Any) -> dict[str, Any]:
        body = json.dumps({"do": do, **fields}).encode()
        subject = command_subject("tester", agent, operation)
        answer = await self.home.connection.request(subject, body, timeout_s=40)
        return json.loads(answer.data)

    async def call(self, agent: str, operation: str, **params: Any) -> dict[str, Any]:
        session = new_id("ses")
        reply = await self.ask(agent, "start", operation, session=session, params=params)
        assert "error" not in reply, reply
        return (await self.ask(agent, "wait", session=session))["session"]

    async def shown(self, condition: Callable[[Mapping[str, Any]], object], what: str) -> dict[str, Any]:
        """Wait until the host shows something of its agents."""
        data: dict[str, Any] = {}
        for _ in range(1200):
            try:
                reply = await self.ask("host-1", "status", "manager")
                data = (reply.get("session") or {}).get("data") or {}
                if data and condition(data):
                    return data
            except Exception:  # noqa: BLE001 - the host is not here yet
                pass
            await asyncio.sleep(0.05)
        raise AssertionError(f"the host does not show {what}: {data}\n{self.log.read_text()}")

    async def up(self, agent: str) -> int:
        """Wait until an agent answers; gives its process id."""
        for _ in range(1200):
            try:
                if "error" not in await self.ask(agent, "ping"):
                    return self.pid(agent) or 0
            except Exception:  # noqa: BLE001 - it is not here yet
                pass
            await asyncio.sleep(0.05)
        raise AssertionError(f"{agent} does not come up:\n{self.log.read_text()}")


@pytest.fixture
async def site(tmp_path: Path) -> AsyncGenerator[HostSite]:
    async with house(tmp_path / "state") as home:
        site = HostSite(tmp_path, home)
        yield site
        await site.close()
        await until(lambda: not processes_naming(f"{tmp_path}/state/agents"), "no agent is left")
        for name in ("pump-1", "pump-2"):
            assert site.pid(name) is None


async def test_an_agent_of_the_settings_is_kept_up_with_its_arguments(site: HostSite) -> None:
    await site.start()

    pid = await site.up("pump-1")
    told = await site.call("pump-1", "tell")
    shown = await site.shown(lambda data: data["agents"]["pump-1"]["pid"] == pid, "the pump's pid")

    assert told["result"] == {"port": "/dev/ttyUSB0", "speed": 7, "pid": pid}
    assert shown["agents"]["pump-1"] | {"since": ""} == {
        "class": "pumps:Pump",
        "target": "up",
        "state": "up",
        "pid": pid,
        "since": "",
        "restarts": 0,
        "unstable": False,
        "last_error": "",
        "log": str(site.folder / "state" / "agents" / "pump-1" / "agent.log"),
    }
    assert shown["findings"] == []


async def test_an_agent_that_dies_is_started_again(site: HostSite) -> None:
    await site.start()
    first = await site.up("pump-1")

    os.kill(first, signal.SIGKILL)
    shown = await site.shown(lambda data: data["agents"]["pump-1"]["restarts"] == 1, "a restart")
    second = await site.up("pump-1")

    assert second != first
    assert "SIGKILL" in shown["agents"]["pump-1"]["last_error"]


async def test_told_to_end_the_host_takes_all_its_agents_down(site: HostSite) -> None:
    await site.start()
    pid = await site.up("pump-1")

    site.send(signal.SIGTERM)

    assert await site.ended() == 0
    assert site.pid("pump-1") is None
    assert not Path(f"/proc/{pid}").exists()


async def test_an_agent_that_survived_a_killed_host_is_cared_for_and_not_doubled(site: HostSite) -> None:
    await site.start()
    pid = await site.up("pump-1")

    site.send(signal.SIGKILL)
    await site.ended()
    assert (await site.call("pump-1", "tell"))["result"]["pid"] == pid
    await site.start()
    await site.shown(lambda data: data["agents"]["pump-1"]["pid"] == pid, "the survivor")
    os.kill(pid, signal.SIGKILL)
    await site.shown(lambda data: data["agents"]["pump-1"]["restarts"] == 1, "the survivor's restart")

    assert await site.up("pump-1") != pid


async def test_the_configuration_is_followed_when_it_changes(site: HostSite) -> None:
    await site.start()
    first = await site.up("pump-1")

    site.configure(TOML + '\n[agents.pump-2]\nclass = "pumps:Pump"\n')
    await site.up("pump-2")
    assert site.pid("pump-1") == first
    site.configure(TOML.replace("speed = 7", "speed = 8"))
    await until(lambda: site.pid("pump-1") not in {None, first}, "the pump is started anew")
    await site.up("pump-1")

    assert (await site.call("pump-1", "tell"))["result"]["speed"] == 8
    await until(lambda: site.pid("pump-2") is None, "the other pump is ended")
    assert list((await site.shown(lambda data: len(data["agents"]) == 1, "one agent"))["agents"]) == ["pump-1"]


async def test_a_configuration_that_cannot_be_read_changes_nothing_and_is_a_finding(site: HostSite) -> None:
    await site.start()
    pid = await site.up("pump-1")

    site.configure("[agents.pump-1]\nklass = 1")
    shown = await site.shown(lambda data: data["findings"], "a finding")

    assert "has no key 'klass'" in shown["findings"][0]
    assert site.pid("pump-1") == pid
    site.configure(TOML)
    site.send(signal.SIGHUP)
    await site.shown(lambda data: not data["findings"], "no finding")
    assert site.pid("pump-1") == pid


async def test_an_operator_has_agents_down_and_up(site: HostSite) -> None:
    site.configure(TOML + '\n[agents.pump-2]\nclass = "pumps:Pump"\nmanage = "down"\n')
    await site.start()
    await site.up("pump-1")

    down = await site.call("host-1", "update", requests=[["pump-1", "down"]])
    unknown = await site.call("host-1", "update", requests=[["pump-2", "up"], ["pomp", "up"]])
    assert down["result"]["pump-1"]["state"] == "down"
    assert site.pid("pump-1") is None
    assert unknown["error"]["kind"] == "usage"
    assert site.pid("pump-2") is None
    up = await site.call("host-1", "update", requests=[["all", "up"]])

    assert {state["state"] for state in up["result"].values()} == {"up"}
    await site.up("pump-1")
    await site.up("pump-2")


async def test_a_second_host_of_that_name_is_refused(site: HostSite) -> None:
    await site.start()
    pid = await site.up("pump-1")
    other = HostSite(site.folder, site.home)

    await other.start()

    assert await other.ended() == 6
    assert site.pid("pump-1") == pid


async def test_a_second_host_of_a_site_is_refused_under_any_name_and_told_who_is_there(site: HostSite) -> None:
    await site.start()
    pid = await site.up("pump-1")
    other = HostSite(site.folder, site.home)
    other.log = site.folder / "other.log"

    await other.start("--name", "host-2")

    assert await other.ended() == 6
    assert f"process {site.host_pid}" in " ".join(other.log.read_text().split())
    assert site.pid("pump-1") == pid


async def test_the_host_says_that_it_has_no_agents_waits_for_the_journal_and_is_ending(tmp_path: Path) -> None:
    site = HostSite(tmp_path, None)
    site.configure('[state]\ndir = "state"\n')
    await site.start()
    try:
        await until(lambda: "waiting for the journal" in site.log.read_text(), "it says that it waits")
        site.send(signal.SIGINT)
        assert await site.ended() == 0
    finally:
        await site.close()

    said = site.log.read_text()
    assert "this host has no agents" in said
    assert "ending" in said


async def test_agents_of_an_ocs_site_configuration_are_kept_too(site: HostSite) -> None:
    ocs = site.folder / "default.yaml"
    ocs.write_text(
        dedent(
            """
            hub: {wamp_server: "ws://localhost:8001/ws", wamp_realm: test, address_root: observatory}
            hosts:
              crate-1:
                agent-instances: [
                  {'agent-class': 'PysmurfController',
                   'instance-id': 'pysmurf-controller-s2',
                   'arguments': [['--slot', 2], ['--poll-interval', '60']]},
                  {'agent-class': 'PysmurfControler', 'instance-id': 'other', 'arguments': []},
                ]
            """
        )
    )
    await site.start("--ocs", str(ocs), "--host", "crate-1")

    await site.up("pysmurf-controller-s2")
    shown = await site.shown(lambda data: len(data["agents"]) == 2, "both agents")
    described = (await site.ask("pysmurf-controller-s2", "describe"))["agent"]

    assert described["labels"] == {"slot": "2"}
    assert "did you mean 'PysmurfController'?" in shown["findings"][0]


# --- in this process -------------------------------------------------------------------------------------------------


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncGenerator[Callable[[str], Host]]:
    """Give what makes a host in this process, whose agents come back without a pause."""
    hosts: list[Host] = []
    (tmp_path / "pumps.py").write_text(dedent(PUMPS))

    def make(toml: str) -> Host:
        (tmp_path / "labwright.toml").write_text(dedent(toml))
        connection = ("--connection", str(tmp_path / "state" / "connection.json"))
        launch = Launch(
            state_dir=tmp_path / "state", folder=tmp_path, connection=connection, first_pause_s=0.05, stop_s=3
        )
        host = Host(Sources(folder=tmp_path), launch, lambda: None)
        hosts.append(host)
        host.open()
        return host

    yield make
    for host in hosts:
        await host.stop()


async def test_an_agent_that_does_not_start_is_told_unstable_with_its_last_words(
    kept: Callable[[str], Host], caplog: pytest.LogCaptureFixture
) -> None:
    host = kept('[agents.pump-1]\nclass = "pumps:Broken"\n')
    agent = host.agents["pump-1"]

    await until(lambda: agent.is_unstable, "it is unstable")

    await until(lambda: agent.restarts >= 4 and bool(agent.last_error), "its last words")
    assert agent.status()["last_error"].startswith("unstable, ended 4 times")
    (trouble,) = host.trouble().values()
    assert trouble.startswith("unstable, ended 4 times")
    assert f"RuntimeError: the pump is not plugged in; see {agent.log_file}" in trouble
    assert "the pump is not plugged in" in agent.status()["last_error"]
    assert agent.status()["last_error"].count("RuntimeError: the pump") == 1
    unstable = next(entry for entry in caplog.records if "an agent is unstable" in str(entry.msg))
    assert "the pump is not plugged in" in str(unstable.msg)
    assert str(agent.log_file) in str(unstable.msg)
    assert agent.state in {KeptState.WAITING, KeptState.UP}


async def test_an_agent_that_is_ignored_is_not_started(kept: Callable[[str], Host]) -> None:
    host = kept('[agents.pump-1]\nclass = "pumps:Pump"\nmanage = "ignore"\n')

    await until(lambda: host.agents["pump-1"].state is KeptState.IGNORED, "it is left alone")
    host.update([("all", Manage.UP)])

    assert host.agents["pump-1"].target is Manage.IGNORE


async def test_the_scripts_of_an_agent_that_had_to_be_killed_are_ended_too(
    kept: Callable[[str], Host], tmp_path: Path
) -> None:
    (tmp_path / "sleeps.py").write_text("import time; time.sleep(600)")
    host = kept('[agents.pump-1]\nclass = "pumps:Scripted"\n')
    await until(lambda: bool(processes_naming(f"{tmp_path}/sleeps.py")), "the script runs")

    os.kill(host.agents["pump-1"].pid or 0, signal.SIGSTOP)
    await host.stop()

    assert not processes_naming(f"{tmp_path}/sleeps.py")
    await nothing_left(str(tmp_path))


async def test_a_host_that_is_told_to_end_at_once_leaves_no_agent(kept: Callable[[str], Host], tmp_path: Path) -> None:
    host = kept('[agents.pump-1]\nclass = "pumps:Pump"\n[agents.pump-2]\nclass = "pumps:Pump"\n')
    await asyncio.sleep(0)

    await host.stop()

    assert not processes_naming(f"{tmp_path}/state")
