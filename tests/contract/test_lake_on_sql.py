"""Beyond the contract, on each SQL database: writers that know nothing of us, and lost connections.

PostgreSQL runs READ COMMITTED, where a check and a later write are not one step unless rows are
locked; each test here holds a transaction open at the worst moment.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillRunning

import pytest
from pyiceberg.catalog.sql import IcebergTables
from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    create_engine,
    delete,
    event,
    insert,
    text,
    update,
)

from lakewarden.lake.model import (
    MAIN,
    BaseMoved,
    Branch,
    CatalogUnavailable,
    Publication,
    RunFenced,
    TakenOver,
)
from lakewarden.lake.sql import SqlLake
from tests.contract.conftest import SQL_KINDS, Place
from tests.contract.test_lake import at, one, publish, touch

on_every_sql = pytest.mark.parametrize("new_place", SQL_KINDS, indirect=True)
on_a_server = pytest.mark.parametrize("new_place", ["postgresql"], indirect=True)

MOVED = "s3://somewhere/else.metadata.json"


@pytest.fixture
def stranger(place: Place) -> Iterator[Connection]:
    """A transaction of somebody else, that holds whatever it has written until it ends."""
    place.open().pin()
    engine = create_engine(place.uri)
    if place.kind == "sqlite":

        @event.listens_for(engine, "connect")
        def _on_connect(dbapi: object, _record: object) -> None:
            dbapi.isolation_level = None  # type: ignore[attr-defined]  # sqlite3's; BEGIN is below

        @event.listens_for(engine, "begin")
        def _on_begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    connection = engine.connect()
    yield connection
    connection.close()
    engine.dispose()


def row(table: str) -> ColumnElement[bool]:
    namespace, name = table.split(".")
    return and_(
        IcebergTables.catalog_name == MAIN,
        IcebergTables.table_namespace == namespace,
        IcebergTables.table_name == name,
    )


def staged(place: Place, *tables: str) -> tuple[SqlLake, Branch]:
    lake = SqlLake(place.uri, place.warehouse, {})
    publish(lake, "first", "raw.a", "raw.read")
    branch = lake.begin("batch/1", "1", at())
    touch(lake.catalog(branch), *tables)
    return lake, branch


def still_waits(future: Future[Publication]) -> bool:
    try:
        future.result(timeout=0.5)
    except StillRunning:
        return True
    return False


@on_every_sql
@pytest.mark.parametrize("table", ["raw.a", "raw.read"])
@pytest.mark.parametrize("how", ["moves", "drops", "gives up"])
def test_a_publish_waits_for_a_stranger_and_then_sees_what_it_did(
    place: Place, stranger: Connection, table: str, how: str
) -> None:
    lake, branch = staged(place, "raw.a")
    main = lake.pin()
    here = row(table)
    with ThreadPoolExecutor(1) as pool:
        statement = (
            delete(IcebergTables).where(here)
            if how == "drops"
            else update(IcebergTables).where(here).values(metadata_location=MOVED)
        )
        stranger.execute(statement)
        answer = pool.submit(lake.publish, branch, one(), reads={"raw.read"}, at=at())
        assert still_waits(answer)
        if how == "gives up":
            stranger.rollback()
            assert answer.result().tables.keys() == {"raw.a"}
            return
        stranger.commit()
        with pytest.raises(BaseMoved) as caught:
            answer.result()
    assert caught.value.tables == (table,)
    others = {name: where for name, where in main.tables.items() if name != table}
    assert lake.pin().tables == others | ({table: MOVED} if how == "moves" else {})
    assert lake.outcome("1") is None
    assert lake.pin().version == main.version


@on_every_sql
def test_a_new_table_that_a_stranger_makes_first_is_theirs(
    place: Place, stranger: Connection
) -> None:
    lake, branch = staged(place, "raw.new", "raw.a")
    main = lake.pin()
    with ThreadPoolExecutor(1) as pool:
        stranger.execute(
            insert(IcebergTables).values(
                catalog_name=MAIN,
                table_namespace="raw",
                table_name="new",
                metadata_location=MOVED,
                previous_metadata_location=None,
                iceberg_type="TABLE",
            )
        )
        answer = pool.submit(lake.publish, branch, one(), reads=frozenset(), at=at())
        assert still_waits(answer)
        stranger.commit()
        with pytest.raises(BaseMoved) as caught:
            answer.result()
    assert caught.value.tables == ("raw.new",)
    assert lake.pin().tables == {**main.tables, "raw.new": MOVED}
    assert lake.outcome("1") is None


@on_every_sql
@pytest.mark.parametrize("first", ["publish", "take_over"])
def test_publish_and_take_over_wait_for_each_other(place: Place, first: str) -> None:
    """The first one is stopped just before its commit; the second must not slip past."""
    lake, branch = staged(place, "raw.a")
    other = SqlLake(place.uri, place.warehouse, {})
    main = lake.pin()
    seconds: list[Future[object]] = []

    def publishing() -> object:
        try:
            return other.publish(branch, one(), reads=frozenset(), at=at())
        except RunFenced as fenced:
            return fenced

    def taking_over() -> object:
        return other.take_over("1", by="successor", at=at())

    with ThreadPoolExecutor(1) as pool:

        def on_commit(_connection: Connection) -> None:
            second = taking_over if first == "publish" else publishing
            seconds.append(pool.submit(second))
            with pytest.raises(StillRunning):
                seconds[0].result(timeout=0.5)

        event.listen(lake._engine, "commit", on_commit, once=True)
        if first == "publish":
            won: object = lake.publish(branch, one(), reads=frozenset(), at=at())
            assert seconds[0].result() == won
            assert lake.pin().tables != main.tables
        else:
            won = lake.take_over("1", by="successor", at=at())
            assert isinstance(won, TakenOver)
            assert isinstance(seconds[0].result(), RunFenced)
            assert lake.pin() == main
    assert lake.outcome("1") == won


@on_every_sql
def test_begin_waits_for_a_publish_and_starts_from_all_of_it(place: Place) -> None:
    lake, branch = staged(place, "raw.a", "raw.new")
    other = SqlLake(place.uri, place.warehouse, {})
    seconds: list[Future[Branch]] = []
    with ThreadPoolExecutor(1) as pool:

        def on_commit(_connection: Connection) -> None:
            seconds.append(pool.submit(other.begin, "batch/2", "2", at()))
            with pytest.raises(StillRunning):
                seconds[0].result(timeout=0.5)

        event.listen(lake._engine, "commit", on_commit, once=True)
        lake.publish(branch, one(), reads=frozenset(), at=at())
        assert seconds[0].result().base == lake.pin()


@on_every_sql
def test_who_waits_too_long_is_told_to_try_again(place: Place, stranger: Connection) -> None:
    _, branch = staged(place, "raw.a")
    hasty = SqlLake(place.uri, place.warehouse, {}, lock_timeout=1)
    stranger.execute(update(IcebergTables).where(row("raw.read")).values(metadata_location=MOVED))
    with pytest.raises(CatalogUnavailable):
        hasty.publish(branch, one(), reads={"raw.read"}, at=at())
    stranger.rollback()
    assert hasty.publish(branch, one(), reads={"raw.read"}, at=at()).run == "1"


@on_a_server
def test_a_connection_that_the_server_ended_is_made_again(place: Place) -> None:
    lake, branch = staged(place, "raw.a")
    engine = create_engine(place.uri)
    with engine.connect() as connection:
        ended: int = connection.execute(
            text(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        ).scalar_one()
    engine.dispose()
    assert ended > 0
    assert lake.pin().tables.keys() == {"raw.a", "raw.read"}
    assert lake.publish(branch, one(), reads=frozenset(), at=at()).run == "1"


@on_a_server
def test_a_publish_that_the_server_ends_changes_nothing(place: Place) -> None:
    lake, branch = staged(place, "raw.a", "raw.b")
    main = lake.pin()
    engine = create_engine(place.uri)

    def on_commit(connection: Connection) -> None:
        pid: int = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        with engine.connect() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})

    event.listen(lake._engine, "commit", on_commit, once=True)
    with pytest.raises(CatalogUnavailable):
        lake.publish(branch, one(), reads=frozenset(), at=at())
    engine.dispose()
    assert lake.pin() == main
    assert lake.outcome("1") is None
    assert lake.publish(branch, one(), reads=frozenset(), at=at()).tables.keys() == {
        "raw.a",
        "raw.b",
    }
