"""Beyond the contract, where SQLite is enough to show it: other writers on main, files that are
kept, what a broken database looks like, and processes that start at once."""

import sqlite3
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField
from sqlalchemy import Engine, event, update
from sqlalchemy.pool import PoolProxiedConnection

from lakewarden.errors import WrongUsage
from lakewarden.lake.model import (
    MAIN,
    BaseMoved,
    Branch,
    CatalogFormatUnknown,
    CatalogUnavailable,
    Contribution,
    Publication,
    TableChange,
)
from lakewarden.lake.sql import SqlLake
from lakewarden.lake.sql_schema import head

AT = datetime(2013, 1, 1, tzinfo=UTC)
SCHEMA = Schema(NestedField(1, "n", LongType()))
ONE = [Contribution("flights", "2013-01-01", "hash", {})]


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/state/catalog.db"


@pytest.fixture
def lake(uri: str, tmp_path: Path) -> SqlLake:
    return SqlLake(uri, f"file://{tmp_path}/warehouse", {}, lock_timeout=1)


@pytest.fixture
def stranger(lake: SqlLake, uri: str, tmp_path: Path) -> SqlCatalog:
    """PyIceberg on main, by somebody who knows nothing of branches."""
    lake.pin()
    return SqlCatalog(MAIN, uri=uri, warehouse=f"file://{tmp_path}/warehouse")


def touch(catalog: SqlCatalog, *names: str) -> None:
    for name in names:
        if not catalog.namespace_exists(name.split(".")[0]):
            catalog.create_namespace(name.split(".")[0])
        table = catalog.create_table_if_not_exists(name, SCHEMA)
        with table.transaction() as transaction:
            transaction.set_properties(touched=str(int(table.properties.get("touched", "0")) + 1))


def begin(lake: SqlLake, run: str, *names: str) -> Branch:
    branch = lake.begin(f"batch/{run}", run, AT)
    catalog = lake.catalog(branch)
    assert isinstance(catalog, SqlCatalog)
    touch(catalog, *names)
    return branch


def publish(lake: SqlLake, run: str, *names: str, reads: frozenset[str] = frozenset()) -> int:
    return lake.publish(begin(lake, run, *names), ONE, reads=reads, at=AT).version


# --- other writers on main ------------------------------------------------------------------------


def test_a_table_that_a_stranger_moved_is_never_overwritten(
    lake: SqlLake, stranger: SqlCatalog
) -> None:
    publish(lake, "1", "raw.a", "raw.read")
    writes = begin(lake, "2", "raw.a", "raw.new")
    reads = begin(lake, "3", "raw.new")
    touch(stranger, "raw.a", "raw.read")
    main = lake.pin()
    with pytest.raises(BaseMoved) as caught:
        lake.publish(writes, ONE, reads=frozenset(), at=AT)
    assert caught.value.tables == ("raw.a",)
    with pytest.raises(BaseMoved) as caught:
        lake.publish(reads, ONE, reads={"raw.read"}, at=AT)
    assert caught.value.tables == ("raw.read",)
    assert lake.pin() == main


def test_tables_that_a_stranger_made_before_are_on_the_branch(
    lake: SqlLake, stranger: SqlCatalog
) -> None:
    touch(stranger, "theirs.t")
    branch = begin(lake, "1", "theirs.t")
    done = lake.publish(branch, ONE, reads=frozenset(), at=AT)
    assert stranger.load_table("theirs.t").properties["touched"] == "2"
    assert done.tables["theirs.t"].after == stranger.load_table("theirs.t").metadata_location


def test_pin_at_is_stable_whatever_strangers_do(lake: SqlLake, stranger: SqlCatalog) -> None:
    touch(stranger, "raw.theirs")
    theirs = lake.pin().tables["raw.theirs"]
    first = publish(lake, "1", "raw.a", reads=frozenset({"raw.theirs"}))
    state = dict(lake.pin().tables)

    touch(stranger, "raw.a", "raw.theirs", "raw.late")
    assert lake.pin_at(first).tables == {**state, "raw.late": lake.pin().tables["raw.late"]}
    second = publish(lake, "2", "raw.a", "raw.late")
    # What version 1 was made from and made is what it shows, from now on; a table that no
    # publication knew by then is shown as the first one found it.
    known = lake.publications()[0].tables["raw.late"].before
    assert lake.pin_at(first).tables == {**state, "raw.late": known}
    assert lake.pin_at(first).tables["raw.theirs"] == theirs
    assert lake.pin_at(second).tables["raw.a"] == lake.pin().tables["raw.a"]


def test_the_row_on_main_says_where_it_was_before(lake: SqlLake, tmp_path: Path) -> None:
    publish(lake, "1", "raw.a")
    before = lake.pin().tables["raw.a"]
    branch = begin(lake, "2", "raw.a")
    catalog = lake.catalog(branch)
    assert isinstance(catalog, SqlCatalog)
    touch(catalog, "raw.a")  # a second step on the branch, which main never saw
    lake.publish(branch, ONE, reads=frozenset(), at=AT)
    database = sqlite3.connect(tmp_path / "state/catalog.db")
    found = database.execute(
        "SELECT catalog_name, metadata_location, previous_metadata_location, iceberg_type"
        " FROM iceberg_tables"
    ).fetchall()
    database.close()
    assert found == [(MAIN, lake.pin().tables["raw.a"], before, "TABLE")]


def test_views_are_left_alone(lake: SqlLake, stranger: SqlCatalog, tmp_path: Path) -> None:
    publish(lake, "1", "raw.a")
    database = sqlite3.connect(tmp_path / "state/catalog.db")
    with database:
        database.execute(
            "INSERT INTO iceberg_tables VALUES ('main', 'raw', 'v', 's3://v', NULL, 'VIEW')"
        )
    publish(lake, "2", "raw.a", "raw.b")
    assert lake.pin().tables.keys() == {"raw.a", "raw.b"}
    views = database.execute(
        "SELECT catalog_name, table_name FROM iceberg_tables WHERE iceberg_type = 'VIEW'"
    ).fetchall()
    database.close()
    assert views == [("main", "v")]


# --- files are kept -------------------------------------------------------------------------------


def test_a_commit_on_a_branch_never_deletes_metadata_that_main_points_to(lake: SqlLake) -> None:
    branch = begin(lake, "1", "raw.a")
    with lake.catalog(branch).load_table("raw.a").transaction() as transaction:
        transaction.set_properties(
            {
                "write.metadata.delete-after-commit.enabled": "true",
                "write.metadata.previous-versions-max": "1",
            }
        )
    lake.publish(branch, ONE, reads=frozenset(), at=AT)
    main = lake.pin()
    branch = begin(lake, "2", *["raw.a"] * 4)
    assert lake.load(main, "raw.a").properties["touched"] == "1"
    assert lake.load(lake.pin(branch.name), "raw.a").properties["touched"] == "5"


def test_a_purge_is_refused(lake: SqlLake) -> None:
    branch = begin(lake, "1", "raw.a")
    catalog = lake.catalog(branch)
    with pytest.raises(WrongUsage):
        catalog.purge_table("raw.a")
    catalog.load_table("raw.a")
    catalog.drop_table("raw.a")
    with pytest.raises(NoSuchTableError):
        catalog.load_table("raw.a")


# --- databases that are away, busy, broken or strange ---------------------------------------------


def test_a_locked_database_is_try_again(lake: SqlLake, tmp_path: Path) -> None:
    branch = begin(lake, "1", "raw.a")
    blocker = sqlite3.connect(tmp_path / "state/catalog.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    try:
        for write in writes(lake, branch):
            with pytest.raises(CatalogUnavailable):
                write()
        assert lake.pin(branch.name).tables.keys() == {"raw.a"}  # readers do not wait
    finally:
        blocker.close()
    assert lake.publish(branch, ONE, reads=frozenset(), at=AT).version == 1


def writes(lake: SqlLake, branch: Branch) -> list[Callable[[], object]]:
    return [
        lambda: lake.begin("batch/2", "2", AT),
        lambda: lake.publish(branch, ONE, reads=frozenset(), at=AT),
        lambda: lake.take_over("1", by="me", at=AT),
        lambda: lake.catalog(branch).drop_table("raw.a"),
    ]


def test_readers_do_not_wait_for_a_writer(lake: SqlLake, uri: str, tmp_path: Path) -> None:
    publish(lake, "1", "raw.a")
    blocker = sqlite3.connect(tmp_path / "state/catalog.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    try:
        assert SqlLake(uri, "file:///nowhere", {}, lock_timeout=1).pin() == lake.pin()
    finally:
        blocker.close()


def test_a_writer_waits_for_another_one(uri: str, tmp_path: Path) -> None:
    patient = SqlLake(uri, f"file://{tmp_path}/warehouse", {})
    patient.pin()
    # Another process, so that it lets go while we wait.
    script = (
        "import sqlite3, sys, time\n"
        "held = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "held.execute('BEGIN IMMEDIATE')\n"
        "print('held', flush=True)\n"
        "time.sleep(0.5)\n"
        "held.execute('ROLLBACK')\n"
    )
    argv = [sys.executable, "-c", script, str(tmp_path / "state/catalog.db")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        assert patient.begin("batch/1", "1", AT).name == "batch/1"


def test_a_file_that_is_no_database_is_try_again_with_the_cause(uri: str, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state/catalog.db").write_bytes(b"x" * 5000)
    with pytest.raises(CatalogUnavailable, match="not a database") as caught:
        SqlLake(uri, "file:///nowhere", {}).pin()
    assert isinstance(caught.value.__cause__, sqlite3.DatabaseError)


def test_a_folder_that_cannot_be_made_is_try_again(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CatalogUnavailable):
        SqlLake(f"sqlite:///{tmp_path}/file/catalog.db", "file:///nowhere", {}).pin()


def test_no_secret_is_told() -> None:
    pytest.importorskip("psycopg")
    secret = "hunter2-sesame"
    lake = SqlLake(
        f"postgresql+psycopg://ann:{secret}@127.0.0.1:1/lake",
        "s3://bucket/warehouse",
        {"s3.secret-access-key": secret},
    )
    with pytest.raises(CatalogUnavailable) as caught:
        lake.pin()
    told = "".join(traceback.format_exception(caught.value)) + repr(lake) + str(vars(caught.value))
    assert secret not in told
    assert "127.0.0.1" in told


@pytest.mark.parametrize(
    "wrong",
    [
        "hunter2",
        "mysql://ann:hunter2@h/d",
        "sqlite://",
        "postgresql://ann:p@hunter2@h/d",
        "postgresql://ann:p@ss:hunter2@h/d",
        "postgresql://ann:hunter2",
    ],
)
def test_a_uri_that_cannot_serve_is_wrong_usage(wrong: str) -> None:
    with pytest.raises(WrongUsage) as caught:
        SqlLake(wrong, "file:///nowhere", {})
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_publish_whose_answer_the_database_lost_is_found(
    lake: SqlLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    branch = begin(lake, "1", "raw.a")
    commit = lake._engine.dialect.do_commit

    def commit_and_break(connection: PoolProxiedConnection) -> None:
        commit(connection)
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as wire:
        wire.setattr(lake._engine.dialect, "do_commit", commit_and_break)
        with pytest.raises(CatalogUnavailable):
            lake.publish(branch, ONE, reads=frozenset(), at=AT)
    found = lake.outcome("1")
    assert isinstance(found, Publication)
    assert lake.publish(branch, ONE, reads=frozenset(), at=AT) == found
    assert lake.pin().version == "1"


@pytest.mark.parametrize("step", range(12))
def test_a_publish_that_breaks_anywhere_changes_nothing(lake: SqlLake, step: int) -> None:
    publish(lake, "1", "raw.a", "raw.dropped")
    branch = begin(lake, "2", "raw.a", "raw.b")
    lake.catalog(branch).drop_table("raw.dropped")
    lake.catalog(branch).create_namespace("marts")
    main, staged = lake.pin(), lake.pin(branch.name)
    with BreaksAt(lake._engine, step), pytest.raises(CatalogUnavailable):
        lake.publish(branch, ONE, reads=frozenset(), at=AT)
    assert lake.pin() == main
    assert lake.pin(branch.name) == staged
    assert lake.outcome("2") is None
    done = lake.publish(branch, ONE, reads=frozenset(), at=AT)
    assert done.tables["raw.dropped"] == TableChange(main.tables["raw.dropped"], None)


class BreaksAt:
    """The n-th statement that writes fails."""

    def __init__(self, engine: Engine, step: int) -> None:
        self.engine, self.left = engine, step

    def __enter__(self) -> None:
        event.listen(self.engine, "before_cursor_execute", self.execute)

    def __exit__(self, *_: object) -> None:
        event.remove(self.engine, "before_cursor_execute", self.execute)

    def execute(self, _c: object, _k: object, statement: str, *_: object) -> None:
        if statement.startswith(("INSERT", "UPDATE", "DELETE")):
            self.left -= 1
            if self.left < 0:
                raise sqlite3.OperationalError("disk I/O error")


def test_tables_of_another_format_are_not_touched(lake: SqlLake, uri: str) -> None:
    lake.pin()
    with lake._engine.begin() as connection:
        connection.execute(update(head).values(format=99))
    with pytest.raises(CatalogFormatUnknown):
        SqlLake(uri, "file:///nowhere", {}).pin()


def test_a_catalog_made_by_an_older_pyiceberg_is_taken_as_it_is(
    lake: SqlLake, tmp_path: Path
) -> None:
    (tmp_path / "state").mkdir()
    database = sqlite3.connect(tmp_path / "state/catalog.db")
    with database:
        database.execute(
            "CREATE TABLE iceberg_tables (catalog_name VARCHAR(255) NOT NULL,"
            " table_namespace VARCHAR(255) NOT NULL, table_name VARCHAR(255) NOT NULL,"
            " metadata_location VARCHAR(1000), previous_metadata_location VARCHAR(1000),"
            " PRIMARY KEY (catalog_name, table_namespace, table_name))"
        )
        database.execute(
            "INSERT INTO iceberg_tables VALUES ('main', 'old', 't', 's3://b/0.metadata.json', NULL)"
        )
    database.close()
    assert lake.pin().tables == {"old.t": "s3://b/0.metadata.json"}
    publish(lake, "1", "raw.a")
    assert lake.pin().tables.keys() == {"old.t", "raw.a"}


# --- at once, and many ----------------------------------------------------------------------------


def test_processes_that_start_at_once_all_find_a_catalog(uri: str) -> None:
    script = (
        "import sys\n"
        "from datetime import UTC, datetime\n"
        "from lakewarden.lake.sql import SqlLake\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "lake = SqlLake(sys.argv[1], 'file:///nowhere', {})\n"
        "lake.begin('batch/' + sys.argv[2], sys.argv[2], datetime(2013, 1, 1, tzinfo=UTC))\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, uri, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for number in range(6)
    ]
    for process in started:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        process.stdout.close()
    for process in started:
        assert process.stdin
        process.stdin.close()
    assert [process.wait(60) for process in started] == [0] * 6
    assert len(SqlLake(uri, "file:///nowhere", {}).branches()) == 6


def test_a_branch_of_thousands_of_tables_takes_no_time(lake: SqlLake, tmp_path: Path) -> None:
    lake.pin()
    database = sqlite3.connect(tmp_path / "state/catalog.db")
    rows = [(f"n{number % 50}", f"t{number}", f"s3://b/{number}") for number in range(5000)]
    with database:
        database.executemany(
            "INSERT INTO iceberg_tables VALUES ('main', ?, ?, ?, NULL, 'TABLE')", rows
        )
    database.close()
    started = time.perf_counter()
    branch = begin(lake, "1", "raw.a")
    assert len(lake.pin(branch.name).tables) == 5001
    assert lake.publish(branch, ONE, reads=branch.base.tables.keys(), at=AT).tables.keys() == {
        "raw.a"
    }
    assert time.perf_counter() - started < 5  # about 0.3 s; a round trip a table would be far more
    assert lake.pin_at(1) == lake.pin()
