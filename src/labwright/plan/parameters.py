"""Parameters: what a task takes, read from its model or from its functions' signatures, and checked with every finding.

Values come as JSON has them, from files, command lines and records; steps get them typed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError
from pydantic_core import PydanticSerializationError

from labwright.core.errors import ParameterError, UsageError
from labwright.core.plain import from_plain, to_plain
from labwright.plan.steps import ABSENT, Argument

SHOWN = 80
"""Characters of a wrong value that an error shows."""


class Parameters:
    """The parameters of one task, or of what else `what` says: checks values, gives them typed, and describes them."""

    def __init__(self, task: str, model: type[BaseModel], *, takes_any: bool = False, what: str = "task") -> None:
        self.task = task
        self.what = what
        self.model = model
        self.takes_any = takes_any or model.model_config.get("extra") == "allow"

    @classmethod
    def of_arguments(
        cls, task: str, arguments: Iterable[Argument], *, takes_any: bool, what: str = "task"
    ) -> Parameters:
        """Make the parameters of functions that name them as arguments.

        An argument that several steps name is required if one of them requires it; where they disagree about its type,
        the value passes as it is.
        """
        merged: dict[str, Argument] = {}
        for argument in arguments:
            merged[argument.name] = _merge(merged.get(argument.name), argument)
        fields: dict[str, Any] = {  # names of arguments may be any, so they are aliases of names that cannot clash
            f"argument_{number}": _field(argument) for number, argument in enumerate(merged.values())
        }
        config = ConfigDict(arbitrary_types_allowed=True, extra="allow" if takes_any else "ignore")
        try:
            model = create_model(task, __config__=config, **fields)
        except PydanticUserError as error:
            raise UsageError(
                f"the parameters of {what} {task!r} cannot be read",
                because=str(error),
                cure="mend the annotations of its steps' arguments, or give the task a `params` model"
                if what == "task"
                else "mend the annotations of its arguments",
            ) from error
        return cls(task, model, takes_any=takes_any, what=what)

    @property
    def names(self) -> tuple[str, ...]:
        """Name the parameters, as they are given."""
        return tuple(_given_as(name, field.alias) for name, field in self.model.model_fields.items())

    @property
    def argument_names(self) -> frozenset[str]:
        """Name the parameters, as steps take them."""
        if self.model.__module__ == __name__:
            return frozenset(self.names)
        return frozenset(self.model.model_fields)

    def validated(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Check parameters and give them as JSON has them, converted to their types and with the defaults.

        Raises:
            ParameterError: something does not fit; it lists every finding.
        """
        model = self._read(params)
        try:
            dumped = model.model_dump(mode="json", by_alias=True, warnings=False)
        except (PydanticSerializationError, ValueError):  # such as bytes, for which JSON has no word
            dumped = {**model.model_dump(by_alias=True, exclude=model.model_fields_set, warnings=False), **params}
        given = {_given_as(name, self.model.model_fields[name].alias) for name in _set_fields(model)}
        return {
            name: plain
            for name, value in dumped.items()
            if name in given or name in params or not _is_lossy(value)
            for plain in (to_plain(value),)
        }

    def typed(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Check parameters and give them typed, by the names under which steps take them.

        Raises:
            ParameterError: something does not fit; it lists every finding.
        """
        model = self._read(params)
        is_made_here = self.model.__module__ == __name__
        values = {
            (_given_as(name, field.alias) if is_made_here else name): getattr(model, name)
            for name, field in self.model.model_fields.items()
        }
        return {**values, **(model.model_extra or {})}

    def schema(self) -> dict[str, Any]:
        """Describe the parameters as JSON schema; types that it has no word for are left open."""
        try:
            return self.model.model_json_schema()
        except (PydanticInvalidForJsonSchema, PydanticUserError):
            return {"type": "object", "properties": {name: {} for name in self.names}}

    def _read(self, params: Mapping[str, Any]) -> BaseModel:
        findings = [] if self.takes_any else [self._unknown(name) for name in params if not self._knows(name)]
        try:
            model = self.model.model_validate(from_plain(dict(params)))
        except ValidationError as error:
            findings += [_finding(detail) for detail in error.errors(include_url=False)]
            raise self._refusal(findings) from error
        if findings:
            raise self._refusal(findings)
        return model

    def _knows(self, name: str) -> bool:
        by_name = self.model.model_config.get("populate_by_name") or self.model.model_config.get("validate_by_name")
        return name in self.names or bool(by_name and name in self.model.model_fields)

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name, self.names, n=1)
        known = ", ".join(self.names) or "none"
        return f"{name}: there is no such parameter; " + (
            f"did you mean {near[0]!r}?" if near else f"known are: {known}"
        )

    def _refusal(self, findings: list[str]) -> ParameterError:
        count = "a parameter does" if len(findings) == 1 else f"{len(findings)} parameters do"
        show = f"tasks show {self.task}" if self.what == "task" else "agents show NAME"
        return ParameterError(
            f"{self.what} {self.task!r}: {count} not fit",
            findings=tuple(findings),
            cure=f"mend what is named; `labwright {show}` tells what the {self.what} takes",
        )


def _merge(known: Argument | None, new: Argument) -> Argument:
    if known is None:
        return new
    annotation = known.annotation if known.annotation is not ABSENT else new.annotation
    if new.annotation is not ABSENT and new.annotation != annotation:
        annotation = Any
    default = ABSENT if known.is_required or new.is_required else known.default
    return Argument(name=known.name, annotation=annotation, default=default)


def _field(argument: Argument) -> tuple[Any, Any]:
    annotation = Any if argument.annotation is ABSENT else argument.annotation
    default: Any = ... if argument.is_required else argument.default
    return annotation, Field(default, alias=argument.name)


def _given_as(name: str, alias: str | None) -> str:
    return alias or name


def _set_fields(model: BaseModel) -> set[str]:
    return model.model_fields_set & set(type(model).model_fields)


def _is_lossy(value: Any) -> bool:
    plain = to_plain(value)
    if isinstance(plain, dict):
        mapping = cast("dict[str, Any]", plain)
        return "$repr" in mapping or any(_is_lossy(item) for item in mapping.values())
    return isinstance(plain, list) and any(_is_lossy(item) for item in cast("list[Any]", plain))


def _finding(detail: Any) -> str:
    where = ".".join(str(part) for part in detail["loc"]) or "parameters"
    if detail["type"] == "missing":
        return f"{where}: it is required and not given"
    shown = repr(detail.get("input"))
    return f"{where}: {detail['msg']} (given: {shown if len(shown) <= SHOWN else shown[:SHOWN] + '...'})"
