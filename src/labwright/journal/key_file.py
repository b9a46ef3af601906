"""The key file of an identity: its name, its role, its secret, and where the lab is. Nobody else may read it."""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast

from labwright.core.errors import UsageError
from labwright.core.ids import NAME_PATTERN
from labwright.core.roles import Role

MOST_BYTES = 256 * 1024
OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, kw_only=True)
class KeyFile:
    """What stands in a key file; `ca` is the certificate, as PEM text, by which the lab's server is known."""

    name: str
    role: Role
    seed: str = field(repr=False)
    url: str = ""
    ca: str = ""

    @property
    def sender(self) -> str:
        """The words under which this identity speaks, and nobody else can: `operator=ada`."""
        return f"{self.role}={self.name}"

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read a key file; None where the file is of another kind, such as credentials made by NATS's own tools.

        Raises:
            UsageError: it cannot be read, is not valid, or can be read by others.
        """
        try:
            with path.open("rb") as file:
                data = file.read(MOST_BYTES + 1)
                mode = stat.S_IMODE(path.stat().st_mode)
        except OSError as error:
            raise UsageError(
                f"the key file {path} cannot be read",
                because=error.strerror or str(error),
                cure="LABWRIGHT_CREDS, [nats] creds or --creds names it",
            ) from error
        if not data.lstrip().startswith(b"{"):
            return None
        if mode & OTHERS:
            raise UsageError(
                f"the key file {path} can be read by others",
                because=f"its mode is {mode:04o}, and whoever has the key is its owner for the lab",
                cure=f"chmod 600 {path}; if others may have read it: labwright user revoke NAME",
            )
        return cls._parsed(path, data)

    @classmethod
    def _parsed(cls, path: Path, data: bytes) -> Self:
        try:
            body: Any = json.loads(data) if len(data) <= MOST_BYTES else None
        except (ValueError, RecursionError):
            body = None
        fields = cast("dict[str, Any]", body) if isinstance(body, dict) else {}
        texts = {key: fields.get(key, "") for key in ("name", "role", "seed", "url", "ca")}
        is_whole = all(isinstance(text, str) for text in texts.values()) and texts["seed"]
        if not is_whole or not NAME_PATTERN.fullmatch(texts["name"]) or texts["role"] not in tuple(Role):
            raise UsageError(
                f"the key file {path} is not valid",
                because="it is no JSON object with the texts name, role and seed",
                cure="have a new one made: labwright user add NAME --role ROLE",
            )
        return cls(**{**texts, "role": Role(texts["role"])})

    def text(self) -> str:
        """Write it as it stands in a file."""
        fields = {"name": self.name, "role": self.role, "url": self.url, "ca": self.ca, "seed": self.seed}
        return json.dumps(fields, indent=2) + "\n"
