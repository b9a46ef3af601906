"""Targets from a file and from a site's functions: labels become text, and every finding is told at once."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from labwright.core.errors import NotFoundError, SiteError, TerminalError, UsageError
from labwright.core.model import Target
from labwright.facts.targets import load_targets, target_source


def load(tmp_path: Path, text: str) -> dict[str, Target]:
    path = tmp_path / "targets.yaml"
    path.write_text(text)
    return load_targets(path)


def test_targets_are_known_by_name_and_their_labels_are_text(tmp_path: Path) -> None:
    targets = load(
        tmp_path,
        """
- name: pump-1
  labels: {crate: 1, spare: true, gain: 1.5, env: prod}
  facts: {url: http://pump-1, ports: [1, 2], limit: .nan}
- name: pump-2
  labels:
""",
    )

    assert list(targets) == ["pump-1", "pump-2"]
    assert targets["pump-1"].labels == {"crate": "1", "spare": "true", "gain": "1.5", "env": "prod"}
    assert targets["pump-1"].facts == {"url": "http://pump-1", "ports": [1, 2], "limit": {"$float": "nan"}}
    assert targets["pump-2"] == Target(name="pump-2")


def test_an_absent_or_empty_file_has_no_targets_unless_it_was_named(tmp_path: Path) -> None:
    assert load_targets(tmp_path / "targets.yaml") == {}
    assert load(tmp_path, "") == {}
    with pytest.raises(NotFoundError):
        load_targets(tmp_path / "other.yaml", is_required=True)


def test_every_finding_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(SiteError) as raised:
        load(
            tmp_path,
            """
- name: good
- labels: {crate: 1}
- name: two words
- name: all
- name: good
- name: c
  lables: {crate: 1}
- name: d
  labels: [crate]
- name: e
  labels: {crate: [1], slot: , name: other}
- just text
- name: f
  facts: 5
""",
        )

    told = "\n".join(raised.value.findings)
    assert len(raised.value.findings) == 11
    for part in (
        "target 2: it has no name",
        "target 3 (two words): 'two words' cannot name a target",
        "target 4 (all): 'all' cannot name a target",
        "target 5 (good): another target has this name",
        "target 6 (c): the key 'lables' is not known; did you mean 'labels'?",
        "target 7 (d): labels is no mapping",
        "target 8 (e): the label 'crate' is [1]",
        "target 8 (e): the label 'slot' is None",
        "target 8 (e): the label 'name' is the target's name",
        "target 9: 'just text' is no mapping with a name",
        "target 10 (f): facts is no mapping",
    ):
        assert part in told
    assert "(and 10 more)" in raised.value.message


def test_a_file_that_is_no_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SiteError, match="no list of targets"):
        load(tmp_path, "pump-1: {labels: {}}")


@target_source
def from_database() -> Iterable[Any]:
    """List what the database knows."""
    return [Target(name="a", labels={"x": "1"}), {"name": "b", "labels": {"x": 2}}]


@target_source
async def from_network() -> Iterable[Any]:
    return [{"name": "c"}]


async def test_a_site_lists_targets_by_function() -> None:
    targets = await from_database.targets()

    assert {name: target.labels for name, target in targets.items()} == {"a": {"x": "1"}, "b": {"x": "2"}}
    assert from_database.name == f"{__name__}:from_database"
    assert from_database.doc == "List what the database knows."
    assert list(await from_network.targets()) == ["c"]


@pytest.mark.parametrize(
    ("found", "error"), [(5, TerminalError), ({"a": 1}, TerminalError), ([{"name": "a b"}], SiteError)]
)
async def test_what_a_function_lists_is_checked(found: Any, error: type[Exception]) -> None:
    @target_source
    def odd() -> Any:
        return found

    with pytest.raises(error, match="odd"):
        await odd.targets()


def test_a_source_says_how_often_it_is_asked() -> None:
    @target_source(every=5)
    def often() -> Iterable[Any]:
        return []

    assert (from_database.every, often.every) == (60, 5)
    with pytest.raises(UsageError, match="every 0"):
        target_source(every=0)


def test_only_a_function_can_be_a_source_of_targets() -> None:
    with pytest.raises(UsageError):
        target_source([])  # type: ignore[arg-type]
