"""A small fleet of real servers, kept up by a real lab: what is due is found, rotated where it is ours, and served."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from labwright.core.model import Run
from labwright.core.request import Request
from labwright.maintenance import Authority, served_certificate
from labwright.testing import lab
from tests.maintenance.conftest import HOST, free_port, https_server, lay_out
from tests.support.certificates import certificate

UPKEEP = """
from pathlib import Path

from labwright import Retry, Task, provides
from labwright.maintenance import (
    Authority, certificate_check, certificate_rotation, service_check, service_gate, tell_process
)

FILES = Path(__file__).parents[2] / "authority"


@provides("certificate_authority")
async def certificate_authority(target):
    yield Authority.read(FILES / "our authority.crt", FILES / "our authority.key.pem")


check = Task("check", steps=[service_check("{address}"), certificate_check("{address}")], retry=Retry(attempts=1))
gated = Task("gated", steps=[service_gate("{address}", down="terminal")])
rotate = certificate_rotation(
    "rotate", "{address}", "{tls_folder}", reload=[tell_process("{tls_folder}/pid", program="https_server.py")]
)
"""


def site_for(folder: Path, addresses: dict[str, str]) -> Path:
    """Write a site whose targets are servers."""
    site = folder / "site"
    (site / "upkeep").mkdir(parents=True)
    (site / "upkeep" / "__init__.py").write_text(UPKEEP)
    (site / "labwright.toml").write_text('[site]\npackage = "upkeep"\n')
    lines = [
        f"- {{name: {name}, facts: {{address: '{address}', tls_folder: {folder / name}}}}}"
        for name, address in addresses.items()
    ]
    (site / "targets.yaml").write_text("\n".join(lines))
    return site


async def test_a_fleet_is_kept_up(tmp_path: Path, authority: Authority, now: datetime) -> None:
    cert, key = certificate(tmp_path / "company", "a company", host=HOST, days=3)
    ours = await authority.issue([HOST], days=9, now=now)
    lay_out(tmp_path / "web", ours.certificate.pem, ours.key)
    lay_out(tmp_path / "bought", cert.read_text(), key.read_text())
    with https_server(tmp_path / "web") as web, https_server(tmp_path / "bought") as bought:
        addresses = {"web": f"{HOST}:{web}", "bought": f"{HOST}:{bought}", "gone": f"{HOST}:{free_port()}"}
        async with lab(site_for(tmp_path, addresses)) as running:

            async def run_on_all(task: str) -> dict[str | None, Run]:
                found: dict[str | None, Run] = {}
                for name in addresses:
                    runs = await running.request(Request(task, on=name))
                    ended = await running.wait(running.follow_runs(runs), timeout_s=60)
                    found |= {run.target: run for run in ended.values()}
                return found

            checked = await run_on_all("check")
            gated = await run_on_all("gated")
            rotated = await run_on_all("rotate")
        shown = await served_certificate(HOST, web)

    due = {"web": ("succeeded", True), "bought": ("succeeded", True)}
    assert {name: (run.state, run.finding) for name, run in checked.items() if name != "gone"} == due
    assert "expires in" in str(checked["web"].note)
    assert [step.finding for step in checked["gone"].steps] == [True, False]  # down is found, and hides the certificate
    assert checked["gone"].error is not None
    assert (checked["gone"].state, checked["gone"].error.kind) == ("failed", "transient")
    assert gated["gone"].state == "failed"
    assert rotated["web"].state == rotated["bought"].state == "succeeded"
    assert "is not managed: it is of CN=a company" in str(rotated["bought"].note)
    assert shown.days_left(now) > 80
