"""The health of a real HTTP server: down, busy, broken, absent and wrong are told apart; a check never fails of it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from datetime import datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest

from labwright import Finding, Task, TerminalError, TransientError
from labwright.core.errors import NotProvidedError, UsageError
from labwright.maintenance import Authority, http_check, http_gate
from labwright.testing import FakeContext, run_task
from tests.maintenance.conftest import HOST, HttpServer, TlsServer, free_port, lay_out, quiet


async def test_a_healthy_server_lets_a_task_go_on(web: HttpServer, ctx: FakeContext) -> None:
    web.answers(200, "all is well")
    fleet = ctx.with_target("web-1", url=web.url, area="a/b")
    assert await http_gate("{url}/{name}/{area}?q={{}}", contains="well")(fleet) == 200
    assert await http_gate("{url}/{page}")(fleet.with_params(page="status")) == 200
    assert web.asked == ["/web-1/a/b?q={}", "/status"]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_busy_or_broken_for_the_moment_is_transient(web: HttpServer, ctx: FakeContext, status: int) -> None:
    web.answers(status, "back soon", Retry_After="30")
    with pytest.raises(TransientError, match="is not healthy") as caught:
        await http_gate(web.url)(ctx)
    assert caught.value.retry_after == 30
    assert caught.value.because == f"it answers {status}: back soon"


async def test_a_server_may_ask_for_a_pause_until_a_date(web: HttpServer, ctx: FakeContext, now: datetime) -> None:
    for until, seconds in ((now + timedelta(seconds=90), 90), (now - timedelta(days=1), 0), (now + timedelta(9), 3600)):
        web.answers(503, Retry_After=format_datetime(until.replace(microsecond=0), usegmt=True))
        with pytest.raises(TransientError) as caught:
            await http_gate(web.url)(ctx)
        assert caught.value.retry_after == pytest.approx(seconds, abs=1)
    web.answers(503, Retry_After="soon")
    with pytest.raises(TransientError) as caught:
        await http_gate(web.url)(ctx)
    assert caught.value.retry_after is None


@pytest.mark.parametrize(("status", "what"), [(404, "absent"), (410, "absent"), (401, "not as"), (501, "not as")])
async def test_absent_or_wrong_is_terminal(web: HttpServer, ctx: FakeContext, status: int, what: str) -> None:
    web.answers(status)
    with pytest.raises(TerminalError, match=what):
        await http_gate(web.url)(ctx)


async def test_a_server_that_answers_other_than_it_should_is_terminal(web: HttpServer, ctx: FakeContext) -> None:
    web.answers(200, "who are you?")
    with pytest.raises(TerminalError, match="not as it should") as caught:
        await http_gate(web.url, contains="ok")(ctx)
    assert "who are you?" in caught.value.because
    web.answers(302, Location=f"{web.url}/again")
    with pytest.raises(TerminalError, match="cannot be asked"):
        await http_gate(web.url)(ctx)


@pytest.mark.parametrize("how", ["refused", "hangs up", "says nothing"])
async def test_down_is_transient_or_what_the_gate_says(web: HttpServer, ctx: FakeContext, how: str) -> None:
    web.reply = None if how == "says nothing" else b""
    url = f"http://{HOST}:{free_port()}" if how == "refused" else web.url
    with pytest.raises(TransientError, match="is down"):
        await http_gate(url, timeout=0.2)(ctx)
    with pytest.raises(TerminalError, match="is down"):
        await http_gate(url, timeout=0.2, down="terminal")(ctx)


async def test_an_answer_that_never_ends_holds_nobody_up(ctx: FakeContext) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        is_fast = b"fast" in await reader.readline()
        with contextlib.suppress(OSError):
            while not writer.is_closing():
                writer.write(b"x" * 65536 if is_fast else b"x")
                await writer.drain()
                await asyncio.sleep(0 if is_fast else 0.01)
        writer.close()

    async with await asyncio.start_server(drip, HOST, 0) as listening:
        url = f"http://{HOST}:{listening.sockets[0].getsockname()[1]}"
        assert await http_gate(f"{url}/fast", timeout=30)(ctx) == 200
        with pytest.raises(TransientError, match="is down") as caught:
            await http_gate(f"{url}/slow", timeout=0.2)(ctx)
        assert caught.value.because == "it did not answer within 0.2 s"
        await quiet(listening)


async def test_a_host_without_a_name_is_absent_for_good(ctx: FakeContext) -> None:
    with pytest.raises((TerminalError, TransientError)) as caught:
        await http_gate("http://no-such-host.invalid/")(ctx)
    if "Name or service not known" in caught.value.because:  # unless there is no name server at all here
        assert isinstance(caught.value, TerminalError)


async def test_a_certificate_that_is_not_trusted_needs_a_person(
    ctx: FakeContext, authority: Authority, now: datetime, tmp_path: Path
) -> None:
    issued = await authority.issue([HOST], days=9, now=now)
    lay_out(tmp_path / "tls", issued.certificate.pem, issued.key)
    server = TlsServer(tmp_path / "tls")
    server.take_up()
    async with server.serving():
        with pytest.raises(TerminalError, match="not trusted"):
            await http_gate(f"https://{server.address}/")(ctx)

        trust = ssl.create_default_context(cadata=authority.certificate.pem)
        async with httpx.AsyncClient(verify=trust) as client:
            knows = ctx.with_client("inner", client)
            with pytest.raises(TransientError, match="is down"):  # trusted now; it hangs up
                await http_gate(f"https://{server.address}/", client="inner")(knows)


@pytest.mark.parametrize("status", [503, 404, 200])
async def test_a_check_reports_and_never_fails(web: HttpServer, ctx: FakeContext, status: int) -> None:
    web.answers(status, "sorry")
    with pytest.raises(Finding, match="sorry"):
        await http_check(web.url, contains="ok")(ctx)
    run = await run_task(Task("check", steps=[http_check(web.url, contains="ok"), http_check(web.url, name="b")]), ctx)
    assert run.state == "succeeded"
    assert [step.finding for step in run.steps] == [True, status != 200]
    assert run.finding


async def test_a_run_waits_for_a_server_and_goes_on(web: HttpServer, ctx: FakeContext) -> None:
    web.answers(503)
    web.healthy_from = 3

    run = await run_task(Task("gated", steps=[http_gate(web.url)]), ctx)

    assert (run.state, run.result, len(web.asked)) == ("succeeded", 200, 3)


async def test_what_is_not_known_of_a_target_is_named(ctx: FakeContext) -> None:
    with pytest.raises(NotProvidedError, match="url"):
        await http_gate("{url}/healthz")(ctx.with_target("web-1", host="a"))
    with pytest.raises(NotProvidedError, match="target"):
        await http_gate("{url}/healthz")(ctx)
    with pytest.raises(UsageError, match="filled in"):
        await http_gate("{url")(ctx)
    with pytest.raises(UsageError, match="down cannot be 'never'"):
        http_gate("http://a", down="never")  # pyright: ignore[reportArgumentType] - as users write
