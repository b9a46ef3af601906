"""What all steps of one attempt share, and what is closed at its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from labwright.run.clients import Clients
from labwright.run.services import Services
from labwright.run.views import Named, RunInfo

if TYPE_CHECKING:
    import httpx

    from labwright.run.http_client import BlockingStepHttp, StepHttp


@dataclass(eq=False)
class Attempt:
    """What all steps of one attempt share; its clients are closed at the attempt's end."""

    run: RunInfo
    number: int
    params: Named
    outputs: Named
    services: Services
    clients: Clients
    _https: list[StepHttp | BlockingStepHttp] = field(default_factory=list["StepHttp | BlockingStepHttp"])

    def http(self) -> StepHttp:
        """Give the HTTP client of async steps."""
        from labwright.run.http_client import StepHttp, certificates, transport_of

        for client in self._https:
            if isinstance(client, StepHttp):
                return client
        transport = cast("httpx.AsyncBaseTransport | None", transport_of(self.services.http_transport))
        made = StepHttp(verify=certificates(), transport=transport)
        self._https.append(made)
        return made

    def blocking_http(self) -> BlockingStepHttp:
        """Give the HTTP client of blocking steps."""
        from labwright.run.http_client import BlockingStepHttp, certificates, transport_of

        for client in self._https:
            if isinstance(client, BlockingStepHttp):
                return client
        transport = cast("httpx.BaseTransport | None", transport_of(self.services.http_transport))
        made = BlockingStepHttp(verify=certificates(), transport=transport)
        self._https.append(made)
        return made

    async def close(self, patience: float, report: Callable[[str, BaseException], None]) -> None:
        """Close every client, the newest first; failures are reported, not raised."""
        await self.clients.close(patience, report)
        if not self._https:
            return
        from labwright.run.http_client import BlockingStepHttp

        while self._https:
            client = self._https.pop()
            try:
                if isinstance(client, BlockingStepHttp):
                    client.close()
                else:
                    await client.aclose()
            except Exception as error:  # noqa: BLE001 - a transport may raise anything; the run's end does not depend on it
                report("http", error)
