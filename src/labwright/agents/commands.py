"""The border at which commands come in: whatever arrives is answered exactly, and nothing that arrives does harm."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from labwright.access.asker import Asker
from labwright.core.errors import LabwrightError, ParameterError, UsageError
from labwright.core.model import SessionSnapshot
from labwright.core.plain import to_plain

NOT_VALID = "the command is not valid"
MOST_S = 366 * 86_400.0
Verb = Literal["start", "check", "stop", "abort", "status", "wait", "describe", "ping", "sessions"]
Seconds = Annotated[float, Field(gt=0, le=MOST_S, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1, max_length=256)]


class Command(BaseModel):
    """What a client asks of an agent; `operation` and `sender` come from the subject."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    do: Verb
    operation: Annotated[str, Field(max_length=256)] | None = None
    sender: Annotated[str, Field(max_length=512)] = ""
    session: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")] | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    key: Name | None = None
    timeout_s: Seconds | None = None
    valid_for_s: Annotated[float, Field(le=MOST_S, allow_inf_nan=False)] | None = None
    within_s: Annotated[float, Field(le=MOST_S, allow_inf_nan=False)] | None = None
    """How long whoever asks waits for the reply; a command that may be older than that is not followed."""
    run: Name | None = None
    step: Name | None = None
    token: Annotated[int, Field(ge=0, lt=2**63)] = 0
    by: Annotated[str, Field(max_length=512)] = ""
    origin: Annotated[str, Field(max_length=256)] = ""
    """Where it comes from, host and process, as whoever asks says."""
    reason: Annotated[str, Field(max_length=4000)] = ""
    wait: bool = False

    @property
    def asker(self) -> Asker:
        """Who asks, as the subject proves it."""
        return Asker.of(self.sender, self.by)

    @property
    def fence(self) -> int:
        """The token that outdates those before it; none counts of who has a key, and could give one that none beats."""
        return 0 if self.asker.is_proven else self.token


@dataclass(frozen=True)
class Answer:
    """The reply to a command: what there is to say now, and where an end is waited for, what brings that.

    Where the end comes in a moment it is all that is said. `has_begun` tells whether a session has.
    """

    now: Callable[[], bytes] | None
    end: Callable[[], Awaitable[bytes]] | None = None
    has_begun: bool = False


class CommandError(Exception):
    """A command was not followed: because of `error`; `session` is the one that stands in its way, or is meant."""

    def __init__(self, error: LabwrightError, session: SessionSnapshot | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.session = session


def read_command(data: bytes, *, sender: str, operation: str | None) -> Command:
    """Read a command.

    Raises:
        UsageError: it is none; a ParameterError lists what is wrong with it.
    """
    try:
        body: Any = to_plain(json.loads(data))
    except (ValueError, RecursionError) as error:
        raise UsageError(
            "the command cannot be read", because=f"its body is no JSON: {str(error)[:200]}", cure='send {"do": "ping"}'
        ) from None
    if not isinstance(body, dict):
        raise UsageError("the command cannot be read", because="its body is no JSON object", cure='send {"do": "ping"}')
    try:
        command = Command.model_validate({**body, "sender": sender[:512], "operation": operation})
    except ValidationError as error:
        findings = tuple(
            f"{'.'.join(str(part) for part in detail['loc'])}: {detail['msg']}"
            for detail in error.errors(include_url=False, include_input=False, include_context=False)
        )
        raise ParameterError(NOT_VALID, findings=findings, cure="mend what is named") from None
    return command.model_copy(update={"by": command.asker.name}) if command.asker.is_proven else command
