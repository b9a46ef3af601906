"""What happened to the numbered messages of publishers: lost, doubled, out of order, begun again.

A publisher numbers its messages from zero. A number that is skipped is lost until it comes late, which is reordering;
one that comes again with the time it had is a duplicate, with a newer time the publisher has begun again.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

from labwright.instruments.pysmurf.packets import Packet

REMEMBERED = 4096
"""Newest numbers of each publisher that are told apart from a second one; also, missing ones that are waited for."""
MOST_PUBLISHERS = 1000


class Source(NamedTuple):
    """Who publishes."""

    id: str
    script: str
    host: str


@dataclass
class Sequence:
    """The counts of one publisher."""

    received: int = 0
    lost: int = 0
    duplicates: int = 0
    reordered: int = 0
    restarted: int = 0
    unnumbered: int = 0
    last_seq_no: int | None = None
    last_time: float | None = None
    _expected: int | None = None
    _missing: OrderedDict[int, None] = field(default_factory=OrderedDict[int, None])
    _times: OrderedDict[int, float | None] = field(default_factory=OrderedDict[int, float | None])

    def count(self, packet: Packet) -> None:
        """Count one packet."""
        self.received += 1
        if packet.seq_no is None:
            self.unnumbered += 1
            return
        if self._expected is None:
            self._expected = packet.seq_no  # what came before we listened is not lost
        if packet.seq_no < self._expected:
            self._count_late(packet.seq_no, packet)
        else:
            self._count_new(packet.seq_no)
        self._times[packet.seq_no] = packet.time
        _forget(self._times)
        self.last_seq_no, self.last_time = packet.seq_no, packet.time

    def _count_new(self, number: int) -> None:
        skipped = number - (self._expected or 0)
        self.lost += skipped
        for missing in range(max(number - REMEMBERED, number - skipped), number):
            self._missing[missing] = None
        _forget(self._missing)
        self._expected = number + 1

    def _count_late(self, number: int, packet: Packet) -> None:
        if self._is_new_beginning(number, packet):
            self.restarted += 1
            self._expected = 0
            self._missing.clear()
            self._times.clear()
            self._count_new(number)
        elif number in self._missing:
            del self._missing[number]
            self.lost -= 1
            self.reordered += 1
        else:
            self.duplicates += 1

    def _is_new_beginning(self, number: int, packet: Packet) -> bool:
        """Tell a second life of the publisher from a message that comes late or twice."""
        newest = max((time for time in self._times.values() if time is not None), default=None)
        is_start = packet.type == "start" and number not in self._missing
        if packet.time is None or newest is None:
            return is_start
        return packet.time > newest or (is_start and self._times.get(number) != packet.time)

    def shown(self) -> dict[str, int | float | None]:
        """Give the counts for a session's data."""
        return {
            "received": self.received,
            "lost": self.lost,
            "duplicates": self.duplicates,
            "reordered": self.reordered,
            "restarted": self.restarted,
            "unnumbered": self.unnumbered,
            "last_seq_no": self.last_seq_no,
            "last_time": self.last_time,
        }


class Sequences:
    """The counts of all publishers, the most recent ones kept."""

    def __init__(self) -> None:
        self._of: OrderedDict[Source, Sequence] = OrderedDict()

    def count(self, packet: Packet) -> None:
        """Count one packet of whichever publisher."""
        source = Source(packet.id, packet.script, packet.host)
        sequence = self._of.setdefault(source, Sequence())
        self._of.move_to_end(source)
        if len(self._of) > MOST_PUBLISHERS:
            self._of.popitem(last=False)
        sequence.count(packet)

    def of(self, source: Source) -> Sequence | None:
        """Find the counts of one publisher."""
        return self._of.get(source)

    def shown(self) -> list[dict[str, str | int | float | None]]:
        """Give all counts for a session's data, the most recent publisher first."""
        return [{**source._asdict(), **sequence.shown()} for source, sequence in reversed(self._of.items())]


def _forget(numbers: OrderedDict[int, None] | OrderedDict[int, float | None]) -> None:
    while len(numbers) > REMEMBERED:
        numbers.popitem(last=False)
