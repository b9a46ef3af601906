"""What users need to test their own site: a fake context and session, a served agent, rehearsals, a whole lab."""

from labwright.testing.agent import Given, served
from labwright.testing.clock import ManualClock
from labwright.testing.fake import FakeContext, LogLine
from labwright.testing.lab import lab
from labwright.testing.rehearsal import (
    Crash,
    CrashReport,
    crash_after_every_step,
    run_every_step_twice,
    run_task,
)
from labwright.testing.session import FakeSession

__all__ = [
    "Crash",
    "CrashReport",
    "FakeContext",
    "FakeSession",
    "Given",
    "LogLine",
    "ManualClock",
    "crash_after_every_step",
    "lab",
    "run_every_step_twice",
    "run_task",
    "served",
]
