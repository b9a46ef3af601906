"""One real lab on a small site for all tests of the command line, and a way to call `labwright` on it."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NoReturn

import pytest

from labwright.cli.main import main

for module in ("cli.logs", "cli.pages", "cli.waiting", "client", "server"):
    importlib.import_module(f"labwright.{module}")  # so that what is forked from here need not

SITE = {
    "labwright.toml": """
        [site]
        package = "bench"
        targets = "targets.yaml"
        [facts]
        file = "facts.yaml"
        [pools.slow]
        concurrency = 4
    """,
    "targets.yaml": """
        - {name: slot-1, labels: {crate: 1, slot: 1}, facts: {url: "http://one"}}
        - {name: slot-2, labels: {crate: 1, slot: 2}}
        - {name: slot-3, labels: {crate: 1, slot: 3}}
    """,
    "facts.yaml": """
        "42": {color: red, weight: 3}
    """,
    "bench/__init__.py": "",
    "bench/rules.py": '''
        from labwright import Request, rule
        from labwright.conditions import event_type, fact

        print("a site may print")

        @rule(event_type("sample.arrived") & fact("color", "red"))
        def weigh_red(scenario):
            """Weigh red samples."""
            yield Request("add", first=scenario.weight, second=1)

        @rule(event_type("sample.arrived") & ~fact("color", "red"))
        def weigh_others(scenario):
            yield Request("add", first=0, second=0)

        @rule(event_type("sample.broken"))
        def repair(scenario):
            yield Request("break-down")

        @rule(event_type("sample.odd"))
        def raises(scenario):
            raise ValueError("an odd sample")

        @rule(event_type("sample.lost"))
        def asks_for_unknown(scenario):
            yield Request("no-such-task")

        @rule(event_type("sample.slow"))
        def slow(scenario):
            yield Request("dwell", seconds=60)

        @rule(event_type("poison"))
        def poisoned(scenario):
            import os
            os._exit(3)
    ''',
    "bench/instruments.py": '''
        import asyncio
        from pathlib import Path
        from labwright import Agent, Session, TerminalError, operation, process

        class Pump(Agent):
            """A syringe pump."""

            def __init__(self, port: str, flow: float = 1.0) -> None:
                self.port = port
                self.flow = flow

            @operation(timeout=60, lock="pump")
            async def dispense(self, session: Session, volume_ml: float, seconds: float = 0.0) -> float:
                """Dispense a volume."""
                session.log(f"dispensing {volume_ml} ml at {self.port}")
                session.update(volume_ml=volume_ml, odd=float("nan"))
                session.progress(1, 2, "half way")
                await asyncio.sleep(seconds)
                return volume_ml * self.flow

            @operation(lock="pump")
            async def prime(self, session: Session) -> None:
                """Fill the tubes."""
                raise TerminalError("the tube is empty", because="nobody has filled it", cure="fill it")

            @operation(name="self-test")
            async def self_test(self, session: Session) -> str:
                return "well"

            @process
            async def pressure(self, session: Session) -> None:
                """Read the pressure."""
                feed = self.feed("pressure")
                async for number in session.every(0.05):
                    session.update(bar=number)
                    feed.publish({"bar": number, "ok": True})

            @operation
            async def record(self, session: Session, path: str) -> None:
                """Write a file and announce it."""
                Path(path).write_text("data")
                await self.register_file(path=path, kind="trace", action="record", session=session.id)

        class Controller(Agent):
            """What runs scripts, as far as its clients see."""

            @operation
            async def run(self, session: Session, script: str, args: list[str] = [], log: bool | str = True) -> None:
                """Run a script."""
                session.log(f"would run {script}")
    ''',
    "bench/stage.py": '''
        from labwright import Agent, Session, operation, process

        class Stage(Agent):
            """A stage that says much."""

            def __init__(self, axis: str = "x", limits: list[float] = [0.0, 1.0]) -> None:
                if axis == "broken":
                    raise ValueError("there is no such axis")

            @operation
            async def chatter(self, session: Session, lines: int) -> None:
                """Say much at once."""
                for number in range(lines):
                    session.log(f"line {number}")

            @operation(timeout=60)
            async def move(self, session: Session, to: float, speed: float = 0.5, mode: str | None = None) -> dict:
                """Move the stage.

                It waits until the stage stands still.
                """
                session.update(position=to, label="standing")
                return {"position": to}

            @operation
            async def measure(self, session: Session) -> None:
                session.update(trace=list(range(4000)), image="x" * 200_000)
                session.set_result({"mean": 0.5})

            @process(startup=True)
            async def check_state(self, session: Session) -> None:
                """Look every now and then."""
                async for _ in session.every(0.5):
                    pass

            @process
            async def jog(self, session: Session) -> None:
                session.log("jogging")
                async for _ in session.every(0.5):
                    pass

        not_an_agent = 5
    ''',
    "bench/tasks.py": """
        import asyncio
        from pathlib import Path
        from labwright import Request, Task, TerminalError, TransientError, Retry, step

        @step
        async def sum_up(ctx, first: int, second: int = 1) -> int:
            ctx.log.info("adding", first=first)
            ctx.set_result(first + second)
            return first + second

        @step
        async def tell(ctx):
            ctx.progress(1, 2, "half way")
            return "told"

        @step
        async def give_up(ctx):
            raise TerminalError("it is broken", because="somebody dropped it", cure="buy another")

        @step
        async def need(ctx, path: str):
            if not Path(path).exists():
                raise TerminalError(f"{path} is not there")

        @step
        async def dwell(ctx, seconds: float = 60):
            await asyncio.sleep(seconds)

        @step
        async def large(ctx):
            return "x" * 400_000

        add = Task("add", steps=[sum_up, tell], doc="Add two numbers.")
        break_down = Task("break-down", steps=[give_up])
        needs = Task("needs", steps=[tell, need])
        dwelling = Task("dwell", steps=[dwell], pool="slow")
        big = Task("big", steps=[large])
    """,
}


@dataclass(frozen=True)
class Done:
    """What a process printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on standard output."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The JSON lines on standard output."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> dict[str, Any]:
        """The error on standard error, which holds nothing else."""
        return json.loads(self.err)


@dataclass(frozen=True)
class Terminal:
    """Calls `labwright` in the folder of a site."""

    folder: Path

    def __call__(self, *words: str | Path, given: str = "", code: int = 0, timeout: int = 60, **variables: str) -> Done:
        """Call it in a process of its own, with variables added to its environment, and make sure of its exit code.

        The process is forked from this one, which has imported everything already: that is five times as fast.
        """
        with TemporaryFile() as stdin, TemporaryFile() as stdout, TemporaryFile() as stderr:
            stdin.write(given.encode())
            stdin.seek(0)
            pid = os.fork()
            if pid == 0:
                signal.alarm(timeout)
                os.chdir(self.folder)
                os.environ.update(variables)
                be_labwright(list(map(str, words)), [stream.fileno() for stream in (stdin, stdout, stderr)])
            _, status = os.waitpid(pid, 0)
            printed = [(stream.seek(0), stream.read().decode())[1] for stream in (stdout, stderr)]
        done = Done(os.waitstatus_to_exitcode(status), *printed)
        assert done.code == code, f"{words}: exit {done.code}\n{done.out}\n{done.err}"
        return done

    @contextmanager
    def started(self, *words: str | Path) -> Generator[subprocess.Popen[str]]:
        """Start it, and see that it ends."""
        with subprocess.Popen(
            command(*words),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            text=True,
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    end(process)

    def event(self, **attributes: Any) -> str:
        """Write an event as the text of a file."""
        return json.dumps({"specversion": "1.0", "source": "tests", **attributes})


def command(*words: str | Path) -> list[str]:
    """Give the command line."""
    return [str(Path(sys.executable).with_name("labwright")), *map(str, words)]


def environment() -> dict[str, str]:
    """Give an environment that leads to no other lab."""
    foreign = ("LABWRIGHT_SITE", "LABWRIGHT_URL", "LABWRIGHT_CREDS", "ZOCALO_CONFIG")
    kept = {name: value for name, value in os.environ.items() if name not in foreign}
    return {**kept, "NO_COLOR": "1", "PYTHONWARNINGS": "default"}


def be_labwright(words: list[str], files: list[int]) -> NoReturn:
    """Become `labwright` with these files as its standard streams."""
    code = 70
    try:
        for number, file in enumerate(files):
            os.dup2(file, number)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115 - by number
        kept = environment()
        os.environ.clear()
        os.environ.update(kept)
        warnings.simplefilter("default")
        code = main(words)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - nothing may go up into the test run of which this is a copy
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def write_site(folder: Path) -> Path:
    """Write the small site."""
    for name, text in SITE.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(line[first_indent(text) :] for line in text.splitlines()) + "\n")
    return folder


@contextmanager
def served(folder: Path) -> Generator[Terminal]:
    """Serve the small site, and end what was started."""
    terminal = Terminal(write_site(folder))
    with terminal.started("serve", "--json") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["ready"] is True
        try:
            yield terminal
        finally:
            terminal("serve", "--stop", "--json")
            process.communicate(timeout=30)
    assert process.returncode == 0


@contextmanager
def running(
    terminal: Terminal, name: str, *words: str, agent: str = "Pump --arg port=/dev/null"
) -> Generator[subprocess.Popen[str]]:
    """Run an agent of the small site under a name, and give it once it is here."""
    place = agent if agent.startswith("bench.") else f"bench.instruments:{agent}"
    given = ("agent", "start", *place.split(), "--name", name, *words)
    with terminal.started(*given) as process:
        wait_until(lambda: name in here(terminal) and process.poll() is None)
        yield process


def here(terminal: Terminal) -> dict[str, dict[str, Any]]:
    """Tell which agents are here."""
    return {agent["name"]: agent for agent in terminal("agents", "list", "--json").json["items"]}


def wait_until(holds: Callable[[], object], limit_s: float = 30) -> None:
    """Wait until something holds."""
    until_then = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < until_then, "it never came to that"
        time.sleep(0.05)


def first_indent(text: str) -> int:
    """Tell how far the first line that is not empty is indented."""
    return next((len(line) - len(line.lstrip()) for line in text.splitlines() if line.strip()), 0)


def until(process: subprocess.Popen[str], words: str) -> str:
    """Read what a process says on standard error up to a line with these words."""
    assert process.stderr is not None
    said = ""
    while words not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    return said


def end(process: subprocess.Popen[str], number: int = signal.SIGINT, timeout: float = 30) -> Done:
    """Interrupt a process and give what it had printed."""
    process.send_signal(number)
    out, err = process.communicate(timeout=timeout)
    return Done(process.returncode, out, err)


@pytest.fixture
def site(tmp_path: Path) -> Terminal:
    """Give a site that nobody serves."""
    return Terminal(write_site(tmp_path / "site"))


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """Give a site that is served."""
    with served(tmp_path_factory.mktemp("lab")) as terminal:
        yield terminal
