"""The words of data collections: classes, messages, and values as templates leave them behind."""

from datetime import UTC, datetime
from typing import Any

import pytest

from labwright.core.model import Event
from labwright.decide import data_collection as words
from labwright.decide.scenario import Scenario

MESSAGE = {
    "dcid": "12",
    "event": "end",
    "beamline": "i03",
    "experimenttype": "Energy scan",
    "detectorclass": "Eiger",
    "run_status": "DataCollection Successful",
    "space_group": "P 41 21 2",
    "sweep_list": [["12", 1, 100], [13, "1", 50]],
    "unit_cell": ["78.1", 78.1, 37, 90, 90, 90],
    "dc_class": {"grid": "None", "screen": None, "rotation": True},
    "proposalcode": "cm",
    "preferred_processing": None,
}


def test_a_published_message_is_said_in_our_words() -> None:
    event = Event(id="1", source="t", type="data_collection.end", time=datetime(2026, 1, 1, tzinfo=UTC), data=MESSAGE)

    facts = Scenario.of(event, {"images": 7, "beamline": "looked up"}).facts

    expected: dict[str, Any] = {
        "dcid": 12,
        "phase": "end",
        "beamline": "i03",
        "experiment_type": "energy_scan",
        "detector_class": "eiger",
        "run_status": "success",
        "space_group": "P 41 21 2",
        "sweeps": ({"dcid": 12, "start": 1, "end": 100}, {"dcid": 13, "start": 1, "end": 50}),
        "unit_cell": (78.1, 78.1, 37.0, 90.0, 90.0, 90.0),
        "data_collection_class": "rotation",
        "proposal_code": "cm",
        "images": 7,
    }
    assert {name: facts[name] for name in expected} == expected
    assert words.is_message(event.data)


@pytest.mark.parametrize(
    ("field", "value", "fact"),
    [
        ("dcid", "²", "dcid"),
        ("dcid", "12.5", "dcid"),
        ("event", "sometime", "phase"),
        ("unit_cell", [1, 2, 3], "unit_cell"),
        ("unit_cell", ["a", 1, 1, 1, 1, 1], "unit_cell"),
        ("sweep_list", [[1, 2]], "sweeps"),
        ("sweep_list", 5, "sweeps"),
        ("dc_class", {}, "data_collection_class"),
    ],
)
def test_what_cannot_be_read_stays_as_it_is(field: str, value: Any, fact: str) -> None:
    assert words.message_facts({field: value})[fact] == value


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"grid": True, "screen": True, "rotation": True}, "grid"),
        ({"screen": True, "rotation": True}, "screening"),
        ({"rotation": True}, "rotation"),
        ({"grid": "None", "screen": "false", "rotation": ""}, None),
        ({}, None),
        ({"serial_fixed": 1, "grid": 1}, "serial_fixed"),
        ({"characterization": 1, "screen": 1}, "characterization"),
        ({5: 1}, None),
        ("GRIDSCAN", "grid"),
        ("Diamond Anvil Cell", "diamond_anvil_cell"),
        ("nonsense", None),
        (None, None),
        (5, None),
    ],
)
def test_a_class_is_read_from_flags_or_a_name(flags: object, expected: str | None) -> None:
    assert words.class_of_flags(flags) == expected


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"has_grid": True, "images": 480, "overlap": 0, "axis_range": 0}, "grid"),
        ({"images": 1, "overlap": 0, "axis_range": 0.1}, "screening"),
        ({"images": 3, "overlap": -44.5, "axis_range": 0.5}, "screening"),
        ({"images": 3, "overlap": 44.5, "axis_range": 0.5}, "screening"),
        ({"images": 3600, "overlap": 0, "axis_range": 0.1}, "rotation"),
        ({"images": 3600, "overlap": 0, "axis_range": 0}, None),
        ({"images": 3600, "overlap": None, "axis_range": 0.1}, None),
        ({"images": None, "overlap": None, "axis_range": None}, None),
        ({"experiment_type": "serial_fixed", "images": 1, "overlap": 1, "has_grid": True}, "serial_fixed"),
        ({"experiment_type": "serial_jet", "images": 1}, "serial_jet"),
        ({"experiment_type": "characterization", "images": 1}, "characterization"),
        (
            {"experiment_type": "diamond_anvil_high_pressure", "images": 9, "overlap": 0, "axis_range": 1},
            "diamond_anvil_cell",
        ),
        ({"experiment_type": "diamond_anvil_high_pressure", "images": 1}, "screening"),
    ],
)
def test_a_collection_is_classified_by_what_ispyb_records(row: dict[str, Any], expected: str | None) -> None:
    defaults: dict[str, Any] = {
        "experiment_type": "sad",
        "has_grid": False,
        "images": None,
        "overlap": None,
        "axis_range": None,
    }

    assert words.classify(**{**defaults, **row}) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SAD", "sad"),
        ("XRF map xas", "xrf_map_xas"),
        ("SAD - Inverse Beam", "sad_inverse_beam"),
        ("PDF+Bragg", "pdf_bragg"),
        ("", None),
        (None, None),
    ],
)
def test_an_experiment_type_is_in_snake_case(text: str | None, expected: str | None) -> None:
    assert words.snake_case(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("DataCollection Successful", "success"),
        ("FAILED", "failure"),
        ("DataCollection Stopped", "unknown"),
        ("", "unknown"),
        (None, None),
    ],
)
def test_a_run_status_is_read_from_free_text(text: str | None, expected: str | None) -> None:
    assert words.run_status(text) == expected
