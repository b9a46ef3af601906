"""The pysmurf monitor: an agent that hears what publishers say by UDP, counts it, and passes it on.

Session data and logs go out on a feed, metadata on a feed for each stream, and announced files into the catalogue.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Final

from pydantic import Field

from labwright.agents.agent import Agent
from labwright.agents.feeds import Feed
from labwright.agents.operation import process
from labwright.agents.session import Session
from labwright.core.errors import LabwrightError
from labwright.instruments.pysmurf.catalogue import FILE_TYPES, Catalogue
from labwright.instruments.pysmurf.metadata import Names, as_json, feed_of, metadata
from labwright.instruments.pysmurf.packets import DEFAULT_PORT, Packet
from labwright.instruments.pysmurf.receiver import SAFE_BUFFER_BYTES, Receiver

SESSION_FEED: Final = "pysmurf_session_data"
META_BUFFER_S: Final = 1.0
MOST_META_FEEDS: Final = 200
MOST_TYPES: Final = 100

Port = Annotated[int, Field(ge=0, le=65_535)]


class PysmurfMonitor(Agent):
    """Listens to SMURFPUB publishers: counts, feeds and catalogues what they publish.

    `port` is the UDP port (default 8200), `host` the address to listen on.
    """

    def __init__(self, port: Port = DEFAULT_PORT, host: str = "0.0.0.0") -> None:  # noqa: S104 - publishers are elsewhere
        self._receiver = Receiver(host, port, self._hear)
        self._types: Counter[str] = Counter()
        self._trouble: Counter[str] = Counter()
        self._meta: dict[str, tuple[Feed, Names]] = {}

    async def open(self) -> None:
        """Listen; what comes from now on is counted, fed and catalogued."""
        self._session_feed = self.feed(SESSION_FEED)
        self._files = Catalogue(self.register_file, self._note_lost_file)
        await self._receiver.__aenter__()
        self.log.info("listening to publishers", port=self._receiver.port, buffer_bytes=self._receiver.buffer_bytes)
        if self._receiver.buffer_bytes < SAFE_BUFFER_BYTES:
            self.log.warning(
                "the receive buffer is small, so a burst may be lost (it would be counted)",
                buffer_bytes=self._receiver.buffer_bytes,
                cure="sysctl net.core.rmem_max=33554432, or give the agent CAP_NET_ADMIN",
            )

    async def close(self) -> None:
        """Stop to listen, and catalogue what was heard."""
        await self._receiver.__aexit__(None, None, None)
        await self._files.close()

    @property
    def port(self) -> int:
        """The UDP port that it listens on."""
        return self._receiver.port

    @process(startup=True)
    async def run(self, session: Session) -> None:
        """Show what was heard: per publisher the messages received, lost, doubled, reordered; malformed ones; files."""
        shown: dict[str, Any] = {}
        async for _ in session.every(1.0):
            if (news := self._shown()) != shown:
                shown = news
                session.replace(shown)

    def _shown(self) -> dict[str, Any]:
        return {
            "port": self.port,
            **self._receiver.shown(),
            "types": dict(self._types),
            "files": self._files.shown(),
            "trouble": dict(self._trouble),
        }

    # --- what is heard -----------------------------------------------------------------------------------------------

    def _hear(self, packet: Packet) -> None:
        known = packet.type in self._types or len(self._types) < MOST_TYPES
        self._types[packet.type if known else "(others)"] += 1
        try:
            match packet.type:
                case "session_data" | "session_log":
                    self._session_feed.publish(_as_sample(packet))
                case "metadata":
                    self._feed_metadata(packet)
                case kind if kind in FILE_TYPES:
                    self._files.announce(packet)
                case _:
                    pass
        except (LabwrightError, ValueError, RecursionError) as error:  # one bad message never stops the others
            self._note_trouble(str(error))

    def _feed_metadata(self, packet: Packet) -> None:
        path, value = metadata(packet.payload)
        name = feed_of(packet.id)
        if name not in self._meta:
            if len(self._meta) >= MOST_META_FEEDS:
                message = f"metadata of more than {MOST_META_FEEDS} streams"
                raise ValueError(message)
            self._meta[name] = (self.feed(name, buffer_s=META_BUFFER_S), Names())
        feed, names = self._meta[name]
        feed.publish({names.of(path): value}, at=packet.time)

    def _note_trouble(self, what: str) -> None:
        what = what[:200]
        self._trouble[what if what in self._trouble or len(self._trouble) < MOST_TYPES else "(others)"] += 1

    def _note_lost_file(self, path: str, error: str) -> None:
        self._note_trouble(f"a file was not catalogued: {error}")
        self.log.warning("a file was not catalogued", path=path, error=error)


def _as_sample(packet: Packet) -> dict[str, float | str | bool]:
    """Give a message the shape of a feed; the payload stands there as JSON text, since a feed has flat values."""
    sample: dict[str, float | str | bool | None] = {
        "id": packet.id,
        "script": packet.script,
        "host": packet.host,
        "type": packet.type,
        "time": packet.time,
        "seq_no": packet.seq_no,
        "payload": as_json(packet.payload),
    }
    return {name: value for name, value in sample.items() if value is not None}
