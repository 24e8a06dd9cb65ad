"""SQL that reads an Iceberg table with DuckDB, and gives each row that a filter asks for.

DuckDB 1.5.5 computes some partition transforms otherwise than Iceberg's specification, and so
leaves out files that hold what was asked for: month and day of timestamps before 1970 (mended
later: duckdb-iceberg#1361), truncated decimals, buckets of uuids. Filters on such columns are kept
from it; all others still leave out files.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lakewarden.batch.duck import identifier, literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from pyiceberg.table.metadata import TableMetadata


def scan(connection: "DuckDBPyConnection", location: str) -> str:
    """SELECT of all rows and columns of the table whose metadata lie at `location`. Reads these
    metadata, and for a table by month or day of a timestamp its list of manifests.

    Raises duckdb.IOException (HTTPException among them)."""
    from pyiceberg.table.metadata import TableMetadataUtil

    found = connection.execute("SELECT content FROM read_text(?)", [location]).fetchone()
    metadata = TableMetadataUtil.parse_raw(found[0] if found else "")
    fenced = {
        identifier(field.column)
        for field in misjudged(metadata)
        if field.always or _begins_before_epoch(connection, metadata, field)
    }
    kept_back = [f"CASE WHEN {c} IS NULL THEN NULL ELSE {c} END AS {c}" for c in sorted(fenced)]
    replaced = f" REPLACE ({', '.join(kept_back)})" if kept_back else ""
    return f"SELECT *{replaced} FROM iceberg_scan({literal(location)})"


@dataclass(frozen=True)
class Misjudged:
    """A partition field that DuckDB computes wrongly, for some values or `always`.
    `position`: the field's place in its spec, from 0."""

    column: str
    always: bool
    spec_id: int
    position: int


def misjudged(metadata: "TableMetadata") -> Iterator[Misjudged]:
    """The partition fields of all specs of a table that DuckDB may compute wrongly."""
    from pyiceberg.transforms import (
        BucketTransform,
        DayTransform,
        MonthTransform,
        TruncateTransform,
    )
    from pyiceberg.types import DecimalType, TimestampType, TimestamptzType, UUIDType

    columns = {field.field_id: field for field in metadata.schema().fields}
    for spec in metadata.specs().values():
        for position, field in enumerate(spec.fields):
            source, transform = columns.get(field.source_id), field.transform
            if source is None:
                continue
            kind = source.field_type
            always = (
                isinstance(transform, TruncateTransform) and isinstance(kind, DecimalType)
            ) or (isinstance(transform, BucketTransform) and isinstance(kind, UUIDType))
            by_date = isinstance(transform, MonthTransform | DayTransform)
            if always or (by_date and isinstance(kind, TimestampType | TimestamptzType)):
                yield Misjudged(source.name, always, spec.spec_id, position)


def _begins_before_epoch(
    connection: "DuckDBPyConnection", metadata: "TableMetadata", field: Misjudged
) -> bool:
    """Whether some partition lies before 1970. Months and days are whole numbers from there,
    stored in little endian (Iceberg's specification, "Appendix D")."""
    snapshot = metadata.current_snapshot()
    if snapshot is None:
        return False
    bounds = connection.execute(
        "SELECT partitions[?].lower_bound FROM read_avro(?) WHERE partition_spec_id = ?",
        [field.position + 1, snapshot.manifest_list, field.spec_id],
    ).fetchall()
    return any(bound and int.from_bytes(bound, "little", signed=True) < 0 for (bound,) in bounds)
