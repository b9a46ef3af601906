"""The child process of one operation: reads what is to be done, does it, and tells its session the result or the error.

SIGTERM asks it to end. Operations that go on until they are stopped see that for themselves; others are interrupted, so
that their clean-up runs.
"""

from __future__ import annotations

import json
import signal
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from labwright.agents.from_script import script_session
from labwright.core.errors import LabwrightError, NotProvidedError
from labwright.core.model import ErrorRecord
from labwright.core.plain import to_plain
from labwright.instruments.pysmurf.on_smurf.operations import OPERATIONS
from labwright.instruments.pysmurf.on_smurf.smurf import Smurf

COOPERATIVE = frozenset({"stream", "check_state"})
"""Operations that watch for the word to end."""


class ToldToEndError(BaseException):
    """The operation is interrupted; derived so that nothing takes it for an error of the hardware."""


def main() -> int:
    """Do what standard input says; the exit code is 0 only if that succeeded."""
    order: dict[str, Any] = json.load(sys.stdin)
    smurf = Smurf(script_session, order["slot"])
    _listen(smurf, is_cooperative=order["operation"] in COOPERATIVE)
    try:
        result = OPERATIONS[order["operation"]](smurf, **order["params"])
    except ToldToEndError:
        script_session.update(result=_told("it was told to end before it was done"))
        return 130
    except BaseException as error:  # noqa: BLE001 - a border: whatever it was is told
        traceback.print_exc()
        script_session.update(result=_failed(error))
        return 1
    script_session.update(result={"success": True, "return_val": to_plain(result), "traceback": None})
    return 0


def _listen(smurf: Smurf, *, is_cooperative: bool) -> None:
    def end(*_: object) -> None:
        is_first = not smurf.told.is_stopping
        smurf.told.stop()
        if is_first and not is_cooperative:
            raise ToldToEndError

    signal.signal(signal.SIGTERM, end)


def _failed(error: BaseException) -> Mapping[str, Any]:
    if isinstance(error, ModuleNotFoundError):
        name = (error.name or "").partition(".")[0]
        error = NotProvidedError(
            f"the Python module {name!r} is not installed where the controller runs",
            because="operations use pysmurf and sodetlib",
            cure="install them there, or start the controller with simulate=true",
        )
    record = ErrorRecord.of(error)
    trace = "" if isinstance(error, LabwrightError) else record.traceback
    return {**_told(record.message), "traceback": trace, "error": record.model_dump(mode="json", by_alias=True)}


def _told(message: str) -> dict[str, Any]:
    return {"success": False, "return_val": None, "traceback": None, "error": {"message": message}}
