"""What an identity may say and hear on NATS, so that the server itself keeps one from speaking as another. Pure.

Each identity speaks under its own name only, `command.operator=ada.>`, and hears only its own replies. What else its
role keeps it from doing is judged by who follows the command, which knows from the subject who asks. No identity asks
JetStream itself; see `reads`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from labwright.access.identity import Identity
from labwright.core.roles import Role
from labwright.journal.connection import INBOX
from labwright.journal.session_fold import encoded

HEARD = ("presence.>", "live.>", "feed.>", "progress.>")


@dataclass(frozen=True, kw_only=True)
class Permissions:
    """Subjects with NATS's wildcards; what is not allowed is refused, and what is denied is refused in any case."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    deny_publish: tuple[str, ...] = ()


def permissions_of(identity: Identity) -> Permissions:
    """Give what an identity may say and hear."""
    me = encoded(identity.sender)
    own = (f"{INBOX}{me}.>", f"_DELIVER.{INBOX}{me}.>")
    if identity.role is Role.AGENT:
        hears = (f"command.*.{encoded(identity.name)}.*", "claim.*", *HEARD, *own)
        return Permissions(publish=_agent_says(identity.name, me), subscribe=hears)
    return Permissions(
        publish=(f"command.{me}.>", f"act.{me}.*", f"read.{me}.>", "ask.*"),
        subscribe=(*HEARD, *own),
        deny_publish=("ask.reload",),
    )


def _agent_says(name: str, me: str) -> tuple[str, ...]:
    agent = encoded(name)
    return (
        f"presence.agent.{agent}",
        f"session.{agent}.*",
        f"live.session.{agent}.*",
        f"feed.{agent}.*",
        f"audit.agent.{agent}.*",
        f"command.{me}.>",
        f"read.{me}.>",
        "log.session.*",
        "file.*",
        "blob.*.*",
        f"{INBOX}>",
    )


def users_text(identities: Iterable[Identity]) -> str:
    """Write identities as entries of the list of users in NATS's configuration."""
    return "".join(f"  {_user(identity)}\n" for identity in identities)


def _user(identity: Identity) -> str:
    allowed = permissions_of(identity)
    publish = f"allow: {json.dumps(allowed.publish)}"
    if allowed.deny_publish:
        publish += f", deny: {json.dumps(allowed.deny_publish)}"
    subscribe = f"allow: {json.dumps(allowed.subscribe)}"
    return f"{{nkey: {identity.key}, permissions: {{publish: {{{publish}}}, subscribe: {{{subscribe}}}}}}}"
