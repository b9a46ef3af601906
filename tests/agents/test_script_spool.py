"""The spool: any bytes survive, a torn end is ignored, and lines are the lines that were written."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labwright.agents.lines import PIECE_BYTES, LineCutter, pieces
from labwright.agents.script_output import Line, items_of
from labwright.agents.spool import LAST, Kind, Record, SpoolWriter, frame_of, framed, read_record

payloads = st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=300), st.sampled_from([0, LAST])), max_size=12)
chunks = st.lists(
    st.one_of(
        st.binary(max_size=60),
        st.text(max_size=40).map(str.encode),
        st.integers(1, 3 * PIECE_BYTES).map(lambda count: "é{".encode() * count),
    ),
    max_size=8,
)


def records_in(path: Path) -> list[Record]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        found: list[Record] = []
        while (record := read_record(descriptor, found[-1].end if found else 0)) is not None:
            found.append(record)
        return found
    finally:
        os.close(descriptor)


def spooled(path: Path, contents: list[tuple[Kind, bytes, int]]) -> None:
    writer = SpoolWriter(str(path))
    for number, (kind, payload, flags) in enumerate(contents):
        assert writer.append(framed(kind, payload, float(number), flags))
    writer.sync()


@given(contents=payloads)
def test_any_bytes_survive(contents: list[tuple[Kind, bytes, int]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "spool"
        spooled(path, contents)
        read = [(record.kind, record.payload, record.flags) for record in records_in(path)]
        assert read == contents


@given(contents=payloads, data=st.data())
def test_a_torn_end_is_ignored_and_what_stands_before_it_is_whole(
    contents: list[tuple[Kind, bytes, int]], data: st.DataObject
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "spool"
        spooled(path, contents)
        size = path.stat().st_size
        cut = data.draw(st.integers(0, size))
        garbage = data.draw(st.binary(max_size=40))
        os.truncate(path, cut)
        ends = [record.end for record in records_in(path)]
        assert len(ends) == len([end for end in ends if end <= cut])
        before = records_in(path)
        with path.open("ab") as spool:
            spool.write(garbage)
        assert records_in(path)[: len(before)] == before
        if cut < size and cut not in {0, *ends}:
            assert len(before) < len(contents)


@given(contents=payloads, data=st.data())
def test_the_frame_of_a_position_is_the_one_around_it(
    contents: list[tuple[Kind, bytes, int]], data: st.DataObject
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "spool"
        spooled(path, contents)
        ends = [0, *(record.end for record in records_in(path))]
        position = data.draw(st.integers(0, ends[-1]))
        descriptor = os.open(path, os.O_RDONLY)
        try:
            assert frame_of(descriptor, position) == max(end for end in ends if end <= position)
        finally:
            os.close(descriptor)


@settings(deadline=None)
@given(written=chunks)
def test_lines_are_those_that_were_written_however_they_came(written: list[bytes]) -> None:
    cutter = LineCutter()
    blocks = [cutter.feed(chunk) for chunk in written]
    items: list[Line] = []
    for block, is_last in [*((block, False) for block in blocks), (cutter.rest(), True)]:
        record = Record(Kind.OUT, LAST if is_last else 0, 0.0, block, 0, len(block))
        items += [item for item in items_of(record) if isinstance(item, Line)]
    text = b"".join(written).decode("utf-8", "backslashreplace")
    joined = "".join(item.text + ("" if item.is_continued else "\n") for item in items)
    whole = text if not text or text.endswith("\n") else text + "\n"
    assert joined == whole.replace("\r\n", "\n")


@given(block=st.binary(max_size=200), is_last=st.booleans())
def test_pieces_cover_a_block_without_a_gap(block: bytes, is_last: bool) -> None:
    start = 0
    for piece in pieces(block, is_last=is_last):
        assert block[start : piece.end].removesuffix(b"\n") == piece.data
        start = piece.end
    assert start == len(block)


def test_what_finds_no_room_waits_and_is_written_when_there_is_some(tmp_path: Path) -> None:
    import resource

    writer = SpoolWriter(str(tmp_path / "spool"))
    assert writer.append(framed(Kind.OUT, b"before\n", 0))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        writer.keep(framed(Kind.MESSAGE, b"{}" * 100, 1))
        assert not writer.append(framed(Kind.OUT, b"dropped\n", 2))
        assert writer.is_waiting
        assert [record.payload for record in records_in(tmp_path / "spool")] == [b"before\n"]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert writer.append(framed(Kind.OUT, b"after\n", 3))
    writer.sync()
    kinds = [record.kind for record in records_in(tmp_path / "spool")]
    assert kinds == [Kind.OUT, Kind.MESSAGE, Kind.OUT]


@pytest.mark.parametrize("position", [0, 5, 15, 18, 25])
def test_a_changed_byte_is_noticed(tmp_path: Path, position: int) -> None:
    path = tmp_path / "spool"
    spooled(path, [(Kind.OUT, b"some words\n", 0)])
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    assert records_in(path) == []
