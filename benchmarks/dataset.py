"""The data: sales of one day, ten columns of mixed types, the same bytes for the same rows.

A row is about 134 bytes; a third of the notes hold commas and quotes, so they are quoted.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DAY = "2024-03-01"
BATCH = DAY

_SEED = 7919


@dataclass(frozen=True)
class Column:
    """A column as the template names its type, as DuckDB does, and how its values are made."""

    name: str
    iceberg: str
    duckdb: str
    made: str


# `i` is the row's number; h0, h1, h2 and h3 are unlike hashes of it.
COLUMNS = (
    Column("sale_id", "long", "BIGINT", "1000000000 + i"),
    Column(
        "sold_at",
        "timestamp",
        "TIMESTAMP",
        f"TIMESTAMP '{DAY}' + to_milliseconds((h0 % 86400000)::BIGINT)",
    ),
    Column("ships_on", "date", "DATE", f"DATE '{DAY}' + (h1 % 60)::INT"),
    Column("store", "int", "INTEGER", "(h1 // 64 % 1200)::INT"),
    Column("quantity", "int", "INTEGER", "(1 + h1 // 131072 % 9)::INT"),
    Column(
        "price", "decimal(12,2)", "DECIMAL(12, 2)", "((h2 % 9999999)::BIGINT / 100)::DECIMAL(12, 2)"
    ),
    Column("customer", "string", "VARCHAR", "printf('%016x', h2)"),
    Column("product", "string", "VARCHAR", "lpad((h3 % 50000)::VARCHAR, 8, '0')"),
    Column(
        "country",
        "string",
        "VARCHAR",
        "['JP', 'DE', 'US', 'FR', 'BR', 'IN', 'NG', 'AU'][1 + (h3 // 65536 % 8)::INT]",
    ),
    Column(
        "note",
        "string",
        "VARCHAR",
        "CASE WHEN i % 3 = 0 THEN 'left at the door, '"
        " || ['blue', 'red', 'green'][1 + (h3 // 1048576 % 3)::INT]"
        " || ', \"' || (h3 % 977)::VARCHAR || '\" in all, paid'"
        " WHEN h3 % 11 != 0 THEN 'no remarks on parcel ' || (h3 % 99991)::VARCHAR || ' from the '"
        " || ['north', 'south', 'east', 'west'][1 + (h3 // 1048576 % 4)::INT] || ' depot' END",
    ),
)


@dataclass(frozen=True)
class Delivery:
    """One CSV file in a folder of its own."""

    path: Path
    rows: int
    bytes: int
    sha256: str


def delivery(cache: Path, rows: int) -> Delivery:
    """The file of so many rows, made where it is not there yet."""
    path = cache / f"sales-{rows}" / "sales.csv"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        _write(draft, rows)
        draft.rename(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Delivery(path, rows, path.stat().st_size, digest)


def _write(path: Path, rows: int) -> None:
    import duckdb

    values = ", ".join(f"{column.made} AS {column.name}" for column in COLUMNS)
    hashes = ", ".join(f"hash(i + {_SEED * number}) AS h{number}" for number in range(4))
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT {values} FROM (SELECT i, {hashes} FROM range({rows}) AS r(i)))"
            f" TO '{path}' (FORMAT csv, HEADER)"
        )


def template(table: str, dataset: str) -> Mapping[str, object]:
    """The table's template. `sorted` and `hourly` are what their names say."""
    order = [{"column": name, "direction": "asc"} for name in ("sold_at", "sale_id")]
    hourly = [{"column": "sold_at", "transform": "hour"}]
    return {
        "name": table,
        "namespace": "raw",
        "load": {"dataset": dataset},
        "source": {"format": "csv", "csv_options": {"header": True}},
        "columns": [
            {"name": column.name, "type": column.iceberg, "required": column.name == "sale_id"}
            for column in COLUMNS
        ],
        **({"partition_spec": hourly} if table == "hourly" else {}),
        **({"sort_order": order} if table in ("hourly", "sorted") else {}),
    }
