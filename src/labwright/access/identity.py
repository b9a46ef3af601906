"""Identities: who may connect beside the lab's own processes, by name, role and public key; no secret is kept.

They stand in `identities.json` in the state folder, and as users of NATS in `identities.conf` beside it. Who was shut
out is kept in `revoked.json`, so that a key that is shown later has its owner's name.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import Field, TypeAdapter, ValidationError

from labwright.core.errors import ConflictError, LabwrightError, NotFoundError
from labwright.core.ids import NAME_PATTERN, checked_name
from labwright.core.model import Instant, Model, utc_now
from labwright.core.roles import Role
from labwright.journal.nats_server import write_private

MOST_REVOKED = 1000
"""So many revoked identities are remembered, the newest."""
PUBLIC_KEY = r"^U[A-Z2-7]{55}$"


class IdentitiesError(LabwrightError):
    """The identities of a lab cannot be read."""

    kind = "identities"


class Identity(Model):
    """One who may connect: `key` is the public half of an NATS nkey, whose other half only its owner has."""

    name: Annotated[str, Field(pattern=f"^{NAME_PATTERN.pattern}$")]
    role: Role
    key: Annotated[str, Field(pattern=PUBLIC_KEY)]
    since: Instant = Field(default_factory=utc_now)

    @property
    def sender(self) -> str:
        """The words under which it speaks."""
        return f"{self.role}={self.name}"


_ALL: TypeAdapter[tuple[Identity, ...]] = TypeAdapter(tuple[Identity, ...])


class Identities:
    """The identities of the lab whose state is in a folder."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "identities.json"
        self._users = state_dir / "identities.conf"
        self._revoked = state_dir / "revoked.json"
        self._lock = state_dir / "identities.lock"

    def all(self) -> tuple[Identity, ...]:
        """List them by name.

        Raises:
            IdentitiesError: the file is not valid.
        """
        return _read(self.path)

    def revoked(self) -> tuple[Identity, ...]:
        """List who was shut out, the newest last.

        Raises:
            IdentitiesError: the file is not valid.
        """
        return _read(self._revoked)

    def add(self, name: str, role: Role) -> tuple[Identity, str]:
        """Make an identity; gives it and its secret, which is kept nowhere.

        Raises:
            UsageError: the name is not valid.
            ConflictError: there is one of that name.
        """
        checked_name(name, "user")
        seed, key = new_key()
        with self._changing() as known:
            if name in known:
                raise ConflictError(
                    f"there is a user {name!r} already",
                    because=f"with the role {known[name].role}, since {known[name].since:%Y-%m-%d}",
                    cure=f"take another name, or: labwright user revoke {name}",
                )
            known[name] = Identity(name=name, role=role, key=key)
            return known[name], seed

    def revoke(self, name: str) -> Identity:
        """Have an identity not be known any more.

        Raises:
            NotFoundError: there is none of that name.
        """
        with self._changing() as known:
            if name not in known:
                raise NotFoundError(
                    f"there is no user {name!r}", because=f"there are: {', '.join(sorted(known)) or 'none'}"
                )
            shut_out = [*self.revoked(), known[name]][-MOST_REVOKED:]
            write_private(self._revoked, _text(shut_out))
            return known.pop(name)

    @contextlib.contextmanager
    def _changing(self) -> Generator[dict[str, Identity]]:
        """Give the identities to change, while nobody else does."""
        from labwright.access.permissions import users_text

        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = {identity.name: identity for identity in self.all()}
            yield known
            chosen = [known[name] for name in sorted(known)]
            write_private(self.path, _text(chosen))
            write_private(self._users, users_text(chosen))
        finally:
            os.close(lock)


def _read(path: Path) -> tuple[Identity, ...]:
    try:
        return _ALL.validate_json(path.read_bytes())
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    except ValidationError as error:
        said = error.errors(include_url=False, include_input=False)[0]
        raise _unreadable(path, f"{'.'.join(str(part) for part in said['loc'])}: {said['msg']}") from None


def _text(identities: Iterable[Identity]) -> str:
    return json.dumps([each.model_dump(mode="json") for each in identities], indent=2) + "\n"


def _unreadable(path: Path, because: str) -> IdentitiesError:
    return IdentitiesError(
        "the identities cannot be read",
        because=f"{path}: {because}",
        cure="mend the file, or bring an older one back; then labwright user list",
    )


def new_key() -> tuple[str, str]:
    """Make a key of NATS: its seed, which is secret, and its public half."""
    import nkeys  # loaded where a key is made or used, and nowhere else  # pyright: ignore[reportMissingTypeStubs]

    made = cast("Any", nkeys)
    seed: bytes = made.encode_seed(os.urandom(32), made.PREFIX_BYTE_USER)
    return seed.decode(), made.from_seed(bytearray(seed)).public_key.decode()


def key_owners(identities: Iterable[Identity]) -> dict[str, Identity]:
    """Give identities by their public keys, as logs of nats-server name them."""
    return {identity.key: identity for identity in identities}
