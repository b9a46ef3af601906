"""What a look at a service came to, and what that means: a gate stops its task, a check reports a finding.

An absence that may pass by itself (nothing accepts the connection, it takes too long) is transient unless the gate says
otherwise. What answers, and is wrong, needs a person: terminal.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import Literal, TypeAlias

from labwright.core.errors import Finding, LabwrightError, TerminalError, TransientError, UsageError

Down: TypeAlias = Literal["transient", "terminal"]
"""What it means for a gate that a service is down."""
DOWN = ("transient", "terminal")


def checked_down(down: str) -> Down:
    """Give what a gate makes of a service that is down.

    Raises:
        UsageError: it is neither `transient` nor `terminal`.
    """
    for known in DOWN:
        if down == known:
            return known
    raise UsageError(f"down cannot be {down!r}", because=f"it is one of: {', '.join(DOWN)}", cure='down="transient"')


def is_down(what: str, error: BaseException, down: Down) -> LabwrightError:
    """Make the error for a service that could not be asked, from what kept it from being asked.

    A host that no name server knows, and a certificate that is not trusted, do not pass by themselves.
    """
    for cause in _chain(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return TerminalError(
                f"{what} shows a certificate that is not trusted",
                because=cause.verify_message or str(cause),
                cure="rotate it (certificate_rotation), or give a client that knows its authority: client=KIND",
            )
        if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
            return TerminalError(
                f"{what} is absent", because=f"no such host: {cause.strerror}", cure="mend the target's address"
            )
    because = str(error.__cause__ or error) or type(error).__name__
    if isinstance(error, LabwrightError):
        because = error.because or error.message
    if down == "terminal":
        return TerminalError(f"{what} is down", because=because, cure="bring it up, then retry the run")
    return TransientError(f"{what} is down", because=because, cure="the run is tried again by itself")


def as_finding(error: LabwrightError) -> Finding:
    """Make of what would stop a gate what a check has found."""
    because = f": {error.because}" if error.because else ""
    return Finding(f"{error.message}{because}")


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__cause__ or at.__context__
