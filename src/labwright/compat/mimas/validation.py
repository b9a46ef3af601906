"""What may be in a Mimas object: `validate` refuses everything else, with the field and the reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, cast

from labwright.compat.mimas.classes import (
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
    element,
    space_group,
)

Expected = type | tuple[type, ...] | None
HALF_TURN = 180
FULL_TURN = 360


def validate(mimasobject: object, expectedtype: Expected = None) -> None:
    """Refuse a Mimas object that is not of the expected type, or in which something is wrong.

    Raises:
        MimasError: a ValueError that names the field and says why.
    """
    if expectedtype is not None and not isinstance(mimasobject, expectedtype):
        names = expectedtype if isinstance(expectedtype, tuple) else (expectedtype,)
        raise _error(mimasobject, f"it is no {' or '.join(each.__name__ for each in names)}")
    if isinstance(mimasobject, ENUMS):
        return
    check = CHECKS.get(type(mimasobject))
    if check is None:
        raise _error(mimasobject, "it is not a known Mimas object")
    check(mimasobject)


def _check_scenario(scenario: MimasScenario) -> None:
    _whole(scenario, "dcid", least=1)
    _member(scenario, "experimenttype", MimasExperimentType)
    _member(scenario, "event", MimasEvent)
    _member(scenario, "runstatus", MimasRunStatus)
    _text(scenario, "beamline")
    _optional(scenario, "dcclass", MimasDCClass)
    _optional(scenario, "detectorclass", MimasDetectorClass)
    _optional(scenario, "spacegroup", MimasISPyBSpaceGroup)
    _optional(scenario, "unitcell", MimasISPyBUnitCell)
    _optional(scenario, "anomalous_scatterer", MimasISPyBAnomalousScatterer)
    _each(scenario, "getsweepslistfromsamedcg", MimasISPyBSweep)
    for name in ("preferred_processing", "proposalcode", "visit"):
        if getattr(scenario, name) is not None:
            _text(scenario, name, may_be_empty=True)
    _check_cloudbursting(scenario)


def _check_cloudbursting(scenario: MimasScenario) -> None:
    groups: object = scenario.cloudbursting
    if groups is None:
        return
    if not isinstance(groups, list | tuple) or not all(
        isinstance(each, Mapping) for each in cast("list[object]", groups)
    ):
        raise _error(scenario, f"cloudbursting is {groups!r}, which is no list of mappings")


def _check_recipe_invocation(invocation: MimasRecipeInvocation) -> None:
    _whole(invocation, "dcid", least=1)
    _text(invocation, "recipe")


def _check_job_invocation(invocation: MimasISPyBJobInvocation) -> None:
    _whole(invocation, "dcid", least=1)
    if type(invocation.autostart) is not bool:
        raise _error(invocation, f"autostart is {invocation.autostart!r}, which is neither True nor False")
    _text(invocation, "recipe")
    _text(invocation, "source")
    _text(invocation, "comment", may_be_empty=True)
    _text(invocation, "displayname", may_be_empty=True)
    _each(invocation, "parameters", MimasISPyBParameter)
    _each(invocation, "sweeps", MimasISPyBSweep)
    _each(invocation, "triggervariables", MimasISPyBTriggerVariable)


def _check_pair(pair: MimasISPyBParameter | MimasISPyBTriggerVariable) -> None:
    _text(pair, "key")
    _text(pair, "value", may_be_empty=True)
    if ":" in pair.key:
        raise _error(pair, "a colon in the key could not be told from the one between key and value in a command")


def _check_sweep(sweep: MimasISPyBSweep) -> None:
    """Check the images; fixed targets count them from 0."""
    _whole(sweep, "dcid", least=1)
    _whole(sweep, "start", least=0)
    _whole(sweep, "end", least=sweep.start)


def _check_cell(cell: MimasISPyBUnitCell) -> None:
    for name in ("a", "b", "c"):
        if not 0 < _number(cell, name) < math.inf:
            raise _error(cell, f"{name} is not a length over 0")
    angles = [_number(cell, name) for name in ("alpha", "beta", "gamma")]
    if not all(0 < angle < HALF_TURN for angle in angles):
        raise _error(cell, "its angles are not all between 0 and 180 degrees")
    if sum(angles) >= FULL_TURN or max(angles) * 2 >= sum(angles):
        raise _error(
            cell, "no cell has these three angles: together they must be under 360, each under the sum of the others"
        )


def _whole(mimasobject: object, name: str, *, least: int) -> None:
    value = getattr(mimasobject, name)
    if type(value) is not int or value < least:
        raise _error(mimasobject, f"{name} is {value!r}, which is no whole number from {least} up")


def _number(mimasobject: object, name: str) -> float:
    value = getattr(mimasobject, name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _error(mimasobject, f"{name} is {value!r}, which is no finite number")
    return value


def _text(mimasobject: object, name: str, *, may_be_empty: bool = False) -> None:
    value = getattr(mimasobject, name)
    if not isinstance(value, str) or "\0" in value or not (value or may_be_empty):
        raise _error(mimasobject, f"{name} is {value!r}, which is no text" + ("" if may_be_empty else " or empty"))


def _member(mimasobject: object, name: str, kind: type[Enum]) -> None:
    value = getattr(mimasobject, name)
    if not isinstance(value, kind):
        raise _error(mimasobject, f"{name} is {value!r}, which is no {kind.__name__}")


def _optional(mimasobject: object, name: str, kind: type) -> None:
    value = getattr(mimasobject, name)
    if value is not None:
        validate(value, kind)


def _each(mimasobject: object, name: str, kind: type) -> None:
    values = getattr(mimasobject, name)
    if not isinstance(values, list | tuple):
        raise _error(mimasobject, f"{name} is {values!r}, which is neither tuple nor list")
    for value in cast("list[object]", values):
        validate(value, kind)


def _error(mimasobject: object, because: str) -> MimasError:
    return MimasError(
        f"{repr(mimasobject)[:500]} is not valid: {because}", because=because, cure="mend what makes this object"
    )


ENUMS = (MimasDCClass, MimasDetectorClass, MimasEvent, MimasExperimentType, MimasRunStatus)
CHECKS: Mapping[type, Callable[[Any], object]] = {
    MimasScenario: _check_scenario,
    MimasRecipeInvocation: _check_recipe_invocation,
    MimasISPyBJobInvocation: _check_job_invocation,
    MimasISPyBParameter: _check_pair,
    MimasISPyBTriggerVariable: _check_pair,
    MimasISPyBSweep: _check_sweep,
    MimasISPyBUnitCell: _check_cell,
    MimasISPyBSpaceGroup: lambda group: space_group(group.symbol),
    MimasISPyBAnomalousScatterer: lambda scatterer: element(scatterer.symbol),
}
