"""Whether a SQL catalog answers, as whom, and whether it may be written: nothing is changed."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from sqlalchemy import Connection, Engine, func, select, text

from lakewarden.checkup import Answer
from lakewarden.lake.sql_engine import make_engine, reading
from lakewarden.lake.sql_schema import head, is_prepared, metadata

_WAIT = 5  # seconds for another one's lock
_READS = ("SELECT",)
_WRITES = ("SELECT", "INSERT", "UPDATE", "DELETE")
_PYICEBERGS = ("iceberg_tables", "iceberg_namespace_properties")
_LATER = "no tables yet: the first command that needs them makes them"


def check_sql(uri: str, *, writes: bool = True) -> Answer:
    """A catalog in SQLite or PostgreSQL; writes: whether we are to write it. Raises
    CatalogUnavailable, CatalogFormatUnknown and, for an address that is none, WrongUsage."""
    engine = make_engine(uri, _WAIT)
    begun = time.monotonic()
    try:
        if engine.dialect.name == "sqlite":
            answer = _sqlite(engine, writes)
        else:
            with reading(engine) as connection:
                answer = _postgresql(connection, writes)
    finally:
        engine.dispose()
    return replace(answer, latency=time.monotonic() - begun)


def _sqlite(engine: Engine, writes: bool) -> Answer:
    file = Path(engine.url.database or "")
    if not file.exists():  # to connect would make it
        needed = [next(folder for folder in file.absolute().parents if folder.exists())]
    else:
        needed = [file, file.parent]  # SQLite writes beside its file too
    shut = [f"{path} is read-only" for path in needed if writes and not os.access(path, os.W_OK)]
    if not file.exists():
        return _answer("SQLite", None, shut)
    with reading(engine) as connection:
        return _answer("SQLite", _version(connection), shut)


def _postgresql(connection: Connection, writes: bool) -> Answer:
    release = str(connection.execute(text("SHOW server_version")).scalar_one()).split()[0]
    who = str(connection.execute(text("SELECT current_user")).scalar_one())
    version = _version(connection)
    if version is None:
        denied = _may_not_create(connection) if writes else []
    else:
        denied = list(_denied(connection, _WRITES if writes else _READS))
    return _answer(f"PostgreSQL {release}", version, denied, who)


def _answer(what: str, version: int | None, missing: list[str], who: str | None = None) -> Answer:
    told = f"{what}, {_LATER}" if version is None else f"{what}, version {version}"
    hint = "Give who we are the right to write there." if missing else None
    return Answer(told, who=who, missing=tuple(missing), hint=hint)


def _version(connection: Connection) -> int | None:
    """Of main; None where our tables are not there yet."""
    if not is_prepared(connection):
        return None
    return int(connection.execute(select(head.c.version)).scalar_one())


def _denied(connection: Connection, rights: Sequence[str]) -> Iterator[str]:
    for table in (*_PYICEBERGS, *metadata.tables):
        denied = [right for right in rights if not _has(connection, table, right)]
        if denied:
            yield f"no right to {', '.join(denied)} on {table}"


def _has(connection: Connection, table: str, right: str) -> bool:
    return bool(connection.execute(select(func.has_table_privilege(table, right))).scalar())


def _may_not_create(connection: Connection) -> list[str]:
    allowed = connection.execute(
        text("SELECT has_schema_privilege(current_schema(), 'CREATE')")
    ).scalar()
    return [] if allowed else ["no right to create tables in the schema"]
