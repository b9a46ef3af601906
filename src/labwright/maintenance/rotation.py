"""The rotation of a server's certificate: issued, put in place at once, taken up, and seen to be served.

The server's folder holds a folder for each certificate (`cert.pem`, `key.pem`) and a link, `current`, to the one in
use; the server is configured with `FOLDER/current/cert.pem` and `FOLDER/current/key.pem`. So certificate and key change
together, however the process dies. A folder without that link is not managed, and left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labwright.core.errors import NotApplicable, TerminalError, TransientError, UsageError
from labwright.maintenance.authority import CertificateAuthority, Issued
from labwright.maintenance.certificates import Certificate, due_text, served_certificate
from labwright.maintenance.replacing import point_link, replace_file, settle
from labwright.maintenance.texts import address_of, filled
from labwright.plan.steps import StepFunction, output_of, step, wait_for
from labwright.plan.tasks import Task
from labwright.run.context import BlockingContext, TaskContext

CURRENT = "current"
CERTIFICATE, KEY = "cert.pem", "key.pem"
AUTHORITY = "certificate_authority"
MADE = "run_"
"""With this begin the names of the folders that are made here, after their runs; others are left alone."""
KEPT = 1
"""So many of these are kept beside the one in use: the one before, to go back to."""

AnyStep = StepFunction[..., Any]


def certificate_rotation(
    name: str,
    address: str,
    folder: str,
    *,
    reload: Sequence[AnyStep] = (),
    days: float = 30,
    valid_days: float = 90,
    wait: float = 120,
    **options: Any,
) -> Task:
    """Make the task that rotates the certificate of a server; the arguments are those of `rotation_steps`.

    `options` are those of a `Task`, such as `retry` and `doc`.
    """
    steps = rotation_steps(address, folder, reload=reload, days=days, valid_days=valid_days, wait=wait)
    doc = options.pop("doc", "Rotate the server's certificate, if it is ours and near its end.")
    return Task(name, steps=steps, doc=doc, **options)


def rotation_steps(
    address: str,
    folder: str,
    *,
    reload: Sequence[AnyStep] = (),
    days: float = 30,
    valid_days: float = 90,
    wait: float = 120,
) -> list[AnyStep]:
    """Make the steps that rotate the certificate that is served at `HOST:PORT` from a folder; each safe to repeat.

    It is skipped, with a note, where the certificate is valid for more than `days` days, where it is not one of our
    authority, and where the folder is not managed. The new one has the same names, and is valid for `valid_days` days.
    `reload` are the steps that have the server take it up, such as `tell_process`; a server that looks by itself needs
    none. After at most `wait` seconds the live server must serve it.

    The authority is the site's client `certificate_authority`. Needs the extra `certificates`.

    Raises:
        UsageError: a new certificate would be due at once.

    Raises in the steps:
        TransientError: the server is down.
        TerminalError: it speaks no TLS, or the folder cannot be written.
        WaitTimeoutError: it has not served the new certificate in time; the one before is kept beside it.
    """
    if not 0 <= days < valid_days:
        raise UsageError(
            f"a certificate of {valid_days:g} days cannot be rotated {days:g} days before its end",
            because="the new one would be due at once",
            cure="days=30, valid_days=90",
        )
    return [
        _due(address, folder, days),
        _issue(folder, days, valid_days),
        _install(folder),
        *reload,
        wait_for(_served(address), every=2, timeout=wait, name="certificate_is_served"),
        _forget(folder),
    ]


# --- the steps -------------------------------------------------------------------------------------------------------


def _due(address: str, folder: str, days: float) -> AnyStep:
    @step
    async def certificate_is_due(ctx: TaskContext) -> dict[str, Any]:
        """Skip the rest where there is nothing to rotate."""
        host, port = address_of(ctx, address)
        place = Path(filled(ctx, folder))
        if not (place / CURRENT).is_symlink():
            raise _nothing(f"the certificate at {host}:{port} is not managed: there is no link {place / CURRENT}")
        shown = await served_certificate(host, port)
        if not await _is_ours(ctx, shown):
            raise _nothing(f"the certificate at {host}:{port} is not managed: it is of {shown.issuer}")
        if not due_text(shown, days, ctx.now()):
            left = shown.days_left(ctx.now())
            raise _nothing(f"the certificate at {host}:{port} is valid for {left:.0f} more days")
        return shown.described()

    return certificate_is_due


def _issue(folder: str, days: float, valid_days: float) -> AnyStep:
    @step
    async def issue_certificate(ctx: TaskContext, due: Any = output_of("certificate_is_due")) -> dict[str, Any]:
        """Issue a certificate for the same names, unless one lies ready; the key goes nowhere but into its folder."""
        place = Path(filled(ctx, folder))
        own = f"{ctx.run.id}.{ctx.run.reopened}"
        for ready in (own, str((place / CURRENT).readlink())):
            known = _read(place / ready)
            if known is not None and await _is_fresh(ctx, known, due, days):
                return {**known.described(), "folder": ready}
        authority: CertificateAuthority = await ctx.client(AUTHORITY)
        issued = await authority.issue(due["names"], days=valid_days, now=ctx.now())
        if due_text(issued.certificate, days, ctx.now()):
            ctx.note(f"the new certificate ends at {issued.certificate.expires_at:%Y-%m-%d}: renew its authority")
        await asyncio.to_thread(_keep, place, own, issued)
        return {**issued.certificate.described(), "folder": own}

    return issue_certificate


def _install(folder: str) -> AnyStep:
    @step
    def install_certificate(ctx: BlockingContext, issued: Any = output_of("issue_certificate")) -> str:
        """Have the server's folder point to the new certificate and its key, both at once."""
        link = Path(filled(ctx, folder)) / CURRENT
        if link.is_symlink() and link.readlink() == Path(issued["folder"]):
            return "unchanged"
        with _writing(link):
            point_link(link, issued["folder"])
        return "installed"

    return install_certificate


def _served(address: str) -> Any:
    async def certificate_is_served(ctx: TaskContext, issued: Any = output_of("issue_certificate")) -> bool:
        """Tell whether the live server serves the new certificate; while it restarts, it does not."""
        with contextlib.suppress(TransientError):
            return (await served_certificate(*address_of(ctx, address))).fingerprint == issued["fingerprint"]
        return False

    return certificate_is_served


def _forget(folder: str) -> AnyStep:
    @step
    def forget_old_certificates(ctx: BlockingContext) -> int:
        """Remove the folders of certificates that are out of use, save the newest; tells how many went."""
        place = Path(filled(ctx, folder))
        current = (place / CURRENT).resolve()
        made = [each for each in place.glob(f"{MADE}*") if not each.is_symlink() and _read(each) is not None]
        old = [each for each in made if each.resolve() != current]
        old.sort(key=lambda each: each.stat().st_mtime, reverse=True)
        for each in old[KEPT:]:
            with _writing(each):
                shutil.rmtree(each)
        return len(old[KEPT:])

    return forget_old_certificates


# --- what they do ----------------------------------------------------------------------------------------------------


def _nothing(reason: str) -> NotApplicable:
    return NotApplicable(reason, whole_task=True)


async def _is_ours(ctx: TaskContext, certificate: Certificate) -> bool:
    authority: CertificateAuthority = await ctx.client(AUTHORITY)
    return await authority.has_issued(certificate)


async def _is_fresh(ctx: TaskContext, certificate: Certificate, due: Any, days: float) -> bool:
    """Tell whether a certificate that lies there is as good as a new one: left by a try of before."""
    is_same = certificate.fingerprint == due["fingerprint"] or set(certificate.names) != set(due["names"])
    return not is_same and not due_text(certificate, days, ctx.now()) and await _is_ours(ctx, certificate)


def _read(folder: Path) -> Certificate | None:
    """Read the certificate of a folder that holds one and its key."""
    try:
        found = Certificate((folder / CERTIFICATE).read_text(encoding="ascii"))
        return found if (folder / KEY).is_file() and found.parsed else None
    except (OSError, ValueError):
        return None


def _keep(place: Path, name: str, issued: Issued) -> None:
    """Write a certificate and its key into a folder of their own, with the owner and the rights of those in use."""
    made = place / name
    part = place / f".{name}.part"
    with _writing(made):
        for old in (part, made):
            shutil.rmtree(old, ignore_errors=True)
        part.mkdir(mode=0o700)
        _write_as(part / KEY, issued.key, place / CURRENT / KEY, 0o600)
        _write_as(part / CERTIFICATE, issued.certificate.pem + issued.chain, place / CURRENT / CERTIFICATE, 0o644)
        _give(part, (place / CURRENT).resolve())
        part.replace(made)
        settle(place)


def _write_as(path: Path, text: str, like: Path, mode: int) -> None:
    known = like.stat() if like.exists() else None
    replace_file(path, text.encode(), stat.S_IMODE(known.st_mode) if known else mode)
    if known is not None:
        _give(path, like)


def _give(path: Path, like: Path) -> None:
    """Give a file or folder the owner and the rights of another, as far as we may."""
    if not like.exists():
        return
    known = like.stat()
    with contextlib.suppress(PermissionError):
        os.chown(path, known.st_uid, known.st_gid)
    path.chmod(stat.S_IMODE(known.st_mode))


@contextlib.contextmanager
def _writing(path: Path) -> Any:
    try:
        yield
    except OSError as error:
        raise TerminalError(
            f"{path} cannot be written", because=error.strerror or str(error), cure="see to the folder's rights"
        ) from error
