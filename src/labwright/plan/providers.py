"""Providers: a site's functions that make a client for a target, so that no step builds its own."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from labwright.core.errors import UsageError
from labwright.core.ids import checked_name
from labwright.core.model import Target

ProviderFunction = Callable[[Any], AsyncGenerator[Any]]
"""An async generator function: a target in (None for a run without one), one client out, then it cleans up."""


@dataclass(frozen=True, eq=False)
class Provider:
    """Makes the client that steps get with `ctx.client(kind)`."""

    kind: str
    function: ProviderFunction

    def open(self, target: Target | None) -> AbstractAsyncContextManager[Any]:
        """Make the client for the time of a `with` block."""
        return asynccontextmanager(self.function)(target)


def provides(kind: str) -> Callable[[ProviderFunction], Provider]:
    """Make an async generator function the provider of clients of that kind.

    It is entered at most once in an attempt, when the first step asks, and closed at the attempt's end.

    >>> @provides("kubernetes")
    ... async def kubernetes(target):
    ...     yield f"client for {target.name}"
    >>> kubernetes.kind
    'kubernetes'

    Raises:
        UsageError: the function is no async generator function.
    """
    checked_name(kind, "kind of client")

    def make(function: ProviderFunction) -> Provider:
        if not inspect.isasyncgenfunction(function):
            raise UsageError(
                f"{function!r} cannot provide {kind!r}",
                because="a provider is an async generator function: it yields one client, then cleans up",
                cure="write `async def name(target):` with one `yield client` in it",
            )
        return Provider(kind, function)

    return make
