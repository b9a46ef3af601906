"""The arguments of an agent's class, as they come from a command line or a settings file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from labwright.agents.agent import Agent
from labwright.agents.border import arguments_line
from labwright.core.errors import ParameterError
from labwright.plan.parameters import Parameters
from labwright.plan.steps import Argument, Signature, annotations_of


def make_agent(agent: type[Agent], arguments: Mapping[str, Any]) -> Agent:
    """Make the agent's object, its arguments converted to their types; a text may be JSON of the type that is wanted.

    Raises:
        ParameterError: they do not fit; it lists every finding.
    """
    return agent(**checked_arguments(agent, arguments))


def checked_arguments(agent: type[Agent], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the arguments of an agent's class to their types, without making its object.

    Raises:
        ParameterError: they do not fit; it lists every finding.
    """
    parameters = parameters_of(agent)
    try:
        return _typed(parameters, arguments)
    except ParameterError as error:
        takes = arguments_line(parameters.schema())
        cure = f"mend what is named; its arguments are: {takes}" if takes else "leave it out: it takes none"
        error.reword(cure=cure)
        raise


def parameters_of(agent: type[Agent]) -> Parameters:
    """What an agent's class takes on its start."""
    if agent.__init__ is object.__init__:
        return Parameters.of_arguments(agent.__name__, [], takes_any=False, what="agent")
    signature = Signature.of(agent.__init__, f"the agent {agent.__name__!r}")
    hints = annotations_of(agent.__init__)
    return Parameters.of_arguments(
        agent.__name__,
        [
            Argument(name=argument.name, annotation=hints.get(argument.name, Any), default=argument.default)
            for argument in signature.arguments
        ],
        takes_any=signature.takes_any,
        what="agent",
    )


def _typed(parameters: Parameters, arguments: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return parameters.typed(arguments)
    except ParameterError as error:
        unfit = {finding.partition(":")[0].partition(".")[0] for finding in error.findings}
        read = {name: _read(value) if name in unfit else value for name, value in arguments.items()}
        if read == dict(arguments):
            raise
        try:
            return parameters.typed(read)
        except ParameterError:
            raise error from None


def _read(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
