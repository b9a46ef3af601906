"""A MariaDB for tests: one started in a temporary folder, or a database of its own on a server that is named.

The tables come from the public ISPyB models, the rows from the folder of real data.
"""

import getpass
import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import sqlalchemy
from ispyb.sqlalchemy import Base
from sqlalchemy import URL, make_url, text
from sqlalchemy.pool import NullPool

from tests.support.requirements import require

START_S = 60
STOP_S = 30
LOAD_S = 120


@contextmanager
def mariadb_server() -> Generator[URL]:
    """Give the url of a server: the one that `LABWRIGHT_TEST_MARIADB_URL` names, else one of our own."""
    named = os.environ.get("LABWRIGHT_TEST_MARIADB_URL")
    if named:
        yield make_url(named).set(drivername="mysql+pymysql")
        return
    programs = [shutil.which(name) for name in ("mariadbd", "mariadb-install-db", "mariadb")]
    require(
        all(programs),
        "no MariaDB server was found: install mariadb-server, or name a server in LABWRIGHT_TEST_MARIADB_URL",
    )
    with TemporaryDirectory(prefix="lw-db-") as folder, _private_server(Path(folder)) as url:
        yield url


@contextmanager
def ispyb_database(server: URL, rows: Path) -> Generator[URL]:
    """Create a database with the ISPyB tables, load the rows, and drop it at the end.

    Args:
        server: A server where databases may be created.
        rows: The folder that holds `lookups.sql` and `data.sql`.
    """
    database = server.set(database=f"labwright_{uuid.uuid4().hex[:12]}")
    _execute(server, f"CREATE DATABASE {database.database} CHARACTER SET utf8mb4")
    try:
        _create_tables(database)
        for name in ("lookups.sql", "data.sql"):
            _load(database, rows / name)
        yield database
    finally:
        _execute(server, f"DROP DATABASE {database.database}")


@contextmanager
def _private_server(folder: Path) -> Generator[URL]:
    data, address, log = folder / "data", folder / "sock", folder / "log"
    _install(data)
    command = [
        "mariadbd",
        "--no-defaults",
        *(
            f"--{name}={value}"
            for name, value in {"datadir": data, "socket": address, "pid-file": folder / "pid"}.items()
        ),
        f"--user={getpass.getuser()}",
        "--skip-networking",
        "--skip-grant-tables",
        "--innodb-flush-log-at-trx-commit=0",
    ]
    url = URL.create("mysql+pymysql", username="root", query={"unix_socket": str(address)})
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as server:
        try:
            _wait_until_listening(address, server, log)
            yield url
        finally:
            _stop(server)


def _install(data: Path) -> None:
    command = [
        "mariadb-install-db",
        "--no-defaults",
        f"--datadir={data}",
        f"--user={getpass.getuser()}",
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
    ]
    _run(command, timeout=START_S)


def _wait_until_listening(address: Path, server: subprocess.Popen[bytes], log: Path) -> None:
    give_up_at = time.monotonic() + START_S
    while not _is_listening(address):
        if server.poll() is not None or time.monotonic() > give_up_at:
            message = f"mariadbd did not come up; its log:\n{log.read_text(errors='replace')}"
            raise RuntimeError(message)
        time.sleep(0.05)


def _is_listening(address: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(address)) == 0


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(STOP_S)
    except subprocess.TimeoutExpired:
        server.kill()


def _execute(url: URL, *statements: str) -> None:
    engine = sqlalchemy.create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def _create_tables(database: URL) -> None:
    engine = sqlalchemy.create_engine(database, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("SET FOREIGN_KEY_CHECKS=0"))  # the models refer to one another in circles
        Base.metadata.create_all(connection, checkfirst=False)


def _load(database: URL, rows: Path) -> None:
    require(shutil.which("mariadb"), "the mariadb client was not found: install mariadb-client")
    address = {
        "socket": database.query.get("unix_socket"),
        "host": database.host,
        "port": database.port,
        "user": database.username,
    }
    options = [f"--{name}={value}" for name, value in address.items() if value]
    environment = {**os.environ, "MYSQL_PWD": str(database.password or "")}
    with rows.open("rb") as statements:
        _run(
            ["mariadb", "--no-defaults", *options, str(database.database)],
            timeout=LOAD_S,
            stdin=statements,
            env=environment,
        )


def _run(
    command: list[str], *, timeout: float, stdin: IO[bytes] | None = None, env: dict[str, str] | None = None
) -> None:
    done = subprocess.run(
        command,
        stdin=stdin or subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=env,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        message = f"{command[0]} ended with {done.returncode}:\n{done.stdout}"
        raise RuntimeError(message)
