"""Whom a selector may choose: the site's targets and the agents that are here, as one; and who makes up a fleet."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from labwright.access.claims import labels_of
from labwright.core.errors import ConflictError, NotFoundError
from labwright.core.model import Target
from labwright.core.selectors import parse_selector, select

MOST_NAMED = 20
IDENTITY = "stream_id"
"""The label of which no two members of a fleet may have the same: it names the hardware behind them."""


def members(targets: Mapping[str, Target], agents: Mapping[str, Mapping[str, Any]]) -> dict[str, Target]:
    """Put targets and agents together by name; where both have a label, what the agent says of itself counts.

    `agents` are as they announce themselves; the label `class` is an agent's class.
    """
    here = {name: _of_agent(name, said, targets.get(name)) for name, said in agents.items()}
    return {**targets, **here}


def _of_agent(name: str, said: Mapping[str, Any], target: Target | None) -> Target:
    known = target or Target(name=name)
    return known.model_copy(update={"labels": {**known.labels, **labels_of(said)}})


def chosen(selector: str, known: Mapping[str, Target], here: Iterable[str] = ()) -> tuple[str, ...]:
    """Name whom a selector chooses for a fleet, sorted.

    A name that stands in the selector as it is must be known, so that a slip of the pen is no smaller fleet. `here`
    are the agents that are here, for what is said where nobody is chosen.

    Raises:
        SelectorError: it cannot be read.
        NotFoundError: it chooses nobody, or names somebody who is not known.
        ConflictError: two of the chosen say that they are the same hardware.
    """
    unknown = sorted(parse_selector(selector).names - known.keys())
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=1, cutoff=0.5)
        raise NotFoundError(
            f"there is neither an agent nor a target {unknown[0]!r}",
            because=_known(known),
            cure=f"did you mean {near[0]!r}?" if near else "see labwright agents list, and labwright targets list",
        )
    found = select(selector, known.values())
    if not found:
        names = sorted(parse_selector(selector).names)
        raise NotFoundError(
            f"nobody is chosen by {selector}",
            because=_known(known) + ("" if set(here) else "; no agent is here"),
            cure=f"a comma means both at once; for either write {'|'.join(names)}"
            if len(names) > 1
            else "see names and labels: labwright agents list, and labwright targets list",
        )
    _check_identities(found)
    return tuple(target.name for target in found)


def _check_identities(found: Iterable[Target]) -> None:
    names: dict[str, str] = {}
    for target in found:
        identity = target.labels.get(IDENTITY)
        if identity is None:
            continue
        if identity in names:
            raise ConflictError(
                f"{names[identity]} and {target.name} have the same {IDENTITY}, {identity}",
                because="one piece of hardware would be commanded twice",
                cure=f"end one of them, or choose one by its name: {names[identity]}",
            )
        names[identity] = target.name


def _known(known: Mapping[str, Target]) -> str:
    names = sorted(known)
    more = f", and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"known are: {', '.join(names[:MOST_NAMED])}{more}" if names else "no target and no agent is known"
