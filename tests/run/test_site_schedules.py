"""Schedules that stand in a site's package: found, checked, kept by the lab, and followed as the package changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from labwright import Schedule, after, every
from labwright.core.errors import SiteError, UsageError
from labwright.plan.durable import ScheduleDefinition
from labwright.plan.policies import Late
from labwright.run.settings import load_settings
from labwright.run.site import load_site
from labwright.testing.lab import lab as lab_of
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(120)

PACKAGE = """\
from labwright import Schedule, Task, every, step

@step
async def look(ctx, depth: int = 1):
    return depth

looking = Task("look", steps=[look])
"""
NIGHTLY = """
nightly = Schedule("look", on="kind=pump", name="nightly", params={"depth": 2}, overlap="skip").cron(
    "30 2 * * *", zone="Europe/Paris", window=7200
)
"""
OFTEN = """
often = Schedule("look", name="often").every(0.2)
"""


def write(folder: Path, text: str, package: str) -> Path:
    (folder / package).mkdir(parents=True, exist_ok=True)
    (folder / package / "__init__.py").write_text(PACKAGE + text)
    (folder / "labwright.toml").write_text(f'[site]\npackage = "{package}"\n')
    (folder / "targets.yaml").write_text("- {name: t1, labels: {kind: pump}}\n")
    return folder


def definitions(folder: Path) -> dict[str, ScheduleDefinition]:
    site = load_site(load_settings(folder, {}))
    return {each.name: each.definition for each in site.describe().schedules}


def test_a_schedule_of_a_task_is_found_with_all_that_it_says(tmp_path: Path) -> None:
    found = definitions(write(tmp_path, NIGHTLY + OFTEN, "scheduled_one"))
    assert list(found) == ["nightly", "often"]
    nightly = found["nightly"]
    assert (nightly.task, nightly.on, nightly.params, nightly.overlap) == ("look", "kind=pump", {"depth": 2}, "skip")
    assert (nightly.zone, nightly.window_s) == ("Europe/Paris", 7200)
    assert nightly.points == {"cron": "30 2 * * *", "zone": "Europe/Paris"}
    assert found["often"].points == {"every": 0.2, "after": 0.2}


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ('a = Schedule("lok").every(60)', "the site has no task 'lok'"),
        ('a = Schedule("look", on="kind==").every(60)', "kind=="),
        ('a = Schedule("look", params={"deep": 1}).every(60)', "deep"),
        ('a = Schedule("look")', "has no time points"),
        (
            'a = Schedule("look", name="x").every(60)\nb = Schedule("look", name="x").every(5)',
            "two schedules",
        ),
        ('a = Schedule("look", on_error="retry").every(60)', "does not retry"),
    ],
)
def test_what_is_wrong_with_a_schedule_is_found(tmp_path: Path, text: str, finding: str) -> None:
    folder = write(tmp_path, f"\n{text}\n", f"scheduled_{abs(hash(text))}")
    with pytest.raises(SiteError) as raised:
        load_site(load_settings(folder, {}))
    assert any(finding in each for each in raised.value.findings), raised.value.findings


def test_a_schedule_of_functions_in_a_site_is_left_to_scripts(tmp_path: Path) -> None:
    assert definitions(write(tmp_path, "\na = Schedule(print).every(60)\n", "scheduled_two")) == {}


def test_a_schedule_of_a_task_does_not_start_in_a_script() -> None:
    schedule = Schedule("look", name="nightly").every(60)
    with pytest.raises(UsageError, match="cannot be started here"), schedule:
        pass
    assert schedule.preview(1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Schedule(print, on="kind=pump"),
        lambda: Schedule("look", print),
        lambda: Schedule("no name"),
        lambda: Schedule("look").cron("* * * * *", look={"depth": 1}),
        lambda: Schedule("look").every(60).also(print).written(),
        lambda: Schedule(print).every(60).written(),
        lambda: Schedule("look").at(every(60).under(late=Late.SKIP)).written(),
        lambda: ScheduleDefinition.given(**Schedule("look").at(after(5) + after(5, since="ended")).written()),
    ],
)
def test_what_cannot_be_kept_by_a_lab_is_refused(make: Any) -> None:
    with pytest.raises(UsageError):
        make()


async def test_a_reload_adds_changes_and_removes_and_what_is_the_same_goes_on(tmp_path: Path) -> None:
    write(tmp_path, NIGHTLY + OFTEN, "scheduled_lab")
    async with lab_of(tmp_path) as lab:

        async def shown() -> dict[str, dict[str, Any]]:
            return {each["name"]: each for each in await lab.ask("schedules")}

        async def has_run() -> list[dict[str, Any]]:
            return (await lab.runs(cause="often", state="succeeded"))["items"]

        runs = await until(has_run)
        assert (runs[0]["by"], runs[0]["result"]) == ("site", 1)
        before = await shown()
        assert before["nightly"]["origin"] == "site"

        write(tmp_path, NIGHTLY + '\nnew = Schedule("look", name="new").every(3600)\n', "scheduled_lab")
        await lab.ask("reload")

        async def has_followed() -> bool:
            return set(await shown()) == {"nightly", "new"}

        await until(has_followed)
        assert (await shown())["nightly"] == before["nightly"]

        write(tmp_path, NIGHTLY.replace("7200", "60"), "scheduled_lab")
        await lab.ask("reload")

        async def has_changed() -> bool:
            known = await lab.ask("schedule", name="nightly")
            return known["definition"]["window_s"] == 60 and set(await shown()) == {"nightly"}

        await until(has_changed)
        assert (await shown())["nightly"]["defined_at"] > before["nightly"]["defined_at"]
