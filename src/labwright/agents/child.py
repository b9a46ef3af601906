"""A blocking operation in a process of its own, where an abort can really end it: `python -m labwright.agents.child`.

It reads its job as JSON on standard input, makes the agent's class again, and runs one operation. Everything that comes
out goes over the side channel (see `ChildLine`); at the end it is `{"do": "returned", "value"}`, or `{"do": "raised",
"error", "is_stopped"}`. A child that ends without one of the two has died, and its keeper tells how.

The job: `session`, `name`, `params`, `started_at`, `state_dir`, and, where there is one, `run`, `by`, `labels`,
`arguments`, `data` (what the session shows already), `site` (a folder that goes first on `sys.path`).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import json
import os
import sys
import threading
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from labwright.agents.agent import Agent, attach
from labwright.agents.arguments import make_agent
from labwright.agents.blocking_session import BlockingSession
from labwright.agents.child_line import ChildHost, ChildLine
from labwright.agents.operation import AnyOperation, operations_of
from labwright.core.errors import Stopped, TooLargeError, UsageError
from labwright.core.model import ErrorRecord
from labwright.core.plain import to_plain

LARGEST_RESULT = 64 * 1024 * 1024
GONE_S = 5.0
"""How long threads that an operation left may keep its process alive."""


def child_command(agent: type[Agent] | str, operation: str) -> list[str]:
    """Give the command line that runs an operation of an agent's class, given itself or as `MODULE:CLASS`."""
    name = agent if isinstance(agent, str) else f"{agent.__module__}:{agent.__qualname__}"
    return [sys.executable, "-P", "-u", "-m", "labwright.agents.child", name, operation]


def main() -> None:
    """Run one operation, say how it went, and leave."""
    name, operation = sys.argv[1:3]
    job: dict[str, Any] = json.load(sys.stdin)
    line = ChildLine(operation, job.get("data") or {})
    line.listen()
    try:
        said = _returned(_run(name, operation, job, line))
        code = 0
    except BaseException as error:  # noqa: BLE001 - a border: an operation may raise anything, SystemExit too
        line.deaf()
        said, code = _raised(error), 1
    line.deaf()
    line.say(said)
    leave = threading.Timer(GONE_S, os._exit, [code])
    leave.daemon = True
    leave.start()
    sys.exit(code)


def _run(name: str, operation: str, job: Mapping[str, Any], line: ChildLine) -> Any:
    if job.get("site"):
        sys.path.insert(0, str(job["site"]))
    agent_class = load_class(name)
    known = operations_of(agent_class)
    if operation not in known:
        raise UsageError(f"{name} has no operation {operation!r}", because="it has: " + ", ".join(known))
    agent = make_agent(agent_class, job.get("arguments") or {})
    attach(agent, ChildHost(line, job))
    with asyncio.Runner() as runner:
        runner.run(agent.open())
        try:
            return _call(known[operation], agent, job, line)
        finally:
            runner.run(agent.close())


def _call(operation: AnyOperation, agent: Agent, job: Mapping[str, Any], line: ChildLine) -> Any:
    params = operation.parameters.typed(job["params"])
    session = BlockingSession(
        id=job["session"],
        agent=job["name"],
        operation=operation.name,
        params=job["params"],
        started_at=datetime.fromisoformat(job["started_at"]),
        run=job.get("run"),
        by=job.get("by") or "",
        line=line,
    )
    return operation.function(agent, session, **params)


def load_class(name: str) -> type[Agent]:
    """Import an agent's class by `MODULE:CLASS`.

    Raises:
        UsageError: there is no such class, or it is no agent.
    """
    module, _, qualified = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in qualified.split("."):
        found = getattr(found, part, None)
    if not (inspect.isclass(found) and issubclass(found, Agent)):
        raise UsageError(f"{name} is no agent", cure="name a class that derives from labwright.Agent as MODULE:CLASS")
    return found


def _returned(value: Any) -> dict[str, Any]:
    """Say the result; it is measured here, where the operation's author sees why it does not go."""
    said = {"do": "returned", "value": to_plain(value)}
    size = len(json.dumps(said["value"]))
    if size > LARGEST_RESULT:
        raise TooLargeError(
            f"the result has {size} bytes",
            because=f"a result may have {LARGEST_RESULT}",
            cure="write it to a file, and return the path",
        )
    return said


def _raised(error: BaseException) -> dict[str, Any]:
    record = ErrorRecord.of(error).model_dump(mode="json", by_alias=True)
    return {"do": "raised", "error": record, "is_stopped": isinstance(error, Stopped)}


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
