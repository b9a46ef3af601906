"""The health of a service that speaks HTTP: a gate for the head of a task, and a check that reports.

What each answer means: 2xx is healthy; 408, 425, 429, 500, 502, 503 and 504 are busy or broken for the moment
(transient, after `Retry-After` where it is told); 404 and every other refusal is absent or wrong (terminal).
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from labwright.core.errors import LabwrightError, TerminalError, TransientError
from labwright.maintenance.texts import filled
from labwright.maintenance.verdicts import Down, as_finding, checked_down, is_down
from labwright.plan.steps import StepFunction, step
from labwright.run.context import TaskContext

if TYPE_CHECKING:
    import httpx

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which the same question may be answered well."""
ABSENT = frozenset({404, 410})
LONGEST_PAUSE_S = 3600.0
"""The longest pause that a server's `Retry-After` may ask for."""
SHOWN = 200
MOST_READ = 256 * 1024
"""So many bytes of an answer are looked at."""


def http_gate(
    url: str, *, contains: str = "", down: Down = "transient", timeout: float = 10, client: str = "", name: str = ""
) -> StepFunction[..., Any]:
    """Make a step that lets a task go on only while a service is healthy.

    Down (refused, unreachable, no whole answer in `timeout` seconds) is transient, or terminal with `down="terminal"`.
    Busy or broken for the moment is transient, absent or wrong is terminal: a path that is not there, a refused login,
    a host without a name, a certificate that is not trusted, an answer without the text `contains` in its first 256
    KiB. `client` is the kind of a provider's httpx client in place of `ctx.http`, for a login or an authority of your
    own. The step's output is the status of the answer.

    Raises in the step:
        TransientError: it is down or busy; `retry_after` as the server asks, in seconds.
        TerminalError: it is absent or wrong.
    """
    asked = _Asked(url=url, contains=contains, timeout=timeout, client=client, down=checked_down(down))

    @step(name=name or "http_gate")
    async def gate(ctx: TaskContext) -> int:
        """Let the task go on only while the service is healthy."""
        return await _healthy(ctx, asked)

    return gate


def http_check(
    url: str, *, contains: str = "", timeout: float = 10, client: str = "", name: str = ""
) -> StepFunction[..., Any]:
    """Make a step that reports, as a `Finding`, that a service is not healthy; it never fails because of that.

    The arguments are those of `http_gate`.
    """
    asked = _Asked(url=url, contains=contains, timeout=timeout, client=client)

    @step(name=name or "http_check")
    async def check(ctx: TaskContext) -> int:
        """Report a service that is not healthy."""
        try:
            return await _healthy(ctx, asked)
        except (TransientError, TerminalError) as error:
            raise as_finding(error) from error

    return check


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What is asked, and of whom."""

    url: str
    contains: str
    timeout: float
    client: str
    down: Down = "transient"


async def _healthy(ctx: TaskContext, asked: _Asked) -> int:
    import httpx

    url = filled(ctx, asked.url)
    http: httpx.AsyncClient = await ctx.client(asked.client) if asked.client else ctx.http
    try:
        async with asyncio.timeout(asked.timeout), http.stream("GET", url, follow_redirects=True) as reply:
            text = await _beginning(reply)
    except TimeoutError as error:
        late = TransientError(url, because=f"it did not answer within {asked.timeout:g} s")
        raise is_down(url, late, asked.down) from error
    except (TransientError, httpx.TransportError) as error:
        raise is_down(url, error, asked.down) from error
    except (httpx.InvalidURL, httpx.TooManyRedirects) as error:
        raise TerminalError(f"{url} cannot be asked", because=str(error), cure="mend the url") from error
    if (error := judged(url, reply.status_code, reply.headers, text, now=ctx.now())) is not None:
        raise error
    if asked.contains not in text:
        raise TerminalError(
            f"{url} answers, and not as it should",
            because=f"{asked.contains!r} is not in: {text[:SHOWN]}",
            cure="see what is wrong there; asking again will not help",
        )
    return reply.status_code


async def _beginning(reply: httpx.Response) -> str:
    """Read an answer, up to a sensible length."""
    data = b""
    async for chunk in reply.aiter_bytes():
        data += chunk
        if len(data) >= MOST_READ:
            break
    return data.decode(reply.encoding or "utf-8", errors="replace")


def judged(url: str, status: int, headers: Mapping[str, str], text: str, *, now: datetime) -> LabwrightError | None:
    """Say what the status of an answer means; None for a healthy one.

    >>> from datetime import UTC, datetime
    >>> now = datetime(2026, 1, 1, tzinfo=UTC)
    >>> judged("http://a", 503, {"retry-after": "30"}, "", now=now).retry_after
    30.0
    >>> judged("http://a", 404, {}, "", now=now)
    TerminalError('http://a is absent')
    """
    because = f"it answers {status}" + (f": {text[:SHOWN].strip()}" if text.strip() else "")
    if status in PASSING:
        return TransientError(
            f"{url} is not healthy", _pause_s(headers.get("retry-after", ""), now), because=because, cure="it may pass"
        )
    if status in ABSENT:
        return TerminalError(f"{url} is absent", because=because, cure="mend the url, or what should be there")
    if not 200 <= status < 300:  # noqa: PLR2004 - what HTTP calls a success
        return TerminalError(
            f"{url} answers, and not as it should", because=because, cure="see what is wrong there, and with the login"
        )
    return None


def _pause_s(text: str, now: datetime) -> float | None:
    """Read `Retry-After`: seconds, or a date."""
    pause = None
    if text.isascii() and text.isdigit():
        pause = float(text)
    else:
        with contextlib.suppress(ValueError, TypeError):
            pause = (email.utils.parsedate_to_datetime(text) - now).total_seconds()
    return None if pause is None else min(max(pause, 0.0), LONGEST_PAUSE_S)
