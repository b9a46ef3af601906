"""`Trigger`: what follows when processing has finished, as zocalo's trigger service has it; also `zocalo.trigger`.

A trigger is given its surroundings, so that it can be run against a `TriggerRecorder` alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

from labwright.compat.mimas.classes import MimasError


class TriggerResponse(NamedTuple):
    """How a trigger ended, and what it hands on."""

    success: bool
    return_value: Any


class Trigger(ABC):
    """Registers processing jobs and starts them, when asked for by a recipe's node with this target.

    `ispyb` is an ISPyB connection with `mx_processing`, `rw` a recipe wrapper with a `transport`, and `parameters`
    finds a parameter by name.
    """

    name: str | None = None

    _jobid: int | None = None
    _dcid: int | None = None

    def __init__(  # noqa: PLR0917 - the order in which the trigger service has always passed them
        self,
        ispyb: Any,
        rw: Any,
        header: Any,
        message: Any,
        parameters: Callable[[str], Any],
        transaction: Any,
    ) -> None:
        self._ispyb = ispyb
        self._rw = rw
        self._header = header
        self._message = message
        self._parameters = parameters
        self._transaction = transaction
        self._dcid = parameters("dcid")

    @property
    def parameters(self) -> Callable[[str], Any]:
        """Find a parameter of the recipe's node by name."""
        return self._parameters

    @abstractmethod
    def run(self) -> TriggerResponse:
        """Do what follows."""

    def _add_job(self, display_name: str, recipe: str) -> int:
        """Register a processing job and tell its id."""
        row = self._ispyb.mx_processing.get_job_params()
        row["automatic"] = bool(self.parameters("automatic"))
        row["comments"] = self.parameters("comment")
        row["datacollectionid"] = self._dcid
        row["display_name"] = display_name
        row["recipe"] = recipe
        return self._ispyb.mx_processing.upsert_job(list(row.values()))

    def _add_image_sweep(self, dcid: int, start_image: int, end_image: int) -> int:
        """Add images to the registered job and tell the id of the sweep."""
        row = self._ispyb.mx_processing.get_job_image_sweep_params()
        row["datacollectionid"] = dcid
        row["start_image"] = start_image
        row["end_image"] = end_image
        row["job_id"] = self._registered()
        return self._ispyb.mx_processing.upsert_job_image_sweep(list(row.values()))

    def _add_parameters(self, params: Mapping[str, Any]) -> list[int]:
        """Add parameters to the registered job and tell their ids."""
        job = self._registered()
        ids: list[int] = []
        for key, value in params.items():
            row = self._ispyb.mx_processing.get_job_parameter_params()
            row["job_id"] = job
            row["parameter_key"] = key
            row["parameter_value"] = value
            ids.append(self._ispyb.mx_processing.upsert_job_parameter(list(row.values())))
        return ids

    def _trigger_job(self, parameters: Mapping[str, Any] | None = None) -> None:
        """Start the registered job, with more parameters for its recipe."""
        message: dict[str, Any] = {
            "recipes": [],
            "parameters": {"ispyb_process": self._registered(), **(parameters or {})},
        }
        self._rw.transport.send("processing_recipe", message)

    def _registered(self) -> int:
        if not self._jobid:
            raise MimasError(
                f"the trigger {self.name or type(self).__name__} has no job",
                because="sweeps, parameters and a start belong to a registered job",
                cure='self._jobid = self._add_job("name", "recipe") comes first',
            )
        return self._jobid


@dataclass
class TriggerRecorder:
    """Stands in for ISPyB and the transport and keeps what a trigger asked them for.

    `TriggerRecorder({"dcid": 12}).run(test)` gives the trigger's response; `jobs`, `sweeps`, `job_parameters` and
    `messages` are what it did. Ids count from 1.
    """

    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    jobs: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    sweeps: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    job_parameters: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    messages: list[tuple[str, Any]] = field(default_factory=list[tuple[str, Any]])

    def run(self, trigger: type[Trigger]) -> TriggerResponse:
        """Make the trigger with these surroundings and run it."""
        made = trigger(
            ispyb=SimpleNamespace(mx_processing=self._tables()),
            rw=SimpleNamespace(transport=SimpleNamespace(send=self._send)),
            header={},
            message={},
            parameters=self.parameters.get,
            transaction=None,
        )
        return made.run()

    def _send(self, queue: str, message: Any, **_: Any) -> None:
        self.messages.append((queue, message))

    def _tables(self) -> SimpleNamespace:
        return SimpleNamespace(
            get_job_params=partial(dict.fromkeys, JOB_COLUMNS),
            upsert_job=partial(_keep, self.jobs, JOB_COLUMNS),
            get_job_image_sweep_params=partial(dict.fromkeys, SWEEP_COLUMNS),
            upsert_job_image_sweep=partial(_keep, self.sweeps, SWEEP_COLUMNS),
            get_job_parameter_params=partial(dict.fromkeys, PARAMETER_COLUMNS),
            upsert_job_parameter=partial(_keep, self.job_parameters, PARAMETER_COLUMNS),
        )


JOB_COLUMNS = ("id", "datacollectionid", "display_name", "comments", "recipe", "automatic")
SWEEP_COLUMNS = ("id", "job_id", "datacollectionid", "start_image", "end_image")
PARAMETER_COLUMNS = ("id", "job_id", "parameter_key", "parameter_value")


def _keep(rows: list[dict[str, Any]], columns: tuple[str, ...], values: list[Any]) -> int:
    rows.append({**dict(zip(columns, values, strict=True)), "id": len(rows) + 1})
    return len(rows)
