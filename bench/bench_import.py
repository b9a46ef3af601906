"""How long `import labwright` (above an empty interpreter) and `labwright --help` take, as whole processes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from support import row, spread

ROUNDS = 15
IMPORT_MS = 150
HELP_MS = 300


def main() -> None:
    """Measure in turns."""
    labwright = str(Path(sys.executable).with_name("labwright"))
    commands = {
        "start": [sys.executable, "-c", "pass"],
        "import": [sys.executable, "-c", "import labwright"],
        "help": [labwright, "--help"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            times[name].append((time.perf_counter() - began) * 1000)
    start = statistics.median(times["start"])
    imported = statistics.median(times["import"]) - start
    shown = statistics.median(times["help"])
    row(
        "import labwright",
        imported,
        "ms",
        at_most=IMPORT_MS,
        detail=f"above an empty interpreter's {start:.0f} ms",
    )
    row("labwright --help", shown, "ms", at_most=HELP_MS, detail=spread(times["help"], 0))


if __name__ == "__main__":
    main()
