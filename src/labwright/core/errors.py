"""Every error that a user can meet: what happened, because of what, and what to try.

The classes stand here together so that each border (command line, worker, agent, API) can show any of them in the one
shape of `ErrorRecord` and leave with the exit code of the class.
"""

from __future__ import annotations

from typing import ClassVar


class LabwrightError(Exception):
    """Something went wrong that Labwright understands.

    `message` says what, `because` why, `cure` what to try; a traceback shows all three.
    """

    kind: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    message: str = ""
    because: str = ""
    cure: str = ""

    def __init__(self, message: str, *, because: str = "", cure: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.because = ""
        self.cure = ""
        self.reword(because=because, cure=cure)

    def reword(self, *, because: str | None = None, cure: str | None = None) -> None:
        """Tell something else of why it is so, or of what to try; None leaves it as it is."""
        told = {self._note("because", self.because), self._note("try", self.cure)}
        others = [note for note in getattr(self, "__notes__", ()) if note not in told]
        self.because = self.because if because is None else because
        self.cure = self.cure if cure is None else cure
        self.__notes__ = [*filter(None, (self._note("because", self.because), self._note("try", self.cure))), *others]

    @staticmethod
    def _note(word: str, text: str) -> str:
        return f"{word}: {text}" if text else ""


class UsageError(LabwrightError):
    """What was asked for cannot be understood or is not valid."""

    kind = "usage"
    exit_code = 2


class SelectorError(UsageError):
    """A selector cannot be read; `position` is the index of the character where reading stopped."""

    def __init__(self, message: str, *, position: int, because: str = "", cure: str = "") -> None:
        super().__init__(message, because=because, cure=cure)
        self.position = position


class ParameterError(UsageError):
    """The parameters do not fit what the task or operation takes; `findings` lists everything that is wrong."""

    def __init__(self, message: str, *, findings: tuple[str, ...] = (), because: str = "", cure: str = "") -> None:
        super().__init__(message, because=because or "; ".join(findings), cure=cure)
        self.findings = findings


class TooLargeError(UsageError):
    """A value is larger than the journal keeps; pass a path to it instead."""


class SiteError(UsageError):
    """The site cannot be loaded; `findings` lists everything that is wrong with it."""

    kind = "site"
    exit_code = 1

    def __init__(self, message: str, *, findings: tuple[str, ...] = (), because: str = "", cure: str = "") -> None:
        super().__init__(message, because=because, cure=cure)
        self.findings = findings


class NotFoundError(LabwrightError):
    """Nothing has that name or id, or the selection is empty."""

    kind = "not_found"
    exit_code = 3


class NotAllowedError(LabwrightError):
    """The identity may not do this."""

    kind = "not_allowed"
    exit_code = 4


class UnreachableError(LabwrightError):
    """The lab, or its journal, does not answer."""

    kind = "unreachable"
    exit_code = 5


class FateUnknownError(UnreachableError):
    """It is not known whether a record was written; asking again with the same id is safe."""

    kind = "fate_unknown"


class EngineError(LabwrightError):
    """The embedded engine cannot be started or used."""

    kind = "engine"
    exit_code = 5


class ConflictError(LabwrightError):
    """Something with the same identity but other content exists already."""

    kind = "conflict"
    exit_code = 6


class DamagedError(LabwrightError):
    """A file that was written before cannot be read any more."""

    kind = "damaged"


class LockedError(ConflictError):
    """Something else holds what an operation must have for itself."""

    kind = "locked"


class ClaimedError(ConflictError):
    """Somebody else has claimed the target for a time."""

    kind = "claimed"


class NotRunningError(ConflictError):
    """There is nothing that runs and could be stopped or aborted."""

    kind = "not_running"


class RefusedError(ConflictError):
    """The command came too late: it has expired, or a newer attempt of the run has spoken since."""

    kind = "refused"


class AgentGoneError(UnreachableError):
    """The agent does not answer, or went away; `session` is what is known of the session that was asked for."""

    def __init__(self, message: str, *, session: object = None, because: str = "", cure: str = "") -> None:
        super().__init__(message, because=because, cure=cure)
        self.session = session


class SessionFailedError(LabwrightError):
    """A session did not succeed; `session` is how it ended, `kind` that of its error."""

    kind = "failed"

    def __init__(self, message: str, *, session: object = None, because: str = "", cure: str = "") -> None:
        super().__init__(message, because=because, cure=cure)
        self.session = session


class WaitTimeoutError(LabwrightError):
    """The time to wait has passed; what was waited for goes on."""

    kind = "timeout"
    exit_code = 124


class FactMissingError(LabwrightError, AttributeError):
    """A rule or step asked for a fact that is not known."""

    kind = "fact_missing"

    def __init__(self, name: str, known: tuple[str, ...] = ()) -> None:
        super().__init__(
            f"the fact {name!r} is missing",
            because="known are: " + (", ".join(known) or "none"),
            cure="guard the rule with a condition on that fact, or provide it (labwright facts show SUBJECT)",
        )
        self.name = name


class NotProvidedError(LabwrightError, AttributeError):
    """A step asked its context for something that nobody provided."""

    kind = "not_provided"


class TransientError(LabwrightError):
    """It did not work now but may work later: the run is tried again.

    `retry_after` is the least time in seconds before the next try; None leaves it to the task's retry policy.
    """

    kind = "transient"
    retry_after: float | None = None

    def __init__(self, message: str, retry_after: float | None = None, *, because: str = "", cure: str = "") -> None:
        super().__init__(message, because=because, cure=cure)
        self.retry_after = retry_after


class TerminalError(LabwrightError):
    """It will never work without somebody's help: the run fails at once."""

    kind = "terminal"


class FleetFailedError(TerminalError):
    """Too few targets of a fleet have succeeded; `result` has a row for each."""

    kind = "fleet_failed"

    def __init__(self, message: str, *, result: object = None, because: str = "", cure: str = "") -> None:
        super().__init__(message, because=because, cure=cure)
        self.result = result


class NotApplicable(LabwrightError):  # noqa: N818 - an end of a step that counts as success
    """The step has nothing to do here: it is skipped, which is a success with a note.

    With `whole_task` the steps after it are skipped too.
    """

    kind = "not_applicable"

    def __init__(self, message: str, *, whole_task: bool = False, because: str = "", cure: str = "") -> None:
        super().__init__(message, because=because, cure=cure)
        self.whole_task = whole_task


class Stopped(LabwrightError):  # noqa: N818 - an end of an operation that was asked for
    """The operation was asked to end, and noticed."""

    kind = "stopped"


class Finding(LabwrightError):  # noqa: N818 - an end of a step that counts as success
    """A check found something that is due: a success that is flagged."""

    kind = "finding"
