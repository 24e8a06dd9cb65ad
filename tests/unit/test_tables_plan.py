"""Plans and drift, on tables that exist as metadata only."""

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest
from pyiceberg.catalog.noop import NoopCatalog
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table
from pyiceberg.table.metadata import new_table_metadata
from pyiceberg.table.snapshots import Operation, Snapshot, Summary

from lakewarden.tables.changes import (
    AddColumn,
    CreateTable,
    MakeOptional,
    OrderColumns,
    RecordFieldIds,
    RemoveProperty,
    RenameColumn,
    ReplacePartitionSpec,
    ReplaceSortOrder,
    SetDoc,
    SetProperty,
    WidenColumn,
)
from lakewarden.tables.drift import FindingKind, drift
from lakewarden.tables.iceberg import (
    iceberg_partition_spec,
    iceberg_properties,
    iceberg_schema,
    iceberg_sort_order,
)
from lakewarden.tables.plan import plan
from lakewarden.tables.properties import FIELD_IDS
from lakewarden.tables.refusals import ChangeRefused, RefusalKind
from lakewarden.tables.template import (
    Column,
    Direction,
    FileFormat,
    NullOrder,
    PartitionColumn,
    SortColumn,
    Source,
    Template,
)

EVENTS = Template(
    namespace="raw",
    name="events",
    columns=(
        Column("id", "int", required=True, description="Unique"),
        Column("at", "timestamp"),
        Column("paid", "decimal(9,2)"),
    ),
    partition_spec=(PartitionColumn("at", "day"),),
    sort_order=(SortColumn("id", Direction.ASC, NullOrder.NULLS_FIRST),),
    properties={"commit.retry.num-retries": "20"},
    tags={},
    description="What happened",
    source=Source(FileFormat.CSV),
    load_dataset="events",
)


def table_of(
    template: Template, properties: Mapping[str, str | None] | None = None, *, rows: bool = True
) -> Table:
    """The table that a template makes; properties are changed afterwards (None: removed)."""
    schema = iceberg_schema(template)
    merged = {**iceberg_properties(template), **(properties or {})}
    metadata = new_table_metadata(
        schema=schema,
        partition_spec=iceberg_partition_spec(template, schema),
        sort_order=iceberg_sort_order(template, schema),
        location="s3://bucket/raw/events",
        properties={name: value for name, value in merged.items() if value is not None},
    )
    if rows:
        snapshot = Snapshot(
            snapshot_id=1,
            timestamp_ms=1,
            manifest_list="s3://bucket/m.avro",
            summary=Summary(Operation.APPEND, **{"total-data-files": "1"}),
        )
        metadata = metadata.model_copy(update={"snapshots": [snapshot], "current_snapshot_id": 1})
    return Table(
        ("raw", "events"), metadata, "s3://bucket/v1.json", PyArrowFileIO(), NoopCatalog("none")
    )


def with_columns(*columns: Column) -> Template:
    return replace(EVENTS, columns=columns)


ID, AT, PAID = EVENTS.columns


def refusals(template: Template, table: Table) -> list[tuple[RefusalKind, str]]:
    with pytest.raises(ChangeRefused) as refused:
        plan(template, table)
    assert refused.value.hint
    return [(refusal.kind, refusal.column) for refusal in refused.value.refusals]


def kinds(template: Template, table: Table | None) -> list[tuple[FindingKind, str | None]]:
    found = drift(template, table)
    assert all(str(finding.kind) in finding.describe() for finding in found)
    return [(finding.kind, finding.subject) for finding in found]


def test_a_missing_table_is_created_and_is_drift() -> None:
    planned = plan(EVENTS, None)
    assert planned.base is None
    (creation,) = planned.changes
    assert isinstance(creation, CreateTable)
    assert creation.properties["write.metadata.metrics.column._batch"] == "full"
    assert creation.properties["commit.manifest-merge.enabled"] == "true"
    assert creation.properties["write.metadata.delete-after-commit.enabled"] == "false"
    assert json.loads(creation.properties[FIELD_IDS])["_batch"] == 4
    assert kinds(EVENTS, None) == [(FindingKind.MISSING_TABLE, None)]


def test_a_table_without_batches_keeps_no_batch_metrics() -> None:
    (creation,) = plan(replace(EVENTS, load_dataset=None), None).changes
    assert isinstance(creation, CreateTable)
    assert "write.metadata.metrics.column._batch" not in creation.properties


def test_a_table_as_the_template_says_needs_nothing() -> None:
    assert not plan(EVENTS, table_of(EVENTS))
    assert kinds(EVENTS, table_of(EVENTS)) == []


ISSUED = Column("issued", "date")


@pytest.mark.parametrize(
    ("wanted", "changes", "found"),
    [
        (
            with_columns(replace(ID, type="long"), AT, PAID),
            (WidenColumn("id", "int", "long"),),
            [(FindingKind.TYPE, "id")],
        ),
        (
            with_columns(ID, AT, replace(PAID, type="decimal(12,2)")),
            (WidenColumn("paid", "decimal(9,2)", "decimal(12,2)"),),
            [(FindingKind.TYPE, "paid")],
        ),
        (
            with_columns(replace(ID, required=False), AT, PAID),
            (MakeOptional("id"),),
            [(FindingKind.NULLABILITY, "id")],
        ),
        (
            with_columns(replace(ID, description=""), AT, PAID),
            (SetDoc("id", ""),),
            [(FindingKind.DOC, "id")],
        ),
        (
            with_columns(ID, AT, replace(PAID, name="amount", was="paid")),
            (RenameColumn("paid", "amount"),),
            [(FindingKind.MISSING_COLUMN, "amount"), (FindingKind.EXTRA_COLUMN, "paid")],
        ),
        (
            with_columns(ID, AT, PAID, ISSUED),
            (
                AddColumn("issued", "date", False, ""),
                OrderColumns(("id", "at", "paid", "issued", "_batch", "_file", "_line")),
            ),
            [(FindingKind.MISSING_COLUMN, "issued")],
        ),
        (
            with_columns(AT, ID, PAID),
            (OrderColumns(("at", "id", "paid", "_batch", "_file", "_line")),),
            [(FindingKind.COLUMN_ORDER, None)],
        ),
        (
            replace(EVENTS, partition_spec=(PartitionColumn("_batch", "identity"),)),
            (ReplacePartitionSpec(((PartitionColumn("_batch", "identity"), "_batch"),)),),
            [(FindingKind.PARTITION_SPEC, None)],
        ),
        (
            replace(EVENTS, sort_order=()),
            (ReplaceSortOrder(()),),
            [(FindingKind.SORT_ORDER, None)],
        ),
        (
            replace(EVENTS, description="What has happened"),
            (SetProperty("comment", "What has happened"),),
            [(FindingKind.PROPERTY, "comment")],
        ),
    ],
)
def test_each_difference_is_planned_and_found(
    wanted: Template, changes: tuple[object, ...], found: list[tuple[FindingKind, str | None]]
) -> None:
    table = table_of(EVENTS)
    planned = plan(wanted, table)
    assert planned.changes == changes
    assert planned.base == table.metadata_location
    assert all(change.describe() for change in planned.changes)
    assert kinds(wanted, table) == found


@pytest.mark.parametrize(
    ("wanted", "refused"),
    [
        (with_columns(replace(ID, type="string"), AT, PAID), (RefusalKind.NARROWING, "id")),
        (with_columns(ID, replace(AT, type="timestamptz"), PAID), (RefusalKind.NARROWING, "at")),
        (
            with_columns(ID, AT, replace(PAID, type="decimal(12,3)")),
            (RefusalKind.NARROWING, "paid"),
        ),
        (with_columns(ID, replace(AT, required=True), PAID), (RefusalKind.MADE_REQUIRED, "at")),
        (with_columns(ID, AT), (RefusalKind.DROPPED_COLUMN, "paid")),
        (
            with_columns(ID, AT, PAID, replace(ISSUED, required=True)),
            (RefusalKind.NEW_REQUIRED_COLUMN, "issued"),
        ),
        (with_columns(ID, AT, PAID, Column("at_day", "int")), (RefusalKind.NAME_TAKEN, "at_day")),
        (
            with_columns(ID, AT, replace(PAID, name="at_day", was="paid")),
            (RefusalKind.NAME_TAKEN, "at_day"),
        ),
    ],
)
def test_what_iceberg_cannot_do_is_refused(
    wanted: Template, refused: tuple[RefusalKind, str]
) -> None:
    assert refusals(wanted, table_of(EVENTS)) == [refused]


def test_all_refusals_are_told_at_once() -> None:
    wanted = with_columns(replace(ID, type="string"), replace(AT, required=True))
    assert refusals(wanted, table_of(EVENTS)) == [
        (RefusalKind.NARROWING, "id"),
        (RefusalKind.MADE_REQUIRED, "at"),
        (RefusalKind.DROPPED_COLUMN, "paid"),
    ]


def test_a_required_column_may_be_added_while_there_are_no_rows() -> None:
    wanted = with_columns(ID, AT, PAID, replace(ISSUED, required=True))
    assert (
        AddColumn("issued", "date", True, "") in plan(wanted, table_of(EVENTS, rows=False)).changes
    )


def test_a_rename_counts_once() -> None:
    renamed = with_columns(ID, AT, replace(PAID, name="amount", was="paid"))
    assert not plan(renamed, table_of(renamed))


def test_a_name_that_a_column_has_is_not_given_to_a_partition() -> None:
    crowded = with_columns(ID, AT, PAID, Column("at_day", "int"))
    (creation,) = plan(crowded, None).changes
    assert isinstance(creation, CreateTable)
    assert [field.name for field in creation.partition_spec.fields] == ["at_day_2"]


def test_a_column_that_somebody_dropped_and_made_again_is_told() -> None:
    """Its older values are under the old field id, so readers find nothing there."""
    ids = {"id": 1, "at": 2, "paid": 33, "_batch": 4, "_file": 5, "_line": 6}
    table = table_of(EVENTS, {FIELD_IDS: json.dumps(ids)})
    assert kinds(EVENTS, table) == [(FindingKind.FIELD_ID, "paid")]
    assert refusals(EVENTS, table) == [(RefusalKind.REPLACED_COLUMN, "paid")]


def test_a_column_that_somebody_renamed_is_told_by_its_old_name() -> None:
    theirs = with_columns(ID, AT, replace(PAID, name="betrag"))
    table = table_of(theirs, {FIELD_IDS: iceberg_properties(EVENTS)[FIELD_IDS]})
    extra = next(f for f in drift(EVENTS, table) if f.kind is FindingKind.EXTRA_COLUMN)
    assert "paid" in extra.found
    with pytest.raises(ChangeRefused, match="paid") as refused:
        plan(EVENTS, table)
    assert refused.value.hint is not None
    assert "was: betrag" in refused.value.hint
    back = with_columns(ID, AT, replace(PAID, was="betrag"))
    assert plan(back, table).changes == (RenameColumn("betrag", "paid"),)


@pytest.mark.parametrize("record", [None, "not JSON", "[]"])
def test_a_missing_record_of_field_ids_is_made_up_for(record: str | None) -> None:
    table = table_of(EVENTS, {FIELD_IDS: record})
    assert kinds(EVENTS, table) == [(FindingKind.PROPERTY, FIELD_IDS)]
    assert plan(EVENTS, table).changes == (RecordFieldIds(),)


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("commit.manifest-merge.enabled", "false", FindingKind.PROPERTY),
        ("commit.manifest-merge.enabled", None, FindingKind.PROPERTY),
        ("commit.retry.num-retries", "1", FindingKind.PROPERTY),
        ("write.metadata.metrics.default", "none", FindingKind.EXTRA_PROPERTY),
        ("gc.enabled", "maybe", FindingKind.EXTRA_PROPERTY),
        ("schema.name-mapping.default", "[]", FindingKind.EXTRA_PROPERTY),
    ],
)
def test_properties_that_steer_writers_count(
    name: str, value: str | None, kind: FindingKind
) -> None:
    assert kinds(EVENTS, table_of(EVENTS, {name: value})) == [(kind, name)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("owner", "ann"),
        ("nessie.commit.id", "3c9bf56c"),
        ("created-by", "spark"),
        ("write.parquet.compression-codec", "zstd"),
        ("gc.enabled", "false"),  # Nessie's, in each of its tables
    ],
)
def test_notes_of_other_programs_do_not_count(name: str, value: str) -> None:
    table = table_of(EVENTS, {name: value})
    assert kinds(EVENTS, table) == []
    assert not plan(EVENTS, table)


def test_only_properties_of_ours_are_removed() -> None:
    without = replace(EVENTS, properties={}, description="")
    table = table_of(EVENTS, {"gc.enabled": "false", "history.expire.max-snapshot-age-ms": "1"})
    removed = [c.name for c in plan(without, table).changes if isinstance(c, RemoveProperty)]
    assert removed == ["comment", "commit.retry.num-retries", "history.expire.max-snapshot-age-ms"]
