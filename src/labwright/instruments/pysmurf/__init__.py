"""Pysmurf: agents for readout electronics, the SMURFPUB protocol, and a simulated SMuRF.

The names load what they need when they are first used, so that a script that only publishes stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labwright.instruments.pysmurf.controller import PysmurfController
    from labwright.instruments.pysmurf.managed_smurf import ManagedSmurfInstance
    from labwright.instruments.pysmurf.monitor import PysmurfMonitor
    from labwright.instruments.pysmurf.multismurf_manager import MultiSmurfManager
    from labwright.instruments.pysmurf.publisher import Publisher

__all__ = ["ManagedSmurfInstance", "MultiSmurfManager", "Publisher", "PysmurfController", "PysmurfMonitor"]

_HOMES = {
    "ManagedSmurfInstance": "labwright.instruments.pysmurf.managed_smurf",
    "MultiSmurfManager": "labwright.instruments.pysmurf.multismurf_manager",
    "PysmurfController": "labwright.instruments.pysmurf.controller",
    "PysmurfMonitor": "labwright.instruments.pysmurf.monitor",
    "Publisher": "labwright.instruments.pysmurf.publisher",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(importlib.import_module(_HOMES[name]), name)
