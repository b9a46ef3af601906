"""Processes on the worker's machine that keep their number in a file: whether they run, and a signal to them."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import psutil

from labwright.core.errors import LabwrightError, TerminalError, TransientError, UsageError
from labwright.maintenance.texts import filled
from labwright.maintenance.verdicts import as_finding
from labwright.plan.steps import StepFunction, step
from labwright.run.context import BlockingContext


def process_check(pid_file: str, *, program: str, name: str = "") -> StepFunction[..., Any]:
    """Make a step that reports, as a `Finding`, that the process whose number stands in a file does not run.

    `program` is what its command line must have in it: numbers are given again. The step's output is its number.

    Raises in the step:
        TransientError: the file, or the process, cannot be looked at.
    """

    @step(name=name or "process_check")
    def check(ctx: BlockingContext) -> int:
        """Report a process that does not run."""
        try:
            return _process(Path(filled(ctx, pid_file)), program).pid
        except _GoneError as error:
            raise as_finding(error) from error

    return check


def tell_process(pid_file: str, number: str = "SIGHUP", *, program: str, name: str = "") -> StepFunction[..., Any]:
    """Make a step that sends a signal to the process whose number stands in a file, such as to read its files again.

    `program` is what its command line must have in it, so that no other process gets the signal. Sent twice, it must
    do no harm: a crash may repeat it. The step's output is the process's number.

    Raises:
        UsageError: there is no such signal.

    Raises in the step:
        TransientError: it does not run now; it may be on its way.
        TerminalError: its user does not let us.
    """
    sent = _signal(number)

    @step(name=name or "tell_process")
    def tell(ctx: BlockingContext) -> int:
        """Send a signal to the process."""
        process = _process(Path(filled(ctx, pid_file)), program)
        try:
            process.send_signal(sent)  # of psutil: not where the number is another's by now
        except psutil.NoSuchProcess as error:
            raise TransientError(f"{program} has just ended", because=str(error), cure="it may come back") from error
        except psutil.AccessDenied as error:
            raise TerminalError(
                f"{program} may not be sent {sent.name}",
                because=f"process {process.pid} is another user's",
                cure="run the worker as that user, or have the service reload in another way",
            ) from error
        return process.pid

    return tell


class _GoneError(TransientError):
    """The process does not run."""


def _process(pid_file: Path, program: str) -> psutil.Process:
    number = _number(pid_file)
    try:
        process = psutil.Process(number)
        command = " ".join(process.cmdline()) if process.status() != psutil.STATUS_ZOMBIE else ""
    except psutil.NoSuchProcess:
        raise _gone(program, f"process {number} of {pid_file} has ended") from None
    except psutil.AccessDenied as error:
        raise TransientError(f"process {number} cannot be looked at", because=str(error)) from error
    if program not in command:
        raise _gone(program, f"process {number} of {pid_file} is another: {command[:200] or 'one that has ended'}")
    return process


def _number(pid_file: Path) -> int:
    try:
        text = pid_file.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        raise _gone(str(pid_file), "the file with its number is not there") from None
    except OSError as error:
        raise TransientError(f"{pid_file} cannot be read", because=error.strerror or str(error)) from error
    if not text.isdigit() or int(text) <= 1:
        raise _gone(str(pid_file), f"it holds no process's number: {text[:40]!r}")
    return int(text)


def _gone(program: str, because: str) -> LabwrightError:
    return _GoneError(f"{program} does not run", because=because, cure="start it; the run is tried again by itself")


def _signal(number: str) -> signal.Signals:
    try:
        return signal.Signals[number]
    except KeyError:
        raise UsageError(
            f"there is no signal {number!r}", because="signals have names such as SIGHUP", cure='"SIGHUP"'
        ) from None
