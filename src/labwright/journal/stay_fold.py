"""The fold of who was here when: the stays of one agent, one after the other. Pure.

A word that does not fit, such as a second end, changes nothing; an end whose beginning has left the journal makes a
stay of which only the end is known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from labwright.core.model import AgentStay
from labwright.journal.records import AgentCame, AgentGone, Record
from labwright.journal.session_fold import decoded, encoded


@dataclass(frozen=True, slots=True, kw_only=True)
class StayEntry:
    """A stay with the sequences of its first and newest record; `owner` is what it is recognised by."""

    stay: AgentStay
    owner: str
    first_seq: int
    seq: int

    @property
    def is_open(self) -> bool:
        """Tell whether the agent has not gone, as far as the journal tells."""
        return self.stay.gone_at is None


def stay_subject(agent: str) -> str:
    """Give the subject under which the records of an agent's stays stand."""
    return f"agent.{encoded(agent)}"


def apply_stay(newest: StayEntry | None, record: Record, *, subject: str, seq: int) -> StayEntry | None:
    """Give the newest stay of an agent after one more record of its subject; None where none is known."""
    agent = decoded(subject.partition(".")[2])
    if isinstance(record, AgentCame) and (newest is None or not newest.is_open or newest.owner != record.owner):
        return StayEntry(stay=_came(agent, record), owner=record.owner, first_seq=seq, seq=seq)
    if isinstance(record, AgentGone) and (newest is None or newest.is_open):
        return _gone(newest, record, agent, seq)
    return newest if newest is None else replace(newest, seq=seq)


def _gone(newest: StayEntry | None, record: AgentGone, agent: str, seq: int) -> StayEntry:
    if newest is None:
        stay = AgentStay(agent=agent, is_found=True, gone_at=record.at, why=record.why)
        return StayEntry(stay=stay, owner=record.owner, first_seq=seq, seq=seq)
    gone = newest.stay.model_copy(update={"gone_at": record.at, "why": record.why})
    return replace(newest, stay=gone, seq=seq)


def _came(agent: str, record: AgentCame) -> AgentStay:
    said = record.model_dump(include=set(AgentStay.model_fields), exclude={"agent"})
    return AgentStay.model_validate({**said, "agent": agent, "came_at": record.at})
