"""Texts in which facts of the target stand in braces, so that one step serves a whole fleet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from labwright.core.errors import UsageError
from labwright.run.context import BlockingContext, TaskContext

Context = TaskContext | BlockingContext

MOST_PORT = 65_535


class _Known(Mapping[str, Any]):
    """What may stand in braces: the task's parameters, the target's `name`, and its facts."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    def __getitem__(self, name: str) -> Any:
        if name in self._ctx.params:
            return self._ctx.params[name]
        return self._ctx.target.name if name == "name" else self._ctx.target[name]

    def __iter__(self) -> Iterator[str]:
        yield from (*self._ctx.params, "name", *self._ctx.target)

    def __len__(self) -> int:
        return len(list(iter(self)))


def filled(ctx: Context, text: str) -> str:
    """Put the task's parameters and the target's facts in place of the names in braces; `{name}` is the target's name.

    Raises:
        NotProvidedError: the target has no such fact, or the run has no target.
        UsageError: the braces cannot be read.
    """
    try:
        return text.format_map(_Known(ctx))
    except (ValueError, IndexError) as error:
        raise UsageError(
            f"{text!r} cannot be filled in",
            because=str(error),
            cure='write facts of the target in braces: "{url}/healthz"; double a brace that is meant as such',
        ) from error


def address_of(ctx: Context, text: str) -> tuple[str, int]:
    """Fill in and read an address: `HOST:PORT`, with an IPv6 address in square brackets.

    Raises:
        NotProvidedError: the target has no such fact.
        UsageError: it is no address.
    """
    place = filled(ctx, text)
    host, _, port = place.rpartition(":")
    if not host.strip("[]") or not port.isascii() or not port.isdigit() or not 0 < int(port) <= MOST_PORT:
        raise UsageError(f"{place!r} is no address", because="an address is HOST:PORT", cure='"{host}:443"')
    return host.strip("[]"), int(port)
