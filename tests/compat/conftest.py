"""Makes zocalo's names importable, as Labwright's pytest plugin does once it is installed, and the example package."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from labwright.compat.mimas import install

install()

EXAMPLE = Path(__file__).parent / "mimas_example"


@pytest.fixture
def example_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Put the example package on the path for one test."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    yield EXAMPLE
    for name in [name for name in sys.modules if name.partition(".")[0].startswith("mimas_")]:
        del sys.modules[name]
