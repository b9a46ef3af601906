"""The clients of one attempt: made when a step first asks, closed in reverse order at the attempt's end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from labwright.core.errors import NotProvidedError
from labwright.core.model import Target
from labwright.plan.providers import Provider


@dataclass(eq=False)
class _Lent:
    """One client: a provider is entered and left in one task of its own, as some libraries demand."""

    ready: asyncio.Future[Any]
    leave: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Clients:
    """Lends each kind of client to all steps of one attempt."""

    def __init__(self, providers: Mapping[str, Provider], target: Target | None) -> None:
        self._providers = providers
        self._target = target
        self._lent: dict[str, _Lent] = {}

    async def get(self, kind: str) -> Any:
        """Give the client of a kind, made now if no step has asked before.

        Raises:
            NotProvidedError: the site has no provider of that kind.
        """
        lent = self._lent.get(kind) or self._open(kind)
        try:
            return await asyncio.shield(lent.ready)
        except BaseException:
            if lent.ready.done() and self._lent.get(kind) is lent and _has_failed(lent.ready):
                del self._lent[kind]  # the next step that asks tries again
            raise

    async def close(self, patience: float, report: Callable[[str, BaseException], None]) -> None:
        """Close all clients, the newest first, each within `patience` seconds; failures are reported, not raised."""
        while self._lent:
            kind, lent = self._lent.popitem()
            lent.leave.set()
            if lent.task is None:
                continue
            done, _ = await asyncio.wait({lent.task}, timeout=patience)
            if not done:
                lent.task.cancel()
                report(kind, TimeoutError(f"it was not closed after {patience:g} s"))
            elif not lent.task.cancelled() and (error := lent.task.exception()) is not None:
                report(kind, error)

    def _open(self, kind: str) -> _Lent:
        provider = self._providers.get(kind)
        if provider is None:
            raise not_provided(
                f"a client of kind {kind!r}", self._providers, f'@provides("{kind}")', f".with_client({kind!r}, ...)"
            )
        lent = _Lent(asyncio.get_running_loop().create_future())
        lent.task = asyncio.create_task(self._lend(provider, lent))
        self._lent[kind] = lent
        return lent

    async def _lend(self, provider: Provider, lent: _Lent) -> None:
        try:
            async with provider.open(self._target) as client:
                if not lent.ready.done():
                    lent.ready.set_result(client)
                await lent.leave.wait()
        except BaseException as error:
            if lent.ready.done():
                raise
            lent.ready.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))
            lent.ready.exception()  # seen, even if the step that asked is gone


def not_provided(what: str, known: Mapping[str, Any], cure: str, test_cure: str) -> NotProvidedError:
    """Make the error for something that a step asked for and nobody gave."""
    return NotProvidedError(
        f"{what} was not provided",
        because=f"provided are: {', '.join(known) or 'none'}",
        cure=f"provide it in the site: {cure}; in a test: FakeContext(){test_cure}",
    )


def _has_failed(future: asyncio.Future[Any]) -> bool:
    return not future.cancelled() and future.exception() is not None
