"""What an exception means for its run."""

import asyncio
import math

import pytest

from labwright.core.errors import NotFoundError, TerminalError, TransientError, WaitTimeoutError
from labwright.run.judgement import Severity, judge


def caused(outer: Exception, inner: BaseException) -> Exception:
    outer.__cause__ = inner
    return outer


def in_context(outer: BaseException, inner: BaseException, *, suppressed: bool = False) -> BaseException:
    outer.__context__ = inner
    outer.__suppress_context__ = suppressed
    return outer


TRANSIENT = [
    TransientError("busy"),
    caused(RuntimeError("wrapped"), TransientError("busy")),
    caused(KeyError("k"), caused(RuntimeError("wrapped"), TransientError("busy"))),
    in_context(RuntimeError("while handling"), TransientError("busy")),
    ExceptionGroup("both", [TransientError("a"), TransientError("b")]),
    caused(RuntimeError("wrapped"), ExceptionGroup("both", [TransientError("a"), TransientError("b")])),
    ExceptionGroup("one", [caused(TimeoutError(), TransientError("a"))]),
]
TERMINAL = [
    TerminalError("gone"),
    caused(TransientError("busy"), TerminalError("gone")),
    caused(TerminalError("gone"), TransientError("busy")),
    ExceptionGroup("both", [TransientError("a"), TerminalError("b")]),
]
OTHER = [
    ValueError("bug"),
    TimeoutError("not ours"),
    asyncio.CancelledError(),
    SystemExit(3),
    in_context(RuntimeError("from None"), TransientError("busy"), suppressed=True),
    ExceptionGroup("mixed", [TransientError("a"), ValueError("b")]),
    BaseExceptionGroup("base", [KeyboardInterrupt()]),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=repr)
def test_a_transient_error_anywhere_in_the_chain_is_tried_again(error: BaseException) -> None:
    assert judge(error).severity is Severity.TRANSIENT
    assert judge(error).error.kind == "transient"


@pytest.mark.parametrize("error", TERMINAL, ids=repr)
def test_terminal_beats_transient(error: BaseException) -> None:
    assert judge(error).severity is Severity.TERMINAL
    assert judge(error).error.kind == "terminal"


@pytest.mark.parametrize("error", OTHER, ids=repr)
def test_anything_else_is_a_bug(error: BaseException) -> None:
    assert judge(error).severity is Severity.OTHER
    assert judge(error).error.kind == "bug"
    assert judge(error).error.traceback


def test_a_chain_that_bites_its_tail_is_judged_too() -> None:
    first, second = RuntimeError("a"), TransientError("b")
    first.__cause__, second.__cause__ = second, first

    assert judge(first).is_transient


def test_errors_that_labwright_knows_keep_their_kind() -> None:
    assert judge(NotFoundError("no such thing")).error.kind == "not_found"
    assert judge(WaitTimeoutError("too long")).error.kind == "timeout"


def test_the_longest_pause_that_the_chain_asks_for_counts() -> None:
    error = caused(RuntimeError("wrapped"), caused(TransientError("a", 5), TransientError("b", retry_after=30)))

    assert judge(error).retry_after == 30


@pytest.mark.parametrize("pause", [None, math.nan, math.inf, -5, "soon"])
def test_a_pause_that_is_no_duration_is_left_to_the_policy(pause: object) -> None:
    assert judge(TransientError("busy", pause)).retry_after == 0  # pyright: ignore[reportArgumentType]


def test_the_record_says_what_was_behind_a_wrapped_error() -> None:
    record = judge(caused(RuntimeError("wrapped"), TransientError("the server is busy"))).error

    assert record.message == "RuntimeError: wrapped"
    assert "the server is busy" in record.because


def test_a_strange_exception_can_be_recorded() -> None:
    class Mute(Exception):  # noqa: N818 - a stranger's class
        def __str__(self) -> str:
            raise ValueError

    class BareError(TransientError):
        def __init__(self) -> None: ...  # pyright: ignore[reportMissingSuperCall]

    for error in (Mute(), BareError(), ValueError("half a pair: \ud800"), TransientError(ValueError("x"))):  # pyright: ignore[reportArgumentType]
        assert judge(error).error.model_dump_json()
