"""Tables as others make them, written for real: what PyIceberg cannot write (delete files) is put
together by hand, file by file, as Iceberg's specification has it.

Spark and Flink themselves are not run here. `spark_like` has what Spark leaves behind: its
properties, its snapshots' summaries, Hive's paths, files without our order of columns.
"""

import datetime
import itertools
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog import Catalog
from pyiceberg.io import OutputFile
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestWriterV2,
    write_manifest_list,
)
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.snapshots import Operation, Snapshot, Summary
from pyiceberg.table.sorting import SortField, SortOrder
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    AssertRefSnapshotId,
    SetSnapshotRefUpdate,
)
from pyiceberg.transforms import BucketTransform, DayTransform, IdentityTransform
from pyiceberg.typedef import Record
from pyiceberg.types import (
    DateType,
    DecimalType,
    DoubleType,
    FixedType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestamptzType,
    UUIDType,
)

from lakewarden.adoption.model import Obstacle
from lakewarden.tables.template import Level

_serial = itertools.count(1)
DAY = datetime.date(2024, 1, 1)

ORDERS = Schema(
    NestedField(1, "id", LongType(), required=True),
    NestedField(2, "customer", StringType(), doc="Who ordered"),
    NestedField(3, "amount", DecimalType(9, 2)),
    NestedField(4, "at", TimestamptzType()),
)
_AT = datetime.datetime(2024, 1, 1, 12, tzinfo=datetime.UTC)


def orders(ids: Sequence[int]) -> pa.Table:
    """Rows of ORDERS."""
    schema = pa.schema(
        [
            pa.field("id", pa.int64(), nullable=False),
            pa.field("customer", pa.string()),
            pa.field("amount", pa.decimal128(9, 2)),
            pa.field("at", pa.timestamp("us", tz="UTC")),
        ]
    )
    return pa.table(
        {
            "id": list(ids),
            "customer": [None if i % 5 == 0 else f"c{i}" for i in ids],
            "amount": pa.array([i / 4 for i in ids]).cast(pa.decimal128(9, 2)),
            "at": [_AT + datetime.timedelta(hours=7 * i) for i in ids],
        },
        schema=schema,
    )


def plain(catalog: Catalog, name: str, **how: object) -> Table:
    """No `_batch`, two appends."""
    table = catalog.create_table(name, schema=ORDERS, **how)  # type: ignore[arg-type]  # as it is told
    table.append(orders(range(1, 11)))
    table.append(orders(range(11, 16)))
    return catalog.load_table(name)


def bucketed(catalog: Catalog, name: str) -> Table:
    """By bucket of a text and by day."""
    spec = PartitionSpec(
        PartitionField(2, 1000, BucketTransform(4), "customer_bucket"),
        PartitionField(4, 1001, DayTransform(), "at_day"),
    )
    order = SortOrder(SortField(4, IdentityTransform()))
    return plain(catalog, name, partition_spec=spec, sort_order=order)


def position_deletes(catalog: Catalog, name: str) -> Table:
    """Merge on read: rows 1 and 3 of the first file are gone."""
    table = plain(catalog, name)
    file = sorted(task.file.file_path for task in table.scan().plan_files())[0]
    rows = pa.table(
        {"file_path": [file, file], "pos": [0, 2]},
        schema=pa.schema(
            [
                pa.field("file_path", pa.string(), False, {"PARQUET:field_id": "2147483546"}),
                pa.field("pos", pa.int64(), False, {"PARQUET:field_id": "2147483545"}),
            ]
        ),
    )
    return _with_deletes(catalog, table, rows, DataFileContent.POSITION_DELETES, None)


def equality_deletes(catalog: Catalog, name: str) -> Table:
    """As Flink upserts: every row with the id 2 or 12 is gone."""
    table = plain(catalog, name)
    rows = pa.table(
        {"id": [2, 12]},
        schema=pa.schema([pa.field("id", pa.int64(), False, {"PARQUET:field_id": "1"})]),
    )
    return _with_deletes(catalog, table, rows, DataFileContent.EQUALITY_DELETES, [1])


class _DeleteManifest(ManifestWriterV2):
    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}


def _with_deletes(
    catalog: Catalog,
    table: Table,
    rows: pa.Table,
    content: DataFileContent,
    equality_ids: list[int] | None,
) -> Table:
    path = f"{table.location()}/data/{next(_serial):05d}-deletes.parquet"
    _write(table.io.new_output(path), rows)
    file = DataFile.from_args(
        content=content,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=Record(),
        record_count=len(rows),
        file_size_in_bytes=len(table.io.new_input(path)),
        equality_ids=equality_ids,
        spec_id=0,
    )
    kind = "equality" if equality_ids else "position"
    return _with_file(catalog, table, file, {f"total-{kind}-deletes": str(len(rows))})


def _with_files(
    catalog: Catalog, table: Table, kind: FileFormat, content: DataFileContent
) -> Table:
    """A file of some format, which nobody is to read."""
    file = DataFile.from_args(
        content=content,
        file_path=f"{table.location()}/data/{next(_serial):05d}.{kind.name.lower()}",
        file_format=kind,
        partition=Record(),
        record_count=1,
        file_size_in_bytes=1,
        spec_id=0,
    )
    return _with_file(catalog, table, file, {})


def _with_file(catalog: Catalog, table: Table, file: DataFile, told: Mapping[str, str]) -> Table:
    """A snapshot with one more file, by hand."""
    parent = table.current_snapshot()
    assert parent is not None
    number = next(_serial)
    base, sequence = table.location(), (parent.sequence_number or 0) + 1
    snapshot_id = 9_000_000_000 + number
    deletes = file.content != DataFileContent.DATA
    output = table.io.new_output(f"{base}/metadata/{number:05d}-more.avro")
    writer = (_DeleteManifest if deletes else ManifestWriterV2)(
        table.spec(), table.schema(), output, snapshot_id, "deflate"
    )
    with writer:
        writer.add_entry(
            ManifestEntry.from_args(
                status=ManifestEntryStatus.ADDED, snapshot_id=snapshot_id, data_file=file
            )
        )
    listing = table.io.new_output(f"{base}/metadata/snap-{snapshot_id}-{uuid.uuid4()}.avro")
    with write_manifest_list(
        2, listing, snapshot_id, parent.snapshot_id, sequence, "deflate"
    ) as manifests:
        manifests.add_manifests([*parent.manifests(table.io), writer.to_manifest_file()])
    assert parent.summary is not None
    snapshot = Snapshot(
        snapshot_id=snapshot_id,
        parent_snapshot_id=parent.snapshot_id,
        sequence_number=sequence,
        timestamp_ms=parent.timestamp_ms + 1,
        manifest_list=listing.location,
        summary=Summary(
            Operation.DELETE if deletes else Operation.APPEND,
            **{**parent.summary.additional_properties, **told},
        ),
        schema_id=table.schema().schema_id,
    )
    catalog.commit_table(
        table,
        (AssertRefSnapshotId(ref="main", snapshot_id=parent.snapshot_id),),
        (
            AddSnapshotUpdate(snapshot=snapshot),
            SetSnapshotRefUpdate(
                ref_name="main",
                type=SnapshotRefType.BRANCH,
                snapshot_id=snapshot_id,
                max_ref_age_ms=None,
                max_snapshot_age_ms=None,
                min_snapshots_to_keep=None,
            ),
        ),
    )
    return catalog.load_table(".".join(table.name()))


def _write(output: OutputFile, rows: pa.Table) -> None:
    with output.create(overwrite=True) as stream:
        pq.write_table(rows, stream)


def compacted(catalog: Catalog, name: str) -> Table:
    """Small files were rewritten to one; the history still names them."""
    table = plain(catalog, name)
    table.overwrite(table.scan().to_arrow())
    return catalog.load_table(name)


def without_ids(catalog: Catalog, name: str, *, mapping: bool = True) -> Table:
    """Hive's files, taken over by reference: no field ids, only names, under Hive's paths."""
    table = catalog.create_table(name, schema=ORDERS_OPTIONAL)
    rows = orders(range(1, 8))
    files = []
    for part in range(2):
        path = f"{table.location()}/data/region=eu/part-{part:05d}-c000.snappy.parquet"
        _write(table.io.new_output(path), rows.slice(part * 4, 4))
        files.append(path)
    table.add_files(files)
    if not mapping:
        with table.transaction() as transaction:
            transaction.remove_properties("schema.name-mapping.default")
    return catalog.load_table(name)


ORDERS_OPTIONAL = Schema(
    *(
        NestedField(f.field_id, f.name, f.field_type, required=False, doc=f.doc)
        for f in ORDERS.fields
    )
)


def renamed_without_ids(catalog: Catalog, name: str) -> Table:
    """The same, and a column has another name since: the mapping knows both."""
    table = without_ids(catalog, name)
    with table.update_schema() as update:
        update.rename_column("customer", "buyer")
    return catalog.load_table(name)


def spark_like(catalog: Catalog, name: str) -> Table:
    """What Spark leaves behind in a table of format 1, by the names that its writers use."""
    spec = PartitionSpec(PartitionField(2, 1000, IdentityTransform(), "customer"))
    table = catalog.create_table(
        name,
        schema=ORDERS,
        partition_spec=spec,
        properties={
            "format-version": "1",
            "owner": "spark",
            "write.parquet.compression-codec": "zstd",
            "write.delete.mode": "merge-on-read",
            "write.distribution-mode": "hash",
            "created-at": "2024-01-01T00:00:00Z",
        },
    )
    table.append(
        orders(range(1, 8)),
        snapshot_properties={
            "spark.app.id": "local-1704067200000",
            "engine-name": "spark",
            "engine-version": "3.5.1",
            "iceberg-version": "Apache Iceberg 1.5.0",
        },
    )
    return catalog.load_table(name)


NESTED = Schema(
    NestedField(1, "id", IntegerType(), required=True),
    NestedField(
        2,
        "place",
        StructType(NestedField(3, "lat", DoubleType()), NestedField(4, "lon", DoubleType())),
    ),
    NestedField(5, "tags", ListType(6, StringType(), element_required=False)),
    NestedField(7, "counts", MapType(8, StringType(), 9, LongType(), value_required=False)),
    NestedField(10, "key", UUIDType()),
    NestedField(11, "digest", FixedType(4)),
)


def nested(catalog: Catalog, name: str) -> Table:
    """struct, list, map, uuid, fixed."""
    table = catalog.create_table(name, schema=NESTED)
    table.append(
        pa.table(
            {
                "id": [1, 2],
                "place": [{"lat": 1.5, "lon": 2.5}, None],
                "tags": [["a", "b"], []],
                "counts": [[("x", 1)], None],
                "key": [uuid.UUID(int=5).bytes, None],
                "digest": [b"\x00\x01\x02\x03", None],
            },
            schema=table.schema().as_arrow(),
        )
    )
    return catalog.load_table(name)


def dropped_column(catalog: Catalog, name: str) -> Table:
    """A column was dropped and one of the same name made again: another field id."""
    table = plain(catalog, name)
    with table.update_schema() as update:
        update.delete_column("customer")
    with table.update_schema() as update:
        update.add_column("customer", StringType())
    return catalog.load_table(name)


def evolved_partitions(catalog: Catalog, name: str) -> Table:
    """By day, and by bucket since."""
    spec = PartitionSpec(PartitionField(4, 1000, DayTransform(), "at_day"))
    table = plain(catalog, name, partition_spec=spec)
    with table.update_spec() as update:
        update.remove_field("at_day")
        update.add_field("id", BucketTransform(3), "id_bucket")
    table = catalog.load_table(name)
    table.append(orders(range(16, 22)))
    return catalog.load_table(name)


def with_refs(catalog: Catalog, name: str) -> Table:
    """A tag, and a branch of the table that is ahead of main."""
    table = plain(catalog, name)
    first = table.history()[0].snapshot_id
    table.manage_snapshots().create_tag(first, "first").create_branch(first, "audit").commit()
    catalog.load_table(name).append(orders([99]), branch="audit")
    return catalog.load_table(name)


def odd_names(catalog: Catalog, name: str) -> Table:
    """Columns as other programs name them."""
    schema = Schema(
        NestedField(1, "OrderId", LongType()),
        NestedField(2, "order date", DateType()),
        NestedField(3, "_source", StringType()),
        NestedField(4, "größe", DoubleType(), doc='of "it": 1\n'),
    )
    table = catalog.create_table(name, schema=schema)
    table.append(
        pa.table(
            {"OrderId": [1], "order date": [DAY], "_source": ["x"], "größe": [1.5]},
            schema=table.schema().as_arrow(),
        )
    )
    return catalog.load_table(name)


def twins(catalog: Catalog, name: str) -> Table:
    """Names that differ by case only."""
    schema = Schema(NestedField(1, "id", LongType()), NestedField(2, "ID", LongType()))
    table = catalog.create_table(name, schema=schema)
    table.append(pa.table({"id": [1], "ID": [2]}))
    return catalog.load_table(name)


def empty(catalog: Catalog, name: str) -> Table:
    return catalog.create_table(name, schema=ORDERS)


def void_partition(catalog: Catalog, name: str) -> Table:
    """Format 1 keeps a partition field that was removed, as void."""
    spec = PartitionSpec(PartitionField(4, 1000, DayTransform(), "at_day"))
    table = plain(catalog, name, partition_spec=spec, properties={"format-version": "1"})
    return _edited(catalog, table, lambda found: _make_void(found))


def _make_void(metadata: dict[str, Any]) -> None:
    field = {"source-id": 4, "field-id": 1000, "name": "at_day", "transform": "void"}
    metadata["partition-specs"].append({"spec-id": 1, "fields": [field]})
    metadata["default-spec-id"] = 1
    metadata["partition-spec"] = [field]


def sorted_by_transform(catalog: Catalog, name: str) -> Table:
    return plain(catalog, name, sort_order=SortOrder(SortField(4, DayTransform())))


def own_batch(catalog: Catalog, name: str) -> Table:
    """A column that is called as ours, and is something else."""
    schema = Schema(NestedField(1, "id", LongType()), NestedField(2, "_batch", LongType()))
    table = catalog.create_table(name, schema=schema)
    table.append(pa.table({"id": [1], "_batch": [7]}))
    return catalog.load_table(name)


def look_alike(catalog: Catalog, name: str) -> Table:
    """Somebody else's loader has the same idea: its batches must never be taken for ours."""
    schema = Schema(NestedField(1, "id", LongType()), NestedField(2, "_batch", StringType()))
    table = catalog.create_table(name, schema=schema)
    table.append(pa.table({"id": [1], "_batch": ["2024-01-01"]}))
    return catalog.load_table(name)


def file_gone(catalog: Catalog, name: str) -> Table:
    """Somebody deleted a data file of the current snapshot."""
    table = plain(catalog, name)
    for task in table.scan().plan_files():
        table.io.delete(task.file.file_path)
    return table


def without_mapping(catalog: Catalog, name: str) -> Table:
    return without_ids(catalog, name, mapping=False)


def version_3(catalog: Catalog, name: str) -> Table:
    return _edited(
        catalog,
        plain(catalog, name),
        lambda found: found.update({"format-version": 3, "next-row-id": 0}),
    )


def unknown_type(catalog: Catalog, name: str) -> Table:
    """A type that this release has never heard of."""

    def edit(found: dict[str, Any]) -> None:
        found["schemas"][0]["fields"][1]["type"] = "colour"

    return _edited(catalog, plain(catalog, name), edit)


def encrypted(catalog: Catalog, name: str) -> Table:
    return plain(catalog, name, properties={"encryption.key-id": "k1"})


def metadata_gone(catalog: Catalog, name: str) -> Table:
    table = plain(catalog, name)
    table.io.delete(table.metadata_location)
    return table


def deletion_vector(catalog: Catalog, name: str) -> Table:
    """A delete file in Puffin, as format 3 has them."""
    return _with_files(
        catalog, plain(catalog, name), FileFormat.PUFFIN, DataFileContent.POSITION_DELETES
    )


def avro_files(catalog: Catalog, name: str) -> Table:
    return _with_files(catalog, plain(catalog, name), FileFormat.AVRO, DataFileContent.DATA)


def _edited(catalog: Catalog, table: Table, edit: Callable[[dict[str, Any]], None]) -> Table:
    """What another release of Iceberg would have written: the metadata file, edited."""
    with table.io.new_input(table.metadata_location).open() as stream:
        metadata = json.loads(stream.read())
    edit(metadata)
    with table.io.new_output(table.metadata_location).create(overwrite=True) as output:
        output.write(json.dumps(metadata).encode())
    return table


@dataclass(frozen=True)
class Foreign:
    """How a table is made, and what becomes of it."""

    make: Callable[[Catalog, str], Table]
    level: Level | None  # the highest that it may have; None: it is not adopted
    reasons: frozenset[Obstacle] = frozenset()  # why it goes no further
    read_by_both: bool = True  # by DuckDB and by PyIceberg, and alike


def _observed(make: Callable[[Catalog, str], Table], *why: Obstacle, both: bool = True) -> Foreign:
    return Foreign(make, Level.OBSERVED, frozenset(why), both)


def _loaded(make: Callable[[Catalog, str], Table]) -> Foreign:
    return Foreign(make, Level.LOADED)


def _refused(make: Callable[[Catalog, str], Table], *why: Obstacle) -> Foreign:
    return Foreign(make, None, frozenset(why), read_by_both=False)


FOREIGN: Mapping[str, Foreign] = {
    "plain": _loaded(plain),
    "bucketed": _loaded(bucketed),
    "position_deletes": _loaded(position_deletes),
    "compacted": _loaded(compacted),
    "without_ids": _loaded(without_ids),
    "renamed_without_ids": _loaded(renamed_without_ids),
    "spark_like": _loaded(spark_like),
    "dropped_column": _loaded(dropped_column),
    "evolved_partitions": _loaded(evolved_partitions),
    "with_refs": _loaded(with_refs),
    "empty": _loaded(empty),
    "equality_deletes": _observed(equality_deletes, Obstacle.EQUALITY_DELETES, both=False),
    "nested": _observed(nested, Obstacle.COLUMN_TYPES),
    "odd_names": _observed(odd_names, Obstacle.COLUMN_NAMES),
    "twins": _observed(twins, Obstacle.COLUMN_NAMES, Obstacle.TWIN_COLUMNS, both=False),
    "void_partition": _observed(void_partition, Obstacle.PARTITIONS),
    "sorted_by_transform": _observed(sorted_by_transform, Obstacle.SORT_ORDER),
    "own_batch": _observed(own_batch, Obstacle.OUR_COLUMNS),
    "look_alike": _observed(look_alike, Obstacle.OUR_COLUMNS),
    "file_gone": _observed(file_gone, Obstacle.FILES_MISSING, both=False),
    "without_mapping": _refused(without_mapping, Obstacle.NO_FIELD_IDS),
    "version_3": _refused(version_3, Obstacle.FORMAT_VERSION),
    "unknown_type": _refused(unknown_type, Obstacle.METADATA),
    "metadata_gone": _refused(metadata_gone, Obstacle.METADATA),
    "deletion_vector": _refused(deletion_vector, Obstacle.FORMAT_VERSION),
    "avro_files": _refused(avro_files, Obstacle.FILE_FORMAT),
    "encrypted": _refused(encrypted, Obstacle.ENCRYPTED),
    "Odd-Name": _refused(plain, Obstacle.NAME),
}
