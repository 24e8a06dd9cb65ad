"""The data: two days, of sales and of events; the same bytes for the same rows.

A sale is ten columns of mixed types in about 134 bytes; a third of the notes hold commas and
quotes, so they are quoted. An event is the standard template `event_stream`, in about 240 bytes,
in the order of arrival: nearly that of its time, one in fifty up to six hours late.
"""

import hashlib
from collections.abc import Mapping, Sequence
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
    required: bool = False


@dataclass(frozen=True)
class Dataset:
    """`order`: what its sorted tables are sorted by, and its first column is when things happened,
    by whose hour partitioned tables are partitioned."""

    name: str
    columns: Sequence[Column]
    order: Sequence[str]

    @property
    def file(self) -> str:
        return f"{self.name}.csv"


# `i` is the row's number; h0, h1, h2 and h3 are unlike hashes of it; n the number of rows.
SALES = Dataset(
    "sales",
    (
        Column("sale_id", "long", "BIGINT", "1000000000 + i", required=True),
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
            "price",
            "decimal(12,2)",
            "DECIMAL(12, 2)",
            "((h2 % 9999999)::BIGINT / 100)::DECIMAL(12, 2)",
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
            " WHEN h3 % 11 != 0 THEN 'no remarks on parcel ' || (h3 % 99991)::VARCHAR"
            " || ' from the ' || ['north', 'south', 'east', 'west'][1 + (h3 // 1048576 % 4)::INT]"
            " || ' depot' END",
        ),
    ),
    ("sold_at", "sale_id"),
)

_ARRIVED = "(i * 86400000 // n)"  # milliseconds of the day
_LATE = "CASE WHEN h0 % 50 = 0 THEN h0 // 64 % 21600000 ELSE h0 // 64 % 5000 END"
_OF_DAY = f"TIMESTAMP '{DAY}' + to_milliseconds(({{}})::BIGINT)"
_ISO = "strftime({}, '%Y-%m-%dT%H:%M:%S.%gZ')"
EVENTS = Dataset(
    "event_stream",
    (
        Column("event_id", "string", "VARCHAR", "printf('%016x%016x', h1, h2)", required=True),
        Column(
            "event_type",
            "string",
            "VARCHAR",
            "['view', 'click', 'search', 'cart', 'order'][1 + (h3 % 5)::INT]",
            required=True,
        ),
        Column(
            "event_timestamp",
            "timestamptz",
            "TIMESTAMPTZ",
            _ISO.format(_OF_DAY.format(f"greatest(0, {_ARRIVED} - ({_LATE}))")),
            required=True,
        ),
        Column("user_id", "string", "VARCHAR", "'u' || (h1 % 400000)::VARCHAR", required=True),
        Column(
            "session_id",
            "string",
            "VARCHAR",
            "CASE WHEN h2 % 20 != 0 THEN printf('%016x', h1 // 7) END",
        ),
        Column(
            "ip_address",
            "string",
            "VARCHAR",
            "'10.' || (h2 % 256)::VARCHAR || '.' || (h2 // 256 % 256)::VARCHAR || '.'"
            " || (h2 // 65536 % 256)::VARCHAR",
        ),
        Column(
            "user_agent",
            "string",
            "VARCHAR",
            "'Mozilla/5.0 (' || ['X11; Linux', 'Windows', 'Macintosh'][1 + (h3 // 8 % 3)::INT]"
            " || ') Browser/' || (100 + h3 // 32 % 40)::VARCHAR || '.0'",
        ),
        Column(
            "payload",
            "string",
            "VARCHAR",
            "'{\"page\": ' || (h3 % 9000)::VARCHAR || ', \"ms\": ' || (h2 % 3000)::VARCHAR || '}'",
        ),
        Column(
            "ingested_at",
            "timestamptz",
            "TIMESTAMPTZ",
            _ISO.format(_OF_DAY.format(_ARRIVED)),
            required=True,
        ),
    ),
    ("event_timestamp",),
)


@dataclass(frozen=True)
class Layout:
    """A table that is measured: what goes in, and how it lies there."""

    dataset: Dataset
    hourly: bool = False
    sorted: bool = False


LAYOUTS: Mapping[str, Layout] = {
    "sales": Layout(SALES),
    "sales_sorted": Layout(SALES, sorted=True),
    "sales_hourly": Layout(SALES, hourly=True, sorted=True),
    "event_stream": Layout(EVENTS, hourly=True, sorted=True),
    "tiny": Layout(SALES),
}


@dataclass(frozen=True)
class Delivery:
    """One CSV file in a folder of its own."""

    path: Path
    rows: int
    bytes: int
    sha256: str


def delivery(cache: Path, rows: int, dataset: Dataset = SALES) -> Delivery:
    """The file of so many rows, made where it is not there yet."""
    path = cache / f"{dataset.name}-{rows}" / dataset.file
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        _write(draft, rows, dataset)
        draft.rename(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Delivery(path, rows, path.stat().st_size, digest)


def _write(path: Path, rows: int, dataset: Dataset) -> None:
    import duckdb

    values = ", ".join(f"{column.made} AS {column.name}" for column in dataset.columns)
    hashes = ", ".join(f"hash(i + {_SEED * number}) AS h{number}" for number in range(4))
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT {values} FROM (SELECT i, {rows} AS n, {hashes} FROM range({rows})"
            f" AS r(i))) TO '{path}' (FORMAT csv, HEADER)"
        )


def template(table: str, layout: Layout, dataset: str | None) -> Mapping[str, object]:
    """The table's template; nothing loads it where there is no `dataset`."""
    data = layout.dataset
    order = [{"column": name, "direction": "asc"} for name in data.order]
    return {
        "name": table,
        "namespace": "raw",
        **({"load": {"dataset": dataset}} if dataset else {}),
        "source": {"format": "csv", "csv_options": {"header": True}},
        "columns": [
            {"name": column.name, "type": column.iceberg, "required": column.required}
            for column in data.columns
        ],
        **(
            {"partition_spec": [{"column": data.order[0], "transform": "hour"}]}
            if layout.hourly
            else {}
        ),
        **({"sort_order": order} if layout.sorted else {}),
    }
