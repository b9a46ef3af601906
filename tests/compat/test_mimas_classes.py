"""Mimas's classes: what may be in them, and how they are written as messages and commands."""

import math
import shlex
from dataclasses import FrozenInstanceError, asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labwright.compat.mimas import (
    MimasDCClass,
    MimasDetectorClass,
    MimasError,
    MimasEvent,
    MimasExperimentType,
    MimasISPyBAnomalousScatterer,
    MimasISPyBJobInvocation,
    MimasISPyBParameter,
    MimasISPyBSpaceGroup,
    MimasISPyBSweep,
    MimasISPyBTriggerVariable,
    MimasISPyBUnitCell,
    MimasRecipeInvocation,
    MimasRunStatus,
    MimasScenario,
    command_line,
    to_invocation,
    to_request,
    validate,
    zocalo_command_line,
    zocalo_message,
)
from labwright.core.errors import NotProvidedError
from labwright.core.model import RequestRecord
from labwright.core.request import Request

SCENARIO = MimasScenario(
    dcid=5,
    experimenttype=MimasExperimentType.SAD,
    event=MimasEvent.END,
    beamline="i03",
    runstatus=MimasRunStatus.SUCCESS,
)
CELL = MimasISPyBUnitCell(78.1, 78.1, 37, 90, 90, 90)
RECIPE = MimasRecipeInvocation(dcid=5, recipe="strategy")
JOB = MimasISPyBJobInvocation(dcid=5, autostart=True, recipe="xia2", source="automatic")


def test_both_published_lines_of_members_are_there() -> None:
    members = {
        kind.__name__: list(kind.__members__) for kind in (MimasEvent, MimasDCClass, MimasDetectorClass, MimasRunStatus)
    }

    assert members == {
        "MimasEvent": ["START", "END", "START_GROUP", "END_GROUP"],
        "MimasDCClass": [
            "GRIDSCAN",
            "ROTATION",
            "SCREENING",
            "UNDEFINED",
            "CHARACTERIZATION",
            "DIAMOND_ANVIL_CELL",
            "SERIAL_FIXED",
            "SERIAL_JET",
        ],
        "MimasDetectorClass": ["PILATUS", "EIGER"],
        "MimasRunStatus": ["SUCCESS", "FAILURE", "UNKNOWN"],
    }
    assert " ".join(MimasExperimentType.__members__) == (
        "OSC MESH SAD ENERGY_SCAN XRF_MAP XRF_MAP_XAS XRF_SPECTRUM UNDEFINED"
    )


def test_objects_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        RECIPE.dcid = 6  # type: ignore[misc]


@pytest.mark.parametrize(
    "valid",
    [
        SCENARIO,
        replace(SCENARIO, dcclass=MimasDCClass.GRIDSCAN, detectorclass=MimasDetectorClass.EIGER, unitcell=CELL),
        replace(SCENARIO, spacegroup=MimasISPyBSpaceGroup("P 41 21 2"), visit="cm14451-1", proposalcode="cm"),
        replace(SCENARIO, getsweepslistfromsamedcg=[MimasISPyBSweep(5, 1, 1)], cloudbursting=[{"cloud_spec": "x"}]),
        replace(SCENARIO, anomalous_scatterer=MimasISPyBAnomalousScatterer("Se")),
        MimasISPyBSweep(dcid=5, start=0, end=0),
        MimasISPyBAnomalousScatterer("34"),
        MimasEvent.START,
        CELL,
        MimasISPyBUnitCell(10, 10, 10, 60, 60, 60),
        RECIPE,
        JOB,
        replace(
            JOB, parameters=[MimasISPyBParameter("k", "v:w")], triggervariables=(MimasISPyBTriggerVariable("k", ""),)
        ),
    ],
)
def test_what_is_right_passes(valid: object) -> None:
    validate(valid)


@pytest.mark.parametrize(
    "wrong",
    [
        "text",
        None,
        object(),
        replace(SCENARIO, dcid=-5),
        replace(SCENARIO, dcid=0),
        replace(SCENARIO, dcid=True),
        replace(SCENARIO, dcid="5"),
        replace(SCENARIO, experimenttype="SAD"),
        replace(SCENARIO, event="end"),
        replace(SCENARIO, runstatus=None),
        replace(SCENARIO, dcclass="ROTATION"),
        replace(SCENARIO, dcclass=MimasEvent.START),
        replace(SCENARIO, detectorclass="eiger"),
        replace(SCENARIO, beamline=None),
        replace(SCENARIO, beamline=""),
        replace(SCENARIO, proposalcode=5),
        replace(SCENARIO, visit=5),
        replace(SCENARIO, preferred_processing=5),
        replace(SCENARIO, unitcell=(1, 2, 3, 90, 90, 90)),
        replace(SCENARIO, spacegroup="P21"),
        replace(SCENARIO, spacegroup=MimasISPyBSpaceGroup("P 5")),
        replace(SCENARIO, getsweepslistfromsamedcg=None),
        replace(SCENARIO, getsweepslistfromsamedcg=[(5, 1, 1)]),
        replace(SCENARIO, anomalous_scatterer="Se"),
        replace(SCENARIO, cloudbursting=["group"]),
        replace(SCENARIO, cloudbursting={"a": 1}),
        MimasISPyBSweep(0, 1, 1),
        MimasISPyBSweep(5, -1, 1),
        MimasISPyBSweep(5, 2, 1),
        MimasISPyBSweep(5, 1.0, 2),  # type: ignore[arg-type]
        MimasISPyBSweep(1, 0, True),
        *[replace(CELL, a=value) for value in (True, math.nan, math.inf, 0, -1, "78")],
        *[replace(CELL, alpha=value) for value in (True, math.nan, 0, 180, 200, "90")],
        replace(CELL, alpha=10, beta=10, gamma=170),
        replace(CELL, alpha=120, beta=120, gamma=120),
        *[MimasISPyBSpaceGroup(symbol) for symbol in ("", "P 5", "0", "231", 5, None)],  # type: ignore[arg-type]
        *[MimasISPyBAnomalousScatterer(symbol) for symbol in ("", "Xx", "X", "999", "Sel", None)],  # type: ignore[arg-type]
        replace(RECIPE, dcid=0),
        replace(RECIPE, recipe=""),
        replace(RECIPE, recipe=None),
        replace(JOB, dcid=-1),
        replace(JOB, autostart=1),
        replace(JOB, autostart=None),
        replace(JOB, recipe=""),
        replace(JOB, source=None),
        replace(JOB, source=""),
        replace(JOB, comment=None),
        replace(JOB, displayname=5),
        replace(JOB, comment="nul\0"),
        replace(JOB, parameters="x"),
        replace(JOB, parameters=({"key": "k"},)),
        replace(JOB, parameters=(MimasISPyBTriggerVariable("k", "v"),)),
        replace(JOB, sweeps=((5, 1, 1),)),
        replace(JOB, triggervariables="x"),
        replace(JOB, triggervariables=(5,)),
        MimasISPyBParameter("", "v"),
        MimasISPyBParameter("k", 5),  # type: ignore[arg-type]
        MimasISPyBParameter("a:b", "v"),
        MimasISPyBTriggerVariable(None, "v"),  # type: ignore[arg-type]
    ],
)
def test_what_is_wrong_is_refused_as_a_value_error_with_the_reason(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"is not valid|is no ") as raised:
        validate(wrong)

    assert isinstance(raised.value, MimasError)
    assert raised.value.because


def test_another_type_than_expected_is_refused() -> None:
    validate(RECIPE, expectedtype=(MimasRecipeInvocation, MimasISPyBJobInvocation))
    with pytest.raises(MimasError, match="no MimasScenario"):
        validate(RECIPE, expectedtype=MimasScenario)


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [("P 41 21 2", "P41212"), ("P21", "P1211"), ("C2", "C121"), ("19", "P212121"), ("H3", "R3")],
)
def test_a_space_group_has_one_short_name(symbol: str, expected: str) -> None:
    assert MimasISPyBSpaceGroup(symbol).string == expected


@pytest.mark.parametrize(("symbol", "expected"), [("Se", "Se"), ("34", "Se"), ("SE", "Se")])
def test_a_scatterer_is_an_element(symbol: str, expected: str) -> None:
    assert MimasISPyBAnomalousScatterer(symbol).string == expected


def test_without_gemmi_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gemmi", None)

    with pytest.raises(NotProvidedError, match="gemmi") as raised:
        validate(MimasISPyBSpaceGroup("P21"))

    assert "labwright[mimas]" in raised.value.cure


def test_objects_become_messages() -> None:
    job = replace(
        JOB,
        parameters=(MimasISPyBParameter("k", "v"),),
        sweeps=[MimasISPyBSweep(5, 1, 9)],
        triggervariables=(MimasISPyBTriggerVariable("t", "w"),),
    )

    assert zocalo_message(RECIPE) == {"recipes": ["strategy"], "parameters": {"ispyb_dcid": 5}}
    assert zocalo_message(job) == asdict(job)
    assert zocalo_message(MimasISPyBTriggerVariable("t", "w")) == {"key": "t", "value": "w"}
    assert zocalo_message((CELL, MimasISPyBSpaceGroup("P21"))) == ((78.1, 78.1, 37, 90, 90, 90), "P1211")
    assert zocalo_message([1, "a", None, True, 1.5]) == [1, "a", None, True, 1.5]
    for unknown in (object(), {"a": 1}, MimasEvent.START, SCENARIO):
        with pytest.raises(ValueError, match="not a known Mimas object"):
            zocalo_message(unknown)


def test_objects_become_commands_without_a_blank_too_many() -> None:
    job = replace(
        JOB,
        comment="it's done",
        displayname="xia2",
        parameters=(MimasISPyBParameter("resolution", "1.5"),),
        sweeps=(MimasISPyBSweep(5, 1, 9), MimasISPyBSweep(6, 1, 9)),
        triggervariables=(MimasISPyBTriggerVariable("t", "a b"),),
    )

    assert zocalo_command_line(RECIPE) == "zocalo.go -r strategy 5"
    assert zocalo_command_line(replace(JOB, autostart=False)) == (
        "ispyb.job --new --dcid=5 --source=automatic --recipe=xia2"
    )
    assert zocalo_command_line(job) == (
        "ispyb.job --new --dcid=5 --source=automatic --recipe=xia2 --add-sweep=5:1:9 --add-sweep=6:1:9"
        " --add-param=resolution:1.5 --display='xia2' --comment='it'\"'\"'s done' --trigger"
        " --trigger-variable='t:a b'"
    )
    with pytest.raises(MimasError):
        zocalo_command_line(SCENARIO)


nasty = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1)


@given(nasty, nasty, nasty)
def test_a_shell_reads_a_command_as_it_was_meant(recipe: str, comment: str, value: str) -> None:
    job = replace(JOB, recipe=recipe, comment=comment, parameters=(MimasISPyBParameter("k", value),))

    words = shlex.split(zocalo_command_line(job))

    assert words[4:] == [f"--recipe={recipe}", f"--add-param=k:{value}", f"--comment={comment}", "--trigger"]
    assert shlex.split(zocalo_command_line(replace(RECIPE, recipe=recipe))) == ["zocalo.go", "-r", recipe, "5"]


def test_invocations_become_requests_and_come_back() -> None:
    job = replace(JOB, parameters=(MimasISPyBParameter("k", "v"),), sweeps=(MimasISPyBSweep(5, 1, 9),), comment="c")

    assert to_request(RECIPE) == Request("strategy", dcid=5)
    request = to_request(job)
    assert request.task == "ispyb-job"
    assert request.params["parameters"] == [{"key": "k", "value": "v"}]
    for each, invocation in ((request, job), (to_request(RECIPE), RECIPE)):
        assert to_invocation(each) == invocation
        assert to_invocation(RequestRecord.of(each)) == invocation
        assert command_line(each) == zocalo_command_line(invocation)
    with pytest.raises(MimasError):
        to_request(replace(JOB, source=None))  # type: ignore[arg-type]
    with pytest.raises(MimasError, match="make no ISPyB job"):
        to_invocation(Request("ispyb-job", dcid=5))


def test_a_request_of_our_own_has_a_command_too() -> None:
    request = Request("rotate", on="env=prod", priority=5, key="k", name="a b", retries=3, flags=["x"])

    assert shlex.split(command_line(request)) == [
        *("labwright", "run", "rotate", "-p", "name=a b", "-p", "retries=3", "-p", 'flags=["x"]'),
        *("--on", "env=prod", "--priority", "5", "--key", "k"),
    ]
