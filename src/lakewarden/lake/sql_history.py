"""The rows that tell what was published, and back."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime

from sqlalchemy import Connection, Row, Select, func, insert, select

from lakewarden.lake.model import (
    Contribution,
    Publication,
    TableChange,
    TakenOver,
)
from lakewarden.lake.sql_schema import changes, fences, publications, versions
from lakewarden.lake.written import contribution_of, contribution_to_text, time_to_text


def record(
    connection: Connection,
    version: int,
    run: str,
    at: datetime,
    contributions: Sequence[Contribution],
    tables: Mapping[str, TableChange],
    reads: Mapping[str, str | None],
) -> Publication:
    """Write a version, its contributions and the run's fence; `reads` says where each table that
    was only read stood. Returns the first publication."""
    connection.execute(insert(versions).values(version=version, run=run, at=time_to_text(at)))
    connection.execute(insert(fences).values(run=run, version=version, at=time_to_text(at)))
    connection.execute(
        insert(publications),
        [
            {
                "version": version,
                "ordinal": ordinal,
                "dataset": one.dataset,
                "batch": one.batch,
                "contribution": contribution_to_text(one),
            }
            for ordinal, one in enumerate(contributions)
        ],
    )
    known = {**{name: TableChange(at, at) for name, at in reads.items()}, **tables}
    if known:
        connection.execute(
            insert(changes),
            [
                {"version": version, "table": name, "before": one.before, "after": one.after}
                for name, one in known.items()
            ],
        )
    return Publication(version, run, at, contributions[0], tables)


def entomb(connection: Connection, run: str, by: str, at: datetime) -> None:
    """Fence a run that has published nothing, for ever."""
    connection.execute(insert(fences).values(run=run, by=by, at=time_to_text(at)))


def outcome(connection: Connection, run: str) -> Publication | TakenOver | None:
    fence = connection.execute(select(fences).where(fences.c.run == run)).one_or_none()
    if fence is None:
        return None
    if fence.version is None:
        return TakenOver(run, fence.by, datetime.fromisoformat(fence.at))
    rows = _publication_rows().where(
        publications.c.version == fence.version, publications.c.ordinal == 0
    )
    return read_publications(connection, rows)[0]


def published(
    connection: Connection, dataset: str | None, batch: str | None
) -> tuple[Publication, ...]:
    """Newest first; within one version the last given first."""
    rows = _publication_rows().order_by(
        publications.c.version.desc(), publications.c.ordinal.desc()
    )
    if dataset is not None:
        rows = rows.where(publications.c.dataset == dataset)
    if batch is not None:
        rows = rows.where(publications.c.batch == batch)
    return read_publications(connection, rows)


def _publication_rows() -> Select[tuple[int, str, str, str]]:
    return select(
        publications.c.version, versions.c.run, versions.c.at, publications.c.contribution
    ).join_from(publications, versions)


def read_publications(
    connection: Connection, rows: Select[tuple[int, str, str, str]]
) -> tuple[Publication, ...]:
    found = connection.execute(rows).all()
    tables = _tables_changed(connection, {row.version for row in found})
    return tuple(
        Publication(
            version=row.version,
            run=row.run,
            at=datetime.fromisoformat(row.at),
            contribution=contribution_of(row.contribution),
            tables=tables.get(row.version, {}),
        )
        for row in found
    )


def _tables_changed(
    connection: Connection, wanted: AbstractSet[int]
) -> dict[int, dict[str, TableChange]]:
    if not wanted:
        return {}
    rows = connection.execute(
        select(changes)
        .where(
            # A range: thousands of versions are too many to name one by one.
            changes.c.version.between(min(wanted), max(wanted)),
            changes.c.before.is_distinct_from(changes.c.after),
        )
        .order_by(changes.c.version, changes.c.table)
    )
    found: dict[int, dict[str, TableChange]] = {}
    for row in rows:
        found.setdefault(row.version, {})[row.table] = TableChange(row.before, row.after)
    return found


def exists(connection: Connection, version: int) -> bool:
    return (
        connection.execute(select(versions.c.version).where(versions.c.version == version)).first()
        is not None
    )


def located_by(connection: Connection, version: int) -> dict[str, str | None]:
    """Where each table stood when it was last published or read, at or before a version."""
    newest = (
        select(changes.c.table, func.max(changes.c.version).label("version"))
        .where(changes.c.version <= version)
        .group_by(changes.c.table)
        .subquery()
    )
    rows = connection.execute(
        select(changes.c.table, changes.c.after.label("location")).join(
            newest,
            (changes.c.table == newest.c.table) & (changes.c.version == newest.c.version),
        )
    )
    return _locations(rows)


def located_before(connection: Connection, version: int) -> dict[str, str | None]:
    """Where each table stood just before it was first published or read after a version."""
    oldest = (
        select(changes.c.table, func.min(changes.c.version).label("version"))
        .where(changes.c.version > version)
        .group_by(changes.c.table)
        .subquery()
    )
    rows = connection.execute(
        select(changes.c.table, changes.c.before.label("location")).join(
            oldest,
            (changes.c.table == oldest.c.table) & (changes.c.version == oldest.c.version),
        )
    )
    return _locations(rows)


def _locations(rows: Iterable[Row[tuple[str, str | None]]]) -> dict[str, str | None]:
    return {row.table: row.location for row in rows}
