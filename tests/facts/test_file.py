"""Facts from a file: what is found, when it is reread, and how errors point at the line."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from labwright.core.errors import NotFoundError, SiteError
from labwright.core.model import Event
from labwright.facts.file import FileFacts


def event(**fields: Any) -> Event:
    return Event(id="1", source="test", type="a", time=datetime(2026, 1, 1, tzinfo=UTC), **fields)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


async def test_a_subject_is_found_in_yaml_even_where_it_is_a_number(tmp_path: Path) -> None:
    facts = FileFacts(write(tmp_path / "facts.yaml", "993677: {beamline: i03, images: 5}\nempty:\n"))

    assert await facts.facts(event(subject="993677")) == {"beamline": "i03", "images": 5}
    assert await facts.facts(event(data={"dcid": 993677})) == {"beamline": "i03", "images": 5}
    assert await facts.facts(event(subject="empty")) == {}
    assert await facts.facts(event(subject="unknown")) == {}
    assert await facts.facts(event()) == {}


async def test_json_is_read_too(tmp_path: Path) -> None:
    facts = FileFacts(write(tmp_path / "facts.json", '{"a":\t{"x": [1, null]}}'))

    assert await facts.facts(event(subject="a")) == {"x": [1, None]}


async def test_an_absent_file_is_empty_until_it_appears(tmp_path: Path) -> None:
    facts = FileFacts(tmp_path / "facts.yaml")
    assert await facts.facts(event(subject="a")) == {}

    write(tmp_path / "facts.yaml", "a: {x: 1}")

    assert await facts.facts(event(subject="a")) == {"x": 1}


async def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"facts\.yaml"):
        await FileFacts(tmp_path / "facts.yaml", is_required=True).facts(event(subject="a"))


async def test_a_changed_file_is_reread_and_an_unchanged_one_is_not(tmp_path: Path) -> None:
    path = write(tmp_path / "facts.yaml", "a: {x: 1}")
    facts = FileFacts(path)
    assert facts.all() is facts.all()

    write(path, "a: {x: 2}")
    os.utime(path, ns=(1, 1))

    assert await facts.facts(event(subject="a")) == {"x": 2}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("f.yaml", "a:\n  x: 1\n  y: [1, 2\nb: 3\n", "line 4"),
        ("f.yaml", "a: {x: 1}\na: {x: 2}\n", r"line 2, column 1: the key 'a' stands twice"),
        ("f.yaml", "a: {x: 1, x: 2}\n", r"line 1, column 11: the key 'x' stands twice"),
        ("f.yaml", "- a\n- b\n", "no mapping of subjects"),
        ("f.yaml", "a: 5\n", "subject 'a': its facts are no mapping"),
        ("f.yaml", "a: !!python/object:os.system {}\n", "line 1"),
        ("f.yaml", "{[a]: 1}: 2\n", r"f\.yaml"),
        ("f.json", '{"a": {\n"x": }}', "line 2, column 6"),
        ("f.json", '{"a": {}, "a": {}}', "'a' stands twice"),
    ],
)
def test_an_error_in_the_file_names_the_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(SiteError, match=message) as raised:
        FileFacts(write(tmp_path / name, text)).all()

    assert raised.value.cure


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(SiteError, match="cannot be read"):
        FileFacts(tmp_path / "f.yaml").all()
