"""Whether the agents in a site's settings could be started: their classes import, are agents, and take the arguments.

The classes are imported in a process of its own, which holds nothing else, and which their code may end or hold up.
It is `python -m` this module: it reads what is to be checked and writes one line of findings for each agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from labwright.agents.arguments import checked_arguments
from labwright.agents.process import load_agent
from labwright.core.errors import LabwrightError, ParameterError
from labwright.run.kept_agent import site_environment, written
from labwright.run.processes import start_python
from labwright.run.settings import AgentTable, Settings
from labwright.run.site_modules import explain_import
from labwright.run.wanted import CLASS_PATTERN, described

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter

IMPORT_S = 60.0
"""How long the import of one class may take."""


async def agent_findings(settings: Settings, *, import_s: float = IMPORT_S) -> tuple[str, ...]:
    """Tell what is wrong with the agents of a site's settings; those that a host ignores are left alone."""
    wanted = {name: table for name, table in settings.agents.items() if table.manage != "ignore"}
    findings: dict[str, list[str]] = {}
    while left := {name: table for name, table in wanted.items() if name not in findings}:
        known, failure = await _examined(left, settings, import_s)
        findings |= known
        if failure:
            culprit = next(name for name in left if name not in known)
            findings[culprit] = [f"{left[culprit].class_name} cannot be imported: {failure}"]
    return tuple(f"[agents.{name}]: {finding}" for name in wanted for finding in findings[name])


async def _examined(
    tables: Mapping[str, AgentTable], settings: Settings, import_s: float
) -> tuple[dict[str, list[str]], str]:
    """Examine agents in one process; gives the findings of each, and why not all of them were reached."""
    process = await start_python(
        __name__, [], env=site_environment(settings.folder), stdin=PIPE, stdout=PIPE, stderr=DEVNULL
    )
    questions, answers = cast("StreamWriter", process.stdin), cast("StreamReader", process.stdout)
    asked = {name: {"class": table.class_name, "arguments": table.arguments} for name, table in tables.items()}
    known: dict[str, list[str]] = {}
    try:
        with contextlib.suppress(ConnectionError):
            questions.write(json.dumps(asked, default=str).encode())
            await questions.drain()
        questions.close()
        while len(known) < len(tables):
            async with asyncio.timeout(import_s):
                line = await answers.readline()
            if not line:
                return known, f"that ended the process, exit code {await process.wait()}"
            known |= json.loads(line)
    except TimeoutError:
        return known, f"that takes longer than {import_s:g} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    return known, ""


def main() -> None:
    """Examine the agents that standard input names; what their modules print is not ours."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    asked: dict[str, dict[str, Any]] = json.load(sys.stdin)
    for name, agent in asked.items():
        answers.write(json.dumps({name: _findings(agent["class"], agent["arguments"])}) + "\n")
        answers.flush()


def _findings(class_name: str, arguments: Mapping[str, Any]) -> list[str]:
    if not CLASS_PATTERN.fullmatch(class_name):
        return [f"{class_name!r} names no class; write module:Class"]
    try:
        checked_arguments(load_agent(class_name), {name: written(value) for name, value in arguments.items()})
    except ParameterError as error:
        return [f"arguments.{finding}" for finding in error.findings] or [described(error)]
    except LabwrightError as error:
        return [described(error)]
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a module of the user may raise anything
        return [explain_import(class_name.partition(":")[0], error)]
    return []


if __name__ == "__main__":
    main()
