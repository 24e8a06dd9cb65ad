"""Which texts fit which type, and what becomes of them: the rules of `parsing/casts.py`.

DuckDB runs in memory here; every type is one small file as CSV and one as JSON lines.
"""

import json
from calendar import isleap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal, localcontext
from math import isnan
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakewarden.batch.parsing.casts import TEXT, Target, cast, checks, misfit
from lakewarden.batch.parsing.parse import Part, Shape, diagnose, select
from lakewarden.tables.template import CsvOptions, FileFormat
from lakewarden.tables.types import iceberg_type


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as opened:
        opened.execute("SET TimeZone = 'UTC'")
        yield opened


@pytest.fixture(params=["csv", "json"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> "Text":
    return Text(request.param, tmp_path)


class Text:
    """One column of texts as a file, read as a type."""

    def __init__(self, form: str, folder: Path) -> None:
        self.form = form
        self.folder = folder

    def read(
        self,
        connection: duckdb.DuckDBPyConnection,
        kind: str,
        texts: Sequence[str],
        *,
        date_format: str | None = None,
        timestamp_format: str | None = None,
        required: bool = False,
    ) -> tuple[Mapping[str, object], Mapping[str, str]]:
        """text → value, and text → the reason why it is none."""
        path = self.folder / f"texts.{self.form}"
        if self.form == "csv":
            path.write_text("".join('"' + text.replace('"', '""') + '"\n' for text in texts))
        else:
            path.write_text("".join(json.dumps({"v": text}) + "\n" for text in texts))
        target = Target("v", iceberg_type(kind), required, TEXT, date_format, timestamp_format)
        options = CsvOptions(header=False, null_strings=("",))
        shape = Shape(FileFormat(self.form), ["v"], [target], options)
        return outcome(connection, Part(path, "f", 1, len(texts), shape), texts)


def outcome(
    connection: duckdb.DuckDBPyConnection, part: Part, texts: Sequence[str]
) -> tuple[Mapping[str, object], Mapping[str, str]]:
    known, defects = diagnose(connection, part)
    rows = connection.execute(f"SELECT _line, v FROM ({select(known, 'b')})").to_arrow_table()
    fits = {texts[row["_line"] - 1]: row["v"] for row in rows.to_pylist()}
    wrong = {texts[defect.number - 1]: defect.reason for defect in defects}
    assert len(fits) + len(wrong) == len(texts)
    return fits, wrong


UUID = "550e8400-e29b-41d4-a716-446655440000"

# ruff: noqa: E501 - tables read better in long lines
# type → text → what it becomes
ACCEPTED: dict[str, dict[str, object]] = {
    "boolean": {
        **dict.fromkeys(["true", "TRUE", "t", "Yes", "y", "1", " true "], True),
        **dict.fromkeys(["false", "False", "F", "no", "N", "0"], False),
    },
    "int": {"0": 0, "-0": 0, "007": 7, "-12": -12, "1.0": 1, "517.": 517, " 5 ": 5,
            "2147483647": 2**31 - 1, "-2147483648": -(2**31)},
    "long": {"9223372036854775807": 2**63 - 1, "-9223372036854775808": -(2**63), "1.000": 1,
             "9223372036854775807.0": 2**63 - 1},
    "double": {"1.5": 1.5, "-.5": -0.5, "5.": 5.0, "1e3": 1000.0, "1E+3": 1000.0, "25e-1": 2.5,
               "inf": float("inf"), "-Infinity": float("-inf"), " 1.5": 1.5, "0.1": 0.1,
               "1.7976931348623157e308": 1.7976931348623157e308, "1e-400": 0.0},
    "float": {"1.5": 1.5, "-INF": float("-inf"), "3e38": pytest.approx(3e38)},
    "decimal(9,2)": {"1.5": Decimal("1.50"), "-.5": Decimal("-0.50"), "5.": Decimal("5.00"),
                     "1.2300": Decimal("1.23"), "1e2": Decimal("100.00"), "15E-1": Decimal("1.50"),
                     "1.5e+3": Decimal("1500.00"), "0e-9": Decimal("0.00"), " 7 ": Decimal("7.00"),
                     "1230e-3": Decimal("1.23"), "-9999999.99": Decimal("-9999999.99"),
                     "0001.5": Decimal("1.50"), "9999999.99e0": Decimal("9999999.99"),
                     "123000000000000000000e-18": Decimal("123.00"), "0e9999": Decimal("0.00"),
                     "0.00000000000000000001E+20": Decimal("1.00"), " -5e0 ": Decimal("-5.00")},
    "decimal(38,2)": {"999999999999999999999999999999999999.99e0":
                      Decimal("999999999999999999999999999999999999.99")},
    "decimal(38,10)": {"1234567890123456789012345678.1234567891":
                       Decimal("1234567890123456789012345678.1234567891")},
    "date": {"2013-01-31": date(2013, 1, 31), "0001-01-01": date(1, 1, 1), " 1969-12-31 ":
             date(1969, 12, 31), "9999-12-31": date(9999, 12, 31), "2012-02-29": date(2012, 2, 29)},
    "time": {"12:30": time(12, 30), "23:59:59": time(23, 59, 59), " 00:00:00 ": time(0),
             "12:00:00.5": time(12, 0, 0, 500_000), "12:00:00.123456000": time(12, 0, 0, 123_456)},
    "timestamp": {"2013-01-31": datetime(2013, 1, 31), "2013-01-31 12:30":
                  datetime(2013, 1, 31, 12, 30), "2013-01-31T12:30:15":
                  datetime(2013, 1, 31, 12, 30, 15), "1969-12-31 23:59:59.999999":
                  datetime(1969, 12, 31, 23, 59, 59, 999_999), " 2013-01-31 ":
                  datetime(2013, 1, 31), "2013-01-31 00:00:00.1000000":
                  datetime(2013, 1, 31, 0, 0, 0, 100_000)},
    "timestamptz": {
        **dict.fromkeys(
            ["2013-01-31 12:00:00", "2013-01-31T12:00:00Z", "2013-01-31 12:00:00 UTC",
             "2013-01-31 12:00", "2013-01-31T12:00Z", "2013-01-31 12:00 UTC", "2013-01-31T21:00+09",
             " 2013-01-31 02:30-09:30 ", "2013-01-31 21:00:00+09", "2013-01-31T21:00:00+0900",
             "2013-01-31T21:00:00.000+09:00", "2013-01-31T02:30:00-09:30", " 2013-01-31T12:00:00Z "],
            datetime(2013, 1, 31, 12, tzinfo=UTC),
        ),
        "2013-01-31": datetime(2013, 1, 31, tzinfo=UTC),
    },
    "uuid": dict.fromkeys([UUID, UUID.upper(), f" {UUID} "], UUID),
    "binary": {"00ff": b"\x00\xff", "AbCd": b"\xab\xcd", " 01 ": b"\x01"},
    "string": {text: text for text in ["007", " a ", "NULL", "null", "日本", "a\tb", "'", "1e5"]},
}  # fmt: skip

# type → reason → texts
REFUSED: dict[str, dict[str, list[str]]] = {
    "boolean": {"type": ["on", "off", "2", "tr", "truee", "-1", "NULL", " "]},
    "int": {
        "type": ["+5", "1_000", "0x1F", "0b11", "１２", "1e3", "1,000", "a", " ", "--1", "1 2", "NULL",
                 ".5", "2147483648", "-2147483649", "true", "\t5", "5\u00a0", "nan"],
        "precision": ["1.5", "-0.001"],
    },
    "long": {"type": ["9223372036854775808", "99999999999999999999", "+1", "1_0"],
             "precision": ["9007199254740993.5"]},
    "double": {"type": ["+1.5", "1_0", "0x1p3", "1,5", "1e", "e5", ".", "N/A", "１.５", "--1", "nan(1)"],
               "range": ["1e400", "-1e309"]},
    "float": {"type": ["+1"], "range": ["1e39", "-1e39", "1e400"]},
    "decimal(9,2)": {
        "type": ["+1.5", "1_0.5", "0x1F", "12345678.9", "nan", "inf", "1,000.00", "$5", "1e9", "1e400",
                 "-110.113E5", "99999999e0", "0.00000000000000000001E+27", "1e12345", "e5", "1e", "1e5.0"],
        "precision": ["1.239", "1e-3", "-0.001", "1.5e-2", "1e-400", "9999999.991e0"],
    },
    "decimal(4,1)": {"type": ["10.3350e2", "1e3", "1000"]},
    "date": {
        "type": ["2013-1-1", "20130101", "2013/01/01", "01-02-2013", "2013-02-29", "2013-13-01",
                 "2013-00-10", "epoch", "-001-01-01", "2013-01-01 00:00:00", "2013-01-01x", "NULL", "today"],
        "range": ["0000-01-01", "10000-01-01", "2013-01-01 (BC)", "infinity",
                  "-infinity"],
    },
    "time": {"range": ["24:00:00"],
             "type": ["23:59:60", "24:00:01", "12", "1:2:3", "12:60", "12:00:00 PM", "12:00:00+09"],
             "precision": ["12:00:00.1234567"]},
    "timestamp": {
        "type": ["2013-1-1 00:00:00", "20130101T000000", "2013-01-01 24:00:00", "2013-02-30",
                 "2016-12-31 23:59:60", "2013-01-01 00", "epoch", "NULL",
                 "2013-01-01  00:00:00", "2013-01-01 00:00:00 Asia/Tokyo"],
        "precision": ["2013-01-01 00:00:00.1234567", "2013-01-01 00:00:00.000000001"],
        "zone": ["2013-01-01 00:00:00+09", "2013-01-01T00:00:00Z", "2013-01-01 00:00:00 UTC",
                 "2013-01-01T00:00:00+00:00"],
        "range": ["0000-12-31 23:59:59", "infinity"],
    },
    "timestamptz": {
        "type": ["2013-01-01 00:00:00 Asia/Tokyo", "2013-01-01 00:00:00+25:00", "2013-01-01Z",
                 "2013-01-01 00:00:00+9", "2013-01-01 10+09", "2013-01-01 24:00Z", "2013-01-01 23:59:60Z", "2013-01-01 00:00:00 JST"],
        "precision": ["2013-01-01 00:00:00.1234567Z"],
        "range": ["9999-12-31 23:59:59-09", "0001-01-01 00:00:00+09"],
    },
    "uuid": {"type": [f"{{{UUID}}}", UUID.replace("-", ""), UUID[:-1], UUID[:-1] + "g", "NULL"]},
    "binary": {"type": ["abc", "zz", "0xAB", "a b"]},
}  # fmt: skip


@pytest.mark.parametrize("kind", ACCEPTED)
def test_what_fits_is_taken_for_what_it_says(
    connection: duckdb.DuckDBPyConnection, written: Text, kind: str
) -> None:
    fits, wrong = written.read(connection, kind, list(ACCEPTED[kind]))
    assert wrong == {}
    assert fits == ACCEPTED[kind]


@pytest.mark.parametrize("kind", REFUSED)
def test_what_would_be_changed_or_guessed_is_a_misfit(
    connection: duckdb.DuckDBPyConnection, written: Text, kind: str
) -> None:
    expected = {text: reason for reason, texts in REFUSED[kind].items() for text in texts}
    fits, wrong = written.read(connection, kind, list(expected))
    assert fits == {}
    assert wrong == expected


@pytest.mark.parametrize("kind", ["float", "double"])
def test_nan_is_a_float(connection: duckdb.DuckDBPyConnection, written: Text, kind: str) -> None:
    fits, wrong = written.read(connection, kind, ["nan", "NaN", " NAN "])
    assert wrong == {}
    assert all(isinstance(value, float) and isnan(value) for value in fits.values())


def test_empty_is_null_and_null_is_not_for_a_required_column(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    text = Text("csv", tmp_path)
    assert text.read(connection, "int", ["", "1"]) == ({"": None, "1": 1}, {})
    assert text.read(connection, "int", ["", "1"], required=True) == ({"1": 1}, {"": "required"})


# null strings, how else a file is written, and records of two fields with what becomes of them
NULLS: list[tuple[tuple[str, ...], CsvOptions, dict[str, tuple[str | None, str | None]]]] = [
    (
        ("",),
        CsvOptions(header=False),
        {",": (None, None), '"",a': (None, "a"), '" ",\\N': (" ", "\\N")},
    ),
    ((), CsvOptions(header=False), {",": ("", ""), '"",a': ("", "a")}),
    (("", "NA"), CsvOptions(header=False), {'NA,"NA"': (None, None), "na,": ("na", None)}),
    # As MySQL and Hive export.
    (
        ("\\N",),
        CsvOptions(header=False, escape="\\"),
        {"\\N,": (None, ""), '"\\\\N","N"': (None, "N")},
    ),
    (
        ("\\",),
        CsvOptions(header=False, escape="\\"),
        {'\\,"\\\\"': (None, None), "\\N,a": ("\\N", "a")},
    ),
    (("a,b",), CsvOptions(header=False), {'"a,b",a': (None, "a"), "b,a": ("b", "a")}),
    (
        ('"', "'"),
        CsvOptions(header=False),
        {'"""",a': (None, "a"), "','": (None, None), "a,b": ("a", "b")},
    ),
    (("a\nb",), CsvOptions(header=False), {'"a\nb",a': (None, "a")}),
    ((), CsvOptions(header=False, delimiter=" "), {"a b": ("a", "b")}),
    ((), CsvOptions(header=False, quote="t"), {"ta b,nt,no": ("a b,n", "no")}),
]


@pytest.mark.parametrize(("nulls", "options", "records"), NULLS)
def test_a_text_that_means_null_is_null_quoted_or_not(
    connection: duckdb.DuckDBPyConnection,
    tmp_path: Path,
    nulls: tuple[str, ...],
    options: CsvOptions,
    records: dict[str, tuple[str | None, str | None]],
) -> None:
    path = tmp_path / "nulls.csv"
    path.write_text("".join(f"{record}\n" for record in records))
    targets = [Target(name, iceberg_type("string"), False) for name in ("v", "w")]
    shape = Shape(FileFormat.CSV, ["v", "w"], targets, replace(options, null_strings=nulls))
    part = Part(path, "f", 1, len(records), shape)
    known, defects = diagnose(connection, part)
    assert defects == []
    found = connection.execute(f"SELECT v, w FROM ({select(known, 'b')}) ORDER BY _line")
    assert found.fetchall() == list(records.values())


DATE_FORMATS: dict[str, tuple[dict[str, date], dict[str, str]]] = {
    # Nothing between the parts: each has its width, or nobody could tell where it ends.
    "%Y%m%d": (
        {"20130131": date(2013, 1, 31), " 20130131 ": date(2013, 1, 31)},
        {"2013111": "type", "00000000": "type", "20130229": "type", "2013-01-31": "type",
         "201301311": "type"},
    ),
    "%d/%m/%Y": (
        {"31/01/2013": date(2013, 1, 31), "1/2/2013": date(2013, 2, 1)},
        {"2013-01-31": "type", "31/13/2013": "type"},
    ),
    "%d%b%Y": ({"31JAN2013": date(2013, 1, 31), "31jan2013": date(2013, 1, 31)},
               {"1JAN2013": "type"}),
    "%Y-%m-%d %H:%M": ({"2013-01-31 00:00": date(2013, 1, 31)}, {"2013-01-31 10:00": "precision"}),
    "%Y-%m-%d%z": ({}, {"2013-01-31+09": "zone"}),
    "%Y%m%d %-H:%M": ({"20130131 0:00": date(2013, 1, 31)}, {"20130131 1:00": "precision"}),
    "%d.%m.%Y": (
        {"01.02.2013": date(2013, 2, 1), " 1.2.0013 ": date(13, 2, 1)},
        {"01.02.13": "type", "01.02.213": "type", "1.2.12013": "type"},
    ),
    "%Y %b %d, %a": (
        {"2013  Jan 31, Thu": date(2013, 1, 31), "2013 jan\t1, Tue ": date(2013, 1, 1)},
        {"13 Jan 31, Thu": "type"},
    ),
    "%m/%d/%y": ({"1/31/13": date(2013, 1, 31), "01/31/3": date(2003, 1, 31)},
                 {"01/31/2013": "type"}),
    "%x": ({"2013-1-31": date(2013, 1, 31)}, {"13-01-31": "type"}),
    "%c": ({"2013-01-31 0:00:00": date(2013, 1, 31)}, {"13-01-31 00:00:00": "type"}),
    "%G-W%V-%u": ({"2013-W5-4": date(2013, 1, 31)}, {"13-W05-4": "type"}),
    "%Y-%m-%d.%n": ({"2013-01-31.000": date(2013, 1, 31)}, {"2013-01-31.000000001": "precision"}),
}  # fmt: skip


@pytest.mark.parametrize("form", DATE_FORMATS)
def test_dates_in_a_form_of_their_own(
    connection: duckdb.DuckDBPyConnection, written: Text, form: str
) -> None:
    fits, wrong = DATE_FORMATS[form]
    assert written.read(connection, "date", [*fits, *wrong], date_format=form) == (fits, wrong)


YEARS = ["1696", "1900", "2000", "2012", "2013", "2100", "2104"]


@pytest.mark.parametrize("form", ["%Y-%j", "%Y%j", "%j/%Y", "%-j %Y", "%Y-%j 00:00:00.%n"])
def test_a_year_has_the_days_that_it_has(
    connection: duckdb.DuckDBPyConnection, written: Text, form: str
) -> None:
    def text(year: str, day: int) -> str:
        filled = form.replace("%Y", year).replace("%j", f"{day:03}").replace("%-j", str(day))
        return filled.replace("%n", "000")

    first = {year: date(int(year), 1, 1) for year in YEARS}
    fits = {text(y, n): d + timedelta(n - 1) for y, d in first.items() for n in (1, 99, 365)}
    fits |= {text(y, 366): date(int(y), 12, 31) for y in YEARS if isleap(int(y))}
    wrong = dict.fromkeys((text(y, 366) for y in YEARS if not isleap(int(y))), "type")
    wrong |= {text("2012", day): "type" for day in (0, 367, 999)}
    assert written.read(connection, "date", [*fits, *wrong], date_format=form) == (fits, wrong)


def test_a_year_of_two_digits_has_the_days_that_it_has(
    connection: duckdb.DuckDBPyConnection, written: Text
) -> None:
    fits = {f"{year:02}366": date(2000 + year, 12, 31) for year in (0, 4, 12, 68)}
    fits["72366"] = date(1972, 12, 31)
    wrong = dict.fromkeys(["13366", "70366", "99366"], "type")
    assert written.read(connection, "date", [*fits, *wrong], date_format="%y%j") == (fits, wrong)


def test_timestamps_in_a_form_of_their_own(
    connection: duckdb.DuckDBPyConnection, written: Text
) -> None:
    fits, wrong = written.read(
        connection,
        "timestamptz",
        ["20130131123015", "2013013112301", "2013-01-31"],
        timestamp_format="%Y%m%d%H%M%S",
    )
    assert fits == {"20130131123015": datetime(2013, 1, 31, 12, 30, 15, tzinfo=UTC)}
    assert set(wrong.values()) == {"type"}
    zoned = "%Y-%m-%dT%H:%M:%S%z"
    text = "2013-01-31T00:00:00+0900"
    fits, _ = written.read(connection, "timestamptz", [text], timestamp_format=zoned)
    assert fits == {text: datetime(2013, 1, 30, 15, tzinfo=UTC)}
    _, wrong = written.read(connection, "timestamp", [text], timestamp_format=zoned)
    assert wrong == {text: "zone"}


@pytest.mark.parametrize("form", ["%Y-%m-%d %H:%M %Z", "%Y-%m-%d %H:%M%Z", "%Y-%m-%d %H:%M(%Z)"])
def test_a_zone_is_not_guessed_by_its_name(
    connection: duckdb.DuckDBPyConnection, written: Text, form: str
) -> None:
    def text(zone: str) -> str:
        return form.replace("%Z", zone).replace("%Y-%m-%d %H:%M", "2013-07-01 12:00")

    fits = {text(zone): datetime(2013, 7, 1, 12, tzinfo=UTC) for zone in ("UTC", "utc", "GMT")}
    wrong = {text(zone): "type" for zone in ("CST", "IST", "EST", "BST", "America/Chicago", "X")}
    found = written.read(connection, "timestamptz", [*fits, *wrong], timestamp_format=form)
    assert found == (fits, wrong)


# format → what stands before the nanoseconds, and after them
NANOSECONDS = {
    "%Y%m%d%H%M%S.%n": ("20130131123015.", ""),
    "%Y%m%d%H%M%S%n": ("20130131123015", ""),
    "%Y-%-m-%-d %H:%M:%S,%n": (" 2013-1-31 12:30:15,", " "),
    "%d%b%Y %I:%M:%S.%n%p": ("31JAN2013 12:30:15.", "PM"),
    "%Y%m%d%H%M%S.%n%z": ("20130131213015.", "+0900"),
    "%xT%T%n": ("2013-01-31T12:30:15", ""),
    "%c.%n": ("2013-01-31 12:30:15.", ""),
    "%Y-%m-%d %H:%M:%S %Z %n": ("2013-01-31 12:30:15 UTC ", ""),
}


@pytest.mark.parametrize("form", NANOSECONDS)
def test_nanoseconds_are_not_cut_off(
    connection: duckdb.DuckDBPyConnection, written: Text, form: str
) -> None:
    before, after = NANOSECONDS[form]
    exact = {"123456000": 123_456, "123456": 123_456, "1": 100_000, "000000000": 0}
    longer = ["123456789", "0000001", "100000001", "1234567"]
    texts = [f"{before}{digits}{after}" for digits in (*exact, *longer)]
    fits, wrong = written.read(connection, "timestamptz", texts, timestamp_format=form)
    moments = [datetime(2013, 1, 31, 12, 30, 15, micro, tzinfo=UTC) for micro in exact.values()]
    assert fits == dict(zip(texts, moments, strict=False))
    assert wrong == dict.fromkeys(texts[len(exact) :], "precision")


numerals = st.builds(
    lambda sign, digits, fraction, exponent: f"{sign}{digits}{fraction}{exponent}",
    st.sampled_from(["", "-"]),
    st.text("0129", min_size=1, max_size=20),
    st.one_of(st.just(""), st.text("0059", max_size=20).map(lambda text: "." + text)),
    st.one_of(st.just(""), st.integers(-25, 25).map(lambda number: f"e{number}")),
)


@given(
    st.sampled_from([(4, 1), (9, 2), (12, 3), (18, 0), (18, 2), (38, 2), (38, 38)]),
    st.lists(numerals, min_size=1, max_size=40, unique=True),
)
@settings(deadline=None)  # it opens a database each time
def test_a_decimal_is_taken_where_it_keeps_every_digit(
    size: tuple[int, int], texts: list[str]
) -> None:
    precision, scale = size
    with duckdb.connect() as connection, TemporaryDirectory() as folder:
        fits, _ = Text("csv", Path(folder)).read(connection, f"decimal({precision},{scale})", texts)
    with localcontext(Context(prec=200)):
        shifted = {text: Decimal(text).scaleb(scale) for text in texts}
        assert fits == {
            text: Decimal(text)
            for text, value in shifted.items()
            if value == value.to_integral_value() and abs(value) < 10**precision
        }


JSON_NUMBERS: dict[str, dict[str, object]] = {
    "decimal(38,10)": {
        "1234567890123456789.0123456789": Decimal("1234567890123456789.0123456789"),
        "0.1": Decimal("0.1"), "1E2": Decimal(100), "-7": Decimal(-7), "1.10": Decimal("1.1"),
    },
    "string": {text: text for text in ["1.10", "1e2", "0.10000000000000000001", "7", "true", "0", "-0",
                                             "-0.0", "18446744073709551616", "1e400"]},
    "long": {"9223372036854775807": 2**63 - 1, "9007199254740993": 2**53 + 1, "1.0": 1,
             "9007199254740993.0": 2**53 + 1, "123456789012345678.0": 123456789012345678},
    "int": {"-7": -7, "2147483647.0": 2**31 - 1},
    "double": {"0.1": 0.1, "1e3": 1000.0, "12345678901234567890": 12345678901234567890.0},
    "boolean": {"true": True, "false": False, "1": True},
}  # fmt: skip


@pytest.mark.parametrize("kind", JSON_NUMBERS)
def test_numbers_in_json_keep_their_digits(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, kind: str
) -> None:
    """A parser that goes through a double loses what a decimal or a text would keep."""
    expected = JSON_NUMBERS[kind]
    path = tmp_path / "numbers.json"
    path.write_text("".join(f'{{"x": {{"v": 3.5}}, "v" : {text} }}\n' for text in expected))
    targets = [Target("x", iceberg_type("string"), False), Target("v", iceberg_type(kind), False)]
    shape = Shape(FileFormat.JSON, ["x", "v"], targets, CsvOptions())
    part = Part(path, "f", 1, len(expected), shape)
    assert outcome(connection, part, list(expected)) == (expected, {})


def test_an_object_in_json_is_written_anew(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """As docs/files.md says: DuckDB passes its numbers through doubles."""
    path = tmp_path / "nested.json"
    path.write_text('{"v": {"a": 1.10, "b": [12345678901234567.25, "1.10"]}}\n')
    shape = Shape(
        FileFormat.JSON, ["v"], [Target("v", iceberg_type("string"), False)], CsvOptions()
    )
    found = outcome(connection, Part(path, "f", 1, 1, shape), ["t"])
    assert found == ({"t": '{"a":1.1,"b":[12345678901234568.0,"1.10"]}'}, {})


INEXACT_JSON_NUMBERS = {
    "int": {"1.00000000000000000001": "precision", "2147483648": "type", "1e3": "type"},
    "long": {"9007199254740992.6": "precision", "9223372036854775808": "type",
             "-9223372036854775808.5": "type", "1e400": "type", "NaN": "json"},
    "decimal(38,10)": {"0.12345678901": "precision", "1e400": "type", "NaN": "json"},
}  # fmt: skip


@pytest.mark.parametrize("kind", INEXACT_JSON_NUMBERS)
def test_numbers_in_json_that_a_double_would_round_are_misfits(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, kind: str
) -> None:
    expected = INEXACT_JSON_NUMBERS[kind]
    path = tmp_path / "numbers.json"
    path.write_text("".join(f'{{"v": {text}}}\n' for text in expected))
    target = Target("v", iceberg_type(kind), False)
    shape = Shape(FileFormat.JSON, ["v"], [target], CsvOptions())
    part = Part(path, "f", 1, len(expected), shape)
    assert outcome(connection, part, list(expected)) == ({}, expected)


def test_a_time_in_a_json_number_keeps_its_digits(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    path = tmp_path / "numbers.json"
    path.write_text('{"v": 20130131123015.123456}\n')
    form = "%Y%m%d%H%M%S.%f"
    target = Target("v", iceberg_type("timestamp"), False, timestamp_format=form)
    shape = Shape(FileFormat.JSON, ["v"], [target], CsvOptions())
    moment = datetime(2013, 1, 31, 12, 30, 15, 123_456)
    found = outcome(connection, Part(path, "f", 1, 1, shape), ["t"])
    assert found == ({"t": moment}, {})


JSON_MISFITS = {
    '{"v": 1, "v": 2}': "repeated-field",
    '{"v": 1e400}': "range",
    '{"v": [1]}': "type",
    '{"v": {"a": 1}}': "type",
    '{"v": true}': "type",
    '{"v": "\\ud800"}': "json",
    '{"v": 1} {"v": 2}': "json",
    "[1]": "json",
    "1": "json",
    '{"w": 1}': "unexpected-field",
    '{"v": 01}': "json",
    "{'v': 1}": "json",
}


def test_json_that_is_not_one_plain_object(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    path = tmp_path / "objects.json"
    path.write_text("".join(line + "\n" for line in JSON_MISFITS))
    shape = Shape(
        FileFormat.JSON, ["v"], [Target("v", iceberg_type("double"), False)], CsvOptions()
    )
    part = Part(path, "f", 1, len(JSON_MISFITS), shape)
    assert outcome(connection, part, list(JSON_MISFITS)) == ({}, JSON_MISFITS)


PARQUET = [
    ("int", pa.array([1.0, 2.5, None]), {0: 1, 2: None}, {1: "precision"}),
    ("int", pa.array([1, 2**40]), {0: 1}, {1: "type"}),
    ("string", pa.array([b"ab", "日".encode(), b"\xff"]), {0: "ab", 1: "日"}, {2: "type"}),
    ("decimal(5,1)", pa.array([Decimal("1.50"), Decimal("1.25")]), {0: Decimal("1.5")},
     {1: "precision"}),
    ("decimal(38,10)", pa.array([1234567.89, -0.1, 1e22, 25e-11, float("nan"), float("-inf")]),
     {0: Decimal("1234567.89"), 1: Decimal("-0.1"), 2: Decimal("1e22")},
     {3: "precision", 4: "type", 5: "type"}),
    ("decimal(38,10)", pa.array([1.25, 0.1, None, 1.5e9], pa.float32()),
     {0: Decimal("1.25"), 1: Decimal("0.1"), 2: None, 3: Decimal("1.5e9")}, {}),
    ("decimal(9,2)", pa.array([1.25, 0.1 + 0.2, 1e7, -0.0]), {0: Decimal("1.25"), 3: Decimal(0)},
     {1: "precision", 2: "type"}),
    ("timestamp", pa.array([datetime(2013, 1, 1)], pa.timestamp("us", "UTC")), {}, {0: "zone"}),
    ("timestamptz", pa.array([datetime(2013, 1, 1)], pa.timestamp("us")),
     {0: datetime(2013, 1, 1, tzinfo=UTC)}, {}),
    ("timestamp", pa.array([1_000, 1], pa.timestamp("ns")), {0: datetime(1970, 1, 1, 0, 0, 0, 1)},
     {1: "precision"}),
    ("date", pa.array([-719_163, -719_162, 2_932_897], pa.date32()), {1: date(1, 1, 1)},
     {0: "range", 2: "range"}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "values", "fits", "wrong"), PARQUET)
def test_typed_values_are_not_changed_either(
    connection: duckdb.DuckDBPyConnection,
    tmp_path: Path,
    kind: str,
    values: pa.Array,
    fits: dict[int, object],
    wrong: dict[int, str],
) -> None:
    path = tmp_path / "typed.parquet"
    pq.write_table(pa.table({"v": values}), path)
    described = connection.execute("DESCRIBE SELECT * FROM read_parquet(?)", [str(path)]).fetchall()
    target = Target("v", iceberg_type(kind), False, described[0][1])
    shape = Shape(FileFormat.PARQUET, ["v"], [target], CsvOptions())
    known, defects = diagnose(connection, Part(path, "f", 1, len(values), shape))
    rows = connection.execute(f"SELECT _line, v FROM ({select(known, 'b')})").to_arrow_table()
    assert {row["_line"] - 1: row["v"] for row in rows.to_pylist()} == fits
    assert {defect.number - 1: defect.reason for defect in defects} == wrong


@given(
    st.sampled_from([(9, 2), (18, 6), (38, 10), (38, 38)]),
    st.one_of(
        st.lists(st.floats(), min_size=1, max_size=40),
        st.lists(st.decimals(-(10**7), 10**7, places=2).map(float), min_size=1, max_size=40),
    ),
)
@settings(deadline=None)  # it opens a database each time
def test_a_decimal_takes_the_digits_of_a_binary_number_and_invents_none(
    size: tuple[int, int], values: list[float]
) -> None:
    precision, scale = size
    target = Target("v", iceberg_type(f"decimal({precision},{scale})"), False, "DOUBLE")
    with duckdb.connect() as connection:
        found = connection.execute(
            f"SELECT CASE WHEN NOT coalesce({misfit(target, 'c', 'v')}, false) THEN v END"
            f" FROM (SELECT c, {cast(target, 'c')} AS v FROM (SELECT unnest(?::DOUBLE[]) AS c))",
            [values],
        ).fetchall()
    with localcontext(Context(prec=1_000)):
        written = [
            Decimal(int(value)) if value.is_integer() else Decimal(repr(value)) for value in values
        ]
        assert [value for (value,) in found] == [
            value
            if value.is_finite()
            and (whole := value.scaleb(scale)) == whole.to_integral_value()
            and abs(whole) < 10**precision
            else None
            for value in written
        ]


def test_a_whole_float_keeps_all_of_its_digits() -> None:
    target = Target("v", iceberg_type("decimal(38,10)"), False, "FLOAT")
    with duckdb.connect() as connection:
        found = connection.execute(
            f"SELECT {cast(target, 'c')}, {misfit(target, 'c', 'v')}"
            f" FROM (SELECT c, {cast(target, 'c')} AS v FROM (SELECT 1073741824::FLOAT AS c))"
        ).fetchone()
    assert found == (Decimal(1073741824), False)


SHAPES = {
    "timestamptz": ["2013-01-31T12:30:15Z", "2013-01-31 12:30:15.123456+00"],
    "timestamp": ["2013-01-31T12:30:15.123", "2013-01-31 12:30:15"],
    "date": ["2013-01-31"],
    "time": ["12:30:15.123"],
    "long": ["-1250"],
    "double": ["-12.5e3"],
    "decimal(9,2)": ["-12.50"],
}


@given(st.sampled_from(sorted(SHAPES)), st.data())
@settings(deadline=None)
def test_the_quick_look_at_a_field_sees_what_the_close_one_sees(
    kind: str, data: st.DataObject
) -> None:
    """`misfit` lets most texts pass by a cheap proof. It has to be one, also for texts that are
    nearly right: with a space, a sign or a letter in place of a digit."""
    sign = st.sampled_from(" \t0123456789-+:.TZUCe")

    def spoilt(text: str) -> st.SearchStrategy[str]:
        place = st.integers(0, len(text) - 1)
        replaced = st.builds(lambda at, new: text[:at] + new + text[at + 1 :], place, sign)
        return st.builds(
            lambda base, out, into, new: (
                (rest := base[:out] + base[out + 1 :])[:into] + new + rest[into:]
            ),
            st.one_of(st.just(text), replaced),
            place,
            place,
            sign,
        )

    some = st.one_of(*map(spoilt, SHAPES[kind]))
    texts = data.draw(st.lists(some, min_size=20, max_size=60, unique=True))
    target = Target("v", iceberg_type(kind), False)
    every = " OR ".join(f"coalesce({one.condition}, false)" for one in checks(target, "c", "v"))
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        found = connection.execute(
            f"SELECT c, coalesce({misfit(target, 'c', 'v')}, false), {every}"
            f" FROM (SELECT c, {cast(target, 'c')} AS v FROM (SELECT unnest(?) AS c))",
            [texts],
        ).fetchall()
    assert [text for text, quick, close in found if quick != close] == []
