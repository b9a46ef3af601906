"""Before an operation is called on a fleet: whether anybody there has it, and takes these parameters.

A slip of the pen is answered as it is where one agent is called: at once, before anything is started or recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeAlias

from labwright.agents.commands import NOT_VALID
from labwright.agents.fleet_target import UNREADABLE, Reach
from labwright.core.errors import LabwrightError, NotFoundError, ParameterError, UnreachableError

PATIENCE_S = 2.0
"""How long an agent may take to say whether a call fits; one that says nothing counts as away."""
FIRST = 3
"""So many are asked first: where one of them takes the call, the others need not be asked."""

Answer: TypeAlias = tuple[str, LabwrightError | None, bool]
"""Who was asked, why they refuse the call, and whether they take it; nobody there is neither."""


async def check_call(reach: Reach, targets: Sequence[str], operation: str, params: Mapping[str, Any]) -> None:
    """Refuse a call that none of these targets who are here would take.

    Raises:
        NotFoundError: they have no such operation.
        ParameterError: it does not take these parameters.
    """
    refusals: dict[str, LabwrightError] = {}
    for asked in (targets[:FIRST], targets[FIRST:]):
        found = await _refusals([_answer(reach, name, operation, params) for name in asked])
        if found is None:
            return
        refusals |= found
    if not refusals:
        return
    name = min(refusals)
    error = refusals[name]
    error.reword(cure=error.cure.replace("agents show NAME", f"agents show {name} {operation}"))
    if len(refusals) > 1:
        all_same = f"so it is with all {len(refusals)} agents that were chosen and are here"
        error.reword(because="; ".join(filter(None, (error.because, all_same))))
    raise error


async def _refusals(asking: Sequence[Coroutine[Any, Any, Answer]]) -> dict[str, LabwrightError] | None:
    """Take answers as they come; None as soon as one target takes the call."""
    tasks = [asyncio.create_task(each) for each in asking]
    refusals: dict[str, LabwrightError] = {}
    try:
        for answer in asyncio.as_completed(tasks):
            name, error, is_taken = await answer
            if is_taken:
                return None
            if error is not None:
                refusals[name] = error
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return refusals


async def _answer(reach: Reach, name: str, operation: str, params: Mapping[str, Any]) -> Answer:
    """Ask one target; one that cannot say is taken to take the call."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            await reach.agent(name, PATIENCE_S).operation(operation).check(params)
    except (NotFoundError, ParameterError) as error:
        is_older = error.message == NOT_VALID
        return name, None if is_older else error, is_older
    except (UnreachableError, TimeoutError):
        return name, None, False
    except (LabwrightError, *UNREADABLE):
        return name, None, True
    return name, None, True
