"""Somebody else's catalog, read: which tables and views there are, and their metadata.

Nothing is written, and not by promise alone: an SQLite file is opened with mode=ro, PostgreSQL in
read-only transactions, and a REST catalog is asked by GET only.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from pyiceberg.io import FileIO
from pyiceberg.table.metadata import TableMetadata

from lakewarden.adoption.model import CatalogKindUnknown, CatalogSurvey, CatalogUnreadable

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection

_PLAIN_QUERY = frozenset({"sslmode", "connect_timeout", "application_name"})
_TIMEOUT = 10  # seconds


@dataclass(frozen=True)
class CatalogAddress:
    """Which catalog. `uri` may hold a password; `token` is a REST catalog's bearer token.
    `name`: of a SQL catalog, the catalog_name of its rows; of a REST catalog, its warehouse;
    None: the only one, or the default."""

    uri: str = field(repr=False)
    name: str | None = None
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Listed:
    """One entry of a catalog. `read` gives its metadata; None for a view."""

    name: str
    read: Callable[[], TableMetadata] | None


@contextmanager
def open_catalog(
    address: CatalogAddress, io: FileIO, properties: Mapping[str, str]
) -> "Iterator[tuple[CatalogSurvey, Iterator[Listed]]]":
    """The catalog, and what is in it, in the order of names.

    properties: PyIceberg's `s3.*`. Raises CatalogUnreadable, CatalogKindUnknown and
    CatalogUriInvalid."""
    scheme = address.uri.partition(":")[0]
    if scheme in ("http", "https"):
        yield _rest(address, properties)
    elif scheme.partition("+")[0] in ("sqlite", "postgresql"):
        with _sql(address, io) as found:
            yield found
    else:
        raise CatalogKindUnknown(
            "the catalog's address is of no kind that can be adopted",
            hint="sqlite:///path, postgresql://host/database, or http(s)://… of an Iceberg REST"
            " catalog (Nessie: …/iceberg/main). Glue is not read yet.",
        )


@contextmanager
def _sql(address: CatalogAddress, io: FileIO) -> Iterator[tuple[CatalogSurvey, Iterator[Listed]]]:
    from sqlalchemy.exc import SQLAlchemyError

    from lakewarden.lake.sql_engine import database_url

    url = database_url(address.uri)
    public = _without_secrets(url)
    try:
        with _reading(url) as connection:
            name = _catalog_name(connection, address.name)
            rows = [*_rows(connection, name)]
    except SQLAlchemyError as error:
        raise _unreadable(public, type(getattr(error, "orig", None) or error).__name__) from None
    secret = bool(url.password or set(url.query) - _PLAIN_QUERY)
    survey = CatalogSurvey("sql", public, name, secret=secret)
    listed = (
        Listed(
            f"{namespace}.{table}",
            None if kind == "VIEW" or location is None else _reader(io, location),
        )
        for namespace, table, location, kind in rows
    )
    yield survey, listed


@contextmanager
def _reading(url: "URL") -> "Iterator[Connection]":
    from sqlalchemy import create_engine

    from lakewarden.lake.sql_engine import driver_missing

    arguments: dict[str, object] = {}
    if url.drivername.startswith("sqlite"):
        file = Path(url.database or "")
        if not file.is_file():
            raise CatalogUnreadable(
                f"there is no catalog at {file}", hint="Give its path: sqlite:////absolute/path"
            )
        opened = url.set(
            database=f"file:{quote(str(file.resolve()))}", query={"mode": "ro", "uri": "true"}
        )
    else:
        opened = url.set(drivername="postgresql+psycopg")
        arguments = {
            "options": "-c default_transaction_read_only=on",
            "connect_timeout": _TIMEOUT,
        }
    try:
        engine = create_engine(opened, connect_args=arguments, hide_parameters=True)
    except ModuleNotFoundError as error:
        raise driver_missing(error) from error
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def _catalog_name(connection: "Connection", wanted: str | None) -> str:
    from sqlalchemy import inspect, text

    if not inspect(connection).has_table("iceberg_tables"):
        raise CatalogUnreadable(
            "the database holds no Iceberg catalog: it has no table iceberg_tables",
            hint="Is this the catalog's database?",
        )
    found: Sequence[object] = (
        connection.execute(text("SELECT DISTINCT catalog_name FROM iceberg_tables ORDER BY 1"))
        .scalars()
        .all()
    )
    # Branches of Lakewarden's own are rows of the same kind.
    told = [name for name in found if isinstance(name, str)]
    names = [name for name in told if not name.startswith(("batch/", "tables/"))]
    if wanted is not None and (wanted in names or not names):
        return wanted
    if wanted is None and len(names) == 1:
        return names[0]
    raise CatalogKindUnknown(
        f"the database holds {len(names)} catalogs"
        + (f", and none is called {wanted!r}" if wanted else ""),
        hint=f"Name one with --catalog-name: {', '.join(names)}" if names else None,
    )


def _rows(connection: "Connection", name: str) -> Iterator[tuple[str, str, str | None, str]]:
    from sqlalchemy import inspect, text

    columns = {column["name"] for column in inspect(connection).get_columns("iceberg_tables")}
    kind = "iceberg_type" if "iceberg_type" in columns else "NULL"
    found = connection.execute(
        text(
            f"SELECT table_namespace, table_name, metadata_location, {kind} FROM iceberg_tables"
            " WHERE catalog_name = :name ORDER BY 1, 2"
        ),
        {"name": name},
    )
    for namespace, table, location, of_kind in found:
        lies = None if location is None else str(location)
        yield str(namespace), str(table), lies, str(of_kind or "TABLE")


def _reader(io: FileIO, location: str) -> Callable[[], TableMetadata]:
    def read() -> TableMetadata:
        from pyiceberg.serializers import FromInputFile

        found: TableMetadata = FromInputFile.table_metadata(io.new_input(location))
        return found

    return read


def _rest(
    address: CatalogAddress, properties: Mapping[str, str]
) -> tuple[CatalogSurvey, Iterator[Listed]]:
    from pyiceberg.catalog.rest import RestCatalog
    from requests import PreparedRequest, RequestException, Response, Session
    from requests.adapters import HTTPAdapter

    class _Impatient(HTTPAdapter):
        """PyIceberg would wait for ever for who takes a connection and says nothing."""

        def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
            kwargs["timeout"] = kwargs.get("timeout") or _TIMEOUT
            return super().send(request, *args, **kwargs)

    class _Reader(RestCatalog):
        """Servers may name a FileIO that is not installed here (Nessie does); ours reads."""

        def _create_session(self) -> Session:
            session = super()._create_session()
            for scheme in ("http://", "https://"):
                session.mount(scheme, _Impatient())
            return session

        def _load_file_io(
            self, properties: Mapping[str, str] = {}, location: str | None = None
        ) -> FileIO:
            kept = {**properties, "py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO"}
            return super()._load_file_io(kept, location)

    public = _public_url(address.uri)
    given = {**properties, "uri": address.uri}
    if address.name:
        given["warehouse"] = address.name
    if address.token:
        given["token"] = address.token
    with _told(public):
        catalog = _Reader("adopted", **given)
        names = [*_rest_names(catalog)]
    nessie = catalog.properties.get("nessie.is-nessie-catalog") == "true"
    survey = CatalogSurvey(
        "rest",
        public,
        address.name or "",
        secret=bool(address.token) or public != address.uri,
        note="" if nessie else "it does not say that it is Nessie: a project can work on no other",
    )

    def reader(name: tuple[str, ...]) -> Callable[[], TableMetadata]:
        def read() -> TableMetadata:
            try:
                found: TableMetadata = catalog.load_table(name).metadata
            except (RequestException, ValueError) as error:
                raise _unreadable(public, type(error).__name__) from None
            return found

        return read

    listed = (Listed(".".join(name), reader(name) if table else None) for name, table in names)
    return survey, listed


def _rest_names(catalog: "object") -> Iterator[tuple[tuple[str, ...], bool]]:
    """Tables (True) and views of all namespaces, in order."""
    from pyiceberg.catalog.rest import RestCatalog
    from pyiceberg.exceptions import NoSuchNamespaceError, RESTError

    assert isinstance(catalog, RestCatalog)  # noqa: S101  # for the type checker
    waiting = [*catalog.list_namespaces()]
    found: set[tuple[tuple[str, ...], bool]] = set()
    while waiting:
        space = waiting.pop()
        found.update((name, True) for name in catalog.list_tables(space))
        try:
            found.update((name, False) for name in catalog.list_views(space))
            waiting += [one for one in catalog.list_namespaces(space) if len(one) > len(space)]
        except (RESTError, NoSuchNamespaceError, NotImplementedError):
            continue  # a catalog without views, or without nested namespaces
    yield from sorted(found)


@contextmanager
def _told(public: str) -> Iterator[None]:
    from pyiceberg.exceptions import (
        AuthorizationExpiredError,
        ForbiddenError,
        OAuthError,
        RESTError,
        UnauthorizedError,
    )
    from requests import RequestException

    try:
        yield
    except (
        RESTError,
        RequestException,
        OAuthError,
        UnauthorizedError,
        ForbiddenError,
        AuthorizationExpiredError,
        ValueError,  # what answers is no catalog
    ) as error:  # its text may quote a token
        raise _unreadable(public, type(error).__name__) from None


def _unreadable(public: str, why: str) -> CatalogUnreadable:
    return CatalogUnreadable(
        f"the catalog at {public} could not be read: {why}",
        hint="Is it up, and may these credentials read it?",
    )


def _without_secrets(url: "URL") -> str:
    """The same without password, and without what else may be one."""
    secret = [key for key in url.query if key not in _PLAIN_QUERY]
    return (
        url.difference_update_query(secret)
        ._replace(password=None)
        .render_as_string(hide_password=False)
    )


def _public_url(uri: str) -> str:
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname or "", parts.port
    except ValueError:  # its text may hold a password
        raise CatalogKindUnknown(
            "the catalog's address is not a URL", hint="Write http(s)://host:port/path."
        ) from None
    where = f"{host}:{port}" if port else host
    return f"{parts.scheme}://{where}{parts.path}"
