"""The one builder of Mimas scenarios: from our scenarios, from zocalo's messages, from facts of ISPyB rows."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar, cast

from labwright.compat.mimas.classes import (
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
    space_group,
)
from labwright.compat.mimas.validation import validate
from labwright.core.clock import Clock, SystemClock
from labwright.core.model import Event
from labwright.decide import data_collection
from labwright.decide.scenario import Scenario

log = logging.getLogger(__name__)

DC_CLASSES = {
    "grid": MimasDCClass.GRIDSCAN,
    "rotation": MimasDCClass.ROTATION,
    "screening": MimasDCClass.SCREENING,
    "characterization": MimasDCClass.CHARACTERIZATION,
    "diamond_anvil_cell": MimasDCClass.DIAMOND_ANVIL_CELL,
    "serial_fixed": MimasDCClass.SERIAL_FIXED,
    "serial_jet": MimasDCClass.SERIAL_JET,
}
SOURCE = "labwright/data-collections"

E = TypeVar("E", bound=Enum)


def scenario_from_message(message: Mapping[str, Any]) -> MimasScenario:
    """Read the parameters of a message to Mimas.

    Raises:
        MimasError: a field that must be there is not, or one cannot be read; the message names it.
    """
    if not isinstance(message.get("experimenttype"), str) or not message["experimenttype"]:
        raise _invalid("experimenttype", message.get("experimenttype"), "it must be text")
    return scenario_from_facts(data_collection.message_facts(message))


def scenario_from(scenario: Scenario) -> MimasScenario:
    """Say one of our scenarios in Mimas's words.

    Raises:
        MimasError: a fact that Mimas needs is not there or not valid; the message names it.
    """
    return scenario_from_facts(scenario.facts)


def scenario_from_facts(facts: Mapping[str, Any]) -> MimasScenario:
    """Build a scenario from the facts of a data collection.

    An experiment type that Mimas does not know, a class or a run status that nobody knows are UNDEFINED and UNKNOWN; a
    space group that does not exist is left out, with a warning in the log; any other detector is None.

    Raises:
        MimasError: a fact that Mimas needs is not there or not valid; the message names it.
    """
    if "experiment_type" not in facts:
        raise _invalid("experiment_type", None, "Mimas needs it")
    scenario = MimasScenario(
        dcid=cast("int", facts.get("dcid")),
        experimenttype=_experiment_type(facts["experiment_type"]),
        event=_needed(MimasEvent, facts, "phase"),
        beamline=cast("str", facts.get("beamline")),
        runstatus=_known(MimasRunStatus, facts.get("run_status")) or MimasRunStatus.UNKNOWN,
        dcclass=_dc_class(facts.get("data_collection_class")),
        spacegroup=_space_group(facts.get("space_group")),
        unitcell=_unit_cell(facts.get("unit_cell")),
        getsweepslistfromsamedcg=_sweeps(facts.get("sweeps")),
        preferred_processing=facts.get("preferred_processing"),
        detectorclass=_known(MimasDetectorClass, facts.get("detector_class")),
        proposalcode=facts.get("proposal_code"),
        visit=facts.get("visit"),
    )
    validate(scenario)
    return scenario


def events_of_collection(dcid: int, *, clock: Clock | None = None) -> tuple[Event, Event]:
    """Make the start and the end event of a data collection, as its beamline would have sent them."""
    now = (clock or SystemClock()).now()

    def event(phase: str) -> Event:
        return Event(
            id=f"{dcid}-{phase}", source=SOURCE, type=f"{data_collection.PREFIX}{phase}", subject=str(dcid), time=now
        )

    return event("start"), event("end")


def _experiment_type(value: object) -> MimasExperimentType:
    name = data_collection.snake_case(value) or ""
    found = _known(MimasExperimentType, name)
    if found is None:
        log.warning("Mimas has no experiment type %r; it is taken as UNDEFINED", value)
    return found or MimasExperimentType.UNDEFINED


def _known(kind: type[E], value: object) -> E | None:
    return kind.__members__.get(value.upper()) if isinstance(value, str) else None


def _needed(kind: type[E], facts: Mapping[str, Any], fact: str) -> E:
    found = _known(kind, facts.get(fact))
    if found is None:
        raise _invalid(fact, facts.get(fact), f"it must be one of {', '.join(kind.__members__).lower()}")
    return found


def _dc_class(value: object) -> MimasDCClass:
    return DC_CLASSES.get(value, MimasDCClass.UNDEFINED) if isinstance(value, str) else MimasDCClass.UNDEFINED


def _space_group(value: object) -> MimasISPyBSpaceGroup | None:
    if value is None or value == "":
        return None
    try:
        space_group(value)
    except MimasError:
        log.warning("there is no space group %r; it is left out", value)
        return None
    return MimasISPyBSpaceGroup(cast("str", value))


def _unit_cell(value: object) -> MimasISPyBUnitCell | None:
    if value in (None, (), [], ""):
        return None
    numbers = data_collection.unit_cell(value)
    if numbers is None:
        raise _invalid("unit_cell", value, "it must be six numbers")
    return MimasISPyBUnitCell(*numbers)


def _sweeps(value: object) -> tuple[MimasISPyBSweep, ...]:
    if value is None:
        return ()
    sweeps = data_collection.sweeps(value)
    if sweeps is None:
        raise _invalid("sweeps", value, "each must be dcid, start and end")
    return tuple(MimasISPyBSweep(**sweep) for sweep in sweeps)


def _invalid(field: str, value: object, because: str) -> MimasError:
    return MimasError(
        f"no Mimas scenario can be made: {field} is {repr(value)[:200]}",
        because=because,
        cure="mend the message or the facts (labwright facts show SUBJECT)",
    )
