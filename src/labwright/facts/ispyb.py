"""Facts of data collections from an ISPyB database, through the public models of the package `ispyb`."""

from __future__ import annotations

import asyncio
import configparser
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labwright.core.errors import LabwrightError, NotFoundError, TerminalError, TransientError, UsageError
from labwright.core.model import Event
from labwright.decide import data_collection

if TYPE_CHECKING:
    import sqlalchemy as sa

CONNECT_S = 5
QUERY_S = 30
RECYCLE_S = 300
CREDENTIALS_SECTION = "ispyb_sqlalchemy"

NO_ACCESS = frozenset({1044, 1045, 1142, 1143, 1370, 1698})
NO_DATABASE = frozenset({1049})
OTHER_SCHEMA = frozenset({1054, 1146})
"""Numbers of MariaDB's errors: access denied, unknown database, unknown column or table."""


class IspybFacts:
    """Knows the facts of a data collection from its rows in ISPyB.

    `url` is an SQLAlchemy url such as `mysql+pymysql://reader@host/ispyb`; empty, it is made from the file that
    ISPYB_CREDENTIALS names. A password that is not in the url comes from LABWRIGHT_ISPYB_PASSWORD, from the file
    `password_file` or LABWRIGHT_ISPYB_PASSWORD_FILE (readable by its owner alone), or from ISPYB_CREDENTIALS. The
    driver is asked in a thread, with a time limit on connecting and on every question.

    Raises:
        UsageError: the url, the password's file or the credentials cannot be used.
        TerminalError: the packages of the extra `ispyb` are not installed.
    """

    name = "ispyb"
    pattern = "data_collection.*"

    def __init__(self, url: str = "", *, password_file: str | Path | None = None) -> None:
        self._url = _resolved(url, password_file)
        self._engine = _engine(self._url)

    async def facts(self, event: Event) -> Mapping[str, Any]:
        """Look up the data collection that the event is about.

        An event that is about none, or that brings a whole Mimas message, needs no lookup.

        Raises:
            NotFoundError: there is no such data collection.
            TransientError: the database does not answer.
            TerminalError: the database refuses us, or has another schema.
        """
        dcid = data_collection.dcid_of(event)
        if dcid is None or data_collection.is_message(event.data):
            return {}
        return await asyncio.to_thread(self.look_up, dcid)

    def look_up(self, dcid: int) -> Mapping[str, Any]:
        """Tell the facts of one data collection, `phase` apart; raises as `facts` does."""
        from sqlalchemy import exc

        try:
            with self._engine.connect() as connection:
                return _facts(connection, dcid)
        except exc.SQLAlchemyError as error:
            raise self._explained(error) from error

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def __repr__(self) -> str:
        return f"IspybFacts({self._url.render_as_string()!r})"

    def _explained(self, error: Exception) -> LabwrightError:
        cause: object = getattr(error, "orig", None) or error
        arguments: tuple[object, ...] = getattr(cause, "args", ())
        number = arguments[0] if arguments and isinstance(arguments[0], int) else None
        because = " ".join(str(argument) for argument in arguments) or str(cause)
        where = f"the ISPyB database at {self._url.host or self._url.render_as_string()}"
        if number in OTHER_SCHEMA:
            return TerminalError(
                f"{where} lacks a column or table",
                because=because,
                cure="install the version of the package ispyb that fits its schema, or bring the schema up to date",
            )
        if number in NO_ACCESS or number in NO_DATABASE:
            return TerminalError(
                f"{where} refuses us",
                because=because,
                cure="see [facts] ispyb in labwright.toml, LABWRIGHT_ISPYB_PASSWORD and ISPYB_CREDENTIALS",
            )
        if _is_of_the_network(error):
            return TransientError(
                f"{where} does not answer",
                because=because,
                cure="the event is kept and tried again; see that the database is up and reachable",
            )
        return TerminalError(
            f"{where} cannot be asked",
            because=because,
            cure="see [facts] ispyb in labwright.toml, and that the installed ispyb package fits the database",
        )


def _is_of_the_network(error: Exception) -> bool:
    from sqlalchemy import exc

    return isinstance(error, exc.OperationalError | exc.InterfaceError | exc.TimeoutError) or bool(
        getattr(error, "connection_invalidated", False)
    )


def _facts(connection: sa.Connection, dcid: int) -> dict[str, Any]:
    row = connection.execute(_collection(dcid)).mappings().one_or_none()
    if row is None:
        raise NotFoundError(
            f"there is no data collection {dcid}",
            because="ISPyB has no row of that id",
            cure="check the id; a collection that is only just being written appears in a moment",
        )
    images, sample, code = row["images"], row["sample"], row["proposal_code"]
    experiment_type = data_collection.snake_case(row["group_type"] or row["type_name"] or row["collection_type"])
    has_grid = connection.execute(_grid(dcid, row["group"])).first() is not None
    has_visit = code is not None and row["proposal_number"] is not None and row["visit_number"] is not None
    return {
        "dcid": dcid,
        "beamline": row["beamline"],
        "visit": f"{code}{row['proposal_number']}-{row['visit_number']}" if has_visit else None,
        "proposal_code": code,
        "experiment_type": experiment_type,
        "data_collection_class": data_collection.classify(
            experiment_type,
            has_grid=has_grid,
            images=images,
            overlap=row["overlap"],
            axis_range=row["axis_range"],
        ),
        "run_status": data_collection.run_status(row["run_status"] or ""),
        "detector_class": _detector_class(row),
        "images": images,
        "space_group": row["space_group"] or None,
        "unit_cell": data_collection.unit_cell([row[f"cell_{name}"] for name in CELL]),
        "sweeps": _sweeps(connection, row["group"]),
        "preferred_processing": row["preferred_processing"],
        "sample": sample,
        "sample_name": row["sample_name"],
        "group": row["group"],
    }


CELL = ("a", "b", "c", "alpha", "beta", "gamma")


def _collection(dcid: int) -> sa.Executable:
    """Ask for everything about one collection in one row; types are texts, for a database may know more enum values."""
    import sqlalchemy as sa

    models = _models()
    collection, group, visit = models.DataCollection, models.DataCollectionGroup, models.BLSession
    sample, crystal, container = models.BLSample, models.Crystal, models.Container
    proposal, pipeline, kind, detector = (
        models.Proposal,
        models.ProcessingPipeline,
        models.ExperimentType,
        models.Detector,
    )
    return (
        sa.select(
            collection.numberOfImages.label("images"),
            collection.overlap.label("overlap"),
            collection.axisRange.label("axis_range"),
            collection.runStatus.label("run_status"),
            collection.fileTemplate.label("file_template"),
            collection.experimenttype.label("collection_type"),
            collection.dataCollectionGroupId.label("group"),
            sa.type_coerce(group.experimentType, sa.String).label("group_type"),
            kind.name.label("type_name"),
            visit.beamLineName.label("beamline"),
            visit.visit_number.label("visit_number"),
            proposal.proposalCode.label("proposal_code"),
            proposal.proposalNumber.label("proposal_number"),
            sample.blSampleId.label("sample"),
            sample.name.label("sample_name"),
            crystal.spaceGroup.label("space_group"),
            *[getattr(crystal, f"cell_{name}").label(f"cell_{name}") for name in CELL],
            pipeline.name.label("preferred_processing"),
            detector.detectorModel.label("detector_model"),
            detector.detectorType.label("detector_type"),
        )
        .select_from(collection)
        .outerjoin(group, group.dataCollectionGroupId == collection.dataCollectionGroupId)
        .outerjoin(kind, kind.experimentTypeId == group.experimentTypeId)
        .outerjoin(visit, visit.sessionId == sa.func.coalesce(group.sessionId, collection.SESSIONID))
        .outerjoin(proposal, proposal.proposalId == visit.proposalId)
        .outerjoin(sample, sample.blSampleId == sa.func.coalesce(collection.BLSAMPLEID, group.blSampleId))
        .outerjoin(crystal, crystal.crystalId == sample.crystalId)
        .outerjoin(container, container.containerId == sample.containerId)
        .outerjoin(pipeline, pipeline.processingPipelineId == container.priorityPipelineId)
        .outerjoin(detector, detector.detectorId == collection.detectorId)
        .where(collection.dataCollectionId == dcid)
    )


def _grid(dcid: int, group: int | None) -> sa.Executable:
    """Ask for the collection's grid; older rows name only the group."""
    import sqlalchemy as sa

    models = _models()
    grid = models.GridInfo
    by_group = sa.and_(grid.dataCollectionId.is_(None), grid.dataCollectionGroupId == group)
    return sa.select(grid.gridInfoId).where(sa.or_(grid.dataCollectionId == dcid, by_group)).limit(1)


def _sweeps(connection: sa.Connection, group: int | None) -> list[dict[str, int]]:
    """List the images of all collections of the group; a collection whose images are not known has no sweep."""
    import sqlalchemy as sa

    models = _models()
    collection = models.DataCollection
    rows = connection.execute(
        sa.select(collection.dataCollectionId, collection.startImageNumber, collection.numberOfImages)
        .where(collection.dataCollectionGroupId == group)
        .order_by(collection.dataCollectionId)
    ).all()
    return [
        {"dcid": dcid, "start": start, "end": start + images - 1}
        for dcid, start, images in rows
        if images and start is not None
    ]


def _detector_class(row: Mapping[Any, Any]) -> str | None:
    """Find the kind of detector by its name, else by the files that it writes."""
    named = data_collection.detector_class(f"{row['detector_model']} {row['detector_type']}")
    template = (row["file_template"] or "").lower()
    written = {".cbf": "pilatus", ".h5": "eiger", ".nxs": "eiger"}
    return named or next((kind for suffix, kind in written.items() if template.endswith(suffix)), None)


def _models() -> Any:
    """Import the public models, which bring no types."""
    try:
        import ispyb.sqlalchemy as models  # pyright: ignore[reportMissingTypeStubs]
    except ImportError as error:
        raise TerminalError(
            "facts from ISPyB need packages that are not installed",
            because=str(error),
            cure='pip install "labwright[ispyb]"',
        ) from error
    return models


def _resolved(text: str, password_file: str | Path | None) -> sa.URL:
    _models()
    import sqlalchemy as sa
    from sqlalchemy import exc

    credentials = _credentials()
    try:
        url = sa.make_url(text) if text else _url_of(credentials)
    except (exc.ArgumentError, ValueError) as error:
        raise UsageError(
            "the url of the ISPyB database cannot be read",
            because="it is no SQLAlchemy url",
            cure='[facts] ispyb = "mysql+pymysql://reader@host/ispyb"',
        ) from error
    if url.password is not None or url.get_backend_name() == "sqlite":
        return url
    password = _password(password_file)
    if password is None and credentials.get("username") in {url.username, None}:
        password = credentials.get("password")
    return url if password is None else url.set(password=password)


def _url_of(credentials: Mapping[str, str]) -> sa.URL:
    import sqlalchemy as sa

    if not credentials:
        raise UsageError(
            "there is no ISPyB database to ask",
            because="neither [facts] ispyb nor ISPYB_CREDENTIALS is set",
            cure='[facts] ispyb = "mysql+pymysql://reader@host/ispyb"',
        )
    return sa.URL.create(
        "mysql+pymysql",
        username=credentials.get("username"),
        host=credentials.get("host"),
        port=int(credentials.get("port", "3306")),
        database=credentials.get("database"),
    )


def _password(password_file: str | Path | None) -> str | None:
    if (password := os.environ.get("LABWRIGHT_ISPYB_PASSWORD")) is not None:
        return password
    named = password_file or os.environ.get("LABWRIGHT_ISPYB_PASSWORD_FILE")
    if not named:
        return None
    path = Path(named)
    return _private_text(path, "the password of the ISPyB database").strip()


def _credentials() -> Mapping[str, str]:
    named = os.environ.get("ISPYB_CREDENTIALS")
    if not named:
        return {}
    parser = configparser.RawConfigParser(allow_no_value=True)
    try:
        parser.read_string(Path(named).read_text(encoding="utf-8"))
        return {name: value or "" for name, value in parser.items(CREDENTIALS_SECTION)}
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        raise UsageError(
            f"the credentials in {named} cannot be read",
            because=type(error).__name__,
            cure=f"ISPYB_CREDENTIALS names a file with a section [{CREDENTIALS_SECTION}]",
        ) from error


def _private_text(path: Path, what: str) -> str:
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise UsageError(f"{what} is not private", because=f"others may read {path}", cure=f"chmod 600 {path}")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{what} cannot be read", because=f"{path}: {error}", cure="mend the file") from error


def _engine(url: sa.URL) -> sa.Engine:
    import sqlalchemy as sa
    from sqlalchemy import exc

    limits: dict[str, dict[str, int]] = {
        "pymysql": {"connect_timeout": CONNECT_S, "read_timeout": QUERY_S, "write_timeout": QUERY_S},
        "mysqlconnector": {"connection_timeout": CONNECT_S, "read_timeout": QUERY_S, "write_timeout": QUERY_S},
    }
    try:
        return sa.create_engine(
            url,
            pool_pre_ping=True,
            pool_recycle=RECYCLE_S,
            connect_args=limits.get(url.get_driver_name(), {}),
        )
    except (exc.ArgumentError, exc.NoSuchModuleError, ImportError) as error:
        raise UsageError(
            "the url of the ISPyB database cannot be used",
            because=str(error),
            cure='[facts] ispyb = "mysql+pymysql://reader@host/ispyb"',
        ) from error
