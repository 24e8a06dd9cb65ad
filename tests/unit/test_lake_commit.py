"""`stage`: what becomes of a table's files, snapshots and metadata."""

import warnings
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.expressions import AlwaysTrue, BooleanExpression, EqualTo, Reference
from pyiceberg.expressions.literals import literal
from pyiceberg.io.pyarrow import _dataframe_to_data_files
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import LongType, NestedField, StringType

from lakewarden.lake.commit import stage
from lakewarden.tables.template import Level

SCHEMA = Schema(NestedField(1, "_batch", StringType()), NestedField(2, "n", LongType()))
PROPERTIES = {
    "commit.manifest-merge.enabled": "true",
    "write.metadata.metrics.column._batch": "full",
}


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    catalog = SqlCatalog("main", uri=f"sqlite:///{tmp_path}/c.db", warehouse=f"file://{tmp_path}")
    catalog.create_namespace("raw")
    yield catalog.create_table("raw.t", SCHEMA, properties=PROPERTIES)
    catalog.close()


_file = count()


def of_batch(batch: str) -> EqualTo:
    return EqualTo(term=Reference("_batch"), value=literal(batch))


def written(table: Table, *rows: tuple[str, int]) -> list[DataFile]:
    """One Parquet file in the table's folder that no snapshot knows yet."""
    found = pa.table({"_batch": [row[0] for row in rows], "n": [row[1] for row in rows]})
    return list(
        _dataframe_to_data_files(table.metadata, found, table.io, counter=count(next(_file)))
    )


def put(table: Table, batch: str, *values: int, replace: bool = True) -> None:
    stage(
        table,
        written(table, *((batch, value) for value in values)),
        level=Level.OWNED,
        replacing=of_batch(batch) if replace else None,
        properties={"lakewarden.run": f"run-{batch}"},
    )


def content(table: Table) -> list[tuple[str, int]]:
    rows = table.refresh().scan().to_arrow().to_pylist()
    return sorted((row["_batch"], row["n"]) for row in rows)


def files(table: Table) -> set[str]:
    return {task.file.file_path for task in table.refresh().scan().plan_files()}


def test_replacing_a_batch_is_one_commit_and_leaves_other_files_alone(table: Table) -> None:
    put(table, "2013-01-01", 1, 2)
    put(table, "2013-01-02", 3)
    kept = files(table)
    log = len(table.metadata.metadata_log)
    snapshots = len(table.metadata.snapshots)

    put(table, "2013-01-01", 9)

    assert content(table) == [("2013-01-01", 9), ("2013-01-02", 3)]
    assert len(table.metadata.metadata_log) == log + 1
    added = table.metadata.snapshots[snapshots:]
    assert [one.summary.operation.value for one in added if one.summary] == ["delete", "append"]
    for one in added:
        assert one.summary
        assert one.summary.additional_properties["lakewarden.run"] == "run-2013-01-01"
    assert len(kept & files(table)) == 1
    assert len(files(table)) == 2


def test_the_first_batch_and_a_batch_that_is_not_there_replace_nothing(table: Table) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        put(table, "2013-01-01", 1)
        put(table, "2013-01-02", 2)
    assert content(table) == [("2013-01-01", 1), ("2013-01-02", 2)]
    assert len(table.metadata.snapshots) == 2


def test_without_replacing_rows_are_added(table: Table) -> None:
    put(table, "2013-01-01", 1)
    put(table, "2013-01-01", 1, replace=False)
    assert content(table) == [("2013-01-01", 1), ("2013-01-01", 1)]


def test_always_true_replaces_every_row(table: Table) -> None:
    put(table, "2013-01-01", 1)
    put(table, "2013-01-02", 2)
    log = len(table.metadata.metadata_log)
    new = written(table, ("2013-01-03", 3))
    stage(table, new, level=Level.OWNED, replacing=AlwaysTrue(), properties={})
    assert content(table) == [("2013-01-03", 3)]
    assert files(table) == {new[0].file_path}
    assert len(table.metadata.metadata_log) == log + 1


def test_an_empty_batch_removes_the_earlier_rows(table: Table) -> None:
    put(table, "2013-01-01", 1)
    put(table, "2013-01-02", 2)
    stage(table, [], level=Level.OWNED, replacing=of_batch("2013-01-01"), properties={})
    assert content(table) == [("2013-01-02", 2)]


def test_rows_in_a_file_of_several_batches_are_replaced_too(table: Table) -> None:
    mixed = written(table, ("2013-01-01", 1), ("2013-01-02", 2), ("2013-01-01", 3))
    stage(table, mixed, level=Level.OWNED, replacing=None, properties={})
    put(table, "2013-01-03", 5)
    log = len(table.metadata.metadata_log)
    put(table, "2013-01-01", 9)
    assert content(table) == [("2013-01-01", 9), ("2013-01-02", 2), ("2013-01-03", 5)]
    assert len(table.metadata.metadata_log) == log + 1


@pytest.mark.parametrize("replacing", [None, AlwaysTrue(), of_batch("nothing")])
def test_nothing_to_do_commits_nothing(table: Table, replacing: BooleanExpression | None) -> None:
    before = table.metadata_location
    stage(table, [], level=Level.OWNED, replacing=replacing, properties={})
    assert table.refresh().metadata_location == before


def test_manifests_are_merged_so_that_a_table_of_many_batches_stays_fast(table: Table) -> None:
    with table.transaction() as transaction:
        transaction.set_properties({"commit.manifest.min-count-to-merge": "4"})
    for day in range(1, 13):
        put(table, f"2013-01-{day:02}", day)
    snapshot = table.refresh().current_snapshot()
    assert snapshot
    assert len(snapshot.manifests(table.io)) < 4
    assert len(content(table)) == 12
    put(table, "2013-01-05", 50)
    assert ("2013-01-05", 50) in content(table)
    assert ("2013-01-05", 5) not in content(table)
    assert len(content(table)) == 12
