"""Rows from DuckDB → sorted, partitioned Parquet in the bucket → Iceberg data files.

PyIceberg's `add_files` refuses required columns, field ids and bucket partitions, so the files
are written here with the table's field ids and described here from their own footers.
"""

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
    schema_to_pyarrow,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionField, partition_record_value
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.sorting import NullOrder, SortDirection
from pyiceberg.transforms import IdentityTransform, TruncateTransform
from pyiceberg.typedef import Record
from pyiceberg.types import (
    BinaryType,
    DateType,
    IcebergType,
    NestedField,
    TimestampType,
    TimestamptzType,
    UUIDType,
)

from lakewarden.aws.objects import Objects
from lakewarden.batch.duck import identifier, literal
from lakewarden.batch.sql_types import duckdb_type
from lakewarden.batch.workers import Workers
from lakewarden.errors import Failed

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

_ROW_GROUP_ROWS = 122_880


class PartitionsCollide(Failed):
    """Rows of two partitions cannot be told apart while they are spread."""


@dataclass(frozen=True)
class LocalFile:
    """A finished Parquet file in scratch, and the partition that all of its rows belong to."""

    path: Path
    rows: int
    partition: Record


def write_local(
    connection: "DuckDBPyConnection", select: str, table: Table, folder: Path, stem: str
) -> Sequence[LocalFile]:
    """Write what `select` yields (columns by the table's names and types) as the table wants it:
    one file a partition, sorted inside. A partition without rows makes no file."""
    folder.mkdir(parents=True, exist_ok=True)
    if table.spec().is_unpartitioned():
        path = folder / f"{stem}.parquet"
        rows = copy(connection, _ordered(select, table), table.schema(), path)
        return [LocalFile(path, rows, Record())] if rows else []
    groups = folder / f"{stem}-groups"
    keys = _group(connection, select, table, groups)
    return [
        _write_group(connection, group, keys, table, folder / f"{stem}-{number:04d}.parquet")
        for number, group in enumerate(sorted({file.parent for file in groups.rglob("*.parquet")}))
    ]


def upload(
    files: Sequence[LocalFile], table: Table, objects: Objects, *, threads: int = 4
) -> Sequence[DataFile]:
    """Put finished files where the table keeps its data, and describe them from their footers."""
    with Workers(threads) as workers:
        sent = [workers.submit(_upload_one, file, table, objects) for file in files]
        return [one.result() for one in sent]


def copy(
    connection: "DuckDBPyConnection",
    select: str,
    schema: Schema,
    path: Path,
    *,
    compression: str = "zstd",
) -> int:
    """COPY to one Parquet file with the schema's field ids; returns the rows written."""
    ids = ", ".join(f"{identifier(field.name)}: {field.field_id}" for field in schema.fields)
    connection.execute(
        f"COPY ({select}) TO {literal(str(path))} (FORMAT parquet, COMPRESSION {compression},"
        f" ROW_GROUP_SIZE {_ROW_GROUP_ROWS}, FIELD_IDS {{{ids}}})"
    )
    return _count(connection)


def _count(connection: "DuckDBPyConnection") -> int:
    row = connection.fetchone()
    return int(row[0]) if row else 0


def _ordered(select: str, table: Table) -> str:
    order = ", ".join(_order_terms(table))
    return f"SELECT * FROM ({select}) ORDER BY {order}" if order else select


def _order_terms(table: Table) -> Iterator[str]:
    for field in table.sort_order().fields:
        column = identifier(table.schema().find_column_name(field.source_id) or "")
        if not isinstance(field.transform, IdentityTransform):
            raise NotImplementedError(f"sort by {field.transform} of {column}")
        direction = "ASC" if field.direction is SortDirection.ASC else "DESC"
        nulls = "FIRST" if field.null_order is NullOrder.NULLS_FIRST else "LAST"
        yield f"{column} {direction} NULLS {nulls}"


@dataclass(frozen=True)
class _GroupKey:
    """A partition field, the column it comes from, and the name of its value while we group."""

    field: PartitionField
    column: str
    kind: IcebergType
    alias: str


def _group(
    connection: "DuckDBPyConnection", select: str, table: Table, folder: Path
) -> Sequence[_GroupKey]:
    """Spread the rows over a folder a partition, in one pass. Folders are named by a hash: values
    may be longer than the name of a file, no text, or spelled as Hive spells null."""
    schema = table.schema()
    sources = [schema.find_field(field.source_id) for field in table.spec().fields]
    keys = [
        _GroupKey(field, source.name, source.field_type, f"_key{number}")
        for number, (field, source) in enumerate(zip(table.spec().fields, sources, strict=True))
    ]
    values = ", ".join(f"{_transform(connection, key)} AS {key.alias}" for key in keys)
    aliases = ", ".join(key.alias for key in keys)
    connection.execute(
        f"COPY (SELECT *, hash({aliases}) AS _group FROM (SELECT *, {values} FROM ({select})))"
        f" TO {literal(str(folder))} (FORMAT parquet, COMPRESSION lz4_raw, PARTITION_BY (_group),"
        " OVERWRITE_OR_IGNORE true)"
    )
    return keys


def _transform(connection: "DuckDBPyConnection", key: _GroupKey) -> str:
    """SQL for a partition transform: PyIceberg's own (vectorised), so that both always agree."""
    column, kind, transform = identifier(key.column), key.kind, key.field.transform
    if isinstance(transform, IdentityTransform):
        return column
    if isinstance(kind, BinaryType):
        if isinstance(transform, TruncateTransform):  # it has none for bytes
            return f"unhex(left(hex({column}), {2 * transform.width}))"
    elif isinstance(kind, UUIDType):  # it has none either; the spec hashes the bytes
        column, kind = f"unhex(replace(CAST({column} AS VARCHAR), '-', ''))", BinaryType()
    name = "lakewarden_" + re.sub(r"\W+", "_", f"{transform}_{kind}")
    _register(connection, name, transform.pyarrow_transform(kind), kind)
    return f"{name}({column})"


def _register(
    connection: "DuckDBPyConnection",
    name: str,
    transform: "Callable[[pa.Array], pa.Array]",
    source: IcebergType,
) -> None:
    """Make a transform a function of this session; again, and from several threads, is fine."""
    import duckdb
    import pyarrow as pa
    from duckdb.func import ARROW, SPECIAL

    result = transform(pa.array([], type=schema_to_pyarrow(source))).type
    with _registering:
        if _has_function(connection, name):
            return
        # One parameter and no default: DuckDB counts the parameters.
        function = _kept.setdefault(
            name,
            lambda chunk: transform(
                chunk.combine_chunks() if isinstance(chunk, pa.ChunkedArray) else chunk
            ),
        )
        connection.create_function(
            name,
            function,
            [duckdb.sqltype(duckdb_type(source))],
            duckdb.sqltype(_ARROW_NAMES.get(str(result)) or duckdb_type(source)),
            type=ARROW,
            null_handling=SPECIAL,
        )


_registering = Lock()
# A function belongs to the database, but only the cursor that made it holds it: once that cursor is
# closed, DuckDB calls what may be freed. So each lives as long as the process.
_kept: dict[str, "Callable[[pa.Array], pa.Array]"] = {}
# What transforms return, where it is not the type of their source (truncate).
_ARROW_NAMES = {"int32": "INTEGER", "int64": "BIGINT"}


def _has_function(connection: "DuckDBPyConnection", name: str) -> bool:
    found = connection.execute(
        "SELECT count(*) FROM duckdb_functions() WHERE function_name = ?", [name]
    ).fetchone()
    return bool(found and found[0])


def _write_group(
    connection: "DuckDBPyConnection",
    group: Path,
    keys: Sequence[_GroupKey],
    table: Table,
    path: Path,
) -> LocalFile:
    """One partition's rows, sorted, as one file; its key is read back from the rows, typed."""
    source = f"read_parquet({literal(str(group / '*.parquet'))}, hive_partitioning = false)"
    values = ", ".join(_plain(key) for key in keys)
    found = connection.execute(f"SELECT DISTINCT {values} FROM {source} LIMIT 2").fetchall()
    if len(found) > 1:
        raise PartitionsCollide(
            f"two partitions of {'.'.join(table.name())} have the same 64-bit hash",
            hint="Load the batch in parts, and please report this.",
        )
    columns = ", ".join(identifier(field.name) for field in table.schema().fields)
    select = f"SELECT {columns} FROM {source}"
    rows = copy(connection, _ordered(select, table), table.schema(), path)
    shutil.rmtree(group)
    record = Record(*(_record(key, value) for key, value in zip(keys, found[0], strict=True)))
    return LocalFile(path, rows, record)


def _plain(key: _GroupKey) -> str:
    """SQL for a partition's value as Python can hold it whatever the year, without time zones."""
    match key.kind:
        case TimestampType() | TimestamptzType() if _keeps_type(key):
            return f"epoch_us({key.alias})"
        case DateType() if _keeps_type(key):
            return f"date_diff('day', DATE '1970-01-01', {key.alias})"
    return key.alias


def _record(key: _GroupKey, value: object) -> object:
    """The value as a partition record holds it; other transforms give whole numbers."""
    if not _keeps_type(key):
        return value
    source = Schema(NestedField(key.field.source_id, key.column, key.kind))
    return partition_record_value(key.field, value, source)


def _keeps_type(key: _GroupKey) -> bool:
    return isinstance(key.field.transform, IdentityTransform | TruncateTransform)


def _upload_one(file: LocalFile, table: Table, objects: Objects) -> DataFile:
    folder = table.location().removeprefix(f"s3://{objects.bucket}/")
    key = f"{folder}/data/{file.path.name}"
    objects.upload(key, file.path)
    footer = pq.read_metadata(file.path)
    schema = table.schema()
    statistics = data_file_statistics_from_parquet_metadata(
        parquet_metadata=footer,
        stats_columns=compute_statistics_plan(schema, table.properties),
        parquet_column_mapping=parquet_path_to_id_mapping(schema),
    )
    size = file.path.stat().st_size
    file.path.unlink()
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=f"s3://{objects.bucket}/{key}",
        file_format=FileFormat.PARQUET,
        partition=file.partition,
        file_size_in_bytes=size,
        sort_order_id=table.sort_order().order_id or None,
        spec_id=table.spec().spec_id,
        equality_ids=None,
        key_metadata=None,
        **statistics.to_serialized_dict(),
    )
