"""Mimas objects as zocalo's messages and as command lines, and our requests as command lines."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, cast

from labwright.compat.mimas.classes import (
    MimasError,
    MimasISPyBAnomalousScatterer,
    MimasISPyBJobInvocation,
    MimasISPyBParameter,
    MimasISPyBSpaceGroup,
    MimasISPyBSweep,
    MimasISPyBTriggerVariable,
    MimasISPyBUnitCell,
    MimasRecipeInvocation,
)
from labwright.compat.mimas.validation import validate
from labwright.core.clock import to_text
from labwright.core.model import RequestRecord
from labwright.core.request import Request

JOB_TASK = "ispyb-job"
"""The built-in task that a job invocation is a request for."""


def zocalo_message(mimasobject: object) -> Any:
    """Turn a Mimas object, or a list of them, into what zocalo sends; scalars pass.

    Raises:
        MimasError: it is nothing that has a message.
    """
    if isinstance(mimasobject, list):
        return [zocalo_message(each) for each in cast("list[object]", mimasobject)]
    if isinstance(mimasobject, tuple):
        return tuple(zocalo_message(each) for each in cast("tuple[object, ...]", mimasobject))
    if mimasobject is None or isinstance(mimasobject, bool | int | float | str):
        return mimasobject
    write = MESSAGES.get(type(mimasobject))
    if write is None:
        raise _unknown(mimasobject)
    return write(mimasobject)


def zocalo_command_line(mimasobject: object) -> str:
    """Write the command that does what a Mimas object asks for, quoted for the shell.

    Raises:
        MimasError: it is no invocation, or not a valid one.
    """
    if not isinstance(mimasobject, MimasRecipeInvocation | MimasISPyBJobInvocation):
        raise _unknown(mimasobject)
    validate(mimasobject)
    if isinstance(mimasobject, MimasRecipeInvocation):
        return f"zocalo.go -r {shlex.quote(mimasobject.recipe)} {mimasobject.dcid}"
    job = mimasobject
    words = [
        f"ispyb.job --new --dcid={job.dcid} --source={shlex.quote(job.source)} --recipe={shlex.quote(job.recipe)}",
        *[f"--add-sweep={sweep.dcid}:{sweep.start}:{sweep.end}" for sweep in job.sweeps],
        *[f"--add-param={shlex.quote(f'{each.key}:{each.value}')}" for each in job.parameters],
        *([f"--display={_in_quotes(job.displayname)}"] if job.displayname else []),
        *([f"--comment={_in_quotes(job.comment)}"] if job.comment else []),
        *(["--trigger"] if job.autostart else []),
        *[f"--trigger-variable={shlex.quote(f'{each.key}:{each.value}')}" for each in job.triggervariables],
    ]
    return " ".join(words)


def to_request(invocation: MimasRecipeInvocation | MimasISPyBJobInvocation) -> Request:
    """Turn an invocation into a request: a recipe is a task of its name, a job is the built-in task `ispyb-job`.

    Raises:
        MimasError: it is no invocation, or not a valid one.
    """
    validate(invocation, (MimasRecipeInvocation, MimasISPyBJobInvocation))
    if isinstance(invocation, MimasRecipeInvocation):
        return Request(invocation.recipe, dcid=invocation.dcid)
    return Request(JOB_TASK, params=zocalo_message(invocation))


def to_invocation(request: Request | RequestRecord) -> MimasRecipeInvocation | MimasISPyBJobInvocation | None:
    """Turn a request back into the invocation that says the same; None where Mimas has no word for it.

    Raises:
        MimasError: a request for `ispyb-job` has parameters that make no valid job.
    """
    params = dict(request.params)
    if request.task == JOB_TASK:
        return _job(params)
    dcid = params.get("dcid")
    is_plain = set(params) == {"dcid"} and request.on is None and request.not_before is None and request.key is None
    if is_plain and isinstance(dcid, int) and not isinstance(dcid, bool) and dcid > 0:
        return MimasRecipeInvocation(dcid=dcid, recipe=request.task)
    return None


def command_line(request: Request | RequestRecord) -> str:
    """Write the command that does what a request asks for: zocalo's where there is one, else `labwright run`."""
    invocation = to_invocation(request)
    if invocation is not None:
        return zocalo_command_line(invocation)
    words = ["labwright", "run", request.task]
    for name, value in request.params.items():
        words += ["-p", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    options = {
        "--on": request.on,
        "--priority": request.priority or None,
        "--not-before": request.not_before and to_text(request.not_before),
        "--not-after": request.not_after and to_text(request.not_after),
        "--key": request.key,
    }
    for option, value in options.items():
        words += [option, str(value)] if value is not None else []
    return shlex.join(words)


def _job(params: Mapping[str, Any]) -> MimasISPyBJobInvocation:
    parts: Mapping[str, Callable[..., Any]] = {
        "parameters": MimasISPyBParameter,
        "sweeps": MimasISPyBSweep,
        "triggervariables": MimasISPyBTriggerVariable,
    }
    try:
        lists: dict[str, Any] = {
            name: tuple(part(**each) for each in params.get(name, ())) for name, part in parts.items()
        }
        job = MimasISPyBJobInvocation(**{**params, **lists})
    except TypeError as error:
        raise MimasError(
            f"these parameters make no ISPyB job: {dict(params)!r}",
            because=str(error),
            cure="see MimasISPyBJobInvocation",
        ) from error
    validate(job)
    return job


def _record(mimasobject: Any) -> dict[str, Any]:
    return {field.name: zocalo_message(getattr(mimasobject, field.name)) for field in fields(mimasobject)}


def _recipe(invocation: MimasRecipeInvocation) -> dict[str, Any]:
    return {"recipes": [invocation.recipe], "parameters": {"ispyb_dcid": invocation.dcid}}


def _in_quotes(text: str) -> str:
    quoted = shlex.quote(text)
    return f"'{text}'" if quoted == text else quoted


def _unknown(mimasobject: object) -> MimasError:
    return MimasError(
        f"{repr(mimasobject)[:500]} is not a known Mimas object",
        because=f"it is of type {type(mimasobject).__name__}",
        cure="pass an object of zocalo.mimas.classes",
    )


MESSAGES: Mapping[type, Callable[[Any], Any]] = {
    MimasRecipeInvocation: _recipe,
    MimasISPyBJobInvocation: _record,
    MimasISPyBSweep: _record,
    MimasISPyBParameter: _record,
    MimasISPyBTriggerVariable: _record,
    MimasISPyBUnitCell: lambda cell: (cell.a, cell.b, cell.c, cell.alpha, cell.beta, cell.gamma),
    MimasISPyBSpaceGroup: lambda group: group.string,
    MimasISPyBAnomalousScatterer: lambda scatterer: scatterer.string,
}
