"""The sites that are shipped: they load, their own tests pass as a user runs them, and the wheel brings every file."""

import asyncio
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import labwright
from labwright.core.clock import SystemClock
from labwright.core.event import parse_event
from labwright.core.model import Run, utc_now
from labwright.run.settings import load_settings
from labwright.run.site import Site, decide_event, load_site
from labwright.testing import lab

EXAMPLES = Path(labwright.__file__ or "").parent / "examples"
ROOT = Path(__file__).parents[2]
FILES = sorted(
    path.relative_to(EXAMPLES)
    for path in EXAMPLES.rglob("*")
    if path.is_file() and not {"__pycache__", ".pytest_cache", ".labwright", "scratch"} & set(path.parts)
)


def copy_of(name: str, folder: Path, package: str = "") -> Path:
    """Copy an example; with a package, rename the template's to it as `labwright new site` does."""
    copy = folder / (package or name)
    for path in [path for path in FILES if path.parts[0] == name]:
        place = copy / str(path.relative_to(name)).replace("mylab", package or "mylab")
        place.parent.mkdir(parents=True, exist_ok=True)
        text = (EXAMPLES / path).read_text(encoding="utf-8")
        place.write_text(text.replace("mylab", package or "mylab"), encoding="utf-8")
    return copy


def loaded(folder: Path) -> Site:
    return load_site(load_settings(folder, {}))


@pytest.mark.parametrize("name", ["beamline", "template"])
def test_keys_of_an_example_do_not_get_into_its_repository(tmp_path: Path, name: str) -> None:
    folder = copy_of(name, tmp_path)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    ask = ["git", "check-ignore", "ada.key", ".labwright/x"]
    ignored = subprocess.run(ask, cwd=folder, capture_output=True, check=True)

    assert ignored.stdout.decode().split() == ["ada.key", ".labwright/x"]


@pytest.fixture(autouse=True)
def _path_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.parametrize(
    ("name", "package"), [("beamline", ""), ("template", ""), ("template", "kitchen"), ("template", "a_long_name")]
)
def test_the_tests_of_an_example_pass_where_a_user_runs_them(tmp_path: Path, name: str, package: str) -> None:
    folder = copy_of(name, tmp_path, package)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "COV"))}

    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@pytest.mark.parametrize("package", ["", "kitchen"])
def test_the_template_loads_under_any_name(tmp_path: Path, package: str) -> None:
    site = loaded(copy_of("template", tmp_path, package))

    assert [rule.name for rule in site.rules] == [f"{package or 'mylab'}.rules:weigh"]
    assert "weigh" in site.tasks


def test_each_event_of_the_beamline_yields_what_its_name_says(tmp_path: Path) -> None:
    folder = copy_of("beamline", tmp_path)
    site = loaded(folder)
    expected = {
        "end-of-rotation": ["make-room", "make-room", "make-room", "reduce"],
        "end-of-grid-scan": ["find-crystal", "make-room", "make-room", "make-room"],
        "end-of-failed-rotation": ["make-room", "make-room", "make-room"],
        "start-of-rotation": ["arm-detector"],
    }

    for path in sorted((folder / "events").iterdir()):
        decided = asyncio.run(decide_event(site, parse_event(path.read_bytes(), clock=SystemClock()), utc_now()))
        assert not [run for run in decided.runs if run.error]
        tasks = [decided.decision["requests"][run.request]["task"] for run in decided.runs]
        assert sorted(tasks) == expected.pop(path.stem)
    assert not expected


def test_the_beamline_closes_the_loop_in_a_real_lab(tmp_path: Path) -> None:
    folder = copy_of("beamline", tmp_path)

    async def send(names: list[str]) -> list[Run]:
        async with lab(folder) as running:
            sent = [await running.emit((folder / "events" / f"{name}.json").read_bytes()) for name in names]
            ended = [await running.wait(running.follow_event(emitted), timeout_s=60) for emitted in sent]
        return [run for runs in ended for run in runs.values()]

    runs = asyncio.run(send(["start-of-rotation", "end-of-rotation", "end-of-grid-scan"]))

    assert {run.state for run in runs} == {"succeeded"}
    assert sorted(run.task for run in runs) == ["archive", "arm-detector", "find-crystal", *["make-room"] * 6, "reduce"]
    (archive,) = [run for run in runs if run.task == "archive"]
    assert archive.attempt > 1
    assert {run.target for run in runs if run.finding} == {"gpu-1"}


def test_the_event_of_the_template_yields_one_run(tmp_path: Path) -> None:
    folder = copy_of("template", tmp_path)
    event = parse_event((folder / "events" / "sample-arrived.json").read_bytes(), clock=SystemClock())

    (run,) = asyncio.run(decide_event(loaded(folder), event, utc_now())).runs

    assert (run.target, run.error) == ("balance-1", None)


def test_the_wheel_brings_every_file_of_the_examples(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, source / name)

    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=source,
        capture_output=True,
        check=True,
        timeout=100,
    )

    (wheel,) = tmp_path.glob("*.whl")
    shipped = set(zipfile.ZipFile(wheel).namelist())
    assert not [str(path) for path in FILES if f"labwright/examples/{path.as_posix()}" not in shipped]
