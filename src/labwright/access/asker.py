"""Who asks, as the subject of a command proves it: `operator=ada`, or the lab's own credential with any other words.

NATS lets each identity publish under its own name only, so nothing in the body of a command is needed as a proof.
"""

from __future__ import annotations

from dataclasses import dataclass

from labwright.core.errors import NotAllowedError
from labwright.core.roles import Role


@dataclass(frozen=True, kw_only=True)
class Asker:
    """Who asks: the holder of a key (`is_proven`), or somebody with the lab's own credential, who gives a name."""

    name: str
    role: Role = Role.ADMIN
    is_proven: bool = False

    @classmethod
    def of(cls, sender: str, claimed: str = "") -> Asker:
        """Read who asks from the words in a subject; `claimed` is the name in the body, which proves nothing.

        >>> Asker.of("operator=ada", "root")
        Asker(name='ada', role=<Role.OPERATOR: 'operator'>, is_proven=True)
        >>> Asker.of("ada@bench").role
        <Role.ADMIN: 'admin'>
        """
        role, sign, name = sender.partition("=")
        if not sign:
            return cls(name=claimed or sender)
        return cls(name=name, role=Role(role) if role in tuple(Role) else Role.VIEWER, is_proven=True)

    def __str__(self) -> str:
        return f"{self.name} ({self.role})" if self.is_proven else self.name

    def needs(self, role: Role, what: str) -> None:
        """Insist on a role.

        Raises:
            NotAllowedError: who asks has a lesser one.
        """
        if not self.role.covers(role):
            raise NotAllowedError(
                f"{self.name} may not {what}",
                because=f"that needs the role {role}, and {self.name} is {self.role}",
                cure="ask an admin of the lab for another role",
            )
