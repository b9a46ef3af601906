"""Listening beyond loopback: by TLS and with users, or not at all. 127.0.0.2 stands for another machine's way in."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from labwright.access.identity import Identities
from labwright.access.listening import listening
from labwright.agents.serving import serving as serving_agent
from labwright.client import connect_async
from labwright.core.errors import EngineError, LabwrightError, NotAllowedError, UsageError
from labwright.core.request import Request
from labwright.core.roles import Role
from labwright.journal.connection import Address
from labwright.journal.key_file import KeyFile
from labwright.journal.nats_server import write_private
from labwright.run.settings import load_settings
from labwright.server import serving
from tests.access.conftest import Pump
from tests.access.test_lab import write_site
from tests.support.certificates import certificate

HOST = "127.0.0.2"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def added(state_dir: Path, name: str, role: Role, url: str, ca: str) -> Path:
    """Add a user and write the key file that they take with them."""
    identity, seed = Identities(state_dir).add(name, role)
    path = state_dir.parent / f"{name}.key"
    write_private(path, KeyFile(name=name, role=identity.role, seed=seed, url=url, ca=ca).text())
    return path


async def test_a_lab_is_used_by_tls_from_elsewhere(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path / "tls")
    place = f"{HOST}:{free_port()}"
    url = f"tls://{place}"
    site = write_site(tmp_path / "site").folder
    state = site / ".labwright"
    operator = added(state, "olaf", Role.OPERATOR, url, cert.read_text())
    agent = added(state, "pump-1", Role.AGENT, url, cert.read_text())
    given = {"nats.listen": place, "nats.tls_cert": str(cert), "nats.tls_key": str(key)}
    settings = load_settings(site, {}, overrides=given)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    async with serving(settings, tied=True) as server:
        assert server.embedded is not None
        remote = load_settings(elsewhere, {"LABWRIGHT_CREDS": str(operator)})
        async with (
            serving_agent(Pump, name="pump-1", locate=lambda: Address.of("", agent), state_dir=elsewhere / "agents"),
            connect_async(settings=remote) as lab,
        ):
            session = await lab.agent("pump-1").operation("dispense")(volume_ml=2.0)
            runs = await lab.request(Request("easy"))
            (run,) = (await lab.wait(lab.follow_runs(runs), timeout_s=30)).values()
        await refuses_plain_text(place)
        await refuses_other_certificates(url, tmp_path)

    assert (session.state, session.by, session.result) == ("succeeded", "olaf", 2.0)
    assert (run.state, run.by) == ("succeeded", "olaf")


async def refuses_plain_text(place: str) -> None:
    """Without TLS, the server hears nobody out."""
    host, _, port = place.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    assert b'"tls_required":true' in await reader.readline()
    writer.write(b'CONNECT {"verbose":false,"user":"labwright","pass":"x"}\r\nPING\r\n')
    said = await asyncio.wait_for(reader.read(), 30)  # up to the end: the server hangs up
    writer.close()
    assert b"PONG" not in said


async def refuses_other_certificates(url: str, folder: Path) -> None:
    """A client that knows another certificate does not trust the server."""
    other, _ = certificate(folder / "tls", "other")
    context = Address(url=url, ca=other.read_text()).tls()
    assert isinstance(context, ssl.SSLContext)
    host, _, port = url.removeprefix("tls://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    await reader.readline()
    with pytest.raises(ssl.SSLCertVerificationError):
        await writer.start_tls(context, server_hostname=host)
    writer.close()


def asked(tmp_path: Path, place: str, files: dict[str, Path | None] | None = None, *, has_user: bool = True) -> Any:
    identities = Identities(tmp_path / "state")
    if has_user:
        identities.add("ada", Role.VIEWER)
    cert, key = certificate(tmp_path / "tls")
    given: dict[str, Path | None] = {"cert": cert, "key": key, "ca": None, **(files or {})}
    return listening(place, identities=identities, **given)


def test_nothing_listens_without_tls(tmp_path: Path) -> None:
    for missing in ("cert", "key"):
        with pytest.raises(NotAllowedError, match="without TLS"):
            asked(tmp_path / missing, f"{HOST}:4222", {missing: None})


def test_nothing_listens_without_users(tmp_path: Path) -> None:
    with pytest.raises(NotAllowedError, match="no users"):
        asked(tmp_path, f"{HOST}:4222", has_user=False)


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    _, other_key = certificate(tmp_path / "other")
    wrong: list[dict[str, Path | None]]
    wrong = [{"key": other_key}, {"cert": tmp_path / "absent"}, {"ca": other_key}, {"cert": tmp_path}]
    for files in wrong:
        with pytest.raises(UsageError, match="certificate cannot be used"):
            asked(tmp_path / f"at-{len(list(tmp_path.iterdir()))}", f"{HOST}:4222", files)


@pytest.mark.parametrize("place", ["4222", "host", "host:", ":4222", "host:0", "host:70000", "a b:1", "host:4222 x"])
def test_a_place_that_is_none_is_refused(tmp_path: Path, place: str) -> None:
    with pytest.raises(UsageError, match="no place to listen"):
        asked(tmp_path, place)


def test_a_certificate_without_a_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nobody listens"):
        asked(tmp_path, "")


async def test_serve_refuses_before_it_starts_anything(tmp_path: Path) -> None:
    site = write_site(tmp_path / "site").folder
    settings = load_settings(site, {}, overrides={"nats.listen": f"{HOST}:4222"})

    with pytest.raises(LabwrightError, match="without TLS") as refused:
        async with serving(settings, tied=True):
            pass

    assert refused.value.exit_code == 4
    assert not (site / ".labwright" / "nats.pid").exists()


async def test_a_server_that_survived_elsewhere_is_not_taken_over(tmp_path: Path) -> None:
    from labwright.journal.nats_server import EmbeddedServer, Listen

    cert, key = certificate(tmp_path / "tls")
    survivor = EmbeddedServer(tmp_path / "state", tied=True)
    await survivor.start()
    try:
        listen = Listen(host=HOST, port=free_port(), cert=cert, key=key)
        with pytest.raises(EngineError, match="listens at"):
            await EmbeddedServer(tmp_path / "state", listen=listen).start()
    finally:
        await survivor.stop()
