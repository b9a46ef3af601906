"""The words of data collections: how events, zocalo messages and ISPyB rows say the same facts.

The facts and their values are those listed in the reference of facts: `phase`, `experiment_type` in snake case,
`data_collection_class`, `run_status`, `detector_class`, `sweeps` and so on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from labwright.core.model import Event

PREFIX = "data_collection."
PHASES = ("start", "end", "start_group", "end_group")
CLASSES = (
    "serial_fixed",
    "serial_jet",
    "grid",
    "characterization",
    "screening",
    "diamond_anvil_cell",
    "rotation",
)
"""The classes of data collections, the ones that count first when several apply first."""

CLASS_NAMES = {**{name: name for name in CLASSES}, "gridscan": "grid", "screen": "screening"}
MESSAGE_FIELDS = ("dcid", "event", "beamline", "experimenttype")
TYPE_CLASSES = {
    "serial_fixed": "serial_fixed",
    "serial_jet": "serial_jet",
    "characterization": "characterization",
    "diamond_anvil_high_pressure": "diamond_anvil_cell",
}
CELL_LENGTH = 6
SWEEP_LENGTH = 3


def event_facts(event: Event) -> Mapping[str, Any]:
    """Tell what the event of a data collection says by itself: `phase` from its type, `dcid` from its subject."""
    if not event.type.startswith(PREFIX):
        return {}
    facts: dict[str, Any] = {}
    phase = event.type.removeprefix(PREFIX)
    if phase in PHASES:
        facts["phase"] = phase
    if (dcid := whole_number(event.subject)) is not None:
        facts["dcid"] = dcid
    return facts


def message_facts(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Say the fields of a published Mimas message in our words; what cannot be read stays as it is."""
    facts = dict(data)
    for field, (fact, read) in READERS.items():
        if data.get(field) is not None:
            value = read(data[field])
            facts[fact] = data[field] if value is None else value
    return facts


def is_message(data: object) -> bool:
    """Tell whether the data of an event are a whole published Mimas message, so that nothing need be looked up."""
    return isinstance(data, Mapping) and all(field in data for field in MESSAGE_FIELDS)


def dcid_of(event: Event) -> int | None:
    """Tell which data collection an event is about: the `dcid` in its data, else its subject."""
    data: object = event.data
    given = cast("Mapping[str, object]", data).get("dcid") if isinstance(data, Mapping) else None
    return whole_number(event.subject if given is None else given)


def whole_number(value: object) -> int | None:
    """Read an id: an int, or ASCII digits as zocalo's messages write it; anything else is None."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
        return int(value)
    return None


def snake_case(value: object) -> str | None:
    """Write the name of an experiment type as a fact.

    >>> snake_case("SAD - Inverse Beam")
    'sad_inverse_beam'
    """
    return re.sub(r"[^a-z0-9]+", "_", value.lower()).strip("_") or None if isinstance(value, str) else None


def run_status(value: object) -> str | None:
    """Read ISPyB's free text for the status of a run."""
    if not isinstance(value, str):
        return None
    text = value.lower()
    return "success" if "success" in text else "failure" if "fail" in text else "unknown"


def detector_class(value: object) -> str | None:
    """Find the kind of detector in a name or model."""
    text = value.lower() if isinstance(value, str) else ""
    return next((name for name in ("eiger", "pilatus") if name in text), None)


def class_of_flags(flags: object) -> str | None:
    """Read a `dc_class`: a name, or flags such as `{"grid": ..., "screen": ...}` of which any may be absent.

    Texts such as "None" and "false", which YAML and templates leave behind, count as not set.
    """
    if isinstance(flags, str):
        return CLASS_NAMES.get(snake_case(flags) or "")
    if not isinstance(flags, Mapping):
        return None
    given = cast("Mapping[object, object]", flags).items()
    named = {CLASS_NAMES.get(snake_case(name) or "") for name, value in given if _is_set(value)}
    return next((name for name in CLASSES if name in named), None)


def classify(
    experiment_type: str | None, *, has_grid: bool, images: int | None, overlap: float | None, axis_range: float | None
) -> str | None:
    """Tell the class of a data collection from what ISPyB records of it.

    One image, or several with any overlap but zero (real screenings have a negative one), is a screening; no overlap
    and a range over zero is a rotation.
    """
    named = TYPE_CLASSES.get(experiment_type or "")
    is_serial = named in {"serial_fixed", "serial_jet"}
    found = {
        named,
        "grid" if has_grid else None,
        "screening" if not is_serial and (images == 1 or ((images or 0) > 1 and overlap)) else None,
        "rotation" if overlap == 0 and (axis_range or 0) > 0 else None,
    }
    return next((name for name in CLASSES if name in found), None)


def sweeps(value: object) -> list[dict[str, int]] | None:
    """Read a list of sweeps, each `[dcid, start, end]` or a mapping of these."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return None
    read = [_sweep(entry) for entry in cast("Sequence[object]", value)]
    return None if None in read else cast("list[dict[str, int]]", read)


def unit_cell(value: object) -> list[float] | None:
    """Read a unit cell: six numbers, or texts of numbers; nothing when any of them is not there."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(cast("Sequence[object]", value)) != CELL_LENGTH:
        return None
    try:
        return [float(number) for number in cast("Iterable[Any]", value)]
    except (TypeError, ValueError):
        return None


def _phase(value: object) -> str | None:
    phase = snake_case(value)
    return phase if phase in PHASES else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _sweep(entry: object) -> dict[str, int] | None:
    if isinstance(entry, Mapping):
        mapping = cast("Mapping[str, object]", entry)
        entry = [mapping.get(name) for name in ("dcid", "start", "end")]
    if (
        not isinstance(entry, Sequence)
        or isinstance(entry, str)
        or len(cast("Sequence[object]", entry)) != SWEEP_LENGTH
    ):
        return None
    dcid, start, end = (whole_number(number) for number in cast("Sequence[object]", entry))
    if dcid is None or start is None or end is None:
        return None
    return {"dcid": dcid, "start": start, "end": end}


def _is_set(value: object) -> bool:
    return (
        value.strip().lower() not in {"", "none", "null", "false", "0", "no"} if isinstance(value, str) else bool(value)
    )


READERS: Mapping[str, tuple[str, Callable[[object], Any]]] = {
    "dcid": ("dcid", whole_number),
    "event": ("phase", _phase),
    "experimenttype": ("experiment_type", snake_case),
    "detectorclass": ("detector_class", detector_class),
    "run_status": ("run_status", run_status),
    "sweep_list": ("sweeps", sweeps),
    "unit_cell": ("unit_cell", unit_cell),
    "dc_class": ("data_collection_class", class_of_flags),
    "proposalcode": ("proposal_code", _text),
}
"""For each field of a message the fact that it tells, and how to read it."""
