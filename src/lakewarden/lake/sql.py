"""A lake on PyIceberg's SQL catalog: SQLite on one machine, PostgreSQL for many.

A branch is main's rows of PyIceberg's own tables, copied under the branch's name; what is done on
it goes through PyIceberg's public API. A publish is one SQL transaction. It takes the lock of the
head's row first, so publishes, take-overs and new branches come one after the other, and the
version counts commits in their order. Then it locks main's rows of every table that was written
or read, so that writers which know nothing of us are seen too.

With other writers on main (plain PyIceberg, Spark) tables move without a publication. `pin_at`
then answers from what publications wrote and read, see there.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from threading import Lock

from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import IcebergTables
from pyiceberg.table import Table
from sqlalchemy import Connection, Row, and_, insert, select, update
from sqlalchemy.exc import IntegrityError

from lakewarden.aws.objects import Objects
from lakewarden.lake import sql_history, sql_rows
from lakewarden.lake.changes import moved_tables, rebased, table_changes
from lakewarden.lake.file_io import file_io_properties
from lakewarden.lake.model import (
    MAIN,
    Branch,
    Contribution,
    Pin,
    Publication,
    TakenOver,
)
from lakewarden.lake.pinned import load_pinned
from lakewarden.lake.refusals import (
    check_contributions,
    fenced,
    name_taken,
    no_branch,
    no_version,
    refuse_moved,
    wrong_name,
)
from lakewarden.lake.sql_catalog import BranchCatalog
from lakewarden.lake.sql_engine import lock_schema, make_engine, make_room, reading, writing
from lakewarden.lake.sql_rows import Namespaces
from lakewarden.lake.sql_schema import NAME, branches, head, is_prepared, prepare
from lakewarden.lake.written import time_to_text

_BranchRow = tuple[str, str, str, str, int, str]


class SqlLake:
    """The Protocol `Lake` on a database URL.

    uri: `sqlite:///path` or `postgresql+psycopg://…`. warehouse: where new tables lie, `s3://…` or
    `file://…`. file_io: PyIceberg's `s3.*` properties. objects: the warehouse's bucket, asked for
    when it is first needed; without it metadata too go by PyIceberg's own road. main: the
    `catalog_name` of main's rows, where others have chosen it. lock_timeout: seconds that a writer
    waits for another one. May be shared by threads.
    """

    def __init__(
        self,
        uri: str,
        warehouse: str,
        file_io: Mapping[str, str],
        *,
        objects: Callable[[], Objects] | None = None,
        main: str = MAIN,
        lock_timeout: int = 30,
    ) -> None:
        self._engine = make_engine(uri, lock_timeout)
        self._warehouse = warehouse
        self._file_io = file_io_properties(file_io, objects)
        self._main = main
        self._prepared = False
        self._preparing = Lock()

    def __repr__(self) -> str:
        return f"SqlLake({self._engine.dialect.name}, {self._warehouse!r})"

    def close(self) -> None:
        """Release connections; the next call opens new ones."""
        self._engine.dispose()

    def pin(self, ref: str = MAIN) -> Pin:
        if ref == MAIN and self._is_others():
            with reading(self._engine) as connection:
                return Pin(MAIN, "0", sql_rows.found(connection, self._main))
        self._prepare()
        with reading(self._engine) as connection:
            return (
                _pin_main(connection, self._main) if ref == MAIN else _pin_branch(connection, ref)
            )

    def pin_at(self, version: int) -> Pin:
        """Main as it was right after a publication.

        The answer for a table is where it was last published or read, at or before the version;
        for one that no publication knew by then, where the first later one found it; else where
        it is now. That is exact while all writers publish. A table that someone else moves
        between two publications is shown as the earlier one knew it: an answer that does not
        change later, and that agrees with what the published tables were made from."""
        self._prepare()
        with reading(self._engine) as connection:
            if not sql_history.exists(connection, version):
                raise no_version(version)
            # In this order: a publish after the first read is known to the second.
            now = _pin_main(connection, self._main).tables
            later = sql_history.located_before(connection, version)
            then = sql_history.located_by(connection, version)
        located = {**now, **later, **then}
        tables = {name: at for name, at in sorted(located.items()) if at is not None}
        return Pin(MAIN, str(version), tables)

    def begin(self, name: str, run: str, at: datetime) -> Branch:
        _check_name(name, self._main)
        self._prepare()
        try:
            with writing(self._engine) as connection:
                return _begin(connection, self._main, name, run, at)
        except IntegrityError as error:  # another one began it at the same moment
            raise name_taken(name) from error

    def catalog(self, branch: Branch) -> Catalog:
        self._prepare()
        with reading(self._engine) as connection:
            _open_branch(connection, branch)
        properties = {**self._file_io, "warehouse": self._warehouse}
        return BranchCatalog(branch.name, self._engine, properties)

    def load(self, pin: Pin, table: str) -> Table:
        return load_pinned(pin, table, self._file_io)

    def publish(
        self,
        branch: Branch,
        contributions: Sequence[Contribution],
        *,
        reads: AbstractSet[str],
        at: datetime,
    ) -> Publication:
        check_contributions(contributions)
        self._prepare()
        with writing(self._engine) as connection:
            version = _lock_head(connection) + 1
            match sql_history.outcome(connection, branch.run):
                case Publication() as already:
                    return already
                case TakenOver() as tombstone:
                    raise fenced(branch.run, tombstone)
            base = json.loads(_open_branch(connection, branch).base)
            staged = sql_rows.tables(connection, branch.name, lock=True)
            changes = table_changes(base["tables"], staged)
            asserted = changes.keys() | reads
            now = sql_rows.lock_main(connection, self._main, asserted)
            refuse_moved(branch, moved_tables(asserted, base["tables"], now))
            refuse_moved(branch, sql_rows.move_main(connection, self._main, changes))
            spaces = {(name, key): value for name, key, value in base["namespaces"]}
            _publish_namespaces(connection, self._main, branch.name, spaces)
            connection.execute(update(head).values(version=version))
            _end(connection, [branch.name], "published")
            read_only = {name: now.get(name) for name in reads - changes.keys()}
            return sql_history.record(
                connection, version, branch.run, at, contributions, changes, read_only
            )

    def outcome(self, run: str) -> Publication | TakenOver | None:
        self._prepare()
        with reading(self._engine) as connection:
            return sql_history.outcome(connection, run)

    def take_over(self, run: str, *, by: str, at: datetime) -> Publication | TakenOver:
        self._prepare()
        with writing(self._engine) as connection:
            _lock_head(connection)
            if already := sql_history.outcome(connection, run):
                return already
            sql_history.entomb(connection, run, by, at)
            of_run = and_(branches.c.run == run, branches.c.state == "open")
            names: Sequence[str] = (
                connection.execute(select(branches.c.name).where(of_run)).scalars().all()
            )
            _end(connection, names, "taken-over")
        return TakenOver(run, by, at)

    def publications(
        self, dataset: str | None = None, batch: str | None = None
    ) -> Sequence[Publication]:
        if self._is_others():
            return ()
        self._prepare()
        with reading(self._engine) as connection:
            return sql_history.published(connection, dataset, batch)

    def branches(self) -> Sequence[Branch]:
        if self._is_others():
            return ()
        self._prepare()
        found = (
            select(branches)
            .where(branches.c.state == "open")
            .order_by(branches.c.created_at, branches.c.name)
        )
        with reading(self._engine) as connection:
            return tuple(map(_to_branch, connection.execute(found)))

    def discard(self, name: str) -> None:
        self._prepare()
        with writing(self._engine) as connection:
            _lock_head(connection)
            known = select(branches.c.state).where(branches.c.name == name)
            match connection.execute(known).scalar():
                case "open":
                    _end(connection, [name], "discarded")
                case str():
                    # It ended before; rows may have come since, from a run that was taken over
                    # while it slept and went on with its branch.
                    sql_rows.remove(connection, [name])

    def _is_others(self) -> bool:
        """Whether the catalog is somebody else's, in which nothing was published by us yet: reading
        it leaves it as it is."""
        if self._prepared:
            return False
        make_room(self._engine)
        with reading(self._engine) as connection:
            return sql_rows.exist(connection) and not is_prepared(connection)

    def _prepare(self) -> None:
        if self._prepared:
            return
        with self._preparing:
            make_room(self._engine)
            with reading(self._engine) as connection:
                prepared = is_prepared(connection)
            if not prepared:
                with writing(self._engine) as connection:
                    lock_schema(connection)
                    prepare(connection)
            self._prepared = True


def _pin_main(connection: Connection, main: str) -> Pin:
    """One statement, so one snapshot on every database."""
    rows = connection.execute(
        select(head.c.version, *sql_rows.LOCATED).outerjoin_from(
            head, IcebergTables, sql_rows.tables_of(main)
        )
    ).all()
    return Pin(MAIN, str(rows[0].version), sql_rows.by_name(rows))


def _pin_branch(connection: Connection, name: str) -> Pin:
    rows = connection.execute(
        select(branches.c.base_version, *sql_rows.LOCATED)
        .outerjoin_from(branches, IcebergTables, sql_rows.tables_of(name))
        .where(branches.c.name == name, branches.c.state == "open")
    ).all()
    if not rows:
        raise no_branch(name)
    return Pin(name, str(rows[0].base_version), sql_rows.by_name(rows))


def _begin(connection: Connection, main: str, name: str, run: str, at: datetime) -> Branch:
    # Publishes wait, so the rows copied below and the version belong together.
    version: int = connection.execute(
        select(head.c.version).with_for_update(read=True)
    ).scalar_one()
    if outcome := sql_history.outcome(connection, run):
        raise fenced(run, outcome)
    if connection.execute(select(branches.c.name).where(branches.c.name == name)).first():
        raise name_taken(name)
    sql_rows.copy(connection, main, name)
    tables = sql_rows.tables(connection, name)
    spaces = [[*key, value] for key, value in sql_rows.namespaces(connection, name).items()]
    connection.execute(
        insert(branches).values(
            name=name,
            run=run,
            state="open",
            created_at=time_to_text(at),
            base_version=version,
            base=json.dumps({"tables": tables, "namespaces": spaces}),
        )
    )
    return Branch(name, run, Pin(MAIN, str(version), tables), at)


def _lock_head(connection: Connection) -> int:
    """One publish or take-over at a time; returns the version that main has now."""
    version: int = connection.execute(select(head.c.version).with_for_update()).scalar_one()
    return version


def _open_branch(connection: Connection, branch: Branch) -> Row[_BranchRow]:
    row = connection.execute(
        select(branches)
        .where(branches.c.name == branch.name, branches.c.run == branch.run)
        .where(branches.c.state == "open")
        .with_for_update()
    ).one_or_none()
    if row is None:
        raise no_branch(branch.name)
    return row


def _to_branch(row: Row[_BranchRow]) -> Branch:
    base = Pin(MAIN, str(row.base_version), json.loads(row.base)["tables"])
    return Branch(row.name, row.run, base, datetime.fromisoformat(row.created_at))


def _end(connection: Connection, names: Sequence[str], state: str) -> None:
    """Remove branches; their names stay used."""
    sql_rows.remove(connection, names)
    connection.execute(
        update(branches).where(branches.c.name.in_(names)).values(state=state, base=None)
    )


def _publish_namespaces(connection: Connection, name: str, branch: str, base: Namespaces) -> None:
    """The branch's edits of namespaces, made on main's; one that still has tables stays."""
    main = sql_rows.namespaces(connection, name)
    wanted = rebased(base, sql_rows.namespaces(connection, branch), main)
    inhabited = {sql_rows.split(table)[0] for table in sql_rows.tables(connection, name)}
    kept = {
        key: value for key, value in main.items() if key[0] in inhabited - {k[0] for k in wanted}
    }
    sql_rows.set_namespaces(connection, name, main, wanted | kept)


def _check_name(name: str, main: str) -> None:
    if name in (MAIN, main) or not 0 < len(name) <= NAME:
        raise wrong_name(name, f"1 to {NAME} characters, not {MAIN}")
