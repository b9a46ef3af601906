"""Kill anything of a lab with agents at any moment: no orphan, no two on one lock, no session that claims to run."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import random
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from labwright.agents.handle import AgentHandle, SessionHandle
from labwright.client import AsyncLab, connect_async
from labwright.core.errors import LockedError, RefusedError, UnreachableError
from labwright.core.ids import new_id
from labwright.core.model import SessionSnapshot
from labwright.journal.connection import Connection
from labwright.journal.follow import follow
from labwright.journal.nats_server import EmbeddedServer
from labwright.journal.records import Record, SessionAdopted, SessionEnded, SessionStarted, decode
from labwright.journal.session_fold import decoded, fold_session
from labwright.run.engine import locator
from tests.kill import hold
from tests.kill.agent_chaos import CONTROLLER, ROOT, AgentChaos

KILLS = int(os.environ.get("LABWRIGHT_KILLS", "12"))
SEED = int(os.environ.get("LABWRIGHT_SEED", "0")) or int.from_bytes(os.urandom(3))
PAUSE_S = float(os.environ.get("LABWRIGHT_PAUSE", "1.2"))
SETTLE_S = 90.0
SENDER = "tester@here"
STARTUP = {"watch", "check_state"}
LIMIT_S = 180 + 4 * KILLS

pytestmark = [pytest.mark.kill, pytest.mark.timeout(LIMIT_S + 120)]


@pytest.fixture
async def chaos(tmp_path: Path) -> AsyncGenerator[AgentChaos]:
    """The lab's processes."""
    (tmp_path / "labwright.toml").write_text("[workers]\nprocesses = 0\n")
    chaos = AgentChaos(tmp_path, SEED)
    try:
        chaos.start()
        yield chaos
    finally:
        try:
            await chaos.close()
        finally:
            chaos.kill_all()


@pytest.fixture
async def lab(chaos: AgentChaos) -> AsyncGenerator[AsyncLab]:
    """A client, once all agents answer."""
    async with asyncio.timeout(SETTLE_S):
        await _until_connected(chaos)
        async with connect_async(settings=chaos.settings) as lab:
            for name in chaos.agents:
                await _insistently(_handle(lab, name).ping)
            yield lab


async def test_nothing_overlaps_nothing_is_left_and_nothing_claims_to_run(chaos: AgentChaos, lab: AsyncLab) -> None:
    print(f"LABWRIGHT_SEED={SEED} LABWRIGHT_KILLS={KILLS}")  # noqa: T201 - to repeat a failure
    names = [name for name in chaos.agents for _ in range(2)]
    clients = [Client(lab, name, chaos.place, SEED + number) for number, name in enumerate(names)]
    async with asyncio.timeout(LIMIT_S):
        working = [asyncio.create_task(client.work()) for client in clients]
        try:
            await chaos.attack(KILLS, PAUSE_S)
            for client in clients:
                client.has_enough = True
            await asyncio.gather(*working)
        finally:
            for task in working:
                task.cancel()
        open_now = await _settled(chaos, lab)
    print(dict(chaos.done), {service.name: dict(service.codes) for service in chaos.agents.values()})  # noqa: T201
    print([(client.agent, dict(client.counts)) for client in clients])  # noqa: T201 - what was started meanwhile
    _check_ledger(chaos.place / "ledger.txt")
    records = await _records(chaos)
    for key, of_one in records.items():
        _check_records(key, of_one)
    for client in clients:
        assert not {key for key in client.started if key not in records}, "acknowledged, and not in the journal"
        assert not {key for key in client.refused if key in records}, "refused, and started all the same"
    assert chaos.sessions_seen() <= {session for _, session in open_now}
    await chaos.end_agents()
    await _until(lambda: not chaos.scripts() and not chaos.keepers(), lambda: f"left: {chaos.left()}")
    assert not [path for path in chaos.agents_state.glob("**/lock") if _is_locked(path)]
    await chaos.close()
    await _until(lambda: not chaos.left(), lambda: f"left: {chaos.left()}")
    assert not EmbeddedServer(chaos.settings.state_dir).is_locked()


async def test_a_tuning_script_is_history_after_everything_was_restarted(chaos: AgentChaos, lab: AsyncLab) -> None:
    script = chaos.folder / "scripts" / "pysmurf" / "tune_squids.py"
    script.parent.mkdir(parents=True)
    script.write_text(
        "import time\n"
        "from labwright import script_session\n"
        "for band in range(3):\n"
        "    print('tuned band', band, flush=True)\n"
        "    script_session.update(bands={str(band): 'tuned'})\n"
        "script_session.set_result({'good': 3})\n"
        "time.sleep(1)\n"  # nats-server writes logs a moment after it has acknowledged them
    )
    session = await _handle(lab, CONTROLLER).tune_squids.start()
    streamed = [entry["text"] async for entry in session.log()]
    assert "tuned band 2" in streamed
    done = await session.wait()
    for service in (*chaos.agents.values(), chaos.serve):
        service.send(9)
    pid = EmbeddedServer(chaos.settings.state_dir).pid()
    if pid is not None:
        os.kill(pid, 9)
    await _insistently(_handle(lab, CONTROLLER).ping)

    shown = json.loads(await _labwright(chaos, "sessions", "show", done.id, "--json"))
    assert (shown["state"], shown["result"]) == ("succeeded", {"good": 3})
    assert shown["data"]["bands"] == {"0": "tuned", "1": "tuned", "2": "tuned"}
    said = await _labwright(chaos, "sessions", "log", done.id)
    assert [said.count(f"tuned band {band}") for band in range(3)] == [1, 1, 1]


# --- who asks --------------------------------------------------------------------------------------------------------


@dataclass
class Client:
    """Starts one session after another on an agent, and aborts some of them."""

    lab: AsyncLab
    agent: str
    place: Path
    seed: int
    has_enough: bool = False
    started: set[tuple[str, str]] = field(default_factory=set)
    refused: set[tuple[str, str]] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    _old: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    async def work(self) -> None:
        """Go on until it is enough; a start that was begun is brought to its answer."""
        chance = random.Random(self.seed)
        while not self.has_enough:
            again = self._old and chance.random() < 0.15
            name, session, params = chance.choice(self._old) if again else self._next(chance)
            try:
                handle = await self._start(name, session, params)
            except LockedError:
                assert not again, f"{session} was acknowledged before"
                self.refused.add((self.agent, session))
                self.counts["refused"] += 1
                await asyncio.sleep(0.2)
                continue
            self.started.add((self.agent, session))
            self.counts["again" if again else name] += 1
            if again:
                assert not handle.is_new, f"{session} was started twice"
                continue
            self._old.append((name, session, params))
            await self._go_on(handle, chance)

    def _next(self, chance: random.Random) -> tuple[str, str, dict[str, Any]]:
        seconds = chance.choice([0.0, 0.5, chance.uniform(1, 5), chance.uniform(2, 5)])
        ways = [way for way in ("binary", "leave") if chance.random() < 0.3]
        params: dict[str, Any] = {"seconds": seconds}
        if self.agent == CONTROLLER:
            words = [self.place, self.agent, 1, seconds, *ways]
            return "run", new_id("ses"), {"script": hold.__file__, "args": [str(word) for word in words]}
        name = chance.choice(["run", "run", "run", "block", "block", "turn", "rest"])
        if name in {"run", "block"}:
            params["ways"] = ways
        return name, new_id("ses"), params

    async def _start(self, name: str, session: str, params: dict[str, Any]) -> SessionHandle:
        operation = _handle(self.lab, self.agent).operation(name).with_options(session=session)
        return await _insistently(lambda: operation.start(**params))

    async def _go_on(self, handle: SessionHandle, chance: random.Random) -> None:
        """Wait for the end of a session, or abort it, or ask for the next one at once."""
        way = chance.random()
        with contextlib.suppress(UnreachableError, TimeoutError):
            async with asyncio.timeout(10):
                if way < 0.2:
                    await asyncio.sleep(chance.uniform(0, 1))
                    await handle.abort("the test has seen enough")
                elif way < 0.8:
                    await handle.wait()


def _handle(lab: AsyncLab, name: str) -> AgentHandle:
    return AgentHandle(lab.journal, name, sender=SENDER, patience_s=2)


async def _insistently(ask: Callable[[], Awaitable[Any]]) -> Any:
    """Ask until there is an answer; what has begun is not begun again, since the id is the same.

    An agent that stood still refuses what may be old.
    """
    while True:
        try:
            return await ask()
        except (UnreachableError, RefusedError, TimeoutError):
            await asyncio.sleep(0.1)


async def _until_connected(chaos: AgentChaos) -> None:
    while True:
        try:
            async with connect_async(settings=chaos.settings) as lab:
                await lab.ask("status")
                return
        except (UnreachableError, TimeoutError):
            await asyncio.sleep(0.1)


async def _labwright(chaos: AgentChaos, *words: str) -> str:
    """Call the command line in the lab's folder."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "labwright", *words),
        cwd=chaos.folder,
        env={**chaos.env, "PYTHONPATH": str(ROOT / "src")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


# --- the end ---------------------------------------------------------------------------------------------------------


async def _settled(chaos: AgentChaos, lab: AsyncLab) -> set[tuple[str, str]]:
    """Wait until all agents are up and idle and everybody says so; gives the startup processes that run."""
    wrong: object = "nobody was asked"
    try:
        async with asyncio.timeout(SETTLE_S):
            while True:
                with contextlib.suppress(UnreachableError, TimeoutError):
                    told = {name: await _handle(lab, name).sessions() for name in chaos.agents}
                    running = {(name, item["id"]) for name, items in told.items() for item in items}
                    recorded = {
                        (session.agent, session.id)
                        for session in (_folded(key, of_one) for key, of_one in (await _records(chaos)).items())
                        if not session.state.is_final
                    }
                    page = await lab.sessions(state="starting,running,stopping", limit=1000)
                    shown = {(item["agent"], item["id"]) for item in page["items"]}
                    operations = [item["operation"] for items in told.values() for item in items]
                    if len(operations) == len(chaos.agents) and STARTUP.issuperset(operations):
                        wrong = {"running": running, "recorded": recorded, "shown": shown}
                        if running == recorded == shown:
                            return running
                    else:
                        wrong = told
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"it did not settle in {SETTLE_S:g} s: {wrong}") from None


async def _records(chaos: AgentChaos) -> dict[tuple[str, str], list[Record]]:
    """Give the records of every session of every agent."""
    found: defaultdict[tuple[str, str], list[Record]] = defaultdict(list)
    async with Connection(locator(chaos.settings), name="judge") as connection:
        async for batch in follow(connection, "JOURNAL", ["session.>"], after=0):
            if not batch:
                return dict(found)
            for message in batch:
                _, agent, session = message.subject.split(".")
                found[decoded(agent), session].append(decode(message.data))
    raise AssertionError


def _folded(key: tuple[str, str], records: list[Record]) -> SessionSnapshot:
    session = fold_session(records, key[1])
    assert session is not None, f"{key} has no beginning"
    return session


def _check_records(key: tuple[str, str], records: list[Record]) -> None:
    """A session begins once, ends once, or once more after it was adopted, and no record is there twice."""
    ids = Counter(record.record_id for record in records)
    assert max(ids.values()) == 1, f"{key} has records twice: {ids}"
    words = [record.type for record in records]
    assert isinstance(records[0], SessionStarted), (key, words)
    has_ended = False
    for record in records[1:]:
        assert not isinstance(record, SessionStarted), (key, words)
        assert not has_ended or isinstance(record, SessionAdopted), f"{key} went on after its end: {words}"
        has_ended = isinstance(record, SessionEnded)


def _check_ledger(path: Path) -> None:
    lines = [line.split() for line in path.read_text().splitlines()]
    assert not [line for line in lines if line[1] in {"OVERLAP", "ORPHAN"}]
    begun = Counter((session, number) for _, word, _, session, number, _ in lines if word == "begin")
    assert begun
    assert max(begun.values()) == 1, f"began twice: {[key for key, count in begun.items() if count > 1]}"


def _is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


async def _until(condition: Callable[[], bool], what: Callable[[], str]) -> None:
    for _ in range(600):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(what())
