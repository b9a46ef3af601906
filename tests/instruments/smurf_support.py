"""What the tests of the simulated SMuRF share: scripts run on it as real processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from labwright.instruments.pysmurf.simulated import environment
from labwright.instruments.pysmurf.simulated.detectors import Detectors, detectors

SCRIPTS = Path(__file__).parent / "scripts"
STREAM = "crate1slot3"
SEED = 20260916
RESONATORS = 12
LIMIT_S = 100.0


def smurf_environment(data: Path, more: Mapping[str, str] | None = None, *, faults: str = "") -> dict[str, str]:
    """Give the variables under which a script runs on a simulated card in a folder."""
    outer = {**os.environ, "SLOT": "3", "OCS_CONFIG_DIR": str(data / "config"), "SMURFPUB_BACKEND": "null"}
    simulated = environment(data, speed=50_000, seed=SEED, resonators=RESONATORS, faults=faults, outer=outer)
    return {**outer, **simulated, **(more or {})}


def seeded(resonators: int = RESONATORS) -> Detectors:
    """Give the detectors of that card."""
    return detectors(STREAM, SEED, resonators)


def run(script: str | Path, *args: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[bytes]:
    """Run a script to its end."""
    path = SCRIPTS / script
    words = [sys.executable, "-u", str(path), *args]
    return subprocess.run(words, env=env, capture_output=True, timeout=LIMIT_S, check=False)


def succeed(script: str | Path, *args: str, env: Mapping[str, str]) -> str:
    """Run a script that succeeds, and give its output."""
    ended = run(script, *args, env=env)
    assert ended.returncode == 0, ended.stderr.decode(errors="replace")
    return ended.stdout.decode()


def newest(data: Path, pattern: str) -> Path:
    """Give the newest output file of a pattern."""
    return max(data.glob(f"smurf_data/*/{STREAM}/*/outputs/{pattern}"), key=lambda path: path.stat().st_mtime_ns)


def results(path: Path) -> dict[str, Any]:
    """Load the results in a file."""
    return np.load(path, allow_pickle=True).item()


class Heard:
    """Hears what scripts publish."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 1024 * 1024)
        self._socket.bind(("127.0.0.1", 0))
        self.variables = {
            "SMURFPUB_BACKEND": "udp",
            "SMURFPUB_ID": "pysmurf-s3",
            "SMURFPUB_UDP_HOST": "127.0.0.1",
            "SMURFPUB_UDP_PORT": str(self._socket.getsockname()[1]),
        }

    def all(self) -> list[dict[str, Any]]:
        """Give everything that was published up to now."""
        self._socket.setblocking(False)
        messages: list[dict[str, Any]] = []
        while True:
            try:
                messages.append(json.loads(self._socket.recv(65_536)))
            except BlockingIOError:
                return messages

    def close(self) -> None:
        self._socket.close()
