"""Rows from DuckDB → sorted, partitioned Parquet in the bucket → Iceberg data files.

PyIceberg's `add_files` refuses required columns, field ids and bucket partitions, so the files
are written here with the table's field ids and described here from their own footers.
"""

import math
import re
import shutil
from collections.abc import Callable, Sequence
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
from pyiceberg.transforms import (
    DayTransform,
    HourTransform,
    IdentityTransform,
    TruncateTransform,
)
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
from lakewarden.batch.duck import NO_BLOOM_FILTER, identifier, literal
from lakewarden.batch.sorting import Cut, find_cuts, ordered, range_number
from lakewarden.batch.sql_types import duckdb_type
from lakewarden.batch.workers import Workers, result_of
from lakewarden.errors import Failed

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

_ROW_GROUP_ROWS = 122_880
# Many enough for most days' partitions to have one each, few enough to be open at once.
BOXES = 128
# Of what is read once more and thrown away: dictionaries would take a third of the time (and DuckDB
# 1.5.5 writes -0.0 as 0.0 where one has both).
_STAGED = "FORMAT parquet, PARQUET_VERSION v2, COMPRESSION lz4_raw, DICTIONARY_SIZE_LIMIT 0"


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
        rows = copy(connection, ordered(select, table), table.schema(), path)
        return [LocalFile(path, rows, Record())] if rows else []
    shelf = folder / f"{stem}-shelf"
    spread(connection, select, table, shelf)
    return [
        file
        for number, box in enumerate(boxes([shelf]))
        for file in write_box(connection, box, table, folder, f"{stem}-{number:04d}")
    ]


def spread(
    connection: "DuckDBPyConnection",
    select: str,
    table: Table,
    shelf: Path,
    cuts: Sequence[Cut] = (),
) -> int:
    """Spread rows over boxes, folders in `shelf`, in one pass; returns how many there are. All
    rows of a partition go into the same box, of this shelf and of every other; where there are no
    partitions, all rows of a range of the table's order (`cuts`: between which it ends).

    There are not many boxes, however many partitions: the same rows may be spread from hundreds of
    parts of a delivery, and each makes a file a box."""
    if table.spec().is_unpartitioned():
        return _distribute(
            connection, f"SELECT *, {range_number(table, cuts)} AS _box FROM ({select})", shelf
        )
    keys = _keys(table)
    values = ", ".join(f"{_transform(connection, key)} AS {key.alias}" for key in keys)
    hashed = f"hash({', '.join(key.alias for key in keys)}) % {BOXES}"
    return _distribute(
        connection, f"SELECT *, {hashed} AS _box FROM (SELECT *, {values} FROM ({select}))", shelf
    )


def boxes(shelves: Sequence[Path]) -> Sequence[Sequence[Path]]:
    """What was spread, box by box: the folders of each, one from every shelf that has it."""
    found: dict[str, list[Path]] = {}
    for folder in (folder for shelf in shelves for folder in sorted(shelf.glob("_box=*"))):
        found.setdefault(folder.name, []).append(folder)
    return [found[name] for name in sorted(found, key=_number)]


def _number(box: str) -> int:
    return int(box.removeprefix("_box="))


def write_box(
    connection: "DuckDBPyConnection",
    box: Sequence[Path],
    table: Table,
    folder: Path,
    stem: str,
    *,
    most_bytes: int = 192 << 20,
) -> Sequence[LocalFile]:
    """The partitions of one box, a sorted file each; the box is gone then. Of a table without
    partitions, a box of much more than `most_bytes` becomes several files."""
    keys = _keys(table)
    if not keys:
        return _write_ranges(connection, box, table, folder, stem, most_bytes)
    found = _partitions(connection, box, keys)
    if len(found) == 1:
        path = folder / f"{stem}.parquet"
        return [_write_partition(connection, box, keys, found[0], table, path)]
    groups = folder / f"{stem}-groups"
    aliases = ", ".join(key.alias for key in keys)
    _distribute(connection, f"SELECT *, hash({aliases}) AS _box FROM {_rows(box)}", groups)
    _remove(box)
    files = []
    for number, group in enumerate(boxes([groups])):
        found = _partitions(connection, group, keys)
        if len(found) > 1:
            raise PartitionsCollide(
                f"two partitions of {'.'.join(table.name())} have the same 64-bit hash",
                hint="Load the batch in parts, and please report this.",
            )
        path = folder / f"{stem}-{number:04d}.parquet"
        files.append(_write_partition(connection, group, keys, found[0], table, path))
    return files


def _write_ranges(
    connection: "DuckDBPyConnection",
    box: Sequence[Path],
    table: Table,
    folder: Path,
    stem: str,
    most_bytes: int,
) -> Sequence[LocalFile]:
    """A range may have become a large one: of rows that come in order, most are behind what the
    first ones told. It is cut once more then."""
    ranges = min(BOXES, math.ceil(sum(map(_unpacked_bytes, _files(box))) / most_bytes))
    pieces = [box]
    if ranges > 2 and (at := find_cuts(connection, f"FROM {_rows(box)}", table, ranges)):
        shelf = folder / f"{stem}-ranges"
        spread(connection, f"FROM {_rows(box)}", table, shelf, at)
        _remove(box)
        pieces = list(boxes([shelf]))
    return [
        _write_partition(connection, piece, (), (), table, folder / f"{stem}-{number:04d}.parquet")
        for number, piece in enumerate(pieces)
    ]


def upload(
    files: Sequence[LocalFile], table: Table, objects: Objects, *, threads: int = 4
) -> Sequence[DataFile]:
    """Put finished files where the table keeps its data, and describe them from their footers."""
    with Workers(threads) as workers:
        sent = [workers.submit(_upload_one, file, table, objects) for file in files]
        return [result_of(one) for one in sent]


def copy(connection: "DuckDBPyConnection", select: str, schema: Schema, path: Path) -> int:
    """COPY to one Parquet file with the schema's field ids; returns the rows written."""
    ids = ", ".join(f"{identifier(field.name)}: {field.field_id}" for field in schema.fields)
    connection.execute(
        f"COPY ({select}) TO {literal(str(path))} (FORMAT parquet, COMPRESSION zstd,"
        f" ROW_GROUP_SIZE {_ROW_GROUP_ROWS}, {NO_BLOOM_FILTER}, FIELD_IDS {{{ids}}})"
    )
    return _count(connection)


def _count(connection: "DuckDBPyConnection") -> int:
    row = connection.fetchone()
    return int(row[0]) if row else 0


@dataclass(frozen=True)
class _GroupKey:
    """A partition field, the column it comes from, and the name of its value while we group."""

    field: PartitionField
    column: str
    kind: IcebergType
    alias: str


def _keys(table: Table) -> Sequence[_GroupKey]:
    schema = table.schema()
    sources = [schema.find_field(field.source_id) for field in table.spec().fields]
    return [
        _GroupKey(field, source.name, source.field_type, f"_key{number}")
        for number, (field, source) in enumerate(zip(table.spec().fields, sources, strict=True))
    ]


def _distribute(connection: "DuckDBPyConnection", select: str, folder: Path) -> int:
    """Rows into folders by their `_box`, a hash: values may be longer than the name of a file, no
    text, or spelled as Hive spells null. Returns the rows."""
    connection.execute(
        f"COPY ({select}) TO {literal(str(folder))} ({_STAGED}, PARTITION_BY (_box),"
        " OVERWRITE_OR_IGNORE true)"
    )
    return _count(connection)


def _transform(connection: "DuckDBPyConnection", key: _GroupKey) -> str:
    """SQL for a partition transform: PyIceberg's own (vectorised), so that both always agree, save
    for hours and days of a timestamp, which are frequent, and quicker to count here."""
    column, kind, transform = identifier(key.column), key.kind, key.field.transform
    if isinstance(transform, IdentityTransform):
        return column
    if isinstance(kind, TimestampType | TimestamptzType):
        if isinstance(transform, HourTransform):
            return _whole(f"epoch_us({column})", 3_600_000_000)
        if isinstance(transform, DayTransform):
            return _whole(f"epoch_us({column})", 86_400_000_000)
    if isinstance(kind, BinaryType):
        if isinstance(transform, TruncateTransform):  # it has none for bytes
            return f"unhex(left(hex({column}), {2 * transform.width}))"
    elif isinstance(kind, UUIDType):  # it has none either; the spec hashes the bytes
        column, kind = f"unhex(replace(CAST({column} AS VARCHAR), '-', ''))", BinaryType()
    name = "lakewarden_" + re.sub(r"\W+", "_", f"{transform}_{kind}")
    _register(connection, name, transform.pyarrow_transform(kind), kind)
    return f"{name}({column})"


def _whole(microseconds: str, unit: int) -> str:
    """SQL for whole units since 1970, before it too: DuckDB's // cuts off towards zero."""
    rest = f"({microseconds} % {unit} + {unit}) % {unit}"
    return f"CAST(({microseconds} - {rest}) // {unit} AS INTEGER)"


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


def _rows(box: Sequence[Path]) -> str:
    """SQL for the rows in a box, with their keys."""
    files = ", ".join(literal(str(path)) for path in _files(box))
    return f"read_parquet([{files}], hive_partitioning = false)"


def _unpacked_bytes(path: Path) -> int:
    footer = pq.read_metadata(path)
    return sum(footer.row_group(number).total_byte_size for number in range(footer.num_row_groups))


def _files(box: Sequence[Path]) -> Sequence[Path]:
    return [path for one in box for path in sorted(one.glob("*.parquet"))]


def _partitions(
    connection: "DuckDBPyConnection", box: Sequence[Path], keys: Sequence[_GroupKey]
) -> Sequence[tuple[object, ...]]:
    """The partitions in a box, typed, as their rows say; not more than two."""
    values = ", ".join(_plain(key) for key in keys)
    connection.execute(f"SELECT DISTINCT {values} FROM {_rows(box)} LIMIT 2")
    return connection.fetchall()


def _write_partition(
    connection: "DuckDBPyConnection",
    box: Sequence[Path],
    keys: Sequence[_GroupKey],
    values: Sequence[object],
    table: Table,
    path: Path,
) -> LocalFile:
    """A box that holds one partition only, sorted, as one file; the box is gone then."""
    columns = ", ".join(identifier(field.name) for field in table.schema().fields)
    select = f"SELECT {columns} FROM {_rows(box)}"
    rows = copy(connection, ordered(select, table), table.schema(), path)
    _remove(box)
    record = Record(*(_record(key, value) for key, value in zip(keys, values, strict=True)))
    return LocalFile(path, rows, record)


def _remove(box: Sequence[Path]) -> None:
    for folder in box:
        shutil.rmtree(folder)


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
