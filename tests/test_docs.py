"""The docs tell everything: each setting, variable, command, option, error and record is there, and nothing else."""

import asyncio
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

import labwright
from labwright import maintenance
from labwright.cli.examples import copy_example
from labwright.cli.main import app
from labwright.cli.site import counts_line, summary
from labwright.core import errors
from labwright.core.clock import SystemClock
from labwright.core.event import parse_event
from labwright.core.model import AgentStay, FileEntry, Run, RunState, SessionSnapshot, SessionState, Step, utc_now
from labwright.decide.decision import Decision
from labwright.journal import records
from labwright.run.settings import Tables, load_settings
from labwright.run.site import decide_event, load_site

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
SOURCE = Path(labwright.__file__ or "").parent
UNIVERSAL = {"--site", "--json", "--help", "-h"}


def page(name: str) -> str:
    return (REFERENCE / f"{name}.md").read_text(encoding="utf-8")


def settings() -> Iterator[tuple[str, Any]]:
    """Give each key of `labwright.toml` with its default, tables by name under NAME."""
    for table, field in Tables.model_fields.items():
        annotation: Any = field.annotation
        arguments = getattr(annotation, "__args__", ())
        model = arguments[1] if arguments else annotation
        for name, key in model.model_fields.items():
            yield f"{table}{'.NAME' if arguments else ''}.{key.alias or name}", key


def commands(command: Any, path: str = "labwright") -> Iterator[tuple[str, Any]]:
    if children := getattr(command, "commands", None):
        for name, child in children.items():
            yield from commands(child, f"{path} {name}")
    else:
        yield path, command


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize(("key", "field"), list(settings()))
def test_every_setting_is_documented_with_its_default(key: str, field: Any) -> None:
    line = next((line for line in page("settings").splitlines() if line.startswith(f"| `{key}` |")), "")
    assert line, f"settings.md does not name {key}"

    default = field.get_default(call_default_factory=True)
    shown = (
        "required" if field.is_required() else f"`{list(default)}`" if isinstance(default, tuple) else f"`{default}`"
    )
    shown = f'`"{default}"`' if isinstance(default, str) else shown

    assert line.split("|")[2].strip() == shown.replace("'", '"')


def test_every_variable_of_the_environment_is_documented() -> None:
    text = page("settings")
    read = {
        name
        for path in SOURCE.rglob("*.py")
        if "examples" not in path.parts
        for name in re.findall(r"\bLABWRIGHT_[A-Z_]+\b", path.read_text(encoding="utf-8"))
    }

    assert not [name for name in read if f"`{name}`" not in text]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented(command: str) -> None:
    assert re.search(rf"`{command}[ `]", page("cli")), f"cli.md does not name {command}"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_documented(command: str) -> None:
    options = {
        name
        for parameter in COMMANDS[command].params
        if parameter.param_type_name == "option"
        for name in parameter.opts
    }

    assert not [name for name in options - UNIVERSAL if not re.search(rf"[ `]{name}[ `]", page("cli"))]


def test_the_pages_name_no_command_that_does_not_exist() -> None:
    groups = {path.rpartition(" ")[0] for path in COMMANDS}
    pages = [ROOT / "README.md", *(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)]
    for path in pages:
        for line in path.read_text(encoding="utf-8").splitlines():
            for words in re.findall(r"(?:^\$ |`)labwright ((?:[a-z][a-z-]* ?)+)", line):
                first, second = (*words.split(), "", "")[:2]
                found = f"labwright {first}"
                known = found in COMMANDS or (found in groups and f"{found} {second}" in COMMANDS)
                assert known, f"{path.name} names {words!r}"


@pytest.mark.parametrize("name", maintenance.__all__)
def test_every_step_of_maintenance_is_documented_with_its_parameters(name: str) -> None:
    value, text = getattr(maintenance, name), page("maintenance")
    assert f"`{name}" in text
    if inspect.isfunction(value):
        shown = re.search(rf"`{name}\((.*?)\)`", text)
        assert shown, f"maintenance.md does not show how {name} is called"
        parameters = [
            f"**{each.name}"
            if each.kind is each.VAR_KEYWORD
            else each.name
            if each.default is each.empty
            else f"{each.name}={each.default:g}"
            if isinstance(each.default, float)
            else f"{each.name}={each.default!r}".replace("'", '"')
            for each in inspect.signature(value).parameters.values()
        ]
        assert [part for part in shown[1].replace("0o644", "420").split(", ") if part != "*"] == parameters


ERRORS = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, errors.LabwrightError)]


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_is_documented_with_its_kind_and_exit_code(error: type[errors.LabwrightError]) -> None:
    assert f"| `{error.__name__}` | `{error.kind}` | {error.exit_code} |" in page("errors")


RECORDS = [cls.model_fields["type"].default for cls in records.AnyRecord.__args__]


@pytest.mark.parametrize("record", RECORDS)
def test_every_record_is_documented(record: str) -> None:
    assert f"| `{record}` |" in page("journal-records")


def test_no_record_is_documented_that_does_not_exist() -> None:
    text = page("journal-records").partition("## Other streams")[0]

    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(RECORDS)


@pytest.mark.parametrize(
    ("model", "hidden"),
    [
        (Run, {"failures", "reopened", "waits", "lost_in_step", "token", "aborting", "stuck", "content"}),
        (Step, {"result", "caught"}),
        (Decision, set[str]()),
        (SessionSnapshot, {"content"}),
        (FileEntry, set[str]()),
        (AgentStay, {"class_name"}),
    ],
)
def test_the_fields_of_the_shapes_are_documented(model: Any, hidden: set[str]) -> None:
    text = page("json")

    assert not [name for name in set(model.model_fields) - hidden if not re.search(rf'[`"]{name}[`"]', text)]


def test_every_state_of_a_run_is_documented() -> None:
    assert not [state for state in RunState if f"`{state}`" not in page("glossary")]


def test_every_state_of_a_session_is_documented() -> None:
    assert not [state for state in SessionState if f"`{state}`" not in page("glossary")]


TUTORIAL = (DOCS / "tutorials" / "first-site.md").read_text(encoding="utf-8")
SAVED = ("mylab/liquids.py", "tests/test_liquids.py", "events/liquid-arrived.json")


@pytest.fixture
def tutorial_site(tmp_path: Path) -> Path:
    """Make the site that a reader of the tutorial has at its end."""
    folder = tmp_path / "mylab"
    copy_example("template", folder)
    for name in SAVED:
        block = re.search(rf"`{name}`:\n\n(?:<!---.*-->\n\n)?```\w+\n(.*?)```", TUTORIAL, re.DOTALL)
        assert block, f"the tutorial has no block for {name}"
        (folder / name).write_text(block[1], encoding="utf-8")
    return folder


def test_the_tutorial_is_true(tutorial_site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))

    site = load_site(load_settings(tutorial_site, {}))
    event = parse_event((tutorial_site / "events" / "liquid-arrived.json").read_bytes(), clock=SystemClock())
    decided = asyncio.run(decide_event(site, event, utc_now()))

    counts = summary(site.describe(asyncio.run(site.targets()).values()))
    assert f"loaded again: {counts_line(counts)}" in TUTORIAL
    assert [(run.target, run.error) for run in decided.runs] == [("balance-2", None)]
    assert not [rule.name for rule in site.rules if rule.name not in TUTORIAL]


def test_the_tests_of_the_tutorial_pass(tutorial_site: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tutorial_site,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert "7 passed" in done.stdout, done.stdout
