"""Rows from DuckDB → sorted, partitioned Parquet in the bucket → Iceberg data files.

PyIceberg's `add_files` refuses required columns, field ids and bucket partitions, so the files
are written here with the table's field ids and described here from their own footers.
"""

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
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
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Record
from pyiceberg.types import IcebergType

from lakewarden.aws.objects import Objects
from lakewarden.batch.duck import identifier, literal
from lakewarden.batch.sql_types import duckdb_type
from lakewarden.batch.workers import Workers

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

_ROW_GROUP_ROWS = 122_880


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
    alias: str


def _group(
    connection: "DuckDBPyConnection", select: str, table: Table, folder: Path
) -> Sequence[_GroupKey]:
    """Spread the rows over one folder a partition, in one pass."""
    keys = [
        _GroupKey(field, table.schema().find_column_name(field.source_id) or "", f"_key{number}")
        for number, field in enumerate(table.spec().fields)
    ]
    values = ", ".join(f"{_transform(connection, key, table)} AS {key.alias}" for key in keys)
    by = ", ".join(key.alias for key in keys)
    connection.execute(
        f"COPY (SELECT *, {values} FROM ({select})) TO {literal(str(folder))}"
        f" (FORMAT parquet, COMPRESSION lz4_raw, PARTITION_BY ({by}),"
        " WRITE_PARTITION_COLUMNS true, OVERWRITE_OR_IGNORE true)"
    )
    return keys


def _transform(connection: "DuckDBPyConnection", key: _GroupKey, table: Table) -> str:
    """SQL for a partition transform: PyIceberg's own (vectorised), so that both always agree."""
    column = identifier(key.column)
    if isinstance(key.field.transform, IdentityTransform):
        return column
    source = table.schema().find_type(key.field.source_id)
    name = "lakewarden_" + re.sub(r"\W+", "_", f"{key.field.transform}_{source}")
    _register(connection, name, key.field.transform.pyarrow_transform(source), source)
    return f"{name}({column})"


def _register(
    connection: "DuckDBPyConnection",
    name: str,
    transform: "Callable[[pa.Array], pa.Array]",
    source: IcebergType,
) -> None:
    """Make a transform a function of this session; again is fine."""
    import duckdb
    import pyarrow as pa
    from duckdb.func import ARROW, SPECIAL

    if _has_function(connection, name):
        return
    result = transform(pa.array([], type=schema_to_pyarrow(source))).type
    connection.create_function(
        name,
        # One parameter and no default: DuckDB counts the parameters.
        lambda chunk: transform(
            chunk.combine_chunks() if isinstance(chunk, pa.ChunkedArray) else chunk
        ),
        [duckdb.sqltype(duckdb_type(source))],
        duckdb.sqltype(_ARROW_NAMES.get(str(result)) or duckdb_type(source)),
        type=ARROW,
        null_handling=SPECIAL,
    )


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
    aliases = ", ".join(key.alias for key in keys)
    values = connection.execute(f"SELECT {aliases} FROM {source} LIMIT 1").fetchone() or ()
    columns = ", ".join(identifier(field.name) for field in table.schema().fields)
    select = f"SELECT {columns} FROM {source}"
    rows = copy(connection, _ordered(select, table), table.schema(), path)
    shutil.rmtree(group)
    partition = Record(
        *(
            partition_record_value(key.field, value, table.schema())
            for key, value in zip(keys, values, strict=True)
        )
    )
    return LocalFile(path, rows, partition)


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
