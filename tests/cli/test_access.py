"""Users, claims and the audit on the command line: what people type, are told, and are refused."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from tests.cli.conftest import Terminal, running


def added(terminal: Terminal, name: str, role: str, folder: Path) -> Terminal:
    """Add a user, and give a terminal elsewhere that has nothing of the lab but the key file."""
    path = folder / f"{name}.key"
    done = terminal("user", "add", name, "--role", role, "--out", path, "--json").json
    assert (done["role"], done["is_known"]) == (role, True)
    elsewhere = Terminal(folder / name)
    elsewhere.folder.mkdir()
    (elsewhere.folder / "labwright.toml").write_text(f'[nats]\ncreds = "{path}"\n')
    return elsewhere


def test_a_user_is_added_listed_and_revoked(site: Terminal, tmp_path: Path) -> None:
    said = site("user", "add", "ada", "--role", "operator", "--out", tmp_path / "ada.key")
    listed = site("user", "list", "--json").json["items"]
    conf = site("user", "list", "--nats-conf").out

    key = json.loads((tmp_path / "ada.key").read_text())
    assert stat.S_IMODE((tmp_path / "ada.key").stat().st_mode) == 0o600
    assert (key["name"], key["role"]) == ("ada", "operator")
    assert key["seed"] not in said.out + said.err
    assert "LABWRIGHT_CREDS=" in said.err
    assert [(user["name"], user["role"]) for user in listed] == [("ada", "operator")]
    assert f"nkey: {listed[0]['key']}" in conf
    assert site("user", "revoke", "ada").out == "ada is shut out\n"
    assert site("user", "list", "--json").json["items"] == []


def test_a_key_for_a_lab_that_is_to_listen_tells_where_and_how_it_is_known(site: Terminal, tmp_path: Path) -> None:
    (site.folder / "lab.crt").write_text("PEM of the lab")
    settings = site.folder / "labwright.toml"
    settings.write_text(settings.read_text() + '\n[nats]\nlisten = "192.0.2.5:4222"\ntls_cert = "lab.crt"\n')
    (tmp_path / "other.crt").write_text("another PEM")

    site("user", "add", "ada", "--role", "viewer", "--out", tmp_path / "ada.key")
    site("user", "add", "bob", "--role", "viewer", "--out", tmp_path / "bob.key", "--url", "tls://lab:1", "--tls-ca",
         tmp_path / "other.crt")  # fmt: skip
    keys = [json.loads((tmp_path / f"{name}.key").read_text()) for name in ("ada", "bob")]

    assert [(key["url"], key["ca"]) for key in keys] == [
        ("tls://192.0.2.5:4222", "PEM of the lab"),
        ("tls://lab:1", "another PEM"),
    ]


def test_a_key_is_never_overwritten(site: Terminal, tmp_path: Path) -> None:
    (tmp_path / "ada.key").write_text("mine")

    refused = site("user", "add", "ada", "--role", "viewer", "--out", tmp_path / "ada.key", "--json", code=6).error

    assert refused["kind"] == "conflict"
    assert (tmp_path / "ada.key").read_text() == "mine"
    assert site("user", "list", "--json").json["items"] == []


def test_a_user_that_cannot_be_added_leaves_no_file(site: Terminal, tmp_path: Path) -> None:
    site("user", "add", "a b", "--role", "viewer", "--out", tmp_path / "a.key", code=2)
    site("user", "add", "ada", "--role", "boss", "--out", tmp_path / "a.key", code=2)
    site("user", "revoke", "nobody", "--json", code=3)

    assert not (tmp_path / "a.key").exists()


@pytest.mark.parametrize("words", [["--tls-cert", "lab.crt"], ["--listen", "0.0.0.0:4222"], ["--listen", "nowhere"]])
def test_serve_listens_elsewhere_only_with_everything_that_it_takes(site: Terminal, words: list[str]) -> None:
    refused = site("serve", *words, "--json", code=4 if "0.0.0.0:4222" in words else 2)

    assert json.loads(refused.err.splitlines()[-1])["try"]


def test_what_a_role_does_not_allow_ends_with_4(lab: Terminal, tmp_path: Path) -> None:
    viewer = added(lab, "vera", "viewer", tmp_path)

    for words in ("run add -p first=1", "pools pause default", "reload", "claim --on slot-1 --for 1h"):
        refused = viewer(*words.split(), "--json", code=4).error
        assert refused["kind"] == "not_allowed"
        assert "vera" in refused["message"]
    assert viewer("runs", "list", "--json").json["items"] is not None
    told = [item for item in lab("audit", "--limit", "1000", "--json").json["items"] if item["by"] == "vera"]
    assert [item["what"] for item in told] == ["claim", "reload", "pool", "request"]
    assert all(item["kind"] == "refused" and item["role"] == "viewer" and item["origin"] for item in told)


def test_an_operator_commands_agents_and_runs_with_a_key_alone(lab: Terminal, tmp_path: Path) -> None:
    operator = added(lab, "olaf", "operator", tmp_path)
    added(lab, "pump-k", "agent", tmp_path)

    with running(lab, "pump-k", "--creds", str(tmp_path / "pump-k.key")):
        called = operator("call", "dispense", "--on", "pump-k", "-p", "volume_ml=2", "--json")
        run = operator("run", "add", "-p", "first=2", "--wait", "--json")
        shown = lab("agents", "show", "pump-k", "--json").json

    session = lab("sessions", "show", called.json["targets"]["pump-k"]["session"], "--json").json
    assert (session["by"], session["state"]) == ("olaf", "succeeded")
    assert run.code == 0
    assert {operation["role"] for operation in shown["operations"]} == {"operator"}


def test_a_claim_is_made_shown_kept_and_given_back(lab: Terminal, tmp_path: Path) -> None:
    operator = added(lab, "orla", "operator", tmp_path)
    made = lab("claim", "--on", "slot=3", "--for", "2h", "--reason", "alignment", "--json").json
    try:
        refused = operator("claim", "--on", "slot-3", "--for", "5m", "--json", code=6).error
        operator("claims", "release", made["id"], code=4)
        table = lab("claims", "list").out
    finally:
        lab("claims", "release", made["id"])

    assert refused["kind"] == "claimed"
    assert "alignment" in refused["because"]
    assert "slot=3" in table
    assert made["id"] not in {claim["id"] for claim in lab("claims", "list", "--json").json["items"]}
    assert "alignment" in lab("audit", "--since", "1h").out


@pytest.mark.parametrize(
    "text",
    ["", "2", "h", "-2h", "0h", "2.5h", "2 h", "1e3s", "\N{FULLWIDTH DIGIT NINE}h", "2hh", "99999999999d", "32d"],
)
def test_a_time_that_is_none_is_refused(lab: Terminal, text: str) -> None:
    assert lab("claim", "--on", "slot-1", "--for", text, "--json", code=2).error["kind"] == "usage"


def test_a_key_that_opens_nothing_any_more_says_so(lab: Terminal, tmp_path: Path) -> None:
    elsewhere = added(lab, "rita", "viewer", tmp_path)
    elsewhere("agents", "list")
    lab("user", "revoke", "rita")
    error = elsewhere("agents", "list", "--json", code=4).error
    assert "does not accept this key" in error["message"]


def test_users_are_let_in_only_where_a_lab_is_served(lab: Terminal, tmp_path: Path) -> None:
    elsewhere = added(lab, "rolf", "viewer", tmp_path)
    for words in (("user", "list"), ("user", "add", "more", "--role", "viewer"), ("user", "revoke", "rolf")):
        assert "not where a lab is served" in elsewhere(*words, "--json", code=2).error["message"]
    assert not (elsewhere.folder / ".labwright").exists()


def test_a_key_that_is_made_while_no_lab_runs_says_whose_place_it_names(site: Terminal, tmp_path: Path) -> None:
    state = site.folder / ".labwright"
    state.mkdir(exist_ok=True)
    (state / "connection.json").write_text(json.dumps({"url": "nats://127.0.0.1:1", "user": "u", "password": "p"}))
    said = site("user", "add", "ada", "--role", "viewer", "--out", tmp_path / "ada.key")
    assert "no lab runs here now" in said.err
    assert "--url tls://HOST:PORT" in said.err
