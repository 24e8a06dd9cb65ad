"""Connections to the catalog's database: SQLite or PostgreSQL, their locks, and their errors."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import ArgumentError, DataError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from lakewarden.errors import WrongUsage
from lakewarden.lake.model import CatalogUnavailable

CONNECT_TIMEOUT = 10  # seconds
ADVISORY_LOCK = 0x1A4E_3A9D  # ours, for making the tables

_IMMEDIATE = "lakewarden_immediate"


class CatalogUriInvalid(WrongUsage):
    """The catalog's uri is not a database URL."""


def database_url(uri: str) -> URL:
    """Raises CatalogUriInvalid, which quotes nothing of it: it may hold a password."""
    try:
        url = make_url(uri)
    except (ArgumentError, ValueError):
        url = None
    if url is None or "@" in (url.host or ""):  # what is left of a password with an @ in it
        raise CatalogUriInvalid(
            "the catalog's uri is not a database URL",
            hint="Write sqlite:///path/to/catalog.db or postgresql+psycopg://host/database; in a"
            " password write %40 for @, %3A for :, %2F for /, or give it by `password`.",
        )
    return url


def driver_missing(error: ModuleNotFoundError) -> WrongUsage:
    """What to say where PostgreSQL's driver is not installed."""
    return WrongUsage(
        f"PostgreSQL needs the Python package {error.name}",
        hint="pip install 'lakewarden[postgres]'",
    )


def make_engine(uri: str, lock_timeout: int) -> Engine:
    """An engine whose errors are CatalogUnavailable (IntegrityError and DataError stay as they
    are: they are answers). A writer waits `lock_timeout` seconds for another one. Connects to
    nothing yet. Raises CatalogUriInvalid."""
    url = database_url(uri)
    match url.drivername.partition("+")[0]:
        case "sqlite":
            engine = _sqlite(url, lock_timeout)
        case "postgresql":
            engine = _postgresql(url, lock_timeout)
        case other:
            raise WrongUsage(
                f"a SQL catalog on {other} is not supported",
                hint="Use SQLite or PostgreSQL.",
            )
    _translate_errors(engine)
    return engine


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    with _connected(engine) as connection, connection.begin():
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction, committed at the end. On SQLite it holds the write lock from its start;
    on PostgreSQL (READ COMMITTED) the caller locks rows, the head's first."""
    with _connected(engine) as connection:
        connection.execution_options(**{_IMMEDIATE: True})
        with connection.begin():
            yield connection


def lock_schema(connection: Connection) -> None:
    """Let one process at a time make tables, until the transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))


def make_room(engine: Engine) -> None:
    """Make the folder of an SQLite file."""
    if engine.dialect.name == "sqlite" and engine.url.database:
        try:
            Path(engine.url.database).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CatalogUnavailable(f"no folder for the catalog's file: {error}") from error


@contextmanager
def _connected(engine: Engine) -> Iterator[Connection]:
    try:
        with engine.connect() as connection:
            yield connection
    except PoolTimeout as error:
        raise CatalogUnavailable("every connection to the catalog is in use") from error


def _sqlite(url: URL, lock_timeout: int) -> Engine:
    if not url.database or url.database == ":memory:":
        raise WrongUsage(
            "a catalog in memory is gone when the command ends",
            hint="Write sqlite:///path/to/catalog.db.",
        )
    database = url.database
    engine = create_engine(url, connect_args={"timeout": lock_timeout}, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _on_connect(dbapi: sqlite3.Connection, record: ConnectionPoolEntry) -> None:
        record.info[_FILE] = _identity(Path(database))
        dbapi.isolation_level = None  # BEGIN is ours to say, below
        for attempt in Retrying(
            retry=retry_if_exception(_is_busy),
            stop=stop_after_delay(lock_timeout),
            wait=wait_fixed(0.02),
            reraise=True,
        ):
            with attempt:
                _use_wal(dbapi)

    @event.listens_for(engine, "checkout")
    def _on_checkout(_dbapi: object, record: ConnectionPoolEntry, _proxy: object) -> None:
        # SQLite goes on with an open file that is nobody's any more: a publish would be lost.
        if _identity(Path(database)) != record.info[_FILE]:
            raise CatalogUnavailable(
                f"the catalog's file {database} was removed or replaced while it was in use",
                hint="Put it back where it was, then run the same command again.",
            )

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get(_IMMEDIATE)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


_FILE = "lakewarden_file"


def _identity(file: Path) -> tuple[int, int] | None:
    """Which file that is, whatever its name; None where there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _use_wal(dbapi: sqlite3.Connection) -> None:
    """Readers do not wait for a writer. It is a property of the file; to set it SQLite needs the
    file for itself for a moment, and does not wait for that as it does for other locks."""
    if dbapi.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        dbapi.execute("PRAGMA journal_mode = wal")


def _is_busy(error: BaseException) -> bool:
    return (
        isinstance(error, sqlite3.OperationalError)
        and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
    )


def _postgresql(url: URL, lock_timeout: int) -> Engine:
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    timeout = {} if "connect_timeout" in url.query else {"connect_timeout": CONNECT_TIMEOUT}
    try:
        engine = create_engine(
            url,
            connect_args=timeout,
            isolation_level="READ COMMITTED",
            pool_pre_ping=True,
            hide_parameters=True,
        )
    except ModuleNotFoundError as error:
        raise driver_missing(error) from error

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{lock_timeout}s'")

    return engine


def _translate_errors(engine: Engine) -> None:
    password = str(engine.url.password) if engine.url.password else None

    @event.listens_for(engine, "handle_error")
    def _on_error(context: ExceptionContext) -> None:
        # A failed ping is how the pool learns that it has to connect again; None is an error of
        # this program, or somebody's Ctrl-C.
        error = context.sqlalchemy_exception
        if context.is_pre_ping or error is None or isinstance(error, IntegrityError | DataError):
            return
        cause = context.original_exception
        lines = str(cause).strip().splitlines() or [type(cause).__name__]
        said = lines[0].replace(password, "***") if password else lines[0]
        raise CatalogUnavailable(
            f"the catalog's database did not do what it was asked: {said}",
            hint="Look whether the database is up and not locked, then run the same command again.",
        ) from cause
