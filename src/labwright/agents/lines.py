"""Output cut into lines, whatever the bytes: a line that is too long goes on in pieces, never inside a character."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

PIECE_BYTES = 16 * 1024


class Piece(NamedTuple):
    """A line without its end, or a part of one (`is_continued`); it takes the block's bytes up to `end`."""

    data: bytes
    is_continued: bool
    end: int


class LineCutter:
    """Holds back the line that has not ended yet, up to the length of a piece."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """Add what was read; give the block that may go on: whole lines, and whole pieces of a long one."""
        block = self._rest + data
        end = block.rfind(b"\n") + 1
        while len(block) - end > PIECE_BYTES:
            end = whole_characters(block, end + PIECE_BYTES)
        self._rest = block[end:]
        return block[:end]

    def rest(self) -> bytes:
        """Give the line that never ended."""
        rest, self._rest = self._rest, b""
        return rest


def pieces(block: bytes, *, is_last: bool) -> Iterator[Piece]:
    """Cut a block into its lines; the one without an end is continued unless it is the stream's last."""
    start = 0
    while start < len(block):
        found = block.find(b"\n", start)
        end = found if found >= 0 else len(block)
        while end - start > PIECE_BYTES:
            cut = whole_characters(block, start + PIECE_BYTES)
            yield Piece(block[start:cut], is_continued=True, end=cut)
            start = cut
        after = end + (found >= 0)
        yield Piece(block[start:end], is_continued=found < 0 and not is_last, end=after)
        start = after


def whole_characters(data: bytes, end: int) -> int:
    """Give the place at or shortly before `end` where no character of UTF-8 is cut in two."""
    for back in range(1, 4):
        byte = data[end - back]
        if byte < 0x80:  # noqa: PLR2004 - below stands ASCII
            return end
        if byte >= 0xC0:  # noqa: PLR2004 - the first byte of a character, which tells its length
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4  # noqa: PLR2004
            return end - back if length > back else end
    return end
