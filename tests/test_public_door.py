"""The public door: every name is there, and opening it costs next to nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import labwright

HEAVY = ("pydantic", "nats", "httpx", "typer", "rich", "yaml", "structlog", "psutil", "sqlalchemy", "asyncio")


@pytest.mark.parametrize("name", labwright.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(labwright, name) is not None
    assert name in dir(labwright)


def test_the_door_and_the_types_of_pyright_name_the_same_things() -> None:
    listed = {name for names in labwright._HOMES.values() for name in names}

    assert listed | {"__version__"} == set(labwright.__all__)
    for home, names in labwright._HOMES.items():
        assert f"from {home} import {', '.join(names)}\n" in Path(labwright.__file__ or "").read_text(encoding="utf-8")


def test_no_public_name_hides_a_folder() -> None:
    root = Path(labwright.__file__ or "").parent

    assert not {path.stem for path in root.iterdir()} & set(labwright.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Requset'"):
        _ = labwright.Requset  # pyright: ignore[reportAttributeAccessIssue]


def test_importing_loads_nothing_heavy() -> None:
    code = "import json, sys, labwright; print(json.dumps(sorted(sys.modules)))"

    loaded = json.loads(subprocess.check_output([sys.executable, "-c", code], text=True))

    assert not [name for name in loaded if name.split(".")[0] in HEAVY]


def test_importing_takes_less_than_150_ms() -> None:
    code = "import time; start = time.perf_counter(); import labwright; print(time.perf_counter() - start)"

    def measure() -> float:
        return float(subprocess.check_output([sys.executable, "-c", code], text=True))

    fastest = min(measure() for _ in range(3))

    assert fastest < 0.15


def test_a_rule_needs_no_engine() -> None:
    code = "import sys; from labwright import Request, Scenario, rule; print('nats' in sys.modules)"

    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
