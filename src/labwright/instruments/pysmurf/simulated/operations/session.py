"""What a function tells the session it runs in, and whether the session wants it to end."""

# pyright: reportPrivateUsage=false
# (agents put the session there)

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labwright.instruments.pysmurf.simulated.control import SmurfControl


class StopRequested(RuntimeError):  # noqa: N818 - not an error of the function
    """The session was asked to stop."""


def set_session_data(S: SmurfControl, key: str, value: Any) -> None:
    """Show a value in the session's data."""
    pub_ocs_data(S, {key: value})


def pub_ocs_data(S: SmurfControl, data: Mapping[str, Any]) -> None:
    """Show values in the session's data: in the session itself where there is one, else published."""
    session = S._ocs_session
    if session is None:
        S.pub.publish(dict(data), "session_data")
    elif callable(update := getattr(session, "update", None)):
        update(dict(data))
    else:
        session.data.update(data)


def pub_ocs_log(S: SmurfControl, msg: str, log: bool = True) -> None:
    """Say a line to the session, and in the log."""
    if log:
        S.log(msg)
    session = S._ocs_session
    if session is None:
        S.pub.publish(msg, "session_log")
    else:
        say = getattr(session, "add_message", None) or session.log
        say(msg)


def stop_point(S: SmurfControl) -> None:
    """Go on, unless the session was asked to stop.

    Raises:
        StopRequested: it was.
    """
    session = S._ocs_session
    if getattr(session, "status", None) == "stopping" or getattr(session, "is_stopping", False):
        message = "the session was asked to stop"
        raise StopRequested(message)
