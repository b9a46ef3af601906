"""What a server and its site process say to each other."""

from __future__ import annotations

from typing import Any

from labwright.core.errors import FactMissingError, SelectorError, SiteError, TransientError
from labwright.run.site_wire import Board, FrameReader, SiteCodeError, error_from_wire, error_to_wire, frame


def test_frames_are_read_however_they_are_cut() -> None:
    messages: list[Any] = [{"a": 1}, [], "x" * 1000, None]
    data = b"".join(map(frame, messages))
    for size in (1, 3, 7, 1000, len(data)):
        reader = FrameReader()
        chunks = [data[start : start + size] for start in range(0, len(data), size)]
        assert [message for chunk in chunks for message in reader.feed(chunk)] == messages


def test_errors_cross_the_pipe_with_all_that_they_carry() -> None:
    for error in (
        TransientError("a", 3.5, because="b", cure="c"),
        SelectorError("a", position=4),
        SiteError("a", findings=("x", "y")),
        FactMissingError("dcid", ("x",)),
    ):
        again = error_from_wire(error_to_wire(error))
        assert type(again) is type(error)
        assert vars(again) == vars(error)
    stranger = error_from_wire(error_to_wire(ValueError("odd")))
    assert isinstance(stranger, SiteCodeError)
    assert "ValueError: odd" in stranger.message


def test_a_board_is_read_by_whoever_shares_its_file() -> None:
    board = Board.make()
    other = Board(board.file)

    before = board.enter(7)

    assert before == 0
    assert other.read() == (1, 7)
    board.enter(before)
    assert other.read() == (2, 0)
    board.close()
