from zocalo.mimas.tasks import Tasks
from zocalo.mimas.classes import (
    MimasExperimentType,
    MimasRecipeInvocation,
    MimasISPyBJobInvocation,
    MimasEvent,
)


class mybeamline(Tasks):
    beamline = "bl"
    event = MimasEvent.START

    def run(self, scenario):
        tasks = []

        if scenario.experimenttype == MimasExperimentType.ENERGY_SCAN:
            tasks.append(
                MimasRecipeInvocation(dcid=scenario.dcid, recipe="myrecipe")
            )

        return tasks
