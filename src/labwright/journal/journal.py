"""The journal: append a record under a fence, read what a subject holds, follow what comes.

An append is either written, or refused because others wrote first; it is never lost in between. After a time-out, a
broken connection or a refusal the writer looks for its own `record_id` behind the sequence that it knew.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from labwright.core.errors import ConflictError, EngineError, FateUnknownError, LabwrightError, UnreachableError
from labwright.journal import blobs
from labwright.journal.connection import Connection, ConnectionLostError, NoResponderError
from labwright.journal.follow import follow
from labwright.journal.records import Record, UnknownRecord, decode, encode, whole_fields

STREAM = "JOURNAL"
BLOBS = "BLOBS"
EXPECTED = "Nats-Expected-Last-Subject-Sequence"
WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
APPEND_TIMEOUT_S = 5.0
REFUSED = -1
STALE_S = 3.0
"""How long a replica may lag behind the server that refused a record."""
READ_BATCH = 256
READ_BYTES = 8 * 1024 * 1024
READ_TIMEOUT_S = 5.0
DAY_S = 86_400
SUBJECTS = (
    "event.>",
    "run.>",
    "dispatch.>",
    "schedule.>",
    "session.>",
    "audit.>",
    "pool.>",
    "file.>",
    "agent.>",
    "claim.>",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A record with its place: the sequence is unique in the whole journal and grows."""

    seq: int
    subject: str
    record: Record

    @property
    def key(self) -> str:
        """The last part of the subject, such as a run's id."""
        return self.subject.rpartition(".")[2]


class MovedError(LabwrightError):
    """Others have written to the subject since the sequence that the writer knew; `entries` is what they wrote."""

    kind = "moved"

    def __init__(self, subject: str, entries: tuple[Entry, ...]) -> None:
        super().__init__(f"{subject} has moved on", because=f"{len(entries)} records were written by others")
        self.entries = entries


class BodyGoneError(LabwrightError):
    """A value that was too large for its record is gone from the journal."""

    kind = "gone"


class LeftBehindError(LabwrightError):
    """The subject does not stand where the writer knew it, and nothing newer is there: its records have gone."""

    kind = "left_behind"


class StoreError(EngineError):
    """The server cannot store, for want of space or otherwise."""


class Journal:
    """The journal as one process sees it, over one connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.seen = 0
        """The newest sequence that was written or followed here: an answer should be at least that fresh."""

    # --- set-up ------------------------------------------------------------------------------------------------------

    async def prepare(self, *, replicas: int = 1, journal_days: int = 365) -> None:
        """Make the streams that are missing; what exists keeps its records.

        Raises:
            EngineError: the server has no JetStream.
        """
        keep_ns = journal_days * DAY_S * 1_000_000_000
        shared = {
            "retention": "limits",
            "storage": "file",
            "num_replicas": replicas,
            "allow_direct": True,
            "duplicate_window": 1_000_000_000,
            "discard": "new",
        }
        await self.ensure_stream({"name": STREAM, "subjects": list(SUBJECTS), "max_age": keep_ns, **shared})
        await self.ensure_stream({"name": BLOBS, "subjects": ["blob.>"], "max_age": keep_ns + keep_ns // 4, **shared})

    async def ensure_stream(self, config: Mapping[str, Any]) -> None:
        """Make a stream, or change an existing one to that configuration; other metadata that it has stay."""
        name = config["name"]
        answer = await self.api(f"STREAM.INFO.{name}")
        verb = "UPDATE" if "error" not in answer else "CREATE"
        noted: dict[str, str] = answer.get("config", {}).get("metadata") or {}
        config = {**config, "metadata": {**noted, **config.get("metadata", {})}}
        answer = await self.api(f"STREAM.{verb}.{name}", config)
        if "error" in answer:
            message = f"the stream {name} cannot be made"
            raise EngineError(message, because=str(answer["error"].get("description")), cure="see labwright doctor")

    async def api(self, verb: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask the server's JetStream API; an error is in the answer."""
        try:
            message = await self.connection.request(
                f"$JS.API.{verb}", json.dumps(body).encode() if body is not None else b"", timeout_s=10
            )
        except NoResponderError as error:
            text = "the NATS server has no JetStream"
            raise EngineError(
                text, because="nobody answers its API", cure="switch JetStream on: jetstream {} in its configuration"
            ) from error
        return cast("dict[str, Any]", json.loads(message.data))

    async def last_seq(self) -> int:
        """Tell the sequence of the newest record."""
        answer = await self.api(f"STREAM.INFO.{STREAM}")
        return int(answer["state"]["last_seq"])

    # --- append ------------------------------------------------------------------------------------------------------

    async def append(self, subject: str, record: Record, *, after: int, patience_s: float | None = None) -> int:
        """Write a record as the next one of its subject after the sequence `after`; gives its sequence.

        `patience_s` bounds the search for the fate of the record while the server is away; None searches for ever.

        Raises:
            MovedError: others wrote first, and this record is not written.
            LeftBehindError: what the writer knew of the subject is not in the journal any more.
            FateUnknownError: it could not be found out in time; the same record may be appended again.
            TooLargeError: a value is over 64 MB.
        """
        data, bodies = blobs.spill(encode(record), subject)
        until = None if patience_s is None else time.monotonic() + patience_s
        for name, body in bodies:
            await self._write_body(name, body, until)
        headers = {EXPECTED: str(after)}
        refused_since: float | None = None
        while True:
            seq = await self._try(subject, data, headers, until)
            if seq > 0:
                return self._saw(seq)
            refused_since = (refused_since or time.monotonic()) if seq == REFUSED else None
            entries = await self._read_surely(subject, after, until)
            for entry in entries:
                if entry.record.record_id == record.record_id:
                    return self._saw(entry.seq)
            if entries:
                raise MovedError(subject, tuple(entries))
            if refused_since is not None:
                if time.monotonic() - refused_since > STALE_S:
                    message = f"{subject} does not hold what was known of it"
                    raise LeftBehindError(
                        message,
                        because=f"the server refuses to write after {after}, and nothing newer is there",
                        cure="look at it again, then repeat the command",
                    )
                await asyncio.sleep(0.05)

    async def create(
        self, subject: str, record: Record, *, content: str, patience_s: float | None = None
    ) -> tuple[int, bool]:
        """Write the first record of a subject; gives its sequence, and whether it is new.

        What is no record at all, as an acknowledgement that somebody had nats-server write there, does not count.

        Raises:
            ConflictError: the subject exists with other content.
        """
        after = 0
        while True:
            try:
                return await self.append(subject, record, after=after, patience_s=patience_s), True
            except MovedError as error:
                first = next((entry for entry in error.entries if not _is_noise(entry.record)), None)
                if first is None:
                    after = error.entries[-1].seq
                    continue
                if getattr(first.record, "content", None) == content:
                    return first.seq, False
                message = f"{first.key} exists already with other content"
                raise ConflictError(
                    message, because="the same identity was used for something else", cure="use another id or key"
                ) from error

    async def _try(self, subject: str, data: bytes, headers: dict[str, str], until: float | None) -> int:
        """Try once to write; gives the sequence, or 0 (REFUSED: out of sequence) where the fate must be looked up."""
        try:
            answer = await self.connection.request(subject, data, headers=headers, timeout_s=APPEND_TIMEOUT_S)
        except (UnreachableError, TimeoutError) as error:
            await self._pause(until, error)
            return 0
        result = json.loads(answer.data)
        if "error" not in result:
            return int(result["seq"])
        code = result["error"].get("err_code")
        if code in WRONG_LAST_SEQUENCE:
            return REFUSED
        await self._pause(until, StoreError(f"the journal refused a record: {result['error'].get('description')}"))
        return 0

    async def _pause(self, until: float | None, error: BaseException) -> None:
        """Wait a moment for the server; gives up when the patience is used up."""
        if until is not None and time.monotonic() >= until:
            message = "it is not known whether the record was written"
            raise FateUnknownError(
                message,
                because=str(error) or "the journal does not answer",
                cure="ask again with the same id: that is safe",
            ) from error
        limit = 1.0 if until is None else max(0.01, min(1.0, until - time.monotonic()))
        try:
            async with asyncio.timeout(limit):
                await self.connection.wait_connected()
                await asyncio.sleep(0.02)
        except TimeoutError:
            pass

    async def read_patiently(self, subject: str, *, most: int | None = None) -> list[Entry]:
        """Read the records of one subject, or so many of the oldest, waiting for the server as long as it is away."""
        return await self._read_surely(subject, 0, None, most)

    async def _read_surely(self, subject: str, after: int, until: float | None, most: int | None = None) -> list[Entry]:
        while True:
            try:
                return await self.read(subject, after=after, most=most)
            except (UnreachableError, TimeoutError) as error:
                await self._pause(until, error)

    # --- bodies ------------------------------------------------------------------------------------------------------

    async def lightened(self, value: Any, subject: str, place: str) -> Any:
        """Give a structure with its large values written beside it and replaced by marks; see `restore`."""
        light, bodies = blobs.lighten(value, subject, place)
        for name, body in bodies:
            await self._write_body(name, body, None)
        return light

    async def _write_body(self, name: str, body: bytes, until: float | None) -> None:
        for number, chunk in enumerate(blobs.chunks(body)):
            subject = f"blob.{name}.{number}"
            headers = {EXPECTED: "0"}
            while await self._try(subject, chunk, headers, until) <= 0:
                if await self._chunk(subject, until) is not None:
                    break

    async def _chunk(self, subject: str, until: float | None = None) -> bytes | None:
        """Read one chunk, waiting for the server; None where there is none."""
        while True:
            try:
                answer = await self.connection.request(f"$JS.API.DIRECT.GET.{BLOBS}.{subject}")
            except (UnreachableError, TimeoutError) as error:
                await self._pause(until, error)
            else:
                return None if (answer.headers or {}).get("Status") else answer.data

    async def fetch(self, mark: Mapping[str, Any]) -> Any:
        """Bring the value that a mark stands for, waiting for the server for as long as it is away.

        Raises:
            BodyGoneError: a piece of it is gone.
        """
        body = bytearray()
        number = 0
        while len(body) < int(mark["size"]):
            chunk = await self._chunk(f"blob.{mark['$blob']}.{number}")
            if chunk is None:
                message = f"a large value is gone from the journal: {mark['$blob']}"
                raise BodyGoneError(message, because="it is older than the retention")
            body += chunk
            number += 1
        if hashlib.sha256(body).hexdigest() != mark["sha256"]:
            message = f"a large value is not what was written: {mark['$blob']}"
            raise BodyGoneError(message, because="its hash differs")
        return json.loads(bytes(body))

    async def restore(self, value: Any) -> Any:
        """Give the value with everything in it that was cut out brought back."""
        return await blobs.restore(value, self.fetch)

    async def _decode(self, data: bytes) -> Record:
        record = decode(data)
        if blobs.MARK not in data:
            return record
        try:
            fields: dict[str, Any] = json.loads(data)
        except (ValueError, RecursionError):
            return record
        cut = [name for name in whole_fields(str(fields.get("type"))) or () if blobs.is_mark(fields.get(name))]
        try:
            for name in cut:
                fields[name] = await self.fetch(fields[name])
            if cut:
                record = decode(json.dumps(fields).encode())
            if isinstance(record, UnknownRecord) and whole_fields(record.type) is not None:
                # a mark stands where the record's class wants text, as of a note of a megabyte
                record = decode(json.dumps(await self.restore(fields)).encode())
        except BodyGoneError:
            return UnknownRecord(type="gone", record_id=str(fields.get("record_id")))
        return record

    # --- read --------------------------------------------------------------------------------------------------------

    async def read(self, subject: str, *, after: int = 0, most: int | None = None) -> list[Entry]:
        """Read the records of one subject behind a sequence, in order; with `most`, no more than so many.

        Raises:
            ConnectionLostError, TimeoutError: the server went away meanwhile.
        """
        entries: list[Entry] = []
        while True:
            size = READ_BATCH if most is None else min(READ_BATCH, most - len(entries))
            ask = {"seq": after + 1, "next_by_subj": subject, "batch": size, "max_bytes": READ_BYTES}
            batch, end = await self._batch(ask, subject)
            entries += batch
            if not int(end.get("Nats-Num-Pending", 0)) or len(entries) == most:
                return entries
            after = entries[-1].seq if entries else after

    async def newest(self, subjects: Sequence[str]) -> tuple[list[Entry], int]:
        """Read the newest record of each of these subjects, and tell up to which sequence nothing newer is there.

        Raises:
            ConnectionLostError, TimeoutError: the server went away meanwhile.
        """
        entries: list[Entry] = []
        seen: list[int] = []
        for start in range(0, len(subjects), READ_BATCH):
            chosen = list(subjects[start : start + READ_BATCH])
            batch, end = await self._batch({"multi_last": chosen}, f"{len(chosen)} subjects")
            entries += batch
            seen.append(int(end.get("Nats-UpTo-Sequence", 0)))
        return entries, min(seen, default=0)

    async def _batch(self, ask: Mapping[str, Any], what: str) -> tuple[list[Entry], Mapping[str, str]]:
        """Have the server give several records at once; gives them and the headers of what ends the answer."""
        entries: list[Entry] = []
        async with self.connection.channel() as channel:
            await self.connection.publish(f"$JS.API.DIRECT.GET.{STREAM}", json.dumps(ask).encode(), reply=channel.reply)
            while True:
                message = await channel.next(READ_TIMEOUT_S)
                headers = message.headers or {}
                status = headers.get("Status")
                if status is None:
                    seq, subject = int(headers["Nats-Sequence"]), headers["Nats-Subject"]
                    entries.append(Entry(seq, subject, await self._decode(message.data)))
                    continue
                if status == "503":
                    text = "the journal's stream is not there"
                    raise ConnectionLostError(text)
                if status not in {"204", "404"}:
                    text = f"{what} cannot be read"
                    raise EngineError(text, because=f"{status} {headers.get('Description', '')}")
                return entries, headers if status == "204" else {}

    async def follow(self, subjects: Sequence[str], *, after: int) -> AsyncIterator[list[Entry]]:
        """Give, for ever, batches of the records behind a sequence: each once, in order, none left out.

        An empty batch tells that everything written so far has been given.
        """
        async for batch in follow(self.connection, STREAM, subjects, after=after):
            entries = [Entry(item.seq, item.subject, await self._decode(item.data)) for item in batch]
            if entries:
                self._saw(entries[-1].seq)
            yield entries

    def _saw(self, seq: int) -> int:
        self.seen = max(self.seen, seq)
        return seq


def _is_noise(record: Record) -> bool:
    return isinstance(record, UnknownRecord) and record.type == "unreadable"
