"""Facts from a file: `{subject: {fact: value}}` in YAML or JSON, reread when it changes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from labwright.core.errors import SiteError
from labwright.core.model import Event
from labwright.decide.data_collection import dcid_of
from labwright.facts.document import read_document

Stamp = tuple[int, int] | None


class FileFacts:
    """Knows what a file says about the event's subject.

    An event without a subject is looked up by the `dcid` in its data. An absent file counts as empty, unless it
    `is_required`.

    Raises (from `facts` and `all`):
        NotFoundError: the file is required and absent.
        SiteError: the file is not valid; the message names the line.
    """

    name = "file"
    pattern = "*"

    def __init__(self, path: str | Path, *, is_required: bool = False) -> None:
        self.path = Path(path)
        self.is_required = is_required
        self._stamp: Stamp = None
        self._known: dict[str, dict[str, Any]] | None = None

    async def facts(self, event: Event) -> Mapping[str, Any]:
        """Tell what the file says about the subject."""
        subject = subject_of(event)
        return {} if subject is None else (await asyncio.to_thread(self.all)).get(subject, {})

    def all(self) -> Mapping[str, Mapping[str, Any]]:
        """Tell what the file says about every subject."""
        stamp = self._look()
        if self._known is None or stamp != self._stamp:
            self._known = self._read()
            self._stamp = stamp
        return self._known

    def _look(self) -> Stamp:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size

    def _read(self) -> dict[str, dict[str, Any]]:
        document: object = read_document(self.path, is_required=self.is_required)
        if document is None:
            return {}
        if not isinstance(document, dict):
            raise self._invalid((f"{self.path}: the file is no mapping of subjects",))
        subjects = cast("dict[object, object]", document)
        findings = tuple(
            f"{self.path}, subject {subject!r}: its facts are no mapping"
            for subject, facts in subjects.items()
            if not isinstance(facts, dict | None)
        )
        if findings:
            raise self._invalid(findings)
        return {str(subject): _named(facts) for subject, facts in subjects.items()}

    def _invalid(self, findings: tuple[str, ...]) -> SiteError:
        return SiteError(
            findings[0],
            findings=findings,
            because="a file of facts is {subject: {fact: value}}",
            cure='for example:\n"993677":\n  beamline: i03',
        )


def subject_of(event: Event) -> str | None:
    """Tell what an event is about: its subject, else the `dcid` in its data."""
    if event.subject is not None:
        return event.subject
    dcid = dcid_of(event)
    return None if dcid is None else str(dcid)


def _named(facts: object) -> dict[str, Any]:
    return {str(name): value for name, value in cast("dict[object, Any]", facts or {}).items()}
