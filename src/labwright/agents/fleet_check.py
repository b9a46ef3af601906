"""Before an operation is called on a fleet: whether anybody there has it, and takes these parameters.

A slip of the pen is answered as it is where one agent is called: at once, before anything is started or recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from labwright.agents.commands import NOT_VALID
from labwright.agents.fleet_target import UNREADABLE, Reach
from labwright.core.errors import LabwrightError, NotFoundError, ParameterError

PATIENCE_S = 2.0
"""How long an agent may take to say whether a call fits; one that says nothing is left to the call itself."""
FIRST = 3
"""So many are asked first: where one of them takes the call, the others need not be asked."""


async def check_call(reach: Reach, agents: Sequence[str], operation: str, params: Mapping[str, Any]) -> None:
    """Refuse a call that none of these agents, which are here, would take.

    Raises:
        NotFoundError: they have no such operation.
        ParameterError: it does not take these parameters.
    """
    refusals: list[LabwrightError] = []
    for asked in (agents[:FIRST], agents[FIRST:]):
        answers = await asyncio.gather(*(_refusal(reach, name, operation, params) for name in asked))
        refusals += [answer for answer in answers if answer is not None]
        if len(refusals) < len(answers) or not asked:
            break
    if len(refusals) < len(agents) or not refusals:
        return
    error = refusals[0]
    error.reword(cure=error.cure.replace("agents show NAME", f"agents show {agents[0]} {operation}"))
    if len(refusals) > 1:
        all_same = f"so it is with all {len(refusals)} agents that were chosen and are here"
        error.reword(because="; ".join(filter(None, (error.because, all_same))))
    raise error


async def _refusal(reach: Reach, name: str, operation: str, params: Mapping[str, Any]) -> LabwrightError | None:
    """Ask one agent; None where it takes the call, or does not say."""
    try:
        await reach.agent(name, PATIENCE_S).operation(operation).check(params)
    except (NotFoundError, ParameterError) as error:
        return None if error.message == NOT_VALID else error  # an older agent cannot say
    except (LabwrightError, TimeoutError, *UNREADABLE):
        return None
    return None
