"""The handle on a running lab, for scripts, notebooks and the command line: `connect_async()` and `connect()`."""

from labwright.client.blocking import Lab, connect
from labwright.client.connecting import connect_async
from labwright.client.lab import AsyncLab
from labwright.client.results import Emitted, RequestedRuns
from labwright.run.following import Update

__all__ = ["AsyncLab", "Emitted", "Lab", "RequestedRuns", "Update", "connect", "connect_async"]
