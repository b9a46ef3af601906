"""Fixtures of the tests of executions."""

import pytest

from tests.run.memory import Memory


@pytest.fixture
def memory() -> Memory:
    return Memory()
