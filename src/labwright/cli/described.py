"""What a site has, for `tasks`, `rules` and `targets`: as the running lab has it loaded, or else as its files say."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from labwright.cli.caller import Caller
from labwright.core.errors import NotFoundError, UnreachableError

if TYPE_CHECKING:
    from labwright.run.site_description import SiteDescription

MOST_NAMED = 20


def described(caller: Caller) -> dict[str, Any]:
    """Describe the site.

    Raises:
        SiteError: no lab runs, and the files cannot be loaded.
    """
    try:
        return caller.ask("site")
    except UnreachableError:
        caller.output.talk("no lab is running here: this is what the site's files say")
        return loaded(caller).model_dump(mode="json", by_alias=True)


def loaded(caller: Caller) -> SiteDescription:
    """Load the site in a process of its own and describe it.

    Raises:
        SiteError: it cannot be loaded; the findings say why.
    """
    caller.output.shield()
    return caller.run(_loaded(caller))


async def _loaded(caller: Caller) -> SiteDescription:
    from labwright.run.engine import DIALECTS
    from labwright.run.site_host import SiteHost

    async with SiteHost(caller.settings(), dialects=DIALECTS) as site:
        return site.description


def named(items: Sequence[dict[str, Any]], name: str, kind: str) -> dict[str, Any]:
    """Give the one of that name.

    Raises:
        NotFoundError: there is none; it names the nearest.
    """
    names = [item["name"] for item in items]
    for item in items:
        if item["name"] == name:
            return item
    nearest = nearest_of(name, names)
    raise NotFoundError(
        f"there is no {kind} {name!r}",
        because=f"there are {len(names)}: {', '.join(sorted(names)[:MOST_NAMED])}" if names else "there is none at all",
        cure=f"did you mean {nearest!r}?" if nearest else f"see labwright {kind}s list",
    )


def nearest_of(name: str, names: Iterable[str]) -> str | None:
    """Give the name that is most like one that does not exist."""
    return next(iter(difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)), None)


def first_line(text: str) -> str:
    """Give the first line of a docstring."""
    return text.strip().partition("\n")[0]
