"""The settings of a site: `labwright.toml`, the environment and flags, checked and frozen."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from labwright.core.errors import UsageError
from labwright.core.ids import checked_name
from labwright.journal.key_file import KeyFile

FILE = "labwright.toml"
ENVIRONMENT = {"LABWRIGHT_URL": "nats.url", "LABWRIGHT_CREDS": "nats.creds"}
"""Variables that stand for a key of the file."""

NAMED_FILES = ("site.targets", "facts.file")

Texts = Annotated[tuple[str, ...], Field(strict=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


def _label(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class Table(BaseModel):
    """One table of the file; a key that it does not know is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)


class SiteTable(Table):
    """What the site consists of; `decide_timeout` is the longest in seconds that deciding one event may take."""

    package: str = ""
    recipes: Texts = ("recipes",)
    implementors: Texts = ()
    targets: str = "targets.yaml"
    on_rule_error: Literal["act", "hold"] = "act"
    decide_timeout: Positive = 30


class FactsTable(Table):
    """Where facts are looked up besides the site's own sources."""

    file: str = "facts.yaml"
    ispyb: str = ""


class StateTable(Table):
    """Where a running lab keeps its files."""

    dir: str = ".labwright"


class NatsTable(Table):
    """The journal's server; without a `url` an embedded one is started. `creds` is a file of credentials.

    `listen` is where the embedded one listens for others, HOST:PORT; that takes the files of a certificate.
    """

    url: str = ""
    creds: str = ""
    listen: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    tls_ca: str = ""
    replicas: Annotated[int, Field(ge=1, le=5)] = 1


class WorkersTable(Table):
    """The workers that `serve` starts; each executes up to `slots` runs at once."""

    processes: Annotated[int, Field(ge=0, le=1000)] = 1
    slots: Count = 64


class PoolTable(Table):
    """How many runs of a pool may run at once."""

    concurrency: Count = 64


class AgentTable(Table):
    """An agent for `labwright host`: kept up, kept down, or left alone, as `manage` says."""

    class_name: str = Field(alias="class")
    labels: dict[str, Annotated[str, BeforeValidator(_label)]] = Field(default_factory=dict)
    arguments: dict[str, Any] = Field(default_factory=dict)
    manage: Literal["up", "down", "ignore"] = "up"


class LeasesTable(Table):
    """How long a silent worker on another host keeps its runs; must exceed the server's recovery time."""

    seconds: Annotated[float, Field(gt=2, allow_inf_nan=False)] = 15


class RetentionTable(Table):
    """How many days the journal and the logs are kept."""

    journal_days: Positive = 365
    log_days: Positive = 30


class Tables(Table):
    """All that may stand in the file."""

    site: SiteTable = SiteTable()
    facts: FactsTable = FactsTable()
    state: StateTable = StateTable()
    nats: NatsTable = NatsTable()
    workers: WorkersTable = WorkersTable()
    pools: dict[str, PoolTable] = Field(default_factory=dict)
    agents: dict[str, AgentTable] = Field(default_factory=dict)
    leases: LeasesTable = LeasesTable()
    retention: RetentionTable = RetentionTable()

    @model_validator(mode="after")
    def _names_are_names(self) -> Self:
        for kind, names in (("pool", self.pools), ("agent", self.agents)):
            for name in names:
                _checked(name, kind)
        return self


class Settings(Tables):
    """The settings of one site; `named` lists the keys that somebody set, so that a named file must exist."""

    folder: Path
    named: Texts = ()

    @property
    def state_dir(self) -> Path:
        """Where a running lab keeps its files."""
        return self._path(self.state.dir)

    @property
    def targets_file(self) -> Path | None:
        """The file of targets, if there is one."""
        return self._file(self.site.targets)

    @property
    def facts_file(self) -> Path | None:
        """The file of facts, if there is one."""
        return self._file(self.facts.file)

    @property
    def creds_file(self) -> Path | None:
        """The file of credentials for the journal's server, if one is named."""
        return self._path(self.nats.creds) if self.nats.creds else None

    def tls_file(self, name: Literal["cert", "key", "ca"]) -> Path | None:
        """The file of that part of the certificate, if one is named."""
        text: str = getattr(self.nats, f"tls_{name}")
        return self._path(text) if text else None

    @property
    def recipe_folders(self) -> tuple[Path, ...]:
        """The folders with recipes that exist."""
        return tuple(path for path in map(self._path, self.site.recipes) if path.is_dir())

    def absent(self) -> Iterator[str]:
        """Tell which files and folders are named and do not exist, one sentence each."""
        for key in NAMED_FILES:
            table, name = key.split(".")
            text: str = getattr(getattr(self, table), name)
            if key in self.named and text and not self._path(text).is_file():
                yield f"{key} names {text!r}, and the file {self._path(text)} does not exist"
        for text in self.site.recipes if "site.recipes" in self.named else ():
            if not self._path(text).is_dir():
                yield f"site.recipes names {text!r}, and the folder {self._path(text)} does not exist"

    def _path(self, text: str) -> Path:
        return (self.folder / Path(text).expanduser()).absolute()

    def _file(self, text: str) -> Path | None:
        path = self._path(text)
        return path if text and path.is_file() else None


def load_settings(
    folder: Path | None, environ: Mapping[str, str], *, overrides: Mapping[str, object] | None = None
) -> Settings:
    """Read the settings of the site in a folder; without one, of LABWRIGHT_SITE or the current folder.

    `overrides` are flags by the key that they stand for (`{"nats.url": ...}`; None: not given). They beat the
    environment, which beats the file. Paths in the file are relative to the folder. Files that are named and do not
    exist are told by `Settings.absent` and refused by the site: who only asks a running lab need not have them.

    Raises:
        UsageError: the folder does not exist, the file cannot be read, or a key is unknown or of the wrong type.
    """
    root = _folder(folder, environ)
    tables = _read_toml(root / FILE)
    flags = {key: value for key, value in (overrides or {}).items() if value is not None}
    for key, value in {**_from_environment(environ), **flags}.items():
        _put(tables, key, value)
    checked = _check(tables)
    settings = Settings(folder=root, named=tuple(sorted(_keys(tables))), **_contents(checked))
    if (creds := settings.creds_file) is not None and not creds.is_file():
        raise UsageError(
            f"the file of credentials {creds} does not exist",
            because="LABWRIGHT_CREDS or nats.creds names it",
            cure="name a file that exists, or unset it",
        )
    return _with_zocalo(_with_key(settings), environ)


def _with_key(settings: Settings) -> Settings:
    """Take the place of the lab from a key file, unless it is named."""
    key = KeyFile.read(settings.creds_file) if settings.creds_file is not None and not settings.nats.url else None
    if key is None or not key.url:
        return settings
    return settings.model_copy(update={"nats": settings.nats.model_copy(update={"url": key.url})})


def _contents(tables: Tables) -> dict[str, Any]:
    contents = {name: getattr(tables, name) for name in Tables.model_fields}
    contents["pools"] = {"default": PoolTable(), **tables.pools}
    return contents


def _folder(folder: Path | None, environ: Mapping[str, str]) -> Path:
    root = folder or Path(environ.get("LABWRIGHT_SITE") or ".")
    root = root.expanduser().absolute()
    if not root.is_dir():
        raise UsageError(
            f"the site folder {root} does not exist",
            because="--site or LABWRIGHT_SITE names it",
            cure="name a folder that exists, or make one: labwright new site NAME",
        )
    return root


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no TOML, no UTF-8, or a number beyond reading
        raise UsageError(f"{path} cannot be read", because=str(error), cure="mend the file") from error


def _from_environment(environ: Mapping[str, str]) -> dict[str, object]:
    given = {key: text for variable, key in ENVIRONMENT.items() if (text := environ.get(variable))}
    if "nats.creds" in given:  # a path in the environment is relative to where the user stands
        given["nats.creds"] = str(Path(given["nats.creds"]).expanduser().absolute())
    return dict(given)


def _put(tables: dict[str, Any], key: str, value: object) -> None:
    name, _, field = key.partition(".")
    table = tables.setdefault(name, {})
    if isinstance(table, dict):  # otherwise the check below says what is wrong with the file
        tables[name] = {**cast("dict[str, Any]", table), field: value}


def _keys(tables: Mapping[str, Any]) -> Iterator[str]:
    for name, table in tables.items():
        if isinstance(table, Mapping):
            yield from (f"{name}.{key}" for key in cast("Mapping[str, Any]", table))


def _check(tables: Mapping[str, Any]) -> Tables:
    try:
        return Tables.model_validate(tables)
    except ValidationError as error:
        findings = [_explain(finding["type"], finding["loc"], finding["msg"]) for finding in error.errors()]
        raise UsageError(
            "\n".join(message for message, _ in findings),
            because=f"{FILE}, the environment and the flags are checked before anything starts",
            cure="; ".join(cure for _, cure in findings if cure) or f"mend {FILE}",
        ) from error


def _explain(kind: str, place: tuple[int | str, ...], message: str) -> tuple[str, str]:
    """Tell what is wrong at a place of the file, and what to try."""
    path = ".".join(map(str, place))
    if kind != "extra_forbidden":
        return f"{path or FILE}: {message.removeprefix('Value error, ')}", ""
    known = _known_keys(place[:-1])
    unknown = str(place[-1]) if place else ""
    nearest = difflib.get_close_matches(unknown, known, n=1, cutoff=0.0)
    table = f"[{'.'.join(map(str, place[:-1]))}]" if len(place) > 1 else FILE
    return f"{table} has no key {unknown!r}; it knows: {', '.join(known)}", f"did you mean {nearest[0]!r}?"


def _known_keys(place: tuple[int | str, ...]) -> list[str]:
    named: dict[object, type[Table]] = {"pools": PoolTable, "agents": AgentTable}
    model: type[BaseModel] = Tables
    if len(place) > 1:
        model = named[place[0]]
    elif place:
        model = cast("type[BaseModel]", Tables.model_fields[str(place[0])].annotation)
    return [field.alias or name for name, field in model.model_fields.items()]


def _checked(name: str, kind: str) -> None:
    try:
        checked_name(name, kind)
    except UsageError as error:
        raise ValueError(f"{error.message}: {error.because}") from error


def _with_zocalo(settings: Settings, environ: Mapping[str, str]) -> Settings:
    """Add the implementors that zocalo's own configuration names."""
    if not (path := environ.get("ZOCALO_CONFIG")):
        return settings
    implementors = dict.fromkeys((*settings.site.implementors, *_zocalo_implementors(Path(path).expanduser())))
    site = settings.site.model_copy(update={"implementors": tuple(implementors)})
    return settings.model_copy(update={"site": site})


def _zocalo_implementors(path: Path) -> tuple[str, ...]:
    mimas = _section(_read_yaml(path), "mimas")
    if isinstance(mimas, str):  # zocalo lets a plugin's settings stand in a file of their own
        mimas = _read_yaml(path.parent / mimas)
    named = _section(mimas, "implementors")
    names = cast("list[object]", named) if isinstance(named, list) else [] if named is None else [named]
    if not all(isinstance(name, str) for name in names):
        raise UsageError(
            f"{path}: mimas.implementors is no name of a package: {named!r}",
            because="ZOCALO_CONFIG names that file",
            cure="write `implementors: mimas_NAME`",
        )
    return tuple(cast("list[str]", names))


def _section(record: object, name: str) -> object:
    return cast("Mapping[str, object]", record).get(name) if isinstance(record, Mapping) else None


def _read_yaml(path: Path) -> object:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise UsageError(
            f"{path} cannot be read",
            because=f"ZOCALO_CONFIG leads to it, and: {error}",
            cure="mend the file, or unset ZOCALO_CONFIG",
        ) from error
