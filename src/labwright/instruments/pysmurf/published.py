"""What a script publishes while it runs, brought to its session: `session_data`, `session_log`, and its files."""

from __future__ import annotations

from typing import Any, Protocol, cast

from labwright.instruments.pysmurf.catalogue import FILE_TYPES, Catalogue
from labwright.instruments.pysmurf.packets import Malformed, Packet, read_packet


class Listener(Protocol):
    """What a session does with what is published."""

    @property
    def id(self) -> str:
        """Its id, under which its files are catalogued."""
        ...

    def log(self, text: str, level: str = "info", **fields: Any) -> None:
        """Say a line."""
        ...

    def update(self, mapping: Any = None, /, **values: Any) -> None:
        """Merge values deeply into what the session shows."""
        ...


def deliver(session: Listener, datagram: bytes, files: Catalogue) -> None:
    """Do to a session what one datagram says; other packets are for the monitor, and nothing here can fail."""
    packet = read_packet(datagram)
    if isinstance(packet, Malformed):
        session.log(f"something was published that is no packet: {packet.reason}", level="warning")
    elif packet.type == "session_data":
        if isinstance(packet.payload, dict):
            session.update(cast("dict[str, Any]", packet.payload))
        else:
            session.log("session data were published that are no mapping, and are left out", level="warning")
    elif packet.type == "session_log":
        session.log(packet.payload if isinstance(packet.payload, str) else repr(packet.payload))
    elif packet.type in FILE_TYPES:
        _announce(session, packet, files)


def _announce(session: Listener, packet: Packet, files: Catalogue) -> None:
    try:
        files.announce(packet, session.id)
    except (ValueError, RecursionError) as error:
        session.log(f"a file was announced that cannot be catalogued: {error}", level="warning")
