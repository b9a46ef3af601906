"""What stands before an agent's commands: who asks is read from the subject and judged, and a refusal is recorded."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping

from labwright.access.asker import Asker
from labwright.access.claim_watch import ClaimWatch
from labwright.access.claims import claim_on, refusal
from labwright.core.errors import ClaimedError, LabwrightError, NotAllowedError
from labwright.core.logs import get_logger
from labwright.core.model import ErrorRecord
from labwright.core.roles import Role
from labwright.journal.records import Record, Refused
from labwright.journal.session_fold import encoded

KNOWN_S = 2.0
"""How long a command waits for the journal to tell which claims are in force; it may be away."""
MOST_IN_A_MINUTE = 600
MINUTE_S = 60.0

log = get_logger(__name__)


class Guard:
    """Judges who may command one agent."""

    def __init__(
        self, agent: str, labels: Mapping[str, str], watch: ClaimWatch, post: Callable[[str, Record], None]
    ) -> None:
        self._agent = agent
        self._labels = labels
        self._watch = watch
        self._post = post
        self._noted = 0
        self._minute = 0.0

    async def ready(self) -> None:
        """Wait until it is known which claims are in force, a moment at most."""
        if not self._watch.is_known.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KNOWN_S):
                    await self._watch.is_known.wait()

    def may_start(self, asker: Asker, operation: str, role: Role) -> None:
        """Insist that who asks may start an operation here now.

        Raises:
            NotAllowedError: it needs another role.
            ClaimedError: somebody else has claimed this agent.
        """
        asker.needs(role, f"start {operation} on {self._agent}")
        if not (asker.is_proven and asker.role is Role.ADMIN):
            self._check_claim(asker)

    def may_end(self, asker: Asker) -> None:
        """Insist that who asks may stop or abort what runs here; with the lab's own credential everybody may.

        Raises:
            NotAllowedError: it needs another role.
            ClaimedError: somebody else has claimed this agent.
        """
        asker.needs(Role.OPERATOR, f"end what runs on {self._agent}")
        if asker.role is not Role.ADMIN:
            self._check_claim(asker)

    def _check_claim(self, asker: Asker) -> None:
        now = time.monotonic()
        claim = claim_on(self._watch.claims, self._agent, self._labels, now)
        if claim is not None and claim.entry.by != asker.name:
            raise refusal(claim, self._agent, now)

    def note(self, error: LabwrightError, asker: Asker, what: str, origin: str) -> None:
        """Record that somebody was refused; more than so many in a minute are only logged."""
        if not isinstance(error, NotAllowedError | ClaimedError):
            return
        now = time.monotonic()
        if now - self._minute > MINUTE_S:
            self._minute, self._noted = now, 0
        self._noted += 1
        log.warning("refused", by=str(asker), what=what, because=error.message)
        if self._noted > MOST_IN_A_MINUTE:
            return
        record = Refused(
            what=what,
            by=asker.name,
            role=asker.role if asker.is_proven else "",
            origin=origin,
            agent=self._agent,
            error=ErrorRecord.of(error),
        )
        try:
            self._post(f"audit.agent.{encoded(self._agent)}.{record.record_id}", record)
        except LabwrightError as failure:
            log.error("a refusal was not recorded", because=failure.because)  # noqa: TRY400 - said, not traced
