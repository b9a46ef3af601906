"""Facts from ISPyB: the real rows, and what is said when the database does not help."""

import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from labwright.core.errors import LabwrightError, NotFoundError, TerminalError, TransientError, UsageError
from labwright.core.model import Event
from labwright.decide.scenario import Scenario
from labwright.facts.ispyb import IspybFacts
from labwright.facts.source import gather

COLLECTIONS = {
    993677: ("rotation", "sad", "pilatus"),
    1002287: ("rotation", "sad", "pilatus"),
    1052494: ("screening", "sad", "pilatus"),
    1052503: ("screening", "sad", "pilatus"),
    1066786: ("screening", "sad", "pilatus"),
    6017405: ("grid", "mesh", "eiger"),
}


@pytest.fixture
def facts(ispyb_url: str) -> Iterator[IspybFacts]:
    source = IspybFacts(ispyb_url)
    yield source
    source.close()


def ended(**fields: Any) -> Event:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Event(id="1", source="test", type="data_collection.end", time=now, **fields)


@pytest.mark.mariadb
@pytest.mark.parametrize(("dcid", "expected"), COLLECTIONS.items())
def test_the_real_collections_are_classified(facts: IspybFacts, dcid: int, expected: tuple[str, ...]) -> None:
    found = facts.look_up(dcid)

    assert (found["data_collection_class"], found["experiment_type"], found["detector_class"]) == expected
    assert (found["dcid"], found["beamline"], found["proposal_code"]) == (dcid, "i03", "cm")
    assert found["run_status"] == "success"


@pytest.mark.mariadb
async def test_a_scenario_has_every_published_fact(facts: IspybFacts) -> None:
    event = ended(subject="993677")

    scenario = Scenario.of(event, (await gather(event, [facts])).facts)

    assert dict(scenario.facts) == {
        "dcid": 993677,
        "phase": "end",
        "beamline": "i03",
        "visit": "cm14451-1",
        "proposal_code": "cm",
        "experiment_type": "sad",
        "data_collection_class": "rotation",
        "run_status": "success",
        "detector_class": "pilatus",
        "images": 3600,
        "space_group": None,
        "unit_cell": None,
        "sweeps": ({"dcid": 993677, "start": 1, "end": 3600},),
        "preferred_processing": None,
        "sample": 374695,
        "sample_name": "tlys_jan_4",
        "group": 988855,
    }


@pytest.mark.mariadb
def test_the_space_group_comes_from_the_crystal(facts: IspybFacts) -> None:
    assert facts.look_up(1066786)["space_group"] == "P41212"


@pytest.mark.mariadb
@pytest.mark.parametrize("fields", [{"subject": "993677"}, {"data": {"dcid": 993677}}, {"data": {"dcid": "993677"}}])
async def test_the_dcid_is_the_subject_or_in_the_data(facts: IspybFacts, fields: dict[str, Any]) -> None:
    assert (await facts.facts(ended(**fields)))["dcid"] == 993677


@pytest.mark.mariadb
@pytest.mark.parametrize("dcid", [1, 0, -5, 10**17])
def test_an_unknown_collection_is_not_found(facts: IspybFacts, dcid: int) -> None:
    with pytest.raises(NotFoundError, match=f"no data collection {dcid}"):
        facts.look_up(dcid)


@pytest.fixture
def changed(ispyb_url: str) -> Iterator[sa.URL]:
    """Give a copy of the one table, without a column that we ask for."""
    server = sa.create_engine(ispyb_url)
    name = f"{server.url.database}_changed"
    with server.begin() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
        connection.execute(sa.text(f"CREATE TABLE {name}.DataCollection (dataCollectionId INT)"))
    yield server.url.set(database=name)
    with server.begin() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name}"))
    server.dispose()


@pytest.mark.mariadb
def test_another_schema_needs_somebodys_help(changed: sa.URL) -> None:
    source = IspybFacts(changed.render_as_string(hide_password=False))

    with pytest.raises(TerminalError, match="lacks a column or table") as raised:
        source.look_up(993677)
    source.close()

    assert "ispyb" in raised.value.cure


@pytest.mark.mariadb
def test_a_missing_database_needs_somebodys_help(ispyb_url: str) -> None:
    source = IspybFacts(sa.make_url(ispyb_url).set(database="nowhere_at_all").render_as_string(hide_password=False))

    with pytest.raises(TerminalError, match="refuses us"):
        source.look_up(1)
    source.close()


def test_a_dead_database_may_work_later() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        source = IspybFacts(f"mysql+pymysql://reader:secret@127.0.0.1:{taken.getsockname()[1]}/ispyb")

        with pytest.raises(TransientError, match="does not answer") as raised:
            source.look_up(993677)

    assert "secret" not in f"{raised.value!r} {raised.value.because} {source!r}"


async def test_a_whole_mimas_message_needs_no_lookup_nor_an_event_without_a_collection() -> None:
    source = IspybFacts("mysql+pymysql://reader@127.0.0.1:1/ispyb")
    message = {"dcid": "12", "event": "end", "beamline": "i03", "experimenttype": "SAD"}

    assert await source.facts(ended(data=message)) == {}
    assert await source.facts(ended(subject="not a number")) == {}


def url_of(source: IspybFacts) -> str:
    url: sa.URL = vars(source)["_url"]
    return url.render_as_string(hide_password=False)


def test_the_password_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABWRIGHT_ISPYB_PASSWORD", "from env")

    assert url_of(IspybFacts("mysql+pymysql://reader@host/ispyb")) == "mysql+pymysql://reader:from env@host/ispyb"
    assert url_of(IspybFacts("mysql+pymysql://reader:mine@host/ispyb")) == "mysql+pymysql://reader:mine@host/ispyb"


def test_the_password_comes_from_a_private_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "password"
    path.write_text("secret\n")
    path.chmod(0o600)
    monkeypatch.setenv("LABWRIGHT_ISPYB_PASSWORD_FILE", str(path))

    assert url_of(IspybFacts("mysql+pymysql://reader@host/ispyb")) == "mysql+pymysql://reader:secret@host/ispyb"

    path.chmod(0o640)
    with pytest.raises(UsageError, match="not private"):
        IspybFacts("mysql+pymysql://reader@host/ispyb", password_file=path)
    with pytest.raises(UsageError, match="cannot be read"):
        IspybFacts("mysql+pymysql://reader@host/ispyb", password_file=tmp_path / "absent")


def test_everything_may_come_from_the_credentials_of_the_ispyb_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "credentials.cfg"
    path.write_text(
        "[ispyb_sqlalchemy]\nusername = reader\npassword = s%cret\nhost = db\nport = 3307\ndatabase = ispyb\n"
    )
    monkeypatch.setenv("ISPYB_CREDENTIALS", str(path))

    assert url_of(IspybFacts()) == "mysql+pymysql://reader:s%25cret@db:3307/ispyb"
    assert url_of(IspybFacts("mysql+pymysql://reader@host/ispyb")) == "mysql+pymysql://reader:s%25cret@host/ispyb"
    assert url_of(IspybFacts("mysql+pymysql://other@host/ispyb")) == "mysql+pymysql://other@host/ispyb"


@pytest.mark.parametrize("url", ["", "nonsense", "mysql+nothing://host/ispyb"])
def test_a_url_that_cannot_be_used_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ISPYB_CREDENTIALS", raising=False)

    with pytest.raises(UsageError) as raised:
        IspybFacts(url)

    assert "mysql+pymysql" in raised.value.cure


def test_credentials_that_cannot_be_read_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISPYB_CREDENTIALS", str(tmp_path / "absent"))

    with pytest.raises(LabwrightError, match="credentials"):
        IspybFacts()
