"""What nats-server itself refuses: it tells nobody but its log, from which it is taken into the journal."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from labwright.access.identity import Identities, IdentitiesError, Identity, key_owners
from labwright.core.errors import LabwrightError, NotAllowedError
from labwright.core.ids import hashed_id
from labwright.core.logs import get_logger
from labwright.core.model import ErrorRecord
from labwright.journal.journal import Journal, MovedError
from labwright.journal.nats_server import EmbeddedServer, write_private
from labwright.journal.records import Refused

LOOK_S = 0.5
"""The log is looked at so often; nats-server has no way to tell."""
MOST_AT_ONCE = 200
MOST_BYTES = 1024 * 1024
LONGEST = 500
CONNECT = "connect"

QUOTED = r'"((?:[^"\\]|\\.)*)"'
"""Text in nats-server's quotes: a quote inside it has a stroke before it, so that no client's name ends the text."""
CLIENT = rf"^(?:\S+ ){{0,4}}\[ERR\] (\S+) - cid:\d+(?: - {QUOTED})*? - "
VIOLATION = re.compile(rf'{CLIENT}"[^"]*/nkey:(U[A-Z2-7]{{55}})" - (Publish|Subscription) Violation - Subject {QUOTED}')
"""The key stands last before what was refused: all before it is what the client says of itself."""
INTRUSION = re.compile(rf"{CLIENT}authentication error(?: - (User|Nkey) {QUOTED})?")

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One line of the log: what somebody was refused.

    `key` is the public key that they have proven to hold, if any; one that is only `shown` may be another's.
    """

    what: str
    key: str
    origin: str
    shown: str = ""


def violation_of(line: str) -> Violation | None:
    """Read a line of nats-server's log; None for one that tells of no refusal."""
    if (found := VIOLATION.search(line)) is not None:
        verb = "speak on" if found[4] == "Publish" else "listen to"
        return Violation(what=f"{verb} {found[5][:LONGEST]}", key=found[3], origin=found[1])
    if (found := INTRUSION.search(line)) is not None:
        shown = {"User": "as", "Nkey": "with the key"}.get(found[3])
        what = f"{CONNECT} {shown} {found[4][:LONGEST]}" if shown else CONNECT
        return Violation(what=what, key="", shown=found[4] if found[3] == "Nkey" else "", origin=found[1])
    return None


async def watch_log(journal: Journal, server: EmbeddedServer) -> None:
    """Record, for ever, what an embedded server refuses; also what it did since somebody looked last."""
    place_file = server.state_dir / "nats.log.place"
    identities = Identities(server.state_dir)
    place = _place(place_file)
    while True:
        lines, place_now = _new_lines(server.log_file, place)
        found = [(line, violation) for line in lines if (violation := violation_of(line)) is not None]
        if len(found) > MOST_AT_ONCE:
            log.warning("nats-server refuses more than is recorded", left_out=len(found) - MOST_AT_ONCE)
        for line, violation in found[:MOST_AT_ONCE]:
            await _record(journal, identities, line, violation)
        if place_now != place:
            place = place_now
            write_private(place_file, json.dumps(place))
        await asyncio.sleep(LOOK_S)


async def _record(journal: Journal, identities: Identities, line: str, violation: Violation) -> None:
    owner = _owner(identities.all, violation.key)
    error = NotAllowedError("nats-server refused it", because=_why(violation, identities))
    record = Refused(
        what=violation.what,
        by=owner.name if owner else violation.key,
        role=owner.role if owner else "",
        origin=violation.origin,
        error=ErrorRecord.of(error),
    )
    try:
        await journal.append(f"audit.nats.{hashed_id('ref', line)}", record, after=0)
    except MovedError:
        log.debug("this line was recorded before")
    except LabwrightError as failure:
        log.error("a refusal was not recorded", because=failure.message)  # noqa: TRY400 - said, not traced


def _owner(identities: Callable[[], tuple[Identity, ...]], key: str) -> Identity | None:
    try:
        return key_owners(identities()).get(key)
    except IdentitiesError:
        return None


def _why(violation: Violation, identities: Identities) -> str:
    if not violation.what.startswith(CONNECT):
        return "the permissions of this identity do not allow it"
    if (former := _owner(identities.revoked, violation.shown)) is not None:
        return f"this key of {former.name} was revoked"
    if (owner := _owner(identities.all, violation.shown)) is not None:
        return f"it was not proven that this key of {owner.name} is at hand"
    return "no user of this lab has this key or this password"


def _new_lines(path: Path, place: tuple[int, int]) -> tuple[list[str], tuple[int, int]]:
    """Read the whole lines behind a place (inode and offset); a log that was begun anew is read from its beginning."""
    try:
        with path.open("rb") as file:
            status = path.stat()
            start = place[1] if place[0] == status.st_ino and place[1] <= status.st_size else 0
            file.seek(start)
            data = file.read(MOST_BYTES)
    except OSError:
        return [], place
    whole = data[: data.rfind(b"\n") + 1]
    return whole.decode(errors="replace").splitlines(), (status.st_ino, start + len(whole))


def _place(path: Path) -> tuple[int, int]:
    try:
        inode, offset = json.loads(path.read_text())
        return int(inode), int(offset)
    except (OSError, ValueError, TypeError):
        return 0, 0
