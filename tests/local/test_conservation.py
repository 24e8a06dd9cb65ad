"""Nothing gets lost and nothing is made up: records = rows loaded + records quarantined.

Files are generated record by record, so it is known of each what has to become of it; a slow,
obvious reading (Python's own csv and json) has to agree. Parts, bundles and chunks are tiny, so
that they split everywhere.
"""

import codecs
import csv
import gzip
import io
import json
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyiceberg.catalog.noop import NoopCatalog
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table
from pyiceberg.table.metadata import new_table_metadata

from lakewarden.aws.objects import ObjectVersion
from lakewarden.batch.duck import DuckConfig
from lakewarden.batch.intake import Intake, IntakeConfig, take_in
from lakewarden.batch.model import DeliveredFile
from lakewarden.batch.parsing.raw import raw_records
from lakewarden.tables.iceberg import iceberg_partition_spec, iceberg_schema, iceberg_sort_order
from lakewarden.tables.template import (
    Column,
    CsvOptions,
    Direction,
    FileFormat,
    NullOrder,
    PartitionColumn,
    SortColumn,
    Source,
    Template,
)
from tests.fakes.objects import MemoryObjects

MAX = 1 << 40
COLUMNS = (
    Column("id", "long", required=True),
    Column("code", "string"),
    Column("name", "string"),
    Column("amount", "decimal(7,2)"),
    Column("day", "date"),
)
NAMES = [column.name for column in COLUMNS]
Row = tuple[int, str | None, str | None, Decimal | None, date | None]

# Tables of every make: as it comes; sorted; partitioned, and sorted inside.
MAKES: Sequence[tuple[tuple[PartitionColumn, ...], tuple[SortColumn, ...]]] = (
    ((), ()),
    ((), (SortColumn("name", Direction.DESC, NullOrder.NULLS_FIRST),)),
    (
        (PartitionColumn("code", "bucket[3]"), PartitionColumn("day", "year")),
        (SortColumn("id", Direction.ASC, NullOrder.NULLS_LAST),),
    ),
)


class SmallChunks(MemoryObjects):
    """A bucket whose answers come in small pieces."""

    def __init__(self, chunk_bytes: int) -> None:
        super().__init__()
        self._chunk_bytes = chunk_bytes

    def stream(self, version: ObjectVersion, *, chunk_bytes: int = 0) -> Iterator[bytes]:
        del chunk_bytes
        return super().stream(version, chunk_bytes=self._chunk_bytes)


def template_of(table: str, source: Source, make: int = 0) -> Template:
    namespace, _, name = table.partition(".")
    spec, order = MAKES[make]
    return Template(namespace, name, COLUMNS, spec, order, {}, {}, "", source, "d")


def table_of(template: Template) -> Table:
    """A table that no catalog knows: enough to write files for it."""
    schema = iceberg_schema(template)
    metadata = new_table_metadata(
        schema,
        iceberg_partition_spec(template, schema),
        iceberg_sort_order(template, schema),
        f"s3://memory/{template.namespace}/{template.name}",
    )
    return Table(
        (template.namespace, template.name), metadata, "", PyArrowFileIO(), NoopCatalog("")
    )


class Written(NamedTuple):
    """A record of a generated file: its text without its line end, and what has to become of it:
    a row, or None for the quarantine."""

    text: str
    row: Row | None


@dataclass(frozen=True)
class File:
    """A generated file; `raws` are its records as delivered, `lines` their physical lines."""

    stored: bytes
    written: Sequence[Written]
    raws: Sequence[bytes]
    lines: Sequence[int]
    headers: int = 0


@dataclass
class Taken:
    """What was loaded and quarantined of one file."""

    rows: dict[int, Row] = field(default_factory=dict)
    quarantined: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    records: int = 0


Deliver = Callable[..., Mapping[str, Taken]]


@pytest.fixture(scope="module")
def deliver(tmp_path_factory: pytest.TempPathFactory) -> Deliver:
    """Take files in, and tell what became of them: loaded rows are read from the data files."""
    scratch = tmp_path_factory.mktemp("scratch")
    numbers = count()

    def delivered(
        files: Mapping[str, tuple[Template, bytes]], *, part_bytes: int = 1, chunk_bytes: int = 7
    ) -> Mapping[str, Taken]:
        objects = SmallChunks(chunk_bytes)
        templates = {template.identifier: template for template, _ in files.values()}
        tables = {name: table_of(template) for name, template in templates.items()}
        received = [
            DeliveredFile(name, template.identifier, objects.put(name, body), None, None, None)
            for name, (template, body) in files.items()
        ]
        folder = scratch / f"{next(numbers):06d}"
        config = IntakeConfig(DuckConfig(folder / "spill"), folder, part_bytes)
        intake = take_in(
            "run",
            "2013-01-31",
            received,
            objects=objects,
            templates=templates,
            tables=tables,
            max_bytes=MAX,
            config=config,
        )
        assert not list(folder.rglob("*.txt")), "scratch holds row data after the work"
        return taken(objects, received, templates, tables, intake, folder)

    return delivered


def taken(
    objects: MemoryObjects,
    received: Sequence[DeliveredFile],
    templates: Mapping[str, Template],
    tables: Mapping[str, Table],
    intake: Intake,
    scratch: Path,
) -> Mapping[str, Taken]:
    found = {file.name: Taken() for file in received}
    for name, data_files in intake.data_files.items():
        columns = tables[name].schema().column_names
        for data_file in data_files:
            body = objects.get(data_file.file_path.removeprefix("s3://memory/")).body
            rows = pq.read_table(io.BytesIO(body)).select(columns).to_pylist()
            assert len(rows) == data_file.record_count
            for row in rows:
                assert row["_batch"] == "2013-01-31"
                line, file = row["_line"], row["_file"]
                assert line not in found[file].rows, "a record was loaded twice"
                assert next(f for f in received if f.name == file).table == name
                found[file].rows[line] = tuple(row[column] for column in NAMES)
    for file, reading in zip(received, intake.readings, strict=True):
        defects = {defect.number: defect for defect in intake.defects.get(file.name, ())}
        assert len(defects) == len(intake.defects.get(file.name, ()))
        source = templates[file.table].source
        assert source
        raws = raw_records(objects, file, source, defects, max_bytes=MAX, scratch=scratch)
        here = found[file.name]
        here.quarantined = {each.number: (each.physical_line, each.raw) for each in raws}
        here.records = reading.records
    return found


def conserved(file: File, found: Taken) -> None:
    """Of each record exactly what was meant to become of it, under its number and line."""
    numbers = range(1 + file.headers, 1 + file.headers + len(file.written))
    expected = dict(zip(numbers, file.written, strict=True))
    assert found.records == len(file.written)
    assert found.records == len(found.rows) + len(found.quarantined)
    assert found.rows == {n: each.row for n, each in expected.items() if each.row}
    places = dict(zip(numbers, zip(file.lines, file.raws, strict=True), strict=True))
    assert found.quarantined == {n: places[n] for n, each in expected.items() if not each.row}


# --- CSV ------------------------------------------------------------------------------------

# encoding → the codec that adds no mark, and the mark
ENCODINGS = {
    "utf-8": ("utf-8", b""),
    "utf-8-sig": ("utf-8", codecs.BOM_UTF8),
    "cp932": ("cp932", b""),
    "shift_jis": ("shift_jis", b""),
    "euc_jp": ("euc_jp", b""),
    "latin-1": ("latin-1", b""),
    "utf-16": ("utf-16-le", codecs.BOM_UTF16_LE),
    "iso2022_jp": ("iso2022_jp", b""),
}
# Of some the second byte in Shift_JIS is | or \\, of others in ISO 2022 a quote.
LETTERS = "aZ 0é日本髙ポソ表①㈱ア\u3042~,;|\t"


@dataclass(frozen=True)
class Style:
    """How a CSV file is written."""

    options: CsvOptions
    end: str
    codec: str
    mark: bytes
    order: Sequence[str]

    def text(self, value: str, *, quoted: bool) -> str:
        """One field; quoted where it has to be, or where it may be."""
        quote, escape = self.options.quote, self.options.escape
        if not quote:
            return value
        if not quoted and not self.needs_quotes(value):
            return value
        if escape:
            inside = value.replace(escape, escape * 2).replace(quote, escape + quote)
        else:
            inside = value.replace(quote, quote * 2)
        return quote + inside + quote

    def needs_quotes(self, value: str) -> bool:
        quote = self.options.quote or ""
        special = any(sign in value for sign in (self.options.delimiter, "\r", "\n"))
        return special or value.startswith((quote, " " + quote))

    def plain(self, value: str) -> str:
        """The value, or what can be written of it where nothing is quoted."""
        value = value.encode(self.codec, "ignore").decode(self.codec)
        if self.options.quote:
            return value
        return "".join(sign for sign in value if sign not in self.options.delimiter + "\r\n")


@st.composite
def styles(draw: st.DrawFn) -> Style:
    quote = draw(st.sampled_from(['"', '"', "'", None]))
    encoding = draw(st.sampled_from(list(ENCODINGS)))
    options = CsvOptions(
        header=draw(st.booleans()),
        delimiter=draw(st.sampled_from(",;\t|")),
        quote=quote,
        escape=draw(st.sampled_from([None, "\\"])) if quote else None,
        skip_rows=draw(st.integers(0, 2)),
        encoding=encoding,
        null_strings=draw(st.sampled_from([("",), ("", "NA"), ("NULL",), ("\\N",), ()])),
    )
    order = draw(st.permutations(NAMES)) if options.header else NAMES
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    return Style(options, end, *ENCODINGS[encoding], order)


texts = st.text(LETTERS + "\"'\\\n\r", max_size=6)
codes = st.text(string.digits, min_size=1, max_size=4)  # with zeros before them
amounts = st.decimals(Decimal("-99999.99"), Decimal("99999.99"), places=2)
days = st.dates(date(1, 1, 1), date(9999, 12, 31))


@st.composite
def good(draw: st.DrawFn, style: Style) -> tuple[dict[str, str], Row]:
    """A row and its fields as text; a null where a text of the file says so."""
    nulls = style.options.null_strings
    name, code = style.plain(draw(texts)), draw(codes)
    row: Row = (draw(st.integers(-(2**63), 2**63 - 1)), code, name, draw(amounts), draw(days))
    fields = {"id": str(row[0]), "code": code, "name": name, "amount": str(row[3])}
    fields["day"] = f"{row[4]}"
    if draw(st.booleans()):
        for text in nulls[-1:]:
            fields[draw(st.sampled_from(NAMES[1:]))] = text
    values = dict(zip(NAMES, row, strict=True))
    values |= {column: None for column, text in fields.items() if text in nulls}
    found = tuple(values[column] for column in NAMES)
    return fields, found  # type: ignore[return-value]  # built from a Row, column by column


def misfit(draw: st.DrawFn, style: Style, fields: dict[str, str]) -> str:
    """The record's text with one thing wrong with it."""
    delimiter, quote = style.options.delimiter, style.options.quote
    kinds = ["id", "amount", "day", "few", "many", "empty", "nul", "required"]
    if quote:
        kinds += ["after", "after"]
    if style.options.header:
        kinds.append("header")
    kind = draw(st.sampled_from(kinds))
    wrong = {
        "id": draw(st.sampled_from(["x", "+5", "1_000", "9223372036854775808", "1.5", "0x1F"])),
        "amount": draw(st.sampled_from(["1.234", "1e9", "12..5", "-"])),
        "day": draw(st.sampled_from(["2013-02-29", "2013-1-1", "20130101", "0000-00-00"])),
        "required": "NA" if "NA" in style.options.null_strings else "",
        "nul": fields["name"] + "\0",
    }
    column = {"required": "id", "nul": "name"}.get(kind, kind)
    if kind in wrong:
        fields = {**fields, column: wrong[kind]}
    parts = [style.text(fields[name], quoted=draw(st.booleans())) for name in style.order]
    match kind:
        case "few":
            parts = parts[:-1]
        case "many":
            parts.append("more")
        case "empty":  # an unquoted delimiter in the text may look like this
            parts += [""] * draw(st.integers(1, 3))
        case "header":
            parts = list(style.order)
        case "after":
            at = draw(st.integers(0, len(parts) - 1))
            parts[at] = style.text(fields[style.order[at]], quoted=True) + "x"
    return delimiter.join(parts)


@st.composite
def csv_files(draw: st.DrawFn, style: Style) -> File:
    lines: list[Written | None] = []  # None: a blank line
    for _ in range(draw(st.integers(0, 12))):
        kind = draw(st.sampled_from(["good", "good", "good", "misfit", "blank"]))
        if kind == "blank":
            lines.append(None)
            continue
        fields, row = draw(good(style))
        if kind == "misfit":
            lines.append(Written(misfit(draw, style, fields), None))
            continue
        parts = [style.text(fields[name], quoted=draw(st.booleans())) for name in style.order]
        lines.append(Written(style.options.delimiter.join(parts), row))
    skipped = ['a title, "with a quote'] * style.options.skip_rows
    header = [style.options.delimiter.join(style.order)] if style.options.header else []
    return written(style, lines, skipped, header, ended=draw(st.booleans()))


def written(
    style: Style,
    lines: Sequence[Written | None],
    skipped: Sequence[str],
    header: Sequence[str],
    *,
    ended: bool,
) -> File:
    """The file's bytes. What leaves another character set before a line's end is the line's."""
    encoder = codecs.getincrementalencoder(style.codec)()
    width = len("\n\n".encode(style.codec)) - len("\n".encode(style.codec))
    stored, raws, places = style.mark, [], []
    every = [*skipped, *header, *(line.text if line else "" for line in lines)]
    records = [line is not None for line in (*(None for _ in (*skipped, *header)), *lines)]
    physical = 1
    for number, (text, is_record) in enumerate(zip(every, records, strict=True), start=1):
        raw = encoder.encode(text)
        last = number == len(every) and not ended
        ending = encoder.encode("" if last else style.end, final=number == len(every))
        at = len(ending) - (0 if last else width * len(style.end))
        raw += ending[:at]
        stored += raw + ending[at:]
        if is_record:
            raws.append(raw)
            places.append(physical)
        physical += (
            1
            + len(text.replace("\r\n", "\n").replace("\r", "\n"))
            - len(text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", ""))
        )
    content = [line for line in lines if line]
    return File(stored, content, raws, places, len(header))


def by_python(style: Style, record: str) -> list[str]:
    """The fields as Python's csv reader has them."""
    options = style.options
    reader = csv.reader(
        io.StringIO(record, newline=""),
        delimiter=options.delimiter,
        quotechar=options.quote,
        quoting=csv.QUOTE_MINIMAL if options.quote else csv.QUOTE_NONE,
        escapechar=None,
        doublequote=True,
    )
    return next(reader)


def pack(kind: str, body: bytes) -> bytes:
    """The whole file, or three members one after the other."""
    third = len(body) // 3 + 1
    members = [body[at : at + third] for at in range(0, len(body), third)] or [b""]
    match kind:
        case "gzip":
            return b"".join(gzip.compress(member) for member in members)
        case "zstd":
            return b"".join(zstandard.ZstdCompressor().compress(member) for member in members)
    return body


compressions = st.sampled_from(["none", "gzip", "zstd"])
often = settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@often
@given(st.data())
def test_csv_is_conserved(deliver: Deliver, data: st.DataObject) -> None:
    style = data.draw(styles())
    file = data.draw(csv_files(style))
    if not style.options.escape:
        for each in file.written:
            if each.row:  # the generator means what an obvious reading finds
                fields = dict(zip(style.order, by_python(style, each.text), strict=True))
                nulls = style.options.null_strings
                assert (None if fields["name"] in nulls else fields["name"]) == each.row[2]
    source = Source(FileFormat.CSV, style.options)
    template = template_of("raw.t", source, data.draw(st.integers(0, 2)))
    body = pack(data.draw(compressions), file.stored)
    found = deliver(
        {"f.csv": (template, body)},
        part_bytes=data.draw(st.sampled_from([1, 40, 1 << 20])),
        chunk_bytes=data.draw(st.integers(1, 60)),
    )
    conserved(file, found["f.csv"])


@settings(often, max_examples=8)
@given(st.data())
def test_several_files_and_tables_at_once(deliver: Deliver, data: st.DataObject) -> None:
    """Also two tables of the same name, in two namespaces."""
    files: dict[str, tuple[Template, bytes]] = {}
    written: dict[str, File] = {}
    for table in ("raw.t", "ref.t", "raw.u"):
        style = data.draw(styles())
        template = template_of(
            table, Source(FileFormat.CSV, style.options), data.draw(st.integers(0, 2))
        )
        for number in range(data.draw(st.integers(1, 3))):
            name = f"{table}/{number}, 'the' é.csv"
            written[name] = data.draw(csv_files(style))
            files[name] = template, written[name].stored
    found = deliver(files, part_bytes=100, chunk_bytes=64)
    for name, file in written.items():
        conserved(file, found[name])


def test_every_character_of_cp932(deliver: Deliver) -> None:
    """NEC's and IBM's extensions among them, and those that are there twice: encoding a text again
    would give other bytes."""
    codes = [
        code
        for first in (*range(0x81, 0xA0), *range(0xE0, 0xFD))
        for second in range(0x40, 0xFD)
        if is_character(code := bytes((first, second)))
    ]
    assert {b"\xfa\x54", b"\x87\x54", b"\xed\x40", b"\x81\xca"} <= set(codes)
    lines = [b"%d|0%d|%b|1.5|2013-01-31" % (n, n, code) for n, code in enumerate(codes, start=1)]
    lines[1::7] = [line.replace(b"1.5", b"1.555") for line in lines[1::7]]
    options = CsvOptions(header=False, delimiter="|", escape="\\", encoding="cp932")
    template = template_of("raw.t", Source(FileFormat.CSV, options))
    body = b"\r\n".join(lines)
    found = deliver({"f": (template, body)}, part_bytes=30_000, chunk_bytes=20_001)["f"]
    good = {n: code for n, code in enumerate(codes, start=1) if n % 7 != 2}
    assert {n: row[2] for n, row in found.rows.items()} == {
        n: code.decode("cp932") for n, code in good.items()
    }
    assert {row[1] for row in found.rows.values()} == {f"0{n}" for n in good}
    assert found.quarantined == {
        n: (n, line) for n, line in enumerate(lines, start=1) if n not in good
    }


def is_character(code: bytes) -> bool:
    try:
        return len(code.decode("cp932")) == 1
    except UnicodeDecodeError:
        return False


# --- JSON lines -----------------------------------------------------------------------------


@st.composite
def json_lines(draw: st.DrawFn) -> Written:
    name = draw(st.text(LETTERS + "\"'\\\n\r\u2028\x1f😀", max_size=6))
    row: Row = (
        draw(st.integers(-(2**63), 2**63 - 1)), draw(codes), name, draw(amounts), draw(days)
    )  # fmt: skip
    given: dict[str, object] = dict(zip(NAMES, row, strict=True))
    given |= {"amount": json_number(str(row[3])), "day": f"{row[4]}"}
    gone = draw(st.sampled_from([None, *NAMES[1:]]))
    if gone:
        given[gone] = None
        if draw(st.booleans()):
            del given[gone]
    values = dict(zip(NAMES, row, strict=True)) | ({gone: None} if gone else {})
    found = tuple(values[column] for column in NAMES)
    kind = draw(st.sampled_from(["good"] * 4 + ["value", "unknown", "required", "nul", "broken"]))
    match kind:
        case "value":
            given["day"] = draw(st.sampled_from(["2013-02-29", 20130101, True, {"a": 1}, [1]]))
        case "unknown":
            given["more"] = 1
        case "required":
            given["id"] = None
        case "nul":
            given["name"] = "a\0"
    items = draw(st.permutations(list(given.items())))
    space = draw(st.sampled_from(["", " "]))
    ascii_only = draw(st.booleans())
    inside = ("," + space).join(
        f"{json.dumps(key)}:{space}{json_text(value, ascii_only=ascii_only)}"
        for key, value in items
    )
    text = "{" + inside + "}"
    if kind == "broken":
        at = draw(st.integers(1, len(text) - 1))
        text = draw(st.sampled_from([text[:at], text + text, f"[{text}]", "null", text + "\x1f"]))
    return Written(text, found if kind == "good" else None)  # type: ignore[arg-type]  # a Row


class json_number(str):  # noqa: N801 - stands for a literal
    """A number as it is to be written."""


def json_text(value: object, *, ascii_only: bool) -> str:
    return value if isinstance(value, json_number) else json.dumps(value, ensure_ascii=ascii_only)


@often
@given(st.data())
def test_json_lines_are_conserved(deliver: Deliver, data: st.DataObject) -> None:
    lines = data.draw(st.lists(st.one_of(json_lines(), st.none()), max_size=12))
    for line in lines:
        if line and line.row:  # as an obvious reading has it
            read = json.loads(line.text, parse_float=Decimal)
            assert (read["id"], read.get("name")) == (line.row[0], line.row[2])
    style = Style(CsvOptions(), data.draw(st.sampled_from(["\n", "\r\n"])), "utf-8", b"", NAMES)
    file = written(style, lines, [], [], ended=data.draw(st.booleans()))
    template = template_of("raw.t", Source(FileFormat.JSON), data.draw(st.integers(0, 2)))
    body = pack(data.draw(compressions), file.stored)
    found = deliver(
        {"f.jsonl": (template, body)},
        part_bytes=data.draw(st.sampled_from([1, 100, 1 << 20])),
        chunk_bytes=data.draw(st.integers(1, 200)),
    )
    conserved(file, found["f.jsonl"])


# --- Parquet --------------------------------------------------------------------------------


@st.composite
def parquet_rows(draw: st.DrawFn) -> Written:
    """Amounts and days come as wider types, so that some do not fit."""
    row: Row = (
        draw(st.integers(-(2**63), 2**63 - 1)),
        draw(st.one_of(st.none(), codes)),
        draw(st.one_of(st.none(), st.text(LETTERS + '"\n', max_size=6))),
        draw(st.one_of(st.none(), amounts)),
        draw(st.one_of(st.none(), days)),
    )
    given: list[object] = [*row[:4], f"{row[4]}" if row[4] else None]
    kind = draw(st.sampled_from(["good"] * 4 + ["required", "amount", "day", "nul"]))
    match kind:
        case "required":
            given[0] = None
        case "amount":
            given[3] = draw(st.sampled_from([Decimal("1.234"), Decimal("100000.00")]))
        case "day":
            given[4] = draw(st.sampled_from(["2013-02-29", "x", ""]))
        case "nul":
            given[2] = "a\0"
    as_json = dict(zip(NAMES, given, strict=True))
    return Written(json.dumps(as_json, default=str), row if kind == "good" else None)


@settings(often, max_examples=20)
@given(st.data())
def test_parquet_is_conserved(deliver: Deliver, data: st.DataObject) -> None:
    rows = data.draw(st.lists(parquet_rows(), max_size=30))
    order = data.draw(st.permutations(NAMES))
    values = [json.loads(row.text) for row in rows]
    kinds = {"id": pa.int64(), "amount": pa.decimal128(20, 4)}
    columns = {
        name: pa.array(
            [Decimal(v[name]) if name == "amount" and v[name] else v[name] for v in values],
            kinds.get(name, pa.string()),
        )
        for name in order
    }
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, row_group_size=data.draw(st.integers(1, 10)))
    template = template_of("raw.t", Source(FileFormat.PARQUET), data.draw(st.integers(0, 2)))
    found = deliver({"f.parquet": (template, buffer.getvalue())})["f.parquet"]
    assert found.records == len(rows) == len(found.rows) + len(found.quarantined)
    assert found.rows == {n: row.row for n, row in enumerate(rows, start=1) if row.row}
    told = {n: json.loads(raw, parse_float=Decimal) for n, (_, raw) in found.quarantined.items()}
    for value in values:
        value["amount"] = value["amount"] and Decimal(value["amount"])
    assert told == {n: values[n - 1] for n, row in enumerate(rows, start=1) if not row.row}


# --- large ----------------------------------------------------------------------------------

PLAIN = template_of("raw.t", Source(FileFormat.CSV, CsvOptions(header=False)))


def test_lines_within_quotes_are_no_records_however_many_threads_read(deliver: Deliver) -> None:
    """Megabytes of lines in quotes that look like records: who begins to read in the middle of
    them takes them for records."""
    fake = b"9,9,fake,9.99,2013-01-31\n" * 40_000
    real = [
        b"%d,%d,%b,1.50,2013-01-31\n" % (n, n, b"x" if n % 3 else b'"' + fake + b'"')
        for n in range(1, 91)
    ]
    found = deliver({"f": (PLAIN, b"".join(real))}, part_bytes=1 << 30, chunk_bytes=8 << 20)["f"]
    assert (found.records, len(found.quarantined)) == (90, 0)
    assert [found.rows[n][0] for n in range(1, 91)] == list(range(1, 91))


@pytest.mark.parametrize("part_bytes", [1, 1 << 20])
def test_only_a_file_begins_with_a_byte_order_mark(deliver: Deliver, part_bytes: int) -> None:
    """In a record it is a character like any other, wherever the file is cut into parts."""
    lines = [codecs.BOM_UTF8 + b"%d,%d,a,1.50,2013-01-31" % (n, n) for n in range(1, 5)]
    found = deliver({"f": (PLAIN, b"\n".join(lines))}, part_bytes=part_bytes)["f"]
    assert sorted(found.rows) == [1]
    assert found.quarantined == {n: (n, lines[n - 1]) for n in range(2, 5)}


@pytest.mark.parametrize("mebibytes", [3, 40])
def test_a_record_longer_than_parsers_like(deliver: Deliver, mebibytes: int) -> None:
    lines = [b"1,1,a,1.50,2013-01-31", b"2,2,%b,1.50,2013-01-31" % (b"x" * (mebibytes << 20))]
    lines += [b"3,3,%b,1.50,2013-01-31" % (b"y" * (1 << 20)), b"4,4,d,1.50,2013-01-31"]
    body = b"\n".join(lines)
    found = deliver({"f": (PLAIN, body)}, part_bytes=1 << 30, chunk_bytes=8 << 20)["f"]
    assert sorted(found.rows) == [1, 3, 4]
    assert found.quarantined == {2: (2, lines[1])}


def test_every_second_record_is_broken(deliver: Deliver) -> None:
    """Thousands of gaps: the others keep their numbers."""
    lines = [b"%d,%d,a,1.50,2013-01-31" % (n, n) for n in range(1, 60_001)]
    lines[1::2] = [b"broken," * (n % 3) + b"x" for n in range(30_000)]
    lines[::1000] = [b"z" + line for line in lines[::1000]]
    body = b"\n".join(lines)
    found = deliver({"f": (PLAIN, body)}, part_bytes=1 << 19, chunk_bytes=100_001)["f"]
    assert len(found.rows) == 30_000 - 60
    assert all(row[0] == number for number, row in found.rows.items())
    assert found.quarantined == {
        n: (n, line) for n, line in enumerate(lines, start=1) if n not in found.rows
    }


@pytest.mark.parametrize("line", [b"x,1,a,1.50,2013-01-31", b"1,a", b'"1"1,1,a,1.50,2013-01-31'])
def test_no_record_fits(deliver: Deliver, line: bytes) -> None:
    body = (line + b"\n") * 20_000
    found = deliver({"f": (PLAIN, body)}, part_bytes=1 << 18, chunk_bytes=100_001)["f"]
    assert not found.rows
    assert found.quarantined == {n: (n, line) for n in range(1, 20_001)}
