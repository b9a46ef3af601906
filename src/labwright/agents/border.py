"""What keeps an agent from being started, as people and programs are told it."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from labwright.agents.agent import Agent
from labwright.core.errors import ParameterError, UsageError
from labwright.core.model import ErrorRecord


def tell(error: BaseException, *, as_json: bool) -> None:
    """Tell an error on standard error: as JSON, or as what, because of what, and what to try."""
    fields: dict[str, Any] = ErrorRecord.of(error).model_dump(mode="json", by_alias=True)
    findings = list(error.findings) if isinstance(error, ParameterError) else []
    if findings:
        fields = {**fields, "findings": findings, "because": ""}
    if as_json:
        sys.stderr.write(json.dumps(fields, ensure_ascii=True) + "\n")
        return
    lines = [f"error: {fields['message']}", *(f"  - {finding}" for finding in findings)]
    lines += [f"{name}: {fields[name]}" for name in ("because", "try") if fields[name]]
    if fields["kind"] == "bug":
        lines.append(fields["traceback"].rstrip())
    sys.stderr.write("\n".join(lines) + "\n")


def no_class(place: str, module: ModuleType, because: str) -> UsageError:
    """Make the error for a class that a module does not have; it names the nearest, or all that there are."""
    module_name, colon, class_name = place.partition(":")
    classes = [name for name, value in vars(module).items() if isinstance(value, type) and Agent in value.__mro__[1:]]
    near = difflib.get_close_matches(class_name, classes, n=1, cutoff=0.5) or classes[:1] * (len(classes) == 1)
    if near:
        cure = f"did you mean {module_name}:{near[0]}?"
    elif classes:
        cure = f"name one of its classes: {', '.join(f'{module_name}:{name}' for name in classes)}"
    else:
        cure = "name it as MODULE:CLASS, such as mylab.pumps:Pump"
    return UsageError(
        f"there is no agent {place}" if colon else f"{place} names no class",
        because=because if colon and class_name else "an agent is named as MODULE:CLASS",
        cure=cure,
    )


def arguments_line(schema: Mapping[str, Any]) -> str:
    """Write what a class takes on its start: each argument with its type, and its default where there is one."""
    required = schema.get("required", ())
    words: list[str] = []
    for name, field in schema.get("properties", {}).items():
        kind = "|".join(str(each["type"]) for each in (field, *field.get("anyOf", ())) if "type" in each)
        default = "" if name in required else f"={json.dumps(field.get('default'))}"
        words.append(f"{name}{f': {kind}' if kind else ''}{default}")
    return ", ".join(words)
