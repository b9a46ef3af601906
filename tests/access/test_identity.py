"""Identities, their keys and their files: odd ones are refused in words, and no secret is kept."""

from __future__ import annotations

import contextlib
import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labwright.access.asker import Asker
from labwright.access.identity import Identities, IdentitiesError, Identity, new_key
from labwright.access.nats_log import violation_of
from labwright.access.permissions import permissions_of, users_text
from labwright.core.errors import ConflictError, LabwrightError, NotFoundError, UsageError
from labwright.core.ids import NAME_PATTERN
from labwright.core.roles import Role, checked_role
from labwright.journal.connection import Address, is_inbox
from labwright.journal.key_file import KeyFile

FUZZ = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
NAMES = st.from_regex(NAME_PATTERN, fullmatch=True)
KEY = "U" + "A" * 55
OTHER = "U" + "B" * 55


def test_no_secret_is_kept_and_nobody_else_reads_the_files(tmp_path: Path) -> None:
    identity, seed = Identities(tmp_path).add("ada", Role.OPERATOR)

    for path in tmp_path.iterdir():
        assert seed not in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Identities(tmp_path).all() == (identity,)
    assert seed.startswith("SU")
    assert identity.key.startswith("U")


def test_a_name_is_given_once_and_can_be_given_again_after_it_was_revoked(tmp_path: Path) -> None:
    identities = Identities(tmp_path)
    first, _ = identities.add("ada", Role.OPERATOR)

    with pytest.raises(ConflictError, match="a user 'ada' already"):
        identities.add("ada", Role.ADMIN)
    identities.revoke("ada")
    with pytest.raises(NotFoundError):
        identities.revoke("ada")
    again, _ = identities.add("ada", Role.VIEWER)

    assert again.key != first.key
    assert first.key not in (tmp_path / "identities.conf").read_text()


@pytest.mark.parametrize("name", ["", "a b", "a=b", "a/b", "*", ">", "a" * 129, "ä", 'x"}', "a\n"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        Identities(tmp_path).add(name, Role.VIEWER)
    assert Identities(tmp_path).all() == ()


@FUZZ
@given(
    data=st.binary()
    | st.text().map(str.encode)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(lambda value: json.dumps(value).encode())
)
def test_whatever_stands_in_the_file_of_identities_it_is_read_or_refused_in_words(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "identities.json").write_bytes(data)
    found = None
    with contextlib.suppress(IdentitiesError):
        found = Identities(tmp_path).all()

    assert not found


@pytest.mark.parametrize(
    "change", [{"name": "a>b"}, {"role": "root"}, {"key": "SUAAA"}, {"key": KEY + "}, {user: evil"}, {"since": "soon"}]
)
def test_an_identity_that_would_open_more_than_it_may_is_refused(tmp_path: Path, change: dict[str, str]) -> None:
    whole = {"name": "ada", "role": "viewer", "key": KEY, "since": "2026-01-01T00:00:00Z"}
    (tmp_path / "identities.json").write_text(json.dumps([{**whole, **change}]))

    with pytest.raises(IdentitiesError):
        Identities(tmp_path).all()


@given(name=NAMES, role=st.sampled_from(Role))
def test_every_identity_speaks_under_its_own_name_only(name: str, role: Role) -> None:
    identity = Identity(name=name, role=role, key=KEY)
    allowed = permissions_of(identity)
    part = f"{role}={name}".replace(".", "%2E")

    spoken = [subject for subject in allowed.publish if subject.startswith(("command.", "act."))]
    assert all(subject.split(".")[1] == part for subject in spoken)
    heard = [subject for subject in allowed.subscribe if "_INBOX" in subject]
    assert all(f".{part}." in subject for subject in heard)
    assert not {">", "*", "*.>", "$JS.>", "$JS.API.>", "_INBOX.>"} & {*allowed.subscribe}
    assert not {">", "*", "*.>"} & {*allowed.publish}
    assert not [subject for subject in (*allowed.publish, *allowed.subscribe) if subject.startswith("$")]
    assert users_text([identity]).count("\n") == 1


@given(sender=st.text(), claimed=st.text())
def test_words_without_a_known_role_are_never_more_than_a_viewers(sender: str, claimed: str) -> None:
    asker = Asker.of(sender, claimed)

    assert asker.is_proven is ("=" in sender)
    if asker.is_proven:
        assert asker.name == sender.partition("=")[2]
        assert asker.role in {
            Role.VIEWER,
            Role(sender.partition("=")[0]) if sender.partition("=")[0] in list(Role) else Role.VIEWER,
        }


@pytest.mark.parametrize("role", ["agent", "root", "", None, 3, "Admin"])
def test_an_operation_can_only_ask_for_a_role_that_there_is(role: object) -> None:
    with pytest.raises(UsageError, match="the role of"):
        checked_role(role, "the operation 'x'")


def test_who_has_no_key_loads_nothing_for_keys() -> None:
    code = "import sys, labwright.agents.process, labwright.server; print({'nkeys', 'nacl'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout == "set()\n"


# --- key files -------------------------------------------------------------------------------------------------------


def key_file(path: Path, data: bytes | str, mode: int = 0o600) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    path.chmod(mode)
    return path


def test_a_key_file_is_read_back(tmp_path: Path) -> None:
    key = KeyFile(name="ada", role=Role.EXPERT, seed=new_key()[0], url="tls://lab:4222", ca="PEM")
    path = key_file(tmp_path / "ada.key", key.text())

    assert KeyFile.read(path) == key
    address = Address.of("", path)
    assert (address.url, address.identity, address.seed) == ("tls://lab:4222", "expert=ada", key.seed)
    assert Address.of("nats://elsewhere:4222", path).url == "nats://elsewhere:4222"
    assert key.seed not in repr(key)
    assert key.seed not in repr(address)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = key_file(tmp_path / "ada.key", KeyFile(name="ada", role=Role.VIEWER, seed="S").text(), mode)

    with pytest.raises(UsageError, match="can be read by others"):
        KeyFile.read(path)


def test_credentials_of_another_kind_are_left_to_nats(tmp_path: Path) -> None:
    path = key_file(tmp_path / "some.creds", "-----BEGIN NATS USER JWT-----\n...", 0o644)

    assert KeyFile.read(path) is None
    assert Address.of("nats://lab:4222", path).credentials == str(path)


def test_a_key_file_without_a_place_needs_one(tmp_path: Path) -> None:
    path = key_file(tmp_path / "ada.key", KeyFile(name="ada", role=Role.VIEWER, seed="S").text())

    with pytest.raises(UsageError, match="does not tell where the lab is"):
        Address.of("", path)


@FUZZ
@given(
    data=st.text().map(lambda text: "{" + text)
    | st.dictionaries(
        st.sampled_from(["name", "role", "seed", "url", "ca", "more"]),
        st.text() | st.integers() | st.none() | st.lists(st.text()) | st.sampled_from(["viewer", "ada"]),
    ).map(json.dumps)
)
def test_odd_key_files_are_refused_in_words(tmp_path: Path, data: str) -> None:
    path = key_file(tmp_path / "odd.key", data.encode(errors="replace"))
    key = None
    with contextlib.suppress(UsageError):
        key = KeyFile.read(path)

    assert key is None or (key.name and key.seed)


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: None])
def test_a_key_file_that_is_none_is_refused(tmp_path: Path, make: object) -> None:
    path = tmp_path / "no.key"
    make(path)  # pyright: ignore[reportCallIssue]

    with pytest.raises(LabwrightError, match="cannot be read"):
        KeyFile.read(path)


@pytest.mark.parametrize(
    "reply",
    ["", "command.x", "$JS.API.STREAM.DELETE.JOURNAL", "_INBOX", "_INBOX.>", "_INBOX.*", "_INBOXES.a", "a._INBOX.b"],
)
def test_what_is_no_inbox_gets_no_reply(reply: str) -> None:
    assert not is_inbox(reply)


# --- the log of nats-server ------------------------------------------------------------------------------------------


SHOWN = f'[1] 2026/11/30 11:45:29.77 [ERR] 127.0.0.1:1 - cid:10 - "v2:py" - "$G/nkey:{KEY}" -'
UNKNOWN = "[1] 2026/11/30 11:45:31.9 [ERR] 127.0.0.1:1 - cid:16 - authentication error"


@pytest.mark.parametrize(
    ("line", "what", "key"),
    [
        (f'{SHOWN} Publish Violation - Subject "command.x"', "speak on command.x", KEY),
        (f'{SHOWN} Subscription Violation - Subject "_INBOX.a.>", SID 1', "listen to _INBOX.a.>", KEY),
        (f'{UNKNOWN} - User "bob"', "connect as bob", ""),
        (f'{UNKNOWN} - Nkey "{KEY}"', f"connect with the key {KEY}", ""),
        (UNKNOWN, "connect", ""),
    ],
)
def test_a_refusal_is_read_from_the_log(line: str, what: str, key: str) -> None:
    found = violation_of(line)

    assert found is not None
    assert (found.what, found.key, found.origin) == (what, key, "127.0.0.1:1")


CLIENTS = [
    OTHER,
    f"nkey:{OTHER}",
    f'\\" - \\"$G/nkey:{OTHER}\\" - Publish Violation - Subject \\"x\\"',
    f'authentication error - Nkey \\"{OTHER}\\"',
    "\\\\",
]
"""What a client may call itself, as nats-server writes it."""


@pytest.mark.parametrize("name", CLIENTS)
def test_nobody_is_taken_for_another_by_the_name_of_a_client(name: str) -> None:
    begin = f'[1] 2026/11/30 11:45:29.77 [ERR] 127.0.0.1:1 - cid:10 - "v2:py:{name}" - '
    violation = violation_of(f'{begin}"$G/nkey:{KEY}" - Publish Violation - Subject "run.x\\"{OTHER}"')
    intrusion = violation_of(f"{begin}authentication error")

    assert violation is not None
    assert (violation.what, violation.key) == (f'speak on run.x\\"{OTHER}', KEY)
    assert intrusion is not None
    assert (intrusion.what, intrusion.key) == ("connect", "")


@given(line=st.text() | st.text().map(lambda text: f"[ERR] 1 - cid:1 - Publish Violation - {text}"))
def test_no_line_of_a_log_breaks_its_reader(line: str) -> None:
    violation_of(line)
