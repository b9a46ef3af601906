"""What a test needs from the machine, and what happens where that is missing."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def require(condition: object, reason: str) -> None:
    """Skip the test unless the condition holds, or fail it where everything is required.

    Continuous integration sets `LABWRIGHT_REQUIRE_ALL=1`, so that a missing server or tool never passes for a success.

    Args:
        condition: What must be true, such as the path of a program.
        reason: What is missing and how to provide it.
    """
    if condition:
        return
    if everything_is_required():
        pytest.fail(f"LABWRIGHT_REQUIRE_ALL is set, and {reason}", pytrace=False)
    pytest.skip(reason)


def everything_is_required() -> bool:
    """Tell whether a missing server or tool is a failure."""
    return os.environ.get("LABWRIGHT_REQUIRE_ALL", "") not in {"", "0"}


def data_folder() -> Path:
    """Return the folder of real data, which may not exist."""
    return Path(os.environ.get("LABWRIGHT_TEST_DATA") or REPOSITORY.parent / "shared" / "data").resolve()
