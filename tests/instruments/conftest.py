"""Fixtures of the tests of instruments: a simulated card that was tuned, and somebody who hears its scripts."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.instruments.smurf_support import Heard, smurf_environment, succeed


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the data folder of a card that a script has tuned, with a map of its bias groups."""
    data = tmp_path_factory.mktemp("smurf")
    succeed("tune.py", env=smurf_environment(data))
    return data


@pytest.fixture
def heard() -> Iterator[Heard]:
    heard = Heard()
    yield heard
    heard.close()
