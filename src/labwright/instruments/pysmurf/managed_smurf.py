"""The controllers that a manager knows: who they are, what they can do, and what they do now. No I/O."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from labwright.agents.following import shown_lost
from labwright.core.errors import ConflictError, NotFoundError, UsageError
from labwright.core.model import SessionSnapshot
from labwright.instruments.pysmurf.shown_session import shown

STREAM_ID = "stream_id"
"""The label that names the hardware behind a controller, and what `check_state` calls the same."""
STATE = "check_state"
FORGOTTEN_S = 86_400.0
"""A controller that has been away for so long is not known any more."""
MOST_NAMED = 20


@dataclass(kw_only=True)
class ManagedSmurfInstance:
    """One controller, as the manager knows it.

    Attributes:
        address: the name of its agent.
        stream_id: its label `stream_id`, or without one what its `check_state` says; None while neither is known.
        last_refresh: when it last said that it is here, in seconds since the epoch.
        expired: whether it is away: it said farewell, or has not said for 2 s that it is here.
        sessions: the newest session of each of its operations that has run.
    """

    address: str
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    last_refresh: float = 0.0
    expired: bool = True
    sessions: dict[str, SessionSnapshot] = field(default_factory=dict[str, SessionSnapshot])
    operations: Sequence[Mapping[str, Any]] = ()
    """What it can do, as it describes itself."""
    found_stream_id: str | None = None
    """What `check_state` has said."""
    _shown: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])

    @property
    def stream_id(self) -> str | None:
        """Name the hardware behind it, if that is known."""
        return self.labels.get(STREAM_ID) or self.found_stream_id

    @property
    def key(self) -> str:
        """Name it for commands: its stream_id, or its address while none is known."""
        return self.stream_id or self.address

    def take(self, session: SessionSnapshot) -> bool:
        """Take up how one of its sessions stands, unless a newer one is known; tells whether it did."""
        known = self.sessions.get(session.operation)
        if known is not None and known.id != session.id and known.started_at > session.started_at:
            return False
        if known is not None and known.id == session.id and known.state.is_final and not session.state.is_final:
            return False
        self.sessions[session.operation] = session
        self._shown[session.operation] = shown(session)
        found = session.data.get(STREAM_ID) if session.operation == STATE else None
        self.found_stream_id = found if isinstance(found, str) and found else self.found_stream_id
        return True

    def encoded(self) -> dict[str, Any]:
        """Give what the page of the manager promises; sessions of one that is away are shown as lost."""
        sessions = {
            name: self._shown[name] if session.state.is_final or not self.expired else shown(shown_lost(session))
            for name, session in sorted(self.sessions.items())
        }
        return {
            "expired": self.expired,
            "last_refresh": self.last_refresh,
            "stream_id": self.stream_id,
            "address": self.address,
            "sessions": sessions,
        }


class Controllers:
    """All controllers that a manager knows, by address."""

    def __init__(self) -> None:
        self.known: dict[str, ManagedSmurfInstance] = {}

    def encoded(self) -> dict[str, Any]:
        """Give all of them, by address."""
        return {address: each.encoded() for address, each in sorted(self.known.items())}

    def operations(self) -> dict[str, list[Mapping[str, Any]]]:
        """Give the descriptions of each operation that any of them has, by its name."""
        found: dict[str, list[Mapping[str, Any]]] = {}
        for _, controller in sorted(self.known.items()):
            for described in controller.operations:
                found.setdefault(described["name"], []).append(described)
        return found

    def forget_old(self, now: float) -> bool:
        """Forget who has been away for very long; tells whether anybody was forgotten."""
        old = [each.address for each in self.known.values() if each.expired and each.last_refresh < now - FORGOTTEN_S]
        for address in old:
            del self.known[address]
        return bool(old)

    # --- who is meant ------------------------------------------------------------------------------------------------

    def chosen(self, stream_ids: Sequence[str] | None) -> dict[str, str]:
        """Give the addresses of those that are named, by name; without names all that are not expired.

        A name is a stream_id, or the address of a controller whose stream_id is not known.

        Raises:
            UsageError: nobody is named, or somebody twice.
            NotFoundError: somebody is not known, or nobody is here.
            ConflictError: two that are here have the same stream_id.
        """
        if stream_ids is None:
            return self._here()
        if not stream_ids:
            raise UsageError(
                "stream_ids is empty", because="nobody is chosen", cure="leave it out for all, or name some"
            )
        twice = sorted({name for name in stream_ids if list(stream_ids).count(name) > 1})
        if twice:
            raise UsageError(f"{twice[0]} stands twice in stream_ids", because="it is one slot", cure="name it once")
        return {name: self._named(name) for name in stream_ids}

    def _here(self) -> dict[str, str]:
        here = [each for each in self.known.values() if not each.expired]
        if not here:
            raise NotFoundError(
                "there is no controller that is not expired",
                because=f"known are: {self._names()}" if self.known else "none has been seen",
                cure="start one, or name those that may come back: stream_ids",
            )
        return {each.key: self._named(each.key) for each in sorted(here, key=lambda each: each.key)}

    def _named(self, name: str) -> str:
        found = [each for each in self.known.values() if each.key == name]
        here = [each for each in found if not each.expired]
        if len(here) > 1:
            first, second = sorted(each.address for each in here)[:2]
            raise ConflictError(
                f"{first} and {second} have the same stream_id, {name}",
                because="one piece of hardware would be commanded twice",
                cure="end one of them, or mend its label stream_id",
            )
        if not found:
            near = difflib.get_close_matches(name, [each.key for each in self.known.values()], n=1, cutoff=0.6)
            raise NotFoundError(
                f"no controller has the stream_id {name!r}",
                because=f"did you mean {near[0]!r}?" if near else f"known are: {self._names()}",
                cure="see the session data of monitor",
            )
        return (here or sorted(found, key=lambda each: each.last_refresh))[-1].address

    def _names(self) -> str:
        names = sorted(each.key for each in self.known.values())
        more = f", and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        return ", ".join(names[:MOST_NAMED]) + more or "none"


def remembered(controllers: Iterable[ManagedSmurfInstance]) -> list[dict[str, Any]]:
    """Write what a manager needs of controllers when it starts anew."""
    return [
        {
            "address": each.address,
            "labels": dict(each.labels),
            "last_refresh": each.last_refresh,
            "operations": list(each.operations),
            "found_stream_id": each.found_stream_id,
        }
        for each in controllers
    ]


def recalled(rows: Iterable[Mapping[str, Any]]) -> dict[str, ManagedSmurfInstance]:
    """Read what `remembered` wrote; who is not seen again stays expired."""
    return {row["address"]: ManagedSmurfInstance(**row) for row in rows}
