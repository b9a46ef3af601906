"""What is known of a stream_id before the hardware is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from labwright.instruments.pysmurf.stream_id import configured_stream_id, simulated_stream_id

BOTH = 'slots: {"SLOT[2]": {stream_id: crate9slot2}, "SLOT[3]": {stream_id: ufm_mv5}}'


@pytest.mark.parametrize(
    ("text", "slot", "known"),
    [
        (BOTH, 2, "crate9slot2"),
        (BOTH, 3, "ufm_mv5"),
        (BOTH, 4, None),
        (BOTH, None, None),
        ('slots: {"SLOT[2]": {stream_id: only}}', None, "only"),
        ("slots: [1, 2]", 2, None),
        ("slots: {", 2, None),
        ("- nothing", 2, None),
        ('slots: {"SLOT[2]": 5}', 2, None),
        ('slots: {"SLOT[2]": {stream_id: 7}}', 2, None),
    ],
)
def test_the_configuration_of_the_system_names_the_stream_of_a_slot(
    tmp_path: Path, text: str, slot: int | None, known: str | None
) -> None:
    (tmp_path / "sys_config.yml").write_text(text)

    assert configured_stream_id(slot, {"OCS_CONFIG_DIR": str(tmp_path)}) == known


def test_the_slot_may_stand_in_the_environment(tmp_path: Path) -> None:
    (tmp_path / "sys_config.yml").write_text(BOTH)

    assert configured_stream_id(None, {"OCS_CONFIG_DIR": str(tmp_path), "SLOT": "3"}) == "ufm_mv5"
    assert configured_stream_id(3, {"OCS_CONFIG_DIR": str(tmp_path / "elsewhere")}) is None
    assert configured_stream_id(3, {}) is None


def test_a_simulated_card_is_named_after_its_place() -> None:
    assert simulated_stream_id(2, {}, {}) == "crate1slot2"
    assert simulated_stream_id(None, {}, {"SLOT": "4"}) == "crate1slot4"
    assert simulated_stream_id(2, {"crate": "7", "slot": "5"}, {}) == "crate7slot5"
    assert simulated_stream_id(None, {}, {}) is None
    assert simulated_stream_id(2, {"crate": "../x"}, {}) is None
