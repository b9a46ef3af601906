"""Certificates of real servers: read, judged, issued, and rotated, whenever the process dies, whatever lies about."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from labwright import Finding, Task, TaskContext, TerminalError, TransientError, step
from labwright.core.errors import UsageError
from labwright.core.model import Run
from labwright.maintenance import (
    Authority,
    Certificate,
    certificate_check,
    certificate_rotation,
    served_certificate,
    tell_process,
)
from labwright.testing import FakeContext, ManualClock, crash_after_every_step, run_every_step_twice, run_task
from tests.maintenance.conftest import HOST, TlsServer, free_port, https_server, lay_out, quiet
from tests.support.certificates import certificate
from tests.support.requirements import require


@step
async def take_up(ctx: TaskContext) -> None:
    """Have the server read its files again, as a reload does."""
    (await ctx.client("server")).take_up()


def rotation(server: TlsServer, **options: Any) -> Task:
    given: dict[str, Any] = {"reload": [take_up], **options}
    return certificate_rotation("rotate", server.address, "{tls_folder}", **given)


@pytest.fixture
async def server(tmp_path: Path, authority: Authority, now: datetime) -> AsyncGenerator[TlsServer]:
    """Give a server that shows a certificate of ours, which ends in nine days."""
    issued = await authority.issue([HOST, "web-1.lab", "*.web.lab"], days=9, now=now)
    lay_out(tmp_path / "tls", issued.certificate.pem, issued.key)
    server = TlsServer(tmp_path / "tls")
    server.take_up()
    async with server.serving():
        yield server


@pytest.fixture
def there(ctx: FakeContext, server: TlsServer, authority: Authority) -> FakeContext:
    return (
        ctx.with_target("web-1", tls_folder=str(server.folder))
        .with_client("certificate_authority", authority)
        .with_client("server", server)
    )


def in_use(server: TlsServer) -> Certificate:
    return Certificate((server.folder / "current" / "cert.pem").read_text())


def assert_left_alone(run: Run) -> None:
    """Insist that a run has done nothing, and that this is a success."""
    assert run.state == "succeeded"
    assert {step.state for step in run.steps} == {"skipped"}


# --- the check -------------------------------------------------------------------------------------------------------


async def test_a_certificate_that_is_valid_for_long_is_described(server: TlsServer, ctx: FakeContext) -> None:
    found = await certificate_check(server.address, days=8)(ctx)
    assert found["names"] == ["web-1.lab", "*.web.lab", HOST]
    assert found["issuer"] == "CN=our authority"
    assert found["fingerprint"] == in_use(server).fingerprint
    assert found["expires_at"].endswith("Z")


async def test_what_is_due_about_a_certificate_is_a_finding_and_no_failure(server: TlsServer, ctx: FakeContext) -> None:
    checks = [
        certificate_check(server.address, days=10),
        certificate_check(server.address, days=1, host="web-2.lab"),
        certificate_check(server.address, days=1, host="a.web.lab"),
    ]
    run = await run_task(Task("check", steps=checks), ctx)
    assert run.state == "succeeded"
    assert [step.finding for step in run.steps] == [True, True, False]
    assert "expires in 9.0 days" in str(run.steps[0].note)
    assert "is not for web-2.lab, but for web-1.lab" in str(run.steps[1].note)


async def test_a_certificate_that_has_expired_is_still_seen(server: TlsServer, now: datetime) -> None:
    later = FakeContext(clock=ManualClock(now + timedelta(days=12)))
    with pytest.raises(Finding, match=r"has expired 3\.0 days ago"):
        await certificate_check(server.address)(later)


async def test_a_server_that_is_down_is_transient_and_one_without_tls_terminal(ctx: FakeContext) -> None:
    with pytest.raises(TransientError, match="is down"):
        await certificate_check(f"{HOST}:{free_port()}")(ctx)
    plain = await asyncio.start_server(_greet, HOST, 0)
    async with plain:
        with pytest.raises(TerminalError, match="speaks no TLS"):
            await certificate_check(f"{HOST}:{plain.sockets[0].getsockname()[1]}")(ctx)
        await quiet(plain)


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH\r\n")
    await reader.read()
    writer.close()


async def test_a_server_that_says_nothing_or_hangs_up_is_transient(ctx: FakeContext) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.close()

    for handler in (silent, hang_up):
        async with await asyncio.start_server(handler, HOST, 0) as listening:
            with pytest.raises(TransientError):
                await certificate_check(f"{HOST}:{listening.sockets[0].getsockname()[1]}", timeout=0.3)(ctx)
            await quiet(listening)


async def test_without_the_extra_it_is_told_what_to_install(
    server: TlsServer, ctx: FakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(TerminalError, match="cannot be read here") as caught:
        await certificate_check(server.address)(ctx)
    assert "labwright[certificates]" in caught.value.cure


def test_who_rotates_nothing_loads_nothing_for_it() -> None:
    code = "import sys, labwright.maintenance; sys.exit('cryptography' in sys.modules or 'httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- the authority ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [["web.lab"], ["10.0.0.1", "::1"], ["x" * 60 + "." + "y" * 60 + ".lab"]])
async def test_what_is_issued_is_trusted_for_its_names_alone(
    authority: Authority, now: datetime, tmp_path: Path, names: list[str]
) -> None:
    issued = await authority.issue(names, days=90, now=now)
    assert set(issued.certificate.names) == set(names)
    assert issued.certificate.is_for(names[0])
    assert not issued.certificate.is_for("other.lab")
    assert issued.certificate.days_left(now) == pytest.approx(90, abs=0.01)
    assert await authority.has_issued(issued.certificate)
    assert "PRIVATE" not in repr(issued)


async def test_a_strict_client_that_trusts_the_authority_trusts_what_it_issues(
    server: TlsServer, tmp_path: Path, now: datetime
) -> None:
    require(shutil.which("openssl"), "openssl is not on PATH; install it")
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -days 30 -nodes -subj /CN=lab"
    files = ("-keyout", str(tmp_path / "lab.key"), "-out", str(tmp_path / "lab.crt"))
    usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    subprocess.run(["openssl", *words.split(), *usage, *files], check=True, capture_output=True)
    authority = Authority.read(tmp_path / "lab.crt", tmp_path / "lab.key")
    issued = await authority.issue(["web-1.lab", "*.web.lab"], days=9, now=now)
    lay_out(server.folder, issued.certificate.pem, issued.key)
    server.take_up()

    trust = ssl.create_default_context(cadata=authority.certificate.pem)
    trust.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    host, _, port = server.address.partition(":")
    for name in ("b.web.lab", "web-1.lab"):
        _, writer = await asyncio.open_connection(host, int(port), ssl=trust, server_hostname=name)
        writer.close()
        await writer.wait_closed()


async def test_an_authority_issues_nothing_beyond_its_own_end(tmp_path: Path, now: datetime) -> None:
    ending = Authority.read(*certificate(tmp_path / "ending", days=5))
    issued = await ending.issue(["a"], days=90, now=now)
    assert issued.certificate.days_left(now) == pytest.approx(5, abs=0.01)
    with pytest.raises(TerminalError, match="issues nothing any more"):
        await ending.issue(["a"], days=90, now=now + timedelta(days=6))
    with pytest.raises(TerminalError, match="for nobody"):
        await ending.issue([], days=90, now=now)


async def test_an_authority_may_have_a_key_of_another_kind_under_a_password(tmp_path: Path, now: datetime) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ed")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=99))
        .sign(key, None)
    )
    (tmp_path / "ed.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    encrypted = serialization.BestAvailableEncryption(b"secret")
    (tmp_path / "ed.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encrypted)
    )
    authority = Authority.read(tmp_path / "ed.crt", tmp_path / "ed.key", password="secret")
    assert await authority.has_issued((await authority.issue(["a.lab"], days=1, now=now)).certificate)
    for password in ("wrong", None):
        with pytest.raises(TerminalError, match="cannot be read"):
            Authority.read(tmp_path / "ed.crt", tmp_path / "ed.key", password=password)


async def test_an_authority_knows_its_own_from_others(tmp_path: Path, authority: Authority, now: datetime) -> None:
    cert, key = certificate(tmp_path / "other", "our authority")  # the same name, and not the same key
    other = Authority.read(cert, key)
    assert not await authority.has_issued((await other.issue(["a"], days=1, now=now)).certificate)
    with pytest.raises(TerminalError, match="is not the key of"):
        Authority.read(cert, certificate(tmp_path / "third")[1])
    with pytest.raises(TerminalError, match="cannot be read"):
        Authority.read(tmp_path / "absent", key)


# --- the rotation ----------------------------------------------------------------------------------------------------


async def test_a_certificate_near_its_end_is_replaced_and_served(
    server: TlsServer, there: FakeContext, authority: Authority, now: datetime
) -> None:
    before = in_use(server)
    run = await run_task(rotation(server), there)

    shown = await served_certificate(HOST, server.port)
    assert (run.state, run.error) == ("succeeded", None)
    assert [step.name for step in run.steps] == [
        "certificate_is_due",
        "issue_certificate",
        "install_certificate",
        "take_up",
        "certificate_is_served",
        "forget_old_certificates",
    ]
    assert shown.fingerprint == in_use(server).fingerprint != before.fingerprint
    assert set(shown.names) == set(before.names)
    assert shown.days_left(now) == pytest.approx(90, abs=0.01)
    assert await authority.has_issued(shown)
    assert (server.folder / "current" / "key.pem").stat().st_mode & 0o777 == 0o600
    assert "PRIVATE" not in run.model_dump_json()

    again = await run_task(rotation(server), there)
    assert_left_alone(again)
    assert again.note == f"the certificate at {server.address} is valid for 90 more days"


@pytest.mark.parametrize("crash", [crash_after_every_step, run_every_step_twice])
async def test_a_rotation_survives_a_crash_after_every_step(
    server: TlsServer, there: FakeContext, authority: Authority, crash: Any
) -> None:
    first = server.folder / "first"
    before = in_use(server).fingerprint

    def afresh() -> FakeContext:
        lay_out(server.folder, (first / "cert.pem").read_text(), (first / "key.pem").read_text())
        for made in server.folder.glob("run_*"):
            for each in made.iterdir():
                each.unlink()
            made.rmdir()
        server.take_up()
        return there

    report = await crash(rotation(server), afresh)

    assert report.undisturbed.state == "succeeded"
    assert all(crash.run.state == "succeeded" for crash in report.crashes)
    shown = await served_certificate(HOST, server.port)
    assert shown.fingerprint == in_use(server).fingerprint != before
    assert sorted(each.name for each in server.folder.iterdir()) == ["current", "first", "run_rehearsal.0"]


async def test_a_certificate_that_is_not_ours_is_left_alone(
    server: TlsServer, there: FakeContext, tmp_path: Path
) -> None:
    cert, key = certificate(tmp_path / "bought", "a company", days=3)
    lay_out(server.folder, cert.read_text(), key.read_text(), "bought")
    server.take_up()
    run = await run_task(rotation(server), there)
    assert_left_alone(run)
    assert run.note == f"the certificate at {server.address} is not managed: it is of CN=a company"
    assert in_use(server).pem == cert.read_text()


async def test_a_folder_without_the_link_is_left_alone(server: TlsServer, there: FakeContext, tmp_path: Path) -> None:
    run = await run_task(rotation(server), there.with_target("web-1", tls_folder=str(tmp_path / "absent")))
    assert_left_alone(run)
    assert "is not managed: there is no link" in str(run.note)


async def test_a_server_that_does_not_take_it_up_fails_the_run_and_the_next_goes_on_with_what_lies_there(
    server: TlsServer, there: FakeContext
) -> None:
    failed = await run_task(rotation(server, reload=[], wait=10), there)
    assert failed.error is not None
    assert (failed.state, failed.error.kind) == ("failed", "timeout")
    lies_there = in_use(server).fingerprint
    assert (await served_certificate(HOST, server.port)).fingerprint != lies_there

    run = await run_task(rotation(server), there)
    assert run.state == "succeeded"
    assert (await served_certificate(HOST, server.port)).fingerprint == lies_there


async def test_old_certificates_of_ours_are_forgotten_save_the_last(server: TlsServer, there: FakeContext) -> None:
    pem, key = (server.folder / "first" / "cert.pem").read_text(), (server.folder / "first" / "key.pem").read_text()
    for name in ("run_1.0", "run_2.0", "run_3.0", "first"):
        lay_out(server.folder, pem, key, name)
        await asyncio.sleep(0)
    (server.folder / "run_notes").mkdir()
    run = await run_task(rotation(server), there)
    assert run.state == "succeeded"
    left = sorted(each.name for each in server.folder.iterdir())
    assert len([name for name in left if name.endswith(".0")]) == 2
    assert {"current", "first", "run_notes", "run_rehearsal.0"} < set(left)


@pytest.mark.parametrize("left", [".run_rehearsal.0.part", "run_rehearsal.0"])
async def test_what_a_process_left_that_died_while_it_wrote_is_written_anew(
    server: TlsServer, there: FakeContext, left: str
) -> None:
    (server.folder / left).mkdir()
    (server.folder / left / "cert.pem").write_text("-----BEGIN")
    run = await run_task(rotation(server), there)
    assert run.state == "succeeded"
    assert (await served_certificate(HOST, server.port)).fingerprint == in_use(server).fingerprint
    assert sorted(each.name for each in server.folder.iterdir()) == ["current", "first", "run_rehearsal.0"]


async def test_a_folder_that_cannot_be_written_is_told(server: TlsServer, there: FakeContext) -> None:
    (server.folder / ".run_rehearsal.0.part").write_text("in the way")
    run = await run_task(rotation(server), there)
    assert run.error is not None
    assert (run.state, run.error.kind) == ("failed", "terminal")
    assert "cannot be written" in run.error.message


async def test_an_authority_near_its_own_end_is_told(server: TlsServer, there: FakeContext, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path / "ending", days=12)
    ending = Authority.read(cert, key)
    issued = await ending.issue([HOST], days=5, now=there.now())
    lay_out(server.folder, issued.certificate.pem, issued.key)
    server.take_up()
    run = await run_task(rotation(server), there.with_client("certificate_authority", ending))
    assert run.state == "succeeded"
    assert "renew its authority" in str(run.steps[1].note)


def test_a_new_certificate_that_would_be_due_at_once_is_refused(server: TlsServer) -> None:
    with pytest.raises(UsageError, match="cannot be rotated"):
        rotation(server, days=30, valid_days=30)


async def test_a_process_of_its_own_is_told_by_a_signal_and_serves_the_new_one(
    tmp_path: Path, authority: Authority, ctx: FakeContext, now: datetime
) -> None:
    folder = tmp_path / "tls"
    issued = await authority.issue([HOST], days=9, now=now)
    lay_out(folder, issued.certificate.pem, issued.key)
    with https_server(folder) as port:
        there = ctx.with_target("web-1", host=HOST, port=port, tls_folder=str(folder)).with_client(
            "certificate_authority", authority
        )
        reload = tell_process("{tls_folder}/pid", program="https_server.py")
        task = certificate_rotation("rotate", "{host}:{port}", "{tls_folder}", reload=[reload], days=30)
        report = await crash_after_every_step(task, lambda: there, same_result=False)
        shown = await served_certificate(HOST, port)

    assert report.undisturbed.state == "succeeded"
    assert shown.fingerprint == Certificate((folder / "current" / "cert.pem").read_text()).fingerprint
    assert shown.days_left(now) > 80
