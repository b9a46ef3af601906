"""The database that other tests build on holds the real rows."""

import pytest
import sqlalchemy
from ispyb.sqlalchemy import BLSession, DataCollection, DataCollectionGroup, Proposal
from sqlalchemy import select
from sqlalchemy.pool import NullPool

from tests.support.mariadb import mariadb_server

COLLECTIONS = {993677: "SAD", 1002287: "SAD", 1052494: None, 1052503: None, 1066786: None, 6017405: "Mesh"}


def test_the_six_data_collections_are_there_with_their_group_and_visit(ispyb_url: str) -> None:
    query = (
        select(DataCollection.dataCollectionId, DataCollectionGroup.experimentType, BLSession.beamLineName)
        .join(DataCollectionGroup, DataCollection.dataCollectionGroupId == DataCollectionGroup.dataCollectionGroupId)
        .join(BLSession, DataCollectionGroup.sessionId == BLSession.sessionId)
    )

    with sqlalchemy.create_engine(ispyb_url, poolclass=NullPool).connect() as connection:
        found = {row.dataCollectionId: row for row in connection.execute(query)}
        proposals = connection.scalars(select(Proposal.proposalNumber)).all()

    assert set(found) == set(COLLECTIONS)
    assert {row.beamLineName for row in found.values()} == {"i03"}
    assert all(found[dcid].experimentType == kind for dcid, kind in COLLECTIONS.items() if kind)
    assert "14451" in proposals


def test_a_missing_server_skips_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    without_a_server(monkeypatch)

    with pytest.raises(pytest.skip.Exception, match="no MariaDB server was found"), mariadb_server():
        pass


def test_a_missing_server_fails_where_everything_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    without_a_server(monkeypatch)
    monkeypatch.setenv("LABWRIGHT_REQUIRE_ALL", "1")

    with pytest.raises(pytest.fail.Exception, match="no MariaDB server was found"), mariadb_server():
        pass


def without_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    for name in ("LABWRIGHT_TEST_MARIADB_URL", "LABWRIGHT_REQUIRE_ALL"):
        monkeypatch.delenv(name, raising=False)
