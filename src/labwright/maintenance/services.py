"""Services that are reached by TCP: whether somebody listens there, and greets as expected."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from labwright.core.errors import TerminalError, TransientError
from labwright.maintenance.texts import address_of
from labwright.maintenance.verdicts import Down, as_finding, checked_down, is_down
from labwright.plan.steps import StepFunction, step
from labwright.run.context import TaskContext

LONGEST = 4096
"""So many bytes of a greeting are read."""


def service_gate(
    address: str, *, greets: str = "", down: Down = "transient", timeout: float = 5, name: str = ""
) -> StepFunction[..., Any]:
    """Make a step that lets a task go on only while somebody listens at `HOST:PORT`.

    With `greets`, what the service says first must have that text in it; one that says something else is another
    service: terminal. `timeout` is in seconds, for both. `down` says what a refused or unanswered connection means. The
    step's output is the first line of the greeting.

    Raises in the step:
        TransientError, TerminalError: nobody listens there.
        TerminalError: another service does.
    """
    verdict = checked_down(down)

    @step(name=name or "service_gate")
    async def gate(ctx: TaskContext) -> str:
        """Let the task go on only while the service is there."""
        return await _greeting(*address_of(ctx, address), greets, verdict, timeout)

    return gate


def service_check(address: str, *, greets: str = "", timeout: float = 5, name: str = "") -> StepFunction[..., Any]:
    """Make a step that reports, as a `Finding`, that nobody listens at `HOST:PORT`, or somebody else.

    The arguments are those of `service_gate`.
    """

    @step(name=name or "service_check")
    async def check(ctx: TaskContext) -> str:
        """Report a service that is not there."""
        try:
            return await _greeting(*address_of(ctx, address), greets, "transient", timeout)
        except (TransientError, TerminalError) as error:
            raise as_finding(error) from error

    return check


async def _greeting(host: str, port: int, greets: str, down: Down, timeout_s: float) -> str:
    what = f"the service at {host}:{port}"
    said = b""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                while greets and greets.encode() not in said and len(said) < LONGEST:
                    said += (more := await reader.read(LONGEST))
                    if not more:
                        break
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except TimeoutError as error:
        if not said:
            late = TransientError(what, because=f"nothing came within {timeout_s:g} s")
            raise is_down(what, late, down) from error
    except OSError as error:
        raise is_down(what, error, down) from error
    text = said.decode(errors="replace")
    if greets not in text:
        raise TerminalError(
            f"{what} is another one",
            because=f"{greets!r} is not in what it says first: {text[:200]!r}",
            cure="mend the address, or what listens there",
        )
    return text.partition("\n")[0].strip()
