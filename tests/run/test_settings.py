"""Settings: the file, the environment and flags, and what is said about mistakes in them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labwright.core.errors import UsageError
from labwright.run.settings import Settings, Tables, load_settings


def write(folder: Path, text: str) -> Path:
    (folder / "labwright.toml").write_text(text, encoding="utf-8")
    return folder


def test_a_folder_without_a_file_has_the_documented_defaults(tmp_path: Path) -> None:
    loaded = load_settings(tmp_path, {})

    assert loaded.folder == tmp_path
    assert loaded.state_dir == tmp_path / ".labwright"
    assert loaded.site.on_rule_error == "act"
    assert (loaded.workers.processes, loaded.workers.slots) == (1, 64)
    assert loaded.pools["default"].concurrency == 64
    assert (loaded.leases.seconds, loaded.retention.journal_days, loaded.retention.log_days) == (15, 365, 30)
    assert loaded.targets_file is None
    assert list(loaded.absent()) == []


def test_flags_beat_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    write(tmp_path, '[nats]\nurl = "nats://file"')
    environ = {"LABWRIGHT_URL": "nats://environment"}

    assert load_settings(tmp_path, {}).nats.url == "nats://file"
    assert load_settings(tmp_path, environ).nats.url == "nats://environment"
    assert load_settings(tmp_path, environ, overrides={"nats.url": None}).nats.url == "nats://environment"
    assert load_settings(tmp_path, environ, overrides={"nats.url": "nats://flag"}).nats.url == "nats://flag"


def test_the_folder_comes_from_the_argument_the_environment_or_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("flag", "environment", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    environ = {"LABWRIGHT_SITE": str(tmp_path / "environment")}

    assert load_settings(tmp_path / "flag", environ).folder.name == "flag"
    assert load_settings(None, environ).folder.name == "environment"
    assert load_settings(None, {}).folder == tmp_path / "here"
    assert load_settings(Path("../flag"), {}).state_dir.is_absolute()


def test_a_site_folder_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere does not exist"):
        load_settings(tmp_path / "nowhere", {})


@pytest.mark.parametrize(
    ("text", "table", "nearest"),
    [
        ('[site]\npackge = "x"', r"\[site\]", "'package'"),
        ("[worker]\nprocesses = 1", "labwright.toml", "'workers'"),
        ("[pools.fast]\nconcurency = 1", r"\[pools.fast\]", "'concurrency'"),
        ('[agents.a]\nclas = "x"\nclass = "x"', r"\[agents.a\]", "'class'"),
        ('folder = "/"', "labwright.toml", "did you mean"),
        ("[nats]\nurls = 1", r"\[nats\]", "'url'"),
    ],
)
def test_an_unknown_key_names_its_table_and_the_nearest_known_one(
    tmp_path: Path, text: str, table: str, nearest: str
) -> None:
    with pytest.raises(UsageError, match=table) as refusal:
        load_settings(write(tmp_path, text), {})

    assert nearest in refusal.value.cure


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('[workers]\nprocesses = "2"', "workers.processes"),
        ("[workers]\nprocesses = 1.5", "workers.processes"),
        ("site = 3", "site"),
        ('[site]\non_rule_error = "ignore"', "site.on_rule_error"),
        ('[site]\nrecipes = "recipes"', "site.recipes"),
        ("[site]\nrecipes = [1]", "site.recipes.0"),
        ("[pools.fast]\nconcurrency = 0", "pools.fast.concurrency"),
        ("[leases]\nseconds = nan", "leases.seconds"),
        ("[leases]\nseconds = 1", "leases.seconds"),
        ("[agents.a]\nlabels = {}", "agents.a.class"),
        ('[pools."a b"]\nconcurrency = 1', "'a b' cannot name a pool"),
    ],
)
def test_a_wrong_value_is_named_by_its_path(tmp_path: Path, text: str, path: str) -> None:
    with pytest.raises(UsageError) as refusal:
        load_settings(write(tmp_path, text), {})

    assert path in refusal.value.message


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refusal:
        load_settings(write(tmp_path, "[site]\npackge = 1\n[workers]\nslots = 0"), {})

    assert len(refusal.value.message.splitlines()) == 2


@pytest.mark.parametrize("content", [b"[site", b"\xff\xfe", b"a = " + b"[" * 5000])
def test_a_file_that_is_no_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "labwright.toml").write_bytes(content)

    with pytest.raises(UsageError, match="cannot be read"):
        load_settings(tmp_path, {})


def test_files_that_are_named_must_exist_and_default_ones_need_not(tmp_path: Path) -> None:
    loaded = load_settings(write(tmp_path, '[site]\ntargets = "t.yaml"\nrecipes = ["r"]\n[facts]\nfile = "f.yaml"'), {})

    assert [sentence.split(" ")[0] for sentence in loaded.absent()] == ["site.targets", "facts.file", "site.recipes"]


def test_an_empty_name_means_no_file(tmp_path: Path) -> None:
    loaded = load_settings(write(tmp_path, '[site]\ntargets = ""'), {})

    assert loaded.targets_file is None
    assert list(loaded.absent()) == []


def test_a_file_of_credentials_must_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="credentials"):
        load_settings(tmp_path, {"LABWRIGHT_CREDS": str(tmp_path / "absent.creds")})

    (tmp_path / "here.creds").touch()
    loaded = load_settings(tmp_path, {"LABWRIGHT_CREDS": str(tmp_path / "here.creds")})
    assert loaded.creds_file == tmp_path / "here.creds"


@pytest.mark.parametrize(
    ("yaml", "expected"),
    [
        ("mimas:\n  implementors: mimas_a", ("own", "mimas_a")),
        ("mimas:\n  implementors: [mimas_a, own]", ("own", "mimas_a")),
        ("mimas:\n  plugin: mimas", ("own",)),
        ("mimas: other.yaml", ("own", "mimas_b")),
        ("version: 1", ("own",)),
        ("", ("own",)),
    ],
)
def test_implementors_are_read_from_the_configuration_of_zocalo_too(
    tmp_path: Path, yaml: str, expected: tuple[str, ...]
) -> None:
    write(tmp_path, '[site]\nimplementors = ["own"]')
    (tmp_path / "other.yaml").write_text("implementors: mimas_b")
    (tmp_path / "zocalo.yaml").write_text(yaml)

    loaded = load_settings(tmp_path, {"ZOCALO_CONFIG": str(tmp_path / "zocalo.yaml")})

    assert loaded.site.implementors == expected


@pytest.mark.parametrize("yaml", ["mimas: {implementors: 3}", "mimas: absent.yaml", "[", "a: !custom x"])
def test_a_configuration_of_zocalo_that_cannot_be_used_is_an_error(tmp_path: Path, yaml: str) -> None:
    (tmp_path / "zocalo.yaml").write_text(yaml)

    with pytest.raises(UsageError, match=r"\.yaml"):
        load_settings(tmp_path, {"ZOCALO_CONFIG": str(tmp_path / "zocalo.yaml")})


def test_settings_survive_the_way_to_another_process(tmp_path: Path) -> None:
    text = '[site]\nrecipes = ["r"]\n[agents.a]\nclass = "m:C"\nlabels = {crate = 1}\n[pools.fast]\nconcurrency = 2'
    loaded = load_settings(write(tmp_path, text), {})

    again = Settings.model_validate_json(loaded.model_dump_json(by_alias=True))

    assert again == loaded
    assert again.agents["a"].labels == {"crate": "1"}
    assert list(again.absent()) == list(loaded.absent()) != []


def toml(value: Any) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case bool():
            return str(value).lower()
        case str():
            return '"' + "".join(f"\\U{ord(char):08x}" for char in value) + '"'
        case _:
            return str(value)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = st.booleans() | st.integers(-3, 3) | st.floats() | TEXTS
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))
KEYS = [key for table in Tables.model_fields.values() for key in getattr(table.annotation, "model_fields", {})]
DOCUMENTS = st.dictionaries(
    st.sampled_from([*Tables.model_fields, "sites"]),
    VALUES | st.dictionaries(st.sampled_from(KEYS), VALUES | st.dictionaries(TEXTS, VALUES), max_size=3),
    max_size=4,
)


@given(document=DOCUMENTS)
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_toml_either_loads_or_is_refused_as_misuse(tmp_path: Path, document: dict[str, Any]) -> None:
    write(tmp_path, "".join(f"{key} = {toml(value)}\n" for key, value in document.items()))

    try:
        loaded = load_settings(tmp_path, {})
    except UsageError:
        return
    assert Settings.model_validate_json(loaded.model_dump_json(by_alias=True)) == loaded


@given(content=st.binary(max_size=60))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_either_load_or_are_refused_as_misuse(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "labwright.toml").write_bytes(content)

    with contextlib.suppress(UsageError):
        load_settings(tmp_path, {})
