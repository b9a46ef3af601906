"""`labwright user`: who may connect beside the lab's own processes, by a key file and a role."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labwright.cli.caller import Caller, command, group
from labwright.core.errors import ConflictError, UnreachableError, UsageError
from labwright.core.roles import Role

if TYPE_CHECKING:
    from labwright.access.identity import Identity
    from labwright.run.settings import Settings

users = group("Who may connect: names with a role and a key.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The user's name; for an agent, the agent's.")]
RoleOption = Annotated[
    Role, typer.Option("--role", metavar="ROLE", help="viewer, operator, expert, admin, or agent.", show_default=False)
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="The key file to write; default: NAME.key.", show_default=False),
]
Url = Annotated[
    str,
    typer.Option(
        "--url",
        metavar="URL",
        help="Where the user reaches the lab; default: as it is reached here.",
        show_default=False,
    ),
]
Ca = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca",
        metavar="FILE",
        help="The certificate by which they know the lab; default: as it runs, or is set.",
        show_default=False,
    ),
]
NatsConf = Annotated[
    bool,
    typer.Option(
        "--nats-conf", help="Print them as users of a NATS of your own, to include there.", show_default=False
    ),
]
COLUMNS = ("name", "role", "since", "key")


def add_to(app: typer.Typer, *, panel: str) -> None:
    """Declare the commands."""
    app.add_typer(users, name="user", rich_help_panel=panel)


@command(users, "add")
def add(caller: Caller, name: Name, *, role: RoleOption, out: Out = None, url: Url = "", tls_ca: Ca = None) -> None:
    """Let somebody in: write a key file for them, which only its owner may read. No secret is kept here.

    A viewer sees everything and starts nothing, an operator starts and ends what is there, an expert does what asks for
    one, an admin may do all. An agent speaks only as the agent of that name. It takes effect at once. The file is all
    that is needed elsewhere: LABWRIGHT_CREDS=FILE, or [nats] creds in labwright.toml, or `agent start --creds FILE`.

    Examples:
      labwright user add ada --role operator
      labwright user add pump-1 --role agent --out /etc/labwright/pump-1.key
    """
    from labwright.access.identity import Identities

    settings = _lab_of(caller)
    path = (out or Path(f"{name}.key")).expanduser()
    place, ca = _place(settings, url)
    if tls_ca is not None:
        ca = _read(tls_ca.expanduser())
    descriptor = _new_file(path)
    try:
        identity, seed = Identities(settings.state_dir).add(name, role)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    _write_key(path, identity, seed, place, ca)
    is_known = _tell_server(settings)

    def show() -> None:
        caller.output.text(f"{name} is {role}; the key is in {path}")
        caller.output.talk(f"use it: LABWRIGHT_CREDS={path} labwright agents list")
        if role is Role.AGENT:
            caller.output.talk(f"for the agent: labwright agent start MODULE:CLASS --name {name} --creds {path}")
        if not place:
            caller.output.talk("no lab was served here yet, so the file does not tell where it is: set LABWRIGHT_URL")
        elif not (url or is_known or settings.nats.url):
            caller.output.talk(
                f"no lab runs here now, and the key names the place of the last one, {place}; for a lab that is to be "
                "served elsewhere (serve --listen) make it with --url tls://HOST:PORT --tls-ca FILE"
            )
        _note_own_nats(caller, settings)

    caller.output.document({**_shown(identity), "file": str(path), "url": place, "is_known": is_known}, show)


@command(users, "list")
def list_users(caller: Caller, nats_conf: NatsConf = False) -> None:
    """List who may connect, with their roles and public keys.

    Examples:
      labwright user list
      labwright user list --nats-conf
    """
    from labwright.access.identity import Identities
    from labwright.access.permissions import users_text

    found = Identities(_lab_of(caller).state_dir).all()
    if nats_conf:
        text = f"users: [\n{users_text(found)}]"
        caller.output.document({"nats_conf": text}, lambda: caller.output.text(text))
        return
    items = [_shown(identity) for identity in found]
    rows = ([item[name] for name in COLUMNS] for item in items)
    caller.output.items(items, lambda: caller.output.table(COLUMNS, rows))


@command(users, "revoke")
def revoke(caller: Caller, name: Name) -> None:
    """Shut somebody out: their key opens nothing any more, and what is connected with it is cut off.

    What they have started goes on; claims that they hold stay until they end or an admin releases them.

    Example:
      labwright user revoke ada
    """
    from labwright.access.identity import Identities

    settings = _lab_of(caller)
    identity = Identities(settings.state_dir).revoke(name)
    is_known = _tell_server(settings)

    def show() -> None:
        caller.output.text(f"{name} is shut out")
        _note_own_nats(caller, settings)

    caller.output.document({**_shown(identity), "is_known": is_known}, show)


def _lab_of(caller: Caller) -> Settings:
    """Give the settings of the lab whose users are meant.

    Raises:
        UsageError: this folder only reaches a lab elsewhere, with a key.
    """
    settings = caller.settings()
    if settings.creds_file is not None and not settings.nats.listen:
        raise UsageError(
            f"{settings.folder} is not where a lab is served",
            because=f"it reaches one elsewhere, with the key {settings.creds_file}",
            cure="an admin lets people in where `labwright serve` runs: --site DIR",
        )
    return settings


def _shown(identity: Identity) -> dict[str, Any]:
    return identity.model_dump(mode="json")


def _place(settings: Settings, url: str) -> tuple[str, str]:
    """Tell where a user reaches the lab, and the certificate by which they know it: as it runs, or as it is set."""
    from labwright.journal.connection import Address

    if settings.nats.url:
        return url or settings.nats.url, ""
    known = Address(url="")
    with contextlib.suppress(UnreachableError):
        known = Address.read(settings.state_dir / "connection.json")
    place, ca = known.url, known.ca
    if settings.nats.listen:
        certificate = settings.tls_file("ca") or settings.tls_file("cert")
        place, ca = f"tls://{settings.nats.listen}", ca or (_read(certificate) if certificate else "")
    host, _, port = place.removeprefix("tls://").rpartition(":")
    if place.startswith("tls://") and host in {"0.0.0.0", "[::]"}:  # noqa: S104 - compared, not bound
        place = f"tls://{socket.gethostname()}:{port}"
    return url or place, ca


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the certificate {path} cannot be read", because=str(error), cure="name a PEM file"
        ) from error


def _new_file(path: Path) -> int:
    """Make a file that only its owner may read."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConflictError(
            f"{path} exists already", because="a key is not overwritten", cure="name another file: --out FILE"
        ) from None
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written", because=error.strerror or str(error), cure="--out FILE"
        ) from error


def _write_key(path: Path, identity: Identity, seed: str, url: str, ca: str) -> None:
    from labwright.journal.key_file import KeyFile
    from labwright.journal.nats_server import write_private

    key = KeyFile(name=identity.name, role=identity.role, seed=seed, url=url, ca=ca)
    write_private(path, key.text())


def _tell_server(settings: Settings) -> bool:
    """Have a running nats-server of this state folder take up the change; tells whether there is one."""
    from labwright.journal.nats_server import EmbeddedServer

    return not settings.nats.url and EmbeddedServer(settings.state_dir).reload()


def _note_own_nats(caller: Caller, settings: Settings) -> None:
    if settings.nats.url:
        caller.output.talk("put this into your NATS's configuration: labwright user list --nats-conf")
