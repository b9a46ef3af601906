"""Packages in Mimas's layout: the published examples as they are, and what is said of files that are wrong."""

import importlib
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from labwright.compat.mimas import (
    MimasError,
    MimasEvent,
    MimasExperimentType,
    MimasRecipeInvocation,
    MimasRunStatus,
    MimasScenario,
    TriggerRecorder,
    load_implementors,
)
from labwright.compat.mimas.finder import OFFERED, ZocaloFinder, install
from labwright.core.model import Event
from labwright.decide.decision import Decision, decide
from labwright.decide.scenario import Scenario

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FACTS: dict[str, Any] = {"dcid": 12, "phase": "start", "beamline": "bl", "experiment_type": "energy_scan"}
TASKS_HEAD = "from zocalo.mimas.classes import *\nfrom zocalo.mimas.tasks import Tasks\n"


def decided(rules: Any, type: str = "data_collection.start", **facts: Any) -> Decision:
    event = Event(id="1", source="t", type=type, time=NOW)
    return decide(Scenario.of(event, {**FACTS, **facts}), rules, at=NOW)


def package(folder: Path, **files: str) -> str:
    """Write the files `tasks__NAME` and `triggers__NAME` into a package of Mimas's layout."""
    name = f"mimas_{folder.name.replace('-', '_')}"
    for kind in ("tasks", "triggers"):
        (folder / name / "implementors" / kind).mkdir(parents=True)
    for path in (folder / name).rglob("*/"):
        (path / "__init__.py").touch()
    (folder / name / "__init__.py").touch()
    for file, text in files.items():
        kind, _, module = file.partition("__")
        (folder / name / "implementors" / kind / f"{module}.py").write_text(text)
    return name


def test_the_published_task_decides(example_path: Path) -> None:
    implementors = load_implementors(["mimas_site"])

    assert implementors.findings == ()
    assert [rule.name for rule in implementors.rules] == ["mimas_site.implementors.tasks.mybeamline:mybeamline"]
    decision = decided(implementors.rules)
    assert [(request.task, request.params) for request in decision.requests] == [("myrecipe", {"dcid": 12})]
    assert [reason.condition for reason in decision.rules[0].reasons] == [
        "type matches 'data_collection.*'",
        "phase is 'start'",
        "beamline is 'bl'",
    ]


@pytest.mark.parametrize(
    ("facts", "outcome"),
    [
        ({"phase": "end"}, "not_matched"),
        ({"beamline": "i03"}, "not_matched"),
        ({"beamline": None}, "not_matched"),
        ({"experiment_type": "sad"}, "fired"),
        ({"dcid": "²"}, "failed"),
        ({"unit_cell": [1, 2, 3]}, "failed"),
    ],
)
def test_the_published_task_asks_for_nothing_otherwise(example_path: Path, facts: dict[str, Any], outcome: str) -> None:
    decision = decided(load_implementors(["mimas_site"]).rules, **facts)

    assert decision.rules[0].outcome == outcome
    assert decision.requests == ()


def test_the_published_task_can_be_tested_by_itself(example_path: Path) -> None:
    mybeamline = importlib.import_module("mimas_site.implementors.tasks.mybeamline").mybeamline
    scenario = MimasScenario(12, MimasExperimentType.ENERGY_SCAN, MimasEvent.START, "bl", MimasRunStatus.UNKNOWN)

    assert mybeamline().run(scenario) == [MimasRecipeInvocation(dcid=12, recipe="myrecipe")]
    assert mybeamline().do_run(scenario) == [MimasRecipeInvocation(dcid=12, recipe="myrecipe")]


def test_the_published_trigger_runs_against_a_recorder(example_path: Path) -> None:
    trigger = load_implementors(["mimas_site"]).triggers["test"]
    recorder = TriggerRecorder({"dcid": 5})

    assert recorder.run(trigger) == (True, 12)
    assert recorder.messages == [
        ("processing_recipe", {"recipes": [], "parameters": {"ispyb_process": 12, "testid": 42}})
    ]


def test_the_examples_are_tested_with_plain_pytest(example_path: Path, tmp_path: Path) -> None:
    (tmp_path / "test_site.py").write_text(
        "from zocalo.mimas.classes import MimasEvent, MimasExperimentType, MimasRunStatus, MimasScenario, validate\n"
        "from mimas_site.implementors.tasks.mybeamline import mybeamline\n"
        "from mimas_site.implementors.triggers.test import test as trigger\n\n"
        "def test_start():\n"
        "    kind, status = MimasExperimentType.ENERGY_SCAN, MimasRunStatus.UNKNOWN\n"
        "    scenario = MimasScenario(1, kind, MimasEvent.START, 'bl', status)\n"
        "    validate(scenario)\n"
        "    assert [task.recipe for task in mybeamline().do_run(scenario)] == ['myrecipe']\n"
        "    assert trigger.name == 'TestTrigger'\n"
    )
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly"]

    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        cwd=example_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert "1 passed" in ran.stdout, ran.stdout + ran.stderr


def test_the_first_import_of_zocalos_names_needs_only_ours() -> None:
    code = (
        "import labwright.compat.mimas, zocalo.mimas.tasks, zocalo.mimas.classes, zocalo.trigger\n"
        "from labwright.compat.mimas import Tasks, MimasEvent, Trigger\n"
        "assert zocalo.mimas.tasks.Tasks is Tasks\n"
        "assert zocalo.mimas.classes.MimasEvent is MimasEvent\n"
        "assert zocalo.trigger.Trigger is Trigger\n"
        "try:\n"
        "    import zocalo.configuration\n"
        "except ModuleNotFoundError as error:\n"
        "    print(error.name)\n"
    )

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert ran.stdout == "zocalo.configuration\n"


def test_an_installed_zocalo_comes_first_module_by_module(tmp_path: Path) -> None:
    (tmp_path / "zocalo").mkdir()
    (tmp_path / "zocalo" / "__init__.py").write_text("real = True\n")
    (tmp_path / "zocalo" / "trigger.py").write_text("Trigger = 'the real one'\n")
    code = (
        "import labwright.compat.mimas, zocalo, zocalo.trigger, zocalo.mimas.tasks\n"
        "print(zocalo.real, zocalo.trigger.Trigger, zocalo.mimas.tasks.Tasks.__module__)"
    )

    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )

    assert ran.stdout == "True the real one labwright.compat.mimas.tasks\n"


def test_the_finder_is_installed_once_and_offers_nothing_else() -> None:
    install()
    install()

    finders = [finder for finder in sys.meta_path if isinstance(finder, ZocaloFinder)]
    assert len(finders) == 1
    assert finders[0].find_spec("zocalo.service") is None
    assert all(finders[0].find_spec(name) for name in OFFERED)


def test_one_file_that_is_wrong_does_not_sink_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    name = package(
        tmp_path,
        tasks__good=TASKS_HEAD + "class good(Tasks):\n    def run(self, scenario):\n        return []\n",
        tasks__broken="def (:\n",
        tasks__raising="raise RuntimeError('no luck')\n",
        tasks__other=TASKS_HEAD + "class Misnamed(Tasks):\n    def run(self, scenario):\n        return []\n",
        tasks__plain="class plain:\n    pass\n",
        tasks__idle=TASKS_HEAD + "class idle(Tasks):\n    pass\n",
        tasks__listed=TASKS_HEAD
        + "class listed(Tasks):\n    beamline = ['a']\n    def run(self, scenario):\n        return []\n",
        tasks__worded=TASKS_HEAD
        + "class worded(Tasks):\n    event = 'start'\n    def run(self, scenario):\n        return []\n",
        tasks___helpers="raise RuntimeError('not looked at')\n",
        triggers__nothing="",
    )

    implementors = load_implementors([name, "mimas_absent"])

    assert [rule.name.rpartition(":")[2] for rule in implementors.rules] == ["good"]
    told = "\n".join(implementors.findings)
    for part in (
        "tasks.broken: invalid syntax",
        "line 1",
        "tasks.raising: it does not import: RuntimeError: no luck",
        "tasks.other: the class other(Tasks) is not there",
        "tasks.plain: the class plain(Tasks) is not there",
        "tasks.idle: the class idle(Tasks) has no method run",
        "tasks.listed: beamline is ['a'], which is no text",
        "tasks.worded: event is 'start', which is no MimasEvent",
        "triggers.nothing: the class nothing(Trigger) is not there",
        "mimas_absent.implementors: it does not import: ModuleNotFoundError",
    ):
        assert part in told
    assert len(implementors.findings) == 9


@pytest.mark.parametrize(
    ("body", "outcome", "tasks"),
    [
        (
            "return [MimasRecipeInvocation(scenario.dcid, 'a'), MimasRecipeInvocation(scenario.dcid, 'b')]",
            "fired",
            ["a", "b"],
        ),
        ("yield MimasRecipeInvocation(scenario.dcid, 'a')", "fired", ["a"]),
        ("return []", "fired", []),
        ("return None", "failed", []),
        ("return 'a'", "failed", []),
        ("return ['a']", "failed", []),
        ("return [MimasRecipeInvocation(scenario.dcid, 'a'), MimasRecipeInvocation(scenario.dcid, '')]", "failed", []),
        ("return [MimasISPyBJobInvocation(scenario.dcid, 1, 'a', 'automatic')]", "failed", []),
        ("return [MimasISPyBJobInvocation(scenario.dcid, True, 'a', 'automatic')]", "fired", ["ispyb-job"]),
        ("raise ValueError('no luck')", "failed", []),
    ],
)
def test_what_a_task_returns_is_checked_and_sinks_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, outcome: str, tasks: list[str]
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    name = package(
        tmp_path,
        tasks__one=TASKS_HEAD + f"class one(Tasks):\n    def run(self, scenario):\n        {body}\n",
        tasks__two=TASKS_HEAD
        + "class two(Tasks):\n    def run(self, scenario):\n"
        + "        return [MimasRecipeInvocation(scenario.dcid, 'a')]\n",
    )

    decision = decided(load_implementors([name]).rules)

    assert [each.outcome for each in decision.rules] == [outcome, "fired"]
    assert [request.task for request in decision.requests] == list(dict.fromkeys([*tasks, "a"]))


def test_a_disabled_task_is_not_asked_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    text = (
        TASKS_HEAD + "class off(Tasks):\n    enabled = False\n    def run(self, scenario):\n        raise ValueError\n"
    )
    implementors = load_implementors([package(tmp_path, tasks__off=text)])

    outcome = decided(implementors.rules).rules[0]

    assert outcome.outcome == "not_matched"
    assert outcome.reasons[-1].model_dump() == {"condition": "off is enabled", "holds": False}
    off = vars(sys.modules[implementors.rules[0].name.partition(":")[0]])["off"]
    assert off().do_run(None) == []


def test_a_task_for_any_event_sees_only_data_collections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    text = TASKS_HEAD + "class all(Tasks):\n    def run(self, scenario):\n        return []\n"
    rules = load_implementors([package(tmp_path, tasks__all=text)]).rules

    assert [decided(rules, phase=phase).rules[0].outcome for phase in ("start", "end_group")] == ["fired", "fired"]
    assert decided(rules, phase="full").rules[0].outcome == "not_matched"
    assert decided(rules, type="moon.rise").rules[0].outcome == "not_matched"


def test_a_trigger_registers_jobs_sweeps_and_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    text = (
        "from zocalo.trigger import Trigger, TriggerResponse\n\n\n"
        "class dimple(Trigger):\n    name = 'Dimple'\n\n    def run(self):\n"
        "        self._jobid = self._add_job('DIMPLE', 'postprocessing-dimple')\n"
        "        self._add_image_sweep(self._dcid, 1, 100)\n"
        "        self._add_parameters({'data': 'x.mtz', 'pdb': 'y.pdb'})\n"
        "        self._trigger_job()\n"
        "        return TriggerResponse(True, self._jobid)\n"
    )
    trigger = load_implementors([package(tmp_path, triggers__dimple=text)]).triggers["dimple"]
    recorder = TriggerRecorder({"dcid": 5, "comment": "by hand", "automatic": 1})

    assert recorder.run(trigger) == (True, 1)
    assert recorder.jobs == [
        {
            "id": 1,
            "datacollectionid": 5,
            "display_name": "DIMPLE",
            "comments": "by hand",
            "recipe": "postprocessing-dimple",
            "automatic": True,
        }
    ]
    assert recorder.sweeps == [{"id": 1, "job_id": 1, "datacollectionid": 5, "start_image": 1, "end_image": 100}]
    assert [row["parameter_key"] for row in recorder.job_parameters] == ["data", "pdb"]
    assert recorder.messages == [("processing_recipe", {"recipes": [], "parameters": {"ispyb_process": 1}})]


def test_a_trigger_without_a_job_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    text = (
        "from zocalo.trigger import Trigger\n\n\nclass early(Trigger):\n    def run(self):\n"
        "        self._add_image_sweep(1, 1, 1)\n"
    )
    trigger = load_implementors([package(tmp_path, triggers__early=text)]).triggers["early"]

    with pytest.raises(MimasError, match="has no job"):
        TriggerRecorder({"dcid": 5}).run(trigger)
