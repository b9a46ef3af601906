"""Fixtures that tests of several parts share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.requirements import data_folder


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Give the folder of real data, or skip where it does not exist."""
    folder = data_folder()
    if not folder.is_dir():
        pytest.skip(f"the folder of real data does not exist: {folder}; name one in LABWRIGHT_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def ispyb_url(test_data: Path) -> Iterator[str]:
    """Give the SQLAlchemy url of a MariaDB that holds the real ISPyB rows."""
    from tests.support.mariadb import ispyb_database, mariadb_server

    with mariadb_server() as server, ispyb_database(server, test_data / "ispyb") as database:
        yield database.render_as_string(hide_password=False)
