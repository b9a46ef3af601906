"""What is asked of a fleet besides a whole call: start without waiting, status, stop, abort; all targets at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from labwright.agents.fleet_handle import FleetAsked
from labwright.agents.fleet_target import ABORT_S, PATIENCE_S, UNREADABLE, Reach, unreadable
from labwright.agents.handle import OperationHandle
from labwright.agents.shown import session_fields
from labwright.core.errors import LabwrightError, UnreachableError, WaitTimeoutError
from labwright.core.fleet import FleetResult, FleetRow, Outcome
from labwright.core.model import ErrorRecord, SessionSnapshot


async def ask_each(reach: Reach, targets: Sequence[str], asked: FleetAsked) -> FleetResult:
    """Ask all targets at once, and give their rows: `succeeded` where the target did what was asked.

    Raises:
        UsageError: the quorum cannot be reached.
    """
    quorum = asked.how.needed(len(targets))
    rows = await asyncio.gather(*(_row(reach, name, asked) for name in targets))
    return FleetResult.of(asked.operation, asked.selector, quorum, dict(zip(targets, rows, strict=True)))


async def _row(reach: Reach, name: str, asked: FleetAsked) -> FleetRow:
    operation = reach.agent(name, min(PATIENCE_S, asked.how.timeout_s or PATIENCE_S)).operation(asked.operation)
    try:
        session = await _asked(operation, reach, name, asked)
    except UnreachableError as error:
        return FleetRow(outcome=Outcome.UNREACHABLE, error=ErrorRecord.of(error))
    except LabwrightError as error:
        return FleetRow(outcome=Outcome.REFUSED, error=ErrorRecord.of(error))
    except UNREADABLE as error:
        return FleetRow(outcome=Outcome.FAILED, error=ErrorRecord.of(unreadable(name, error)))
    shown: dict[str, Any] | None = session_fields(session) if session is not None else None
    return FleetRow(outcome=Outcome.SUCCEEDED, session=session.id if session is not None else None, result=shown)


async def _ended(reach: Reach, name: str, session: SessionSnapshot) -> SessionSnapshot:
    """Wait for the end of what was told to end, bounded: a grace may be long."""
    try:
        return await reach.agent(name, PATIENCE_S).session(session.id).wait(ABORT_S)
    except WaitTimeoutError:
        return session


async def _asked(operation: OperationHandle, reach: Reach, name: str, asked: FleetAsked) -> SessionSnapshot | None:
    match asked.verb:
        case "status":
            return await operation.status()
        case "stop" | "abort":
            session = await (operation.stop() if asked.verb == "stop" else operation.abort())
            return await _ended(reach, name, session)
        case _:
            options = {**reach.options, "timeout_s": asked.how.timeout_s, "session": reach.session_id(name, 0)}
            return (await operation.with_options(**options).start(**asked.params)).snapshot
