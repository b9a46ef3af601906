"""Parameters of an operation that passes them on to other agents: known by their JSON schemas, beside some of its own.

Values that are passed on are not judged here but by the agents that get them; their names are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from labwright.core.errors import ParameterError
from labwright.core.plain import to_plain
from labwright.plan.parameters import Parameters

Schema = Mapping[str, Any]


class PassedParameters(Parameters):
    """The parameters in `schemas`, which are passed on, and those of the model `own`, which win where both have one.

    A parameter is required if every schema says so.
    """

    def __init__(self, operation: str, own: type[BaseModel], schemas: Iterable[Schema]) -> None:
        super().__init__(operation, own, what="operation")
        known = tuple(schemas)
        own_names = frozenset(super().names)
        self.takes_any = any(schema.get("additionalProperties") for schema in known)
        self._passed = {
            name: described
            for schema in reversed(known)
            for name, described in schema.get("properties", {}).items()
            if name not in own_names
        }
        required = [frozenset(schema.get("required", ())) for schema in known]
        self._required = frozenset[str]().union(*required).intersection(*required) - own_names
        self._definitions = {name: each for schema in known for name, each in schema.get("$defs", {}).items()}

    @property
    def names(self) -> tuple[str, ...]:
        """Name the parameters, those that are passed on first."""
        return (*self._passed, *super().names)

    def passed(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Choose those that are passed on."""
        own = frozenset(super().names)
        return {name: to_plain(value) for name, value in params.items() if name not in own}

    def validated(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Check parameters and give them as JSON has them; those passed on as they are, without defaults.

        Raises:
            ParameterError: something does not fit; it lists every finding.
        """
        return {**super().validated(params), **self.passed(params)}

    def typed(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Check parameters, and give the own ones typed.

        Raises:
            ParameterError: something does not fit; it lists every finding.
        """
        return {**super().typed(params), **self.passed(params)}

    def schema(self) -> dict[str, Any]:
        """Describe the parameters as JSON schema."""
        own = super().schema()
        definitions = {**self._definitions, **own.get("$defs", {})}
        return {
            "title": self.task,
            "type": "object",
            "properties": {**self._passed, **own.get("properties", {})},
            **({"required": sorted(self._required)} if self._required else {}),
            **({"additionalProperties": True} if self.takes_any else {}),
            **({"$defs": definitions} if definitions else {}),
        }

    def _read(self, params: Mapping[str, Any]) -> BaseModel:
        missing = [f"{name}: it is required and not given" for name in sorted(self._required - params.keys())]
        try:
            model = super()._read(params)
        except ParameterError as error:
            raise self._refusal([*error.findings, *missing]) from None
        if missing:
            raise self._refusal(missing)
        return model
