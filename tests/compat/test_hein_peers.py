"""Every documented call, beside hein_control itself in an early and a late version."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.peers import installed, run_with

HERE = Path(__file__).parent
CALLS = HERE / "hein_calls.py"
MEANT = {
    "a point at a position moves itself": [7, 12, 17, 27, 37],
    "points that reach over later ones move themselves": [5, 15, 25, 35, 40, 50, 60],
    "pairs from the start are all the same": [10, 20, 30],
}
LATE_KEYS = {"status_code", "configuration", "action_return", "condition_evaluation"}
"""What late versions add to every dictionary; of time points they tell what they tell of actions."""


@pytest.fixture(scope="session")
def early() -> dict[str, Any]:
    """What hein_control 0.3.0 does."""
    folder = installed(HERE / "requirements-hein-early.txt")
    return json.loads(run_with(folder, CALLS, "hein_control"))


@pytest.fixture(scope="session")
def late() -> dict[str, Any]:
    """What hein_control 7.4 does."""
    folder = installed(HERE / "requirements-hein-late.txt")
    return json.loads(run_with(folder, CALLS, "hein_control"))


@pytest.fixture(scope="session")
def ours() -> dict[str, Any]:
    """What the dialect does."""
    return json.loads(run_with(None, CALLS, "labwright.compat.hein"))


def leaves(told: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Give every value of a nest of dictionaries under its path."""
    if isinstance(told, dict):
        for key, value in told.items():
            yield from leaves(value, (*path, key))
    else:
        yield path, told


def test_every_call_does_what_it_does_in_the_version_that_is_described(
    early: dict[str, Any], ours: dict[str, Any]
) -> None:
    different = dict(set_apart(leaves(early), leaves(ours)))

    assert different == {("offsets of a defect", name): offsets for name, offsets in MEANT.items()}


def test_every_call_does_what_it_does_in_a_late_version_save_what_dictionaries_tell(
    late: dict[str, Any], ours: dict[str, Any]
) -> None:
    different = dict(set_apart(leaves(late), leaves(ours)))
    of_defects = {("offsets of a defect", name): offsets for name, offsets in MEANT.items()}

    assert {path for path in different if path[-1] not in {"keys", "status"}} == set(of_defects)
    assert {path: different[path] for path in of_defects} == of_defects


def test_the_metadata_of_a_late_version_have_the_same_names(late: dict[str, Any], ours: dict[str, Any]) -> None:
    theirs, own = set(late["actions"]["done"]["keys"]), set(ours["actions"]["done"]["keys"])
    assert theirs - own == LATE_KEYS
    assert own <= theirs
    theirs, own = set(late["sequence"]["keys"]), set(ours["sequence"]["keys"])
    assert own - theirs == {"actions"}
    assert theirs - own == {
        "instance_actions",
        "total_time_points",
        "completed_time_points",
        "uncompleted_time_points",
    }
    assert late["actions"]["done"]["status"].endswith(ours["actions"]["done"]["status"])


def test_the_offsets_of_defects_are_those_that_were_found(early: dict[str, Any], late: dict[str, Any]) -> None:
    assert early["offsets of a defect"] == late["offsets of a defect"]
    assert early["offsets of a defect"]["a point at a position moves itself"] == [5, 14, 17, 27, 37]


def set_apart(
    theirs: Iterator[tuple[tuple[str, ...], object]], ours: Iterator[tuple[tuple[str, ...], object]]
) -> Iterator[tuple[tuple[str, ...], object]]:
    """Give what ours tells otherwise, or alone."""
    known = dict(theirs)
    own = dict(ours)
    assert set(own) == set(known)
    return ((path, value) for path, value in own.items() if known[path] != value)
