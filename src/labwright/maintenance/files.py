"""Files on the worker's machine, or mounted there: checks that report, and a file that is as it should be."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labwright.core.clock import lasting
from labwright.core.errors import Finding, TerminalError, TransientError, UsageError
from labwright.maintenance.replacing import replace_file
from labwright.maintenance.texts import filled
from labwright.plan.steps import StepFunction, step
from labwright.run.context import BlockingContext

OTHERS = stat.S_IRWXG | stat.S_IRWXO
MOST_READ = 16 * 1024 * 1024


def file_check(
    path: str,
    *,
    newer_than: float | None = None,
    at_least: int | None = None,
    at_most: int | None = None,
    contains: str = "",
    private: bool = False,
    name: str = "",
) -> StepFunction[..., Any]:
    """Make a step that reports, as one `Finding`, all that is not as it should be about a file or folder.

    It must be there; have been written within the last `newer_than` seconds; have `at_least` and `at_most` so many
    bytes; hold the text `contains` (in its first 16 MiB); and with `private` be open to its owner only. The step's
    output is `{"bytes", "age_s"}`.

    Raises in the step:
        TransientError: the file cannot be looked at; a mount that is away may come back.
    """

    @step(name=name or "file_check")
    def check(ctx: BlockingContext) -> dict[str, Any]:
        """Report a file that is not as it should be."""
        place = Path(filled(ctx, path))
        status = _status(place)
        age_s = (ctx.now() - datetime.fromtimestamp(status.st_mtime, UTC)).total_seconds()
        found = [
            *_about_size(status.st_size, at_least, at_most),
            *([f"was written {lasting(round(age_s))} ago"] if newer_than is not None and age_s > newer_than else []),
            *(["can be read by others"] if private and status.st_mode & OTHERS else []),
            *([f"does not hold {contains!r}"] if contains and contains.encode() not in _head(place) else []),
        ]
        if found:
            raise Finding(f"{place} {', '.join(found)}")
        return {"bytes": status.st_size, "age_s": age_s}

    return check


def space_check(path: str, *, least_share: float = 0.1, least_bytes: int = 0, name: str = "") -> StepFunction[..., Any]:
    """Make a step that reports, as a `Finding`, that a file system is nearly full.

    Of the one on which `path` lies, `least_share` (0 to 1) and `least_bytes` must be free. The step's output is
    `{"free_bytes", "free_share"}`.

    Raises:
        UsageError: the share is none.

    Raises in the step:
        TransientError: the file system cannot be looked at.
    """
    if not 0 <= least_share <= 1:
        raise UsageError(f"a share cannot be {least_share!r}", because="it is from 0 to 1", cure="least_share=0.1")

    @step(name=name or "space_check")
    def check(ctx: BlockingContext) -> dict[str, Any]:
        """Report a file system that is nearly full."""
        place = filled(ctx, path)
        try:
            usage = shutil.disk_usage(place)
        except OSError as error:
            raise _not_seen(place, error) from error
        share = usage.free / usage.total if usage.total else 0.0
        if share < least_share or usage.free < least_bytes:
            raise Finding(f"{place} is nearly full: {usage.free / 1e9:,.1f} GB ({share:.1%}) are free")
        return {"free_bytes": usage.free, "free_share": round(share, 4)}

    return check


def ensure_file(path: str, text: str, *, mode: int = 0o644, name: str = "") -> StepFunction[..., Any]:
    """Make a step that sees to it that a file holds a text and has a mode; both texts may name facts.

    It is replaced at once: whoever reads sees the old or the new. The step's output is `created`, `changed` or
    `unchanged`.

    Raises in the step:
        TerminalError: it cannot be written.
    """

    @step(name=name or "ensure_file")
    def ensure(ctx: BlockingContext) -> str:
        """See to it that the file is as it should be."""
        place, data = Path(filled(ctx, path)), filled(ctx, text).encode()
        try:
            was_there = place.exists()
            if was_there and place.read_bytes() == data and stat.S_IMODE(place.stat().st_mode) == mode:
                return "unchanged"
            replace_file(place, data, mode)
        except OSError as error:
            raise TerminalError(
                f"{place} cannot be written", because=error.strerror or str(error), cure="see to the folder's rights"
            ) from error
        return "changed" if was_there else "created"

    return ensure


def _status(place: Path) -> Any:
    try:
        return place.stat()
    except FileNotFoundError:
        raise Finding(f"{place} is not there") from None
    except OSError as error:
        raise _not_seen(place, error) from error


def _not_seen(place: object, error: OSError) -> TransientError:
    return TransientError(
        f"{place} cannot be looked at", because=error.strerror or str(error), cure="see to the mount and its rights"
    )


def _about_size(size: int, at_least: int | None, at_most: int | None) -> Iterator[str]:
    if at_least is not None and size < at_least:
        yield f"has {size} bytes, and should have {at_least} at least"
    if at_most is not None and size > at_most:
        yield f"has {size} bytes, and should have {at_most} at most"


def _head(place: Path) -> bytes:
    try:
        with place.open("rb") as file:
            return file.read(MOST_READ)
    except OSError as error:
        raise _not_seen(place, error) from error
