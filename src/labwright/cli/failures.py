"""What an error means on the command line: the fields that are shown, and the exit code."""

from __future__ import annotations

from typing import Any, cast

from labwright.core.errors import LabwrightError

INTERRUPTED = 130
BROKEN_PIPE = 141
"""As a shell reports a program that SIGPIPE has ended."""


def unwrapped(error: BaseException) -> BaseException:
    """Give the one error that a group of one holds."""
    while isinstance(error, BaseExceptionGroup):
        members = cast("BaseExceptionGroup[BaseException]", error).exceptions
        if len(members) != 1:
            break
        error = members[0]
    return cast("BaseException", error)


def exit_code(error: BaseException) -> int:
    """Tell the exit code of an error; what Labwright does not know is 1."""
    if not isinstance(error, LabwrightError):
        return 1
    return int(getattr(error, "code", error.exit_code))


def error_fields(error: BaseException) -> dict[str, Any]:
    """Describe an error as its JSON has it, with all findings."""
    from labwright.core.model import ErrorRecord

    record = getattr(error, "record", None) or ErrorRecord.of(error)
    fields: dict[str, Any] = record.model_dump(mode="json", by_alias=True)
    if session_id := getattr(error, "session_id", None):
        fields["session"] = session_id
    if findings := getattr(error, "findings", ()):
        fields["findings"] = list(findings)
        if fields["because"] == findings[0]:
            fields["because"] = ""
        fields["because"] = fields["because"].removeprefix("; ".join(findings)).removeprefix("; ")
    return fields
