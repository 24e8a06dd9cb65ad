"""One delivered file → parts: what is read is the file, and no more of it than is allowed."""

import io
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakewarden.batch.model import DeliveredFile
from lakewarden.batch.parsing.parse import Part, diagnose, select
from lakewarden.batch.parsing.read import ColumnUnreadable, Reader, check_pages, count_file
from lakewarden.batch.parsing.unpack import TooLarge
from lakewarden.tables.template import Column, CsvOptions, FileFormat, Source, Template
from tests.fakes.objects import MemoryObjects

MAX = 1 << 40


def template(form: FileFormat, carrier: str = "string") -> Template:
    source = Source(form, CsvOptions(header=False))
    columns = (Column("visits", "int"), Column("carrier", carrier))
    return Template("raw", "flights", columns, (), (), {}, {}, "", source, "d")


def parquet(rows: int, carrier: str = "AA", *, plain: bool = False) -> bytes:
    """So many equal rows; `plain`: no dictionary, so that each value is there."""
    sink = io.BytesIO()
    table = pa.table({"visits": pa.array([7] * rows, pa.int32()), "carrier": [carrier] * rows})
    pq.write_table(table, sink, compression="zstd", use_dictionary=not plain)
    return sink.getvalue()


def written(*, int96: bool = False, **columns: pa.Array) -> bytes:
    """The columns of the template as a Parquet file, these as they are."""
    sink = io.BytesIO()
    rows = len(next(iter(columns.values())))
    some = {"visits": pa.array([7] * rows), "carrier": pa.array(["AA"] * rows)}
    pq.write_table(pa.table({**some, **columns}), sink, use_deprecated_int96_timestamps=int96)
    return sink.getvalue()


def read(
    body: bytes,
    form: FileFormat,
    folder: Path,
    max_bytes: int = MAX,
    *,
    carrier: str = "string",
) -> list[Part]:
    objects, parts = MemoryObjects(), list[Part]()
    folder.mkdir(parents=True, exist_ok=True)
    file = DeliveredFile("f", "raw.flights", objects.put("f", body), None, None, None)
    reader = Reader(objects, folder, 1 << 20, max_bytes)
    reader.read(file, template(form, carrier), "f", parts.append)
    return parts


BODIES = {
    FileFormat.PARQUET: parquet(1),
    FileFormat.CSV: b"7,AA\n",
    FileFormat.JSON: b'{"visits": 7, "carrier": "AA"}\n',
}


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as opened:
        yield opened


@pytest.mark.parametrize("form", BODIES)
@pytest.mark.parametrize("name", ["visits=x", "carrier=ZZ", "f0=5", "line=x"])
def test_the_name_of_a_folder_is_no_data(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, form: FileFormat, name: str
) -> None:
    """DuckDB takes `column=value` in a path for a column."""
    (part,) = read(BODIES[form], form, tmp_path / name)
    known, defects = diagnose(connection, part)
    assert defects == []
    found = connection.execute(f"SELECT visits, carrier FROM ({select(known, 'b')})")
    assert found.fetchall() == [(7, "AA")]
    if form is FileFormat.PARQUET:
        check_pages(part)


TOO_LARGE = {
    "as it is stored": (parquet(1), 100, "100 bytes"),
    "as its columns say": (parquet(20_000, plain=True), 100_000, "100,000 bytes"),
    # A few bytes may stand for any number of equal values; each counts for one.
    "as many values": (parquet(200_000), 300_000, "300,000 bytes"),
    "packed too well": (parquet(20_000, "A" * 1_000, plain=True), MAX, "200 times"),
}


@pytest.mark.parametrize("why", TOO_LARGE)
def test_parquet_has_a_limit_too(tmp_path: Path, why: str) -> None:
    body, max_bytes, says = TOO_LARGE[why]
    with pytest.raises(TooLarge, match=says):
        read(body, FileFormat.PARQUET, tmp_path / "scratch", max_bytes)
    path = tmp_path / "f.parquet"
    path.write_bytes(body)
    with pytest.raises(TooLarge, match=says):
        count_file(path, Source(FileFormat.PARQUET), max_bytes=max_bytes)


MOMENTS = [0, 1_356_998_400_123_456, -1]  # microseconds
# what it is in Parquet → type of the column, and of its values
FINER = {
    "without a zone": ("timestamp", pa.timestamp("ns")),
    "with a zone": ("timestamptz", pa.timestamp("ns", "UTC")),
    "with another zone": ("timestamptz", pa.timestamp("ns", "Asia/Tokyo")),
    "int96": ("timestamp", pa.timestamp("ns")),
    "a time": ("time", pa.time64("ns")),
    "a text": ("string", pa.timestamp("ns", "UTC")),
}


@pytest.mark.parametrize("what", FINER)
def test_nanoseconds_are_not_cut_off(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, what: str
) -> None:
    kind, arrow = FINER[what]
    exact = [abs(micro) % 86_400_000_000 for micro in MOMENTS] if kind == "time" else MOMENTS
    some = [*(micro * 1_000 for micro in exact), *(micro * 1_000 + 1 for micro in exact), None]
    times = 20_000  # several batches of pyarrow's
    carrier = pa.array(some * times, pa.int64()).cast(arrow)
    body = written(int96=what == "int96", carrier=carrier)
    (part,) = read(body, FileFormat.PARQUET, tmp_path, carrier=kind)
    connection.execute("SET TimeZone = 'UTC'")
    known, defects = diagnose(connection, part)
    length = len(some)
    assert [(one.number, one.column, one.reason) for one in defects] == [
        (number, "carrier", "precision")
        for number in range(1, length * times + 1)
        if (number - 1) % length in (3, 4, 5)
    ]
    found = connection.execute(f"SELECT DISTINCT carrier FROM ({select(known, 'b')})").fetchall()
    assert len(found) == 4


def test_int96_holds_years_that_nanoseconds_do_not(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """As Spark writes it."""
    moments = [datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999_999)]
    body = written(int96=True, carrier=pa.array(moments, pa.timestamp("us")))
    (part,) = read(body, FileFormat.PARQUET, tmp_path, carrier="timestamp")
    found = connection.execute(f"SELECT carrier FROM ({select(part, 'b')})").fetchall()
    assert [moment for (moment,) in found] == moments


WIDE = pa.decimal256(40, 10)
TOO_WIDE = {
    "plain": pa.array([Decimal("1.5")], WIDE),
    "in a list": pa.array([[Decimal("1.5")]], pa.list_(WIDE)),
    "nowhere": pa.array([None], WIDE),
}


@pytest.mark.parametrize("where", TOO_WIDE)
def test_decimals_of_more_digits_than_duckdb_knows_are_refused(tmp_path: Path, where: str) -> None:
    """It reads them as wrong doubles."""
    with pytest.raises(ColumnUnreadable, match="f: column carrier: a decimal of 40 digits"):
        read(written(carrier=TOO_WIDE[where]), FileFormat.PARQUET, tmp_path)


def test_many_equal_values_are_no_bomb(tmp_path: Path) -> None:
    (part,) = read(parquet(1_000_000), FileFormat.PARQUET, tmp_path)
    assert part.records == 1_000_000
