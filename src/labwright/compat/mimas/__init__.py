"""The dialect of zocalo's Mimas: its classes, its `Tasks` and triggers, and packages in its layout.

Importing this makes `zocalo.mimas.tasks`, `zocalo.mimas.classes` and `zocalo.trigger` resolve to these names wherever
zocalo itself does not offer them.
"""

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
)
from labwright.compat.mimas.conversions import (
    JOB_TASK,
    command_line,
    to_invocation,
    to_request,
    zocalo_command_line,
    zocalo_message,
)
from labwright.compat.mimas.finder import install
from labwright.compat.mimas.loader import Implementors, load_implementors
from labwright.compat.mimas.scenario import (
    events_of_collection,
    scenario_from,
    scenario_from_facts,
    scenario_from_message,
)
from labwright.compat.mimas.tasks import Tasks
from labwright.compat.mimas.trigger import Trigger, TriggerRecorder, TriggerResponse
from labwright.compat.mimas.validation import validate

__all__ = [
    "JOB_TASK",
    "Implementors",
    "MimasDCClass",
    "MimasDetectorClass",
    "MimasError",
    "MimasEvent",
    "MimasExperimentType",
    "MimasISPyBAnomalousScatterer",
    "MimasISPyBJobInvocation",
    "MimasISPyBParameter",
    "MimasISPyBSpaceGroup",
    "MimasISPyBSweep",
    "MimasISPyBTriggerVariable",
    "MimasISPyBUnitCell",
    "MimasRecipeInvocation",
    "MimasRunStatus",
    "MimasScenario",
    "Tasks",
    "Trigger",
    "TriggerRecorder",
    "TriggerResponse",
    "command_line",
    "events_of_collection",
    "install",
    "load_implementors",
    "scenario_from",
    "scenario_from_facts",
    "scenario_from_message",
    "to_invocation",
    "to_request",
    "validate",
    "zocalo_command_line",
    "zocalo_message",
]

install()
