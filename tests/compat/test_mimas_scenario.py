"""The one builder of Mimas scenarios: messages, facts and rows, and everything that used to crash or slip through."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from labwright.compat.mimas import (
    MimasDCClass,
    MimasDetectorClass,
    MimasError,
    MimasEvent,
    MimasExperimentType,
    MimasISPyBSpaceGroup,
    MimasISPyBSweep,
    MimasISPyBUnitCell,
    MimasRunStatus,
    MimasScenario,
    events_of_collection,
    scenario_from,
    scenario_from_facts,
    scenario_from_message,
)
from labwright.core.model import Event
from labwright.decide.scenario import Scenario
from labwright.facts.ispyb import IspybFacts

MESSAGE: dict[str, Any] = {
    "dcid": "12",
    "event": "end",
    "beamline": "i03",
    "experimenttype": "SAD",
    "detectorclass": "eiger",
    "preferred_processing": "xia2/DIALS",
    "run_status": "DataCollection Successful",
    "space_group": "P41212",
    "sweep_list": [[12, 1, 100]],
    "unit_cell": [78.1, 78.1, 37, 90, 90, 90],
    "dc_class": {"grid": False, "screen": False, "rotation": True},
    "proposalcode": "cm",
}
FULL = MimasScenario(
    dcid=12,
    experimenttype=MimasExperimentType.SAD,
    event=MimasEvent.END,
    beamline="i03",
    runstatus=MimasRunStatus.SUCCESS,
    dcclass=MimasDCClass.ROTATION,
    spacegroup=MimasISPyBSpaceGroup("P41212"),
    unitcell=MimasISPyBUnitCell(78.1, 78.1, 37, 90, 90, 90),
    getsweepslistfromsamedcg=(MimasISPyBSweep(12, 1, 100),),
    preferred_processing="xia2/DIALS",
    detectorclass=MimasDetectorClass.EIGER,
    proposalcode="cm",
)
LEAST = {name: MESSAGE[name] for name in ("dcid", "event", "beamline", "experimenttype")}


def event_with(data: Any) -> Event:
    return Event(id="1", source="t", type="data_collection.end", time=datetime(2026, 1, 1, tzinfo=UTC), data=data)


def test_a_message_and_an_event_that_carries_it_make_the_same_scenario() -> None:
    assert scenario_from_message(MESSAGE) == FULL
    assert scenario_from(Scenario.of(event_with(MESSAGE), {})) == FULL


def test_the_least_message_is_enough() -> None:
    assert scenario_from_message(LEAST) == MimasScenario(
        dcid=12,
        experimenttype=MimasExperimentType.SAD,
        event=MimasEvent.END,
        beamline="i03",
        runstatus=MimasRunStatus.UNKNOWN,
        dcclass=MimasDCClass.UNDEFINED,
    )


@pytest.mark.parametrize(
    ("change", "field", "expected"),
    [
        ({"dcid": 12345}, "dcid", 12345),
        ({"event": "START"}, "event", MimasEvent.START),
        ({"event": "end_group"}, "event", MimasEvent.END_GROUP),
        ({"run_status": "DataCollection Failed"}, "runstatus", MimasRunStatus.FAILURE),
        ({"run_status": "stopped"}, "runstatus", MimasRunStatus.UNKNOWN),
        ({"run_status": None}, "runstatus", MimasRunStatus.UNKNOWN),
        ({"dc_class": {}}, "dcclass", MimasDCClass.UNDEFINED),
        ({"dc_class": {"screen": True}}, "dcclass", MimasDCClass.SCREENING),
        ({"dc_class": {"grid": "None", "screen": "None", "rotation": "None"}}, "dcclass", MimasDCClass.UNDEFINED),
        ({"dc_class": "gridscan"}, "dcclass", MimasDCClass.GRIDSCAN),
        ({"dc_class": "nonsense"}, "dcclass", MimasDCClass.UNDEFINED),
        ({"dc_class": {"serial_jet": True, "grid": True}}, "dcclass", MimasDCClass.SERIAL_JET),
        ({"detectorclass": None}, "detectorclass", None),
        ({"detectorclass": "Jungfrau"}, "detectorclass", None),
        ({"detectorclass": "PILATUS"}, "detectorclass", MimasDetectorClass.PILATUS),
        ({"experimenttype": "Energy scan"}, "experimenttype", MimasExperimentType.ENERGY_SCAN),
        ({"experimenttype": "XRF map xas"}, "experimenttype", MimasExperimentType.XRF_MAP_XAS),
        ({"experimenttype": "Burn"}, "experimenttype", MimasExperimentType.UNDEFINED),
        ({"space_group": "P 5"}, "spacegroup", None),
        ({"space_group": 5}, "spacegroup", None),
        ({"space_group": ""}, "spacegroup", None),
        ({"unit_cell": []}, "unitcell", None),
        ({"sweep_list": []}, "getsweepslistfromsamedcg", ()),
        ({"sweep_list": [["12", "0", "9"]]}, "getsweepslistfromsamedcg", (MimasISPyBSweep(12, 0, 9),)),
    ],
)
def test_what_messages_leave_open_is_decided_kindly(change: dict[str, Any], field: str, expected: object) -> None:
    assert getattr(scenario_from_message({**LEAST, **change}), field) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"dcid": "²"},
        {"dcid": "-1"},
        {"dcid": "0"},
        {"dcid": 0},
        {"dcid": True},
        {"dcid": None},
        {"dcid": "twelve"},
        {"event": "sometime"},
        {"event": None},
        {"event": 5},
        {"beamline": None},
        {"beamline": 5},
        {"beamline": ""},
        {"experimenttype": None},
        {"experimenttype": 5},
        {"experimenttype": ""},
        {"unit_cell": [1, 2, 3]},
        {"unit_cell": ["a", 1, 1, 90, 90, 90]},
        {"unit_cell": [1, 1, 1, 10, 10, 170]},
        {"unit_cell": "78,78,37,90,90,90"},
        {"sweep_list": [[1, 2]]},
        {"sweep_list": [[1, 0, 0, 0]]},
        {"sweep_list": [[1, 2, 1]]},
        {"sweep_list": [[0, 1, 1]]},
        {"sweep_list": 5},
        {"proposalcode": 5},
        {"preferred_processing": 5},
    ],
)
def test_what_cannot_be_meant_is_refused_and_crashes_nothing(change: dict[str, Any]) -> None:
    with pytest.raises(MimasError) as raised:
        scenario_from_message({**MESSAGE, **change})

    assert raised.value.because


@pytest.mark.parametrize("field", ["dcid", "event", "beamline", "experimenttype"])
def test_a_field_that_must_be_there_is_named(field: str) -> None:
    with pytest.raises(MimasError):
        scenario_from_message({name: value for name, value in MESSAGE.items() if name != field})


def test_a_space_group_that_does_not_exist_is_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    scenario_from_message({**MESSAGE, "space_group": "P 5"})

    assert "no space group 'P 5'" in caplog.text


def test_facts_without_an_experiment_type_say_so() -> None:
    with pytest.raises(MimasError, match="experiment_type"):
        scenario_from_facts({"dcid": 5, "phase": "end", "beamline": "i03"})


def test_a_collection_has_a_start_and_an_end() -> None:
    start, end = events_of_collection(993677)

    assert (start.type, end.type) == ("data_collection.start", "data_collection.end")
    assert {start.subject, end.subject} == {"993677"}
    assert start.id != end.id
    assert Scenario.of(start, {}).facts == {"phase": "start", "dcid": 993677}


@pytest.fixture
def ispyb(ispyb_url: str) -> Iterator[IspybFacts]:
    source = IspybFacts(ispyb_url)
    yield source
    source.close()


@pytest.mark.mariadb
@pytest.mark.parametrize(
    ("dcid", "experiment_type", "dc_class"),
    [
        (993677, MimasExperimentType.SAD, MimasDCClass.ROTATION),
        (1052494, MimasExperimentType.SAD, MimasDCClass.SCREENING),
        (6017405, MimasExperimentType.MESH, MimasDCClass.GRIDSCAN),
    ],
)
def test_real_rows_make_scenarios(
    ispyb: IspybFacts, dcid: int, experiment_type: MimasExperimentType, dc_class: MimasDCClass
) -> None:
    for event, expected in zip(events_of_collection(dcid), (MimasEvent.START, MimasEvent.END), strict=True):
        scenario = scenario_from(Scenario.of(event, ispyb.look_up(dcid)))

        assert (scenario.experimenttype, scenario.dcclass, scenario.event) == (experiment_type, dc_class, expected)
        assert scenario.getsweepslistfromsamedcg[0].dcid == dcid
        assert scenario.visit in {"cm14451-1", "cm14451-2"}
