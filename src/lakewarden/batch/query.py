"""SQL over one pinned version of all tables: a reader never sees two."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from lakewarden.aws.objects import StorageUnavailable
from lakewarden.batch.duck import EXTENSIONS, DuckConfig, connect, identifier, literal
from lakewarden.batch.scan import scan
from lakewarden.batch.workers import Workers, result_of
from lakewarden.errors import Failed, WrongUsage
from lakewarden.lake.model import Pin

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, Statement

Row = tuple[object, ...]
_T = TypeVar("_T")

_EXPLAIN = re.compile(r"\s*explain\s+(?:analyze\s+)?", re.IGNORECASE)
_AT_ONCE = 1000  # rows


class QueryInvalid(WrongUsage):
    """The SQL cannot be run, or would do more than read."""


class QueryTooBig(Failed):
    """The query needs more memory than DuckDB may use."""


@contextmanager
def open_pin(config: DuckConfig, pin: Pin) -> "Iterator[DuckDBPyConnection]":
    """A session with a view for each table of the pin: `namespace.table`, and the bare name where
    only one table has it. DuckDB reads each table's metadata now, and data when they are asked for.
    A table that cannot be read (somebody else's, of a newer format) stops only queries that ask
    for it. Raises StorageUnavailable."""
    with connect(config, extensions=EXTENSIONS) as connection:
        with _told():
            _make_views(connection, pin)
        yield connection


def _make_views(connection: "DuckDBPyConnection", pin: Pin) -> None:
    bare = Counter(name.rpartition(".")[2] for name in pin.tables)
    for name, location in pin.tables.items():
        namespace, _, table = name.rpartition(".")
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {identifier(namespace)}")
        view = f"{identifier(namespace)}.{identifier(table)}"
        select = _make_view(connection, view, name, location)
        if bare[table] == 1:
            connection.execute(f"CREATE VIEW {identifier(table)} AS {select}")


def _make_view(connection: "DuckDBPyConnection", view: str, name: str, location: str) -> str:
    """A view of a table, and its SQL; of one that cannot be read a view that says so."""
    import duckdb
    from pyiceberg.exceptions import ValidationError

    try:
        select = scan(connection, location)
        connection.execute(f"CREATE VIEW {view} AS {select}")
    except duckdb.HTTPException as error:
        if error.status_code != 404:
            raise
        why = "a file of its metadata is gone"
    except (duckdb.IOException, duckdb.InterruptException):
        raise  # the store is away, or somebody waits for the end
    except (duckdb.Error, ValidationError):
        why = "neither its format nor its types are known to DuckDB and PyIceberg here"
    else:
        return select
    select = f"SELECT error({literal(f'{name} cannot be read: {why}')})"
    connection.execute(f"CREATE VIEW {view} AS {select}")
    return select


def read_only(connection: "DuckDBPyConnection", pin: Pin) -> None:
    """From now on the session reads the pin's tables and nothing else: no other file or address,
    no Python variable, and no way back. (DuckDB: "Securing DuckDB". What lies in the folders of
    the tables could still be written by COPY; `ask` lets no such statement through.)"""
    folders = {
        f"{base}/" for base, _, _ in (v.rpartition("/metadata/") for v in pin.tables.values())
    }
    allowed = ", ".join(literal(folder) for folder in sorted(folders - {"/"}))
    connection.execute(f"SET allowed_directories = [{allowed}]")
    connection.execute("SET python_enable_replacements = false")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def ask(connection: "DuckDBPyConnection", sql: str) -> tuple[Sequence[str], Iterator[Row]]:
    """The names of a query's columns, each once, and its rows as they come.

    One statement that only reads. Raises QueryInvalid, QueryTooBig and StorageUnavailable, the
    rows too."""
    _check_is_text(sql)
    with _told():
        _check_reads(connection, sql)
        result = interruptibly(connection, lambda: connection.execute(sql))
    names: list[str] = []
    for column in result.description or ():
        names.append(_unique(str(column[0]), names))
    return names, _rows(result)


def _rows(result: "DuckDBPyConnection") -> Iterator[Row]:
    while True:
        with _told():
            rows = interruptibly(result, lambda: result.fetchmany(_AT_ONCE))
        if not rows:
            return
        yield from rows


def interruptibly(connection: "DuckDBPyConnection", work: Callable[[], _T]) -> _T:
    """Ctrl-C ends the work. In the main thread DuckDB looks for signals between its tasks only,
    and a task may take hours."""
    with Workers(1, stop=connection.interrupt) as worker:
        return result_of(worker.submit(work))


def _unique(name: str, before: Sequence[str]) -> str:
    """A column's name; a second one is called as DuckDB calls it in a subquery."""
    number, found = 0, name
    while found in before:
        number += 1
        found = f"{name}_{number}"
    return found


def no_text() -> QueryInvalid:
    """The error of a query that is not text."""
    return QueryInvalid("the query is not text in UTF-8", hint="Write it in UTF-8, without NUL.")


def _check_is_text(sql: str) -> None:
    """DuckDB reads up to a NUL and passes over the rest."""
    try:
        if b"\0" not in sql.encode():
            return
    except UnicodeEncodeError:  # what a terminal gave for bytes that are none
        pass
    raise no_text()


def _check_reads(connection: "DuckDBPyConnection", sql: str) -> None:
    """One SELECT, or EXPLAIN of one: EXPLAIN ANALYZE runs what it explains."""
    import duckdb

    statements = connection.extract_statements(sql)
    kinds = [statement.type for statement in statements if not _is_of_pivot(statement)]
    if len(kinds) != 1:
        raise QueryInvalid(
            f"expected one statement, found {len(kinds)}", hint="Give them one at a time."
        )
    if kinds[0] == duckdb.StatementType.EXPLAIN:
        explained = connection.extract_statements(_EXPLAIN.sub("", sql, count=1))
        kinds = [statement.type for statement in explained]
    if kinds != [duckdb.StatementType.SELECT]:
        raise QueryInvalid(
            f"a query only reads, and this is {kinds[0].name}",
            hint="Use SELECT; tables are written by batches and by `lakewarden table apply`.",
        )


def _is_of_pivot(statement: "Statement") -> bool:
    """PIVOT is two statements: DuckDB first makes a type of the values that it finds. What
    somebody wrote has a text."""
    import duckdb

    return statement.type == duckdb.StatementType.CREATE and not statement.query


@contextmanager
def _told() -> Iterator[None]:
    """DuckDB's errors as ours."""
    import duckdb

    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise QueryTooBig(
            "the query needs more memory than DuckDB may use",
            hint="Raise memory_limit of [load] in lakewarden.toml, or ask for less.",
        ) from error
    except duckdb.IOException as error:
        raise StorageUnavailable(
            f"the tables cannot be read: {_first_line(error)}",
            hint="Does the object store answer? lakewarden local status",
        ) from error
    except (
        duckdb.ProgrammingError,
        duckdb.DataError,
        duckdb.NotSupportedError,
        duckdb.PermissionException,
    ) as error:
        raise QueryInvalid(
            str(error).strip(), hint="Tables are namespace.table: lakewarden table list"
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
