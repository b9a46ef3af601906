"""What it takes to listen beyond this machine: a certificate, and at least one identity; nothing else is let in."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

from labwright.access.identity import Identities
from labwright.core.errors import NotAllowedError, UsageError
from labwright.journal.nats_server import Listen

PLACE = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})")
MOST_PORT = 65_535


def listening(
    place: str, *, cert: Path | None, key: Path | None, ca: Path | None, identities: Identities
) -> Listen | None:
    """Check where and how to listen; None where nothing but loopback is asked for.

    Raises:
        UsageError: the place or a file is not valid.
        NotAllowedError: there is no certificate, or nobody could come in.
    """
    if not place:
        if cert or key or ca:
            raise UsageError(
                "a certificate is named, and nobody listens with it", cure="name where to listen: --listen HOST:PORT"
            )
        return None
    found = PLACE.fullmatch(place)
    if found is None or not 0 < int(found[2]) <= MOST_PORT:
        raise UsageError(
            f"{place!r} is no place to listen at", because="a place is HOST:PORT", cure="--listen 192.168.1.5:4222"
        )
    if cert is None or key is None:
        raise NotAllowedError(
            f"nothing listens at {place} without TLS",
            because="keys and data would cross the network as plain text",
            cure="name a certificate: --tls-cert FILE --tls-key FILE",
        )
    if not identities.all():
        raise NotAllowedError(
            f"nothing listens at {place} as long as there are no users",
            because="nobody but this machine could come in",
            cure="add one: labwright user add NAME --role operator",
        )
    _check_files(cert, key, ca)
    return Listen(host=found[1].strip("[]"), port=int(found[2]), cert=cert, key=key, ca=ca)


def _check_files(cert: Path, key: Path, ca: Path | None) -> None:
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert, key, password=_no_password)
        ssl.create_default_context(cafile=str(ca or cert))
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise UsageError(
            "the certificate cannot be used",
            because=f"{cert}, {key}: {error}",
            cure="name PEM files that belong together",
        ) from error


def _no_password() -> str:
    """Refuse a key under a password, which nobody is here to type."""
    raise ValueError("the key is under a password")
