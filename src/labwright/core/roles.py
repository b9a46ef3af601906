"""Roles: what an identity may do, from looking on to everything."""

from __future__ import annotations

from enum import StrEnum

from labwright.core.errors import UsageError


class Role(StrEnum):
    """What somebody may do; each role may do what those before it may, save that an agent only speaks for itself."""

    AGENT = "agent"
    VIEWER = "viewer"
    OPERATOR = "operator"
    EXPERT = "expert"
    ADMIN = "admin"

    def covers(self, needed: Role) -> bool:
        """Tell whether who has this role may do what needs that one.

        >>> Role.EXPERT.covers(Role.OPERATOR), Role.VIEWER.covers(Role.OPERATOR), Role.AGENT.covers(Role.VIEWER)
        (True, False, True)
        """
        return _RANK[self] >= _RANK[needed]


_RANK = {Role.AGENT: 0, Role.VIEWER: 0, Role.OPERATOR: 1, Role.EXPERT: 2, Role.ADMIN: 3}

NEEDED = (Role.VIEWER, Role.OPERATOR, Role.EXPERT, Role.ADMIN)
"""The roles that an operation or a task may ask for."""


def checked_role(value: object, what: str) -> Role:
    """Give the role that an operation or a task asks for.

    Raises:
        UsageError: there is none of that name, or nothing can ask for it.
    """
    for role in NEEDED:
        if value == role:
            return role
    raise UsageError(
        f"the role of {what} cannot be {value!r}",
        because=f"the roles are: {', '.join(NEEDED)}",
        cure="leave it out for operator",
    )
