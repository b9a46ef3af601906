"""The HTTP client of a step: httpx, whose failures to connect or to answer in time are errors that may pass.

Imported when a step first asks for it, because httpx is heavy.
"""

from __future__ import annotations

import contextlib
import functools
import ssl
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any, cast

import httpx

from labwright.core.errors import TransientError

PASSING = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError, httpx.ProxyError)
"""What may pass by itself; a wrong address or protocol does not."""


@functools.cache
def certificates() -> ssl.SSLContext:
    """Load the trusted certificates, once: it takes longer than most steps."""
    return httpx.create_ssl_context()


class StepHttp(httpx.AsyncClient):
    """`ctx.http` of an async step."""

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request; what may pass becomes a `TransientError`, also while a streamed answer is read."""
        with _as_transient(request):
            response = await super().send(request, **options)
        if options.get("stream"):
            response.stream = _AsyncStream(cast("httpx.AsyncByteStream", response.stream), request)
        return response


class BlockingStepHttp(httpx.Client):
    """`ctx.http` of a blocking step."""

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request; what may pass becomes a `TransientError`, also while a streamed answer is read."""
        with _as_transient(request):
            response = super().send(request, **options)
        if options.get("stream"):
            response.stream = _Stream(cast("httpx.SyncByteStream", response.stream), request)
        return response


def transport_of(handler: Any) -> httpx.AsyncBaseTransport | httpx.BaseTransport | None:
    """Make a transport of what a test gives: a transport, or a function from request to response."""
    if handler is None or isinstance(handler, httpx.AsyncBaseTransport | httpx.BaseTransport):
        return handler
    return httpx.MockTransport(handler)


class _AsyncStream(httpx.AsyncByteStream):
    def __init__(self, inner: httpx.AsyncByteStream, request: httpx.Request) -> None:
        self._inner = inner
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_transient(self._request):
            async for chunk in self._inner:
                yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Stream(httpx.SyncByteStream):
    def __init__(self, inner: httpx.SyncByteStream, request: httpx.Request) -> None:
        self._inner = inner
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        with _as_transient(self._request):
            yield from self._inner

    def close(self) -> None:
        self._inner.close()


@contextlib.contextmanager
def _as_transient(request: httpx.Request) -> Generator[None]:
    try:
        yield
    except PASSING as error:
        raise TransientError(
            f"{request.method} {request.url} got no answer",
            because=f"{type(error).__name__}: {error}",
            cure="see whether that host is up; the run is tried again by itself",
        ) from error
