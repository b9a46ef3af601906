"""A recorder that keeps what it is told, and short ways to an execution."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Never

from labwright.core.model import Cause, Run, Step
from labwright.core.request import Request
from labwright.plan.tasks import StepFunction, Task
from labwright.run.execution import End, Execution, Services
from labwright.testing import ManualClock

AT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Memory:
    """What an execution has recorded."""

    started: list[Step] = field(default_factory=list[Step])
    ended: list[Step] = field(default_factory=list[Step])
    children: list[tuple[Request, int | str]] = field(default_factory=list[tuple[Request, "int | str"]])
    lines: list[tuple[str, str, Mapping[str, Any]]] = field(default_factory=list[tuple[str, str, Mapping[str, Any]]])
    progressed: list[tuple[float, float | None, str]] = field(default_factory=list[tuple[float, float | None, str]])
    fails: BaseException | None = None

    async def step_started(self, step: Step) -> None:
        self.started.append(step)

    async def step_ended(self, step: Step) -> None:
        if self.fails is not None:
            raise self.fails
        self.ended.append(step)

    async def spawn(self, request: Request, number: int | str) -> str:
        self.children.append((request, number))
        return f"run_{number}"

    def child_runs(self) -> Never:
        raise AssertionError("nobody asks for children here")

    def log(self, level: str, text: str, fields: Mapping[str, Any]) -> None:
        self.lines.append((level, text, fields))

    def progress(self, done: float, total: float | None, text: str) -> None:
        self.progressed.append((done, total, text))


def make_run(**fields: Any) -> Run:
    run = Run(id="run_1", task="t", cause=Cause(kind="operator", id="me"), requested_at=AT)
    return run.model_copy(update=fields)


def make_services(**given: Any) -> Services:
    return replace(Services(clock=ManualClock(), random=lambda: 0.5), **given)


def execution_of(task: Task, run: Run | None = None, memory: Memory | None = None, **given: Any) -> Execution:
    return Execution(task, run or make_run(), memory or Memory(), make_services(**given), grace=0.2)


async def run_once(
    task: Task | StepFunction[..., Any], run: Run | None = None, memory: Memory | None = None, **given: Any
) -> End:
    if isinstance(task, StepFunction):
        task = Task("t", steps=[task])
    return await execution_of(task, run, memory, **given).run()
