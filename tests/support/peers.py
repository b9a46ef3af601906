"""Other systems that ours are compared with, each installed in a folder of its own that only its subprocess sees."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.requirements import REPOSITORY, require

FOLDER = REPOSITORY / ".venv-peers"
LIMIT_S = 120.0


def installed(requirements: Path) -> Path:
    """Give a folder for PYTHONPATH that has what a requirements file names; skip or fail where it cannot be had."""
    folder = FOLDER / requirements.stem
    stamp = folder / requirements.name
    wanted = requirements.read_text(encoding="utf-8")
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return folder
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as made:
        fresh = Path(made) / "peer"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--target", str(fresh), "--requirement", str(requirements)]
        pip = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        require(pip.returncode == 0, f"pip cannot install {requirements.name}: {pip.stderr.strip()[-300:]}")
        (fresh / requirements.name).write_text(wanted, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    return folder


def run_with(folder: Path | None, script: Path, *arguments: str) -> str:
    """Run a script to which the peer in that folder is importable, and give what it printed."""
    environment = dict(os.environ) if folder is None else {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-W", "ignore", str(script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=True).stdout
