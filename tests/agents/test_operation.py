"""Operations as they are written and described."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from labwright import Agent, Session, operation, process
from labwright.agents.arguments import make_agent
from labwright.agents.operation import operations_of
from labwright.core.errors import NotProvidedError, ParameterError, UsageError
from labwright.core.model import OperationKind


class Pump(Agent):
    """A pump."""

    def __init__(self, port: str, speed: float = 1.0, names: tuple[str, ...] = ()) -> None:
        self.port = port
        self.speed = speed
        self.names = names

    @operation(lock=["pump", "valve"], timeout=5)
    async def dispense(self, session: Session, volume_ml: float, times: int = 1) -> float:
        """Dispense a volume."""
        return volume_ml * times

    @process(startup={"period_s": 3})
    def pressure(self, session: Any, period_s: float = 1) -> None:
        """Watch the pressure."""


def test_an_operation_describes_itself() -> None:
    known = operations_of(Pump)
    described = known["dispense"].describe()

    assert list(known) == ["dispense", "pressure"]
    assert described["kind"] == "task"
    assert described["doc"] == "Dispense a volume."
    assert described["locks"] == ["pump", "valve"]
    assert described["params"]["properties"]["volume_ml"]["type"] == "number"
    assert described["params"]["required"] == ["volume_ml"]
    assert known["pressure"].kind is OperationKind.PROCESS
    assert known["pressure"].describe()["startup"] == {"period_s": 3}
    assert known["pressure"].in_child
    assert not known["dispense"].in_child


async def test_on_an_object_it_is_the_method() -> None:
    session: Any = None

    assert await Pump("tty").dispense(session, 2.0, times=3) == 6.0


def test_wrong_parameters_name_the_operation_and_every_finding() -> None:
    with pytest.raises(ParameterError, match="operation 'dispense': 2 parameters do not fit") as wrong:
        operations_of(Pump)["dispense"].parameters.validated({"volume": 1})

    assert "labwright agents show" in wrong.value.cure


def no_session(self: Any) -> None: ...


async def generator(self: Any, session: Any) -> Any:
    yield 1


async def coroutine(self: Any, session: Any) -> None: ...


@pytest.mark.parametrize(
    ("define", "text"),
    [
        (lambda: operation(no_session), "takes no session"),
        (lambda: operation(generator), "yields"),
        (lambda: operation(timeout=-1)(coroutine), "timeout"),
        (lambda: operation(at_once=0)(coroutine), "at_once"),
        (lambda: operation(thread=True)(coroutine), "thread"),
        (lambda: operation(name="a b")(coroutine), "cannot name"),
    ],
)
def test_what_cannot_be_an_operation_says_why(define: Callable[[], Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        define()


def test_an_operation_may_not_hide_what_every_agent_has() -> None:
    with pytest.raises(UsageError, match="every agent has already"):
        type("Odd", (Agent,), {"close": operation(coroutine)})


def test_arguments_come_as_text_and_arrive_typed() -> None:
    pump = make_agent(Pump, {"port": "1", "speed": "2.5", "names": '["a", "b"]'})

    assert isinstance(pump, Pump)
    assert (pump.port, pump.speed, pump.names) == ("1", 2.5, ("a", "b"))
    with pytest.raises(ParameterError, match="agent 'Pump'"):
        make_agent(Pump, {"prt": "1"})


def test_before_it_is_served_an_agent_has_no_name() -> None:
    with pytest.raises(NotProvidedError, match="not served yet"):
        _ = Pump("tty").name
