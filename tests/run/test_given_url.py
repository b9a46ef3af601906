"""A lab on a NATS server that somebody else runs: the same code, and nothing embedded is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from labwright.client import connect_async
from labwright.core.errors import UnreachableError
from labwright.core.model import RunState
from labwright.core.request import Request
from labwright.journal.nats_server import EmbeddedServer
from labwright.run.settings import Settings, load_settings
from labwright.server import serving

PACKAGE = """\
from labwright import Task, step

@step
async def greet(ctx, name: str):
    return f"Hello {name}"

greeting = Task("greeting", steps=[greet])
"""


def site(folder: Path, url: str) -> Settings:
    """Write a site whose journal is at that url."""
    (folder / "urllab").mkdir()
    (folder / "urllab" / "__init__.py").write_text(PACKAGE)
    (folder / "labwright.toml").write_text(f'[site]\npackage = "urllab"\n[nats]\nurl = "{url}"\n')
    return load_settings(folder, {})


async def test_a_run_succeeds_over_a_server_at_a_url(tmp_path: Path) -> None:
    other = EmbeddedServer(tmp_path / "elsewhere", tied=True)
    address = await other.start()
    credential = f"{address.user}:{address.password}@"
    (tmp_path / "site").mkdir()
    settings = site(tmp_path / "site", address.url.replace("nats://", f"nats://{credential}"))
    try:
        async with serving(settings, tied=True) as server, connect_async(settings=settings) as lab:
            assert server.embedded is None
            runs = await lab.request(Request("greeting", name="Ada"))
            ended = await lab.wait(lab.follow_runs(runs), timeout_s=30)
    finally:
        await other.stop()
    (run,) = ended.values()
    assert (run.state, run.result) == (RunState.SUCCEEDED, "Hello Ada")
    assert not (settings.state_dir / "nats.conf").exists()


async def test_a_url_where_nothing_listens_is_unreachable(tmp_path: Path) -> None:
    settings = site(tmp_path, "nats://user:secret@127.0.0.1:1")
    with pytest.raises(UnreachableError) as caught:
        async with connect_async(settings=settings):
            pass
    assert "127.0.0.1:1" in caught.value.message
    assert "secret" not in caught.value.message
