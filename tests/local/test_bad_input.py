"""What bad input gets: a clear refusal that changes nothing, or a quarantine that loses nothing.

One table, a row a case, through the public door on the real stack. Each case delivers a batch of
its own, written straight into the bucket as a careless supplier would, and runs it.
"""

import gzip
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from pyiceberg.expressions import EqualTo, Reference
from pyiceberg.expressions.literals import literal

import lakewarden
from lakewarden.batch import quarantine
from lakewarden.batch.conductor import StageDone
from lakewarden.batch.receipts import Receipt, list_runs
from lakewarden.errors import LakewardenError
from lakewarden.lake.model import Pin
from lakewarden.wiring import Project
from tests.stack import LocalStack

# It stands in rows that are refused or quarantined: no message and no receipt may repeat it.
PRIVATE = "Yamada"

TOML = """
project = "readings"

[env.dev]
account = "local"
bucket = "{bucket}"
catalog = {{ type = "sql", uri = "sqlite:///.lakewarden/catalog.db" }}

[load]
part_mib = 1
"""
DATASET = """
[dataset.{name}]
batch = "date"
landing = "raw/{name}/{{batch}}/"
tables = {{ {tables} }}
{more}
"""
COLUMNS = """
  - {name: id, type: long, required: true}
  - {name: name, type: string}
  - {name: amount, type: "decimal(5,2)"}
  - {name: visits, type: int}
  - {name: day, type: date}
"""


def template(
    name: str, dataset: str, form: str = "csv", options: str = "", columns: str = COLUMNS
) -> str:
    csv_options = f"  csv_options: {{{options}}}\n" if options else ""
    return (
        f"name: {name}\nnamespace: raw\nload: {{dataset: {dataset}}}\n"
        f"source:\n  format: {form}\n{csv_options}columns:{columns}"
    )


LENIENT = "quarantine = { max_share = 0.5 }"
# dataset → what else lakewarden.toml says of it, and its templates
DATASETS: Mapping[str, tuple[str, Sequence[str]]] = {
    "readings": ("", [template("readings", "readings")]),
    "lenient": (LENIENT, [template("lenient", "lenient")]),
    "small": ("max_bytes = 20_000", [template("small", "small")]),
    "japan": (
        LENIENT,
        [template("japan", "japan", options='header: false, delimiter: "\\t", encoding: cp932')],
    ),
    "wide": (LENIENT, [template("wide", "wide", options="encoding: utf-16")]),
    "lines": (LENIENT, [template("lines", "lines", "json")]),
    "cells": (LENIENT, [template("cells", "cells", "parquet")]),
    "pair": ("", [template("one", "pair"), template("two", "pair")]),
    "drifted": ("", [template("drifted", "drifted")]),
}

HEADER = b"id,name,amount,visits,day\n"
FILE = "readings.csv"


def row(number: int, name: str = "A", amount: str = "1.50", visits: str = "3") -> bytes:
    return f"{number},{name},{amount},{visits},2013-01-31\n".encode()


GOOD = HEADER + row(1) + row(2) + row(3)


@dataclass(frozen=True)
class Misfit:
    """A record that has to lie in quarantine. `physical` is its line as an editor counts; 0 where
    there are no lines."""

    line: int
    column: str | None
    reason: str
    raw: bytes
    physical: int


Document = dict[str, object]


def as_it_should_be(manifest: Document) -> object:
    return manifest


@dataclass(frozen=True)
class Case:
    """`manifest` makes of the true manifest what is delivered (None: nothing; bytes: as they are).
    `says`: what the message has to name. `ids`: the rows that get published."""

    name: str
    files: Mapping[str, bytes]
    code: int = 0
    error: str | None = None
    says: Sequence[str] = ()
    dataset: str = "readings"
    manifest: Callable[[Document], object] = as_it_should_be
    ids: Sequence[int] = ()
    misfits: Sequence[Misfit] = ()
    meanwhile: bytes | None = None  # replaces FILE when the delivery was received
    key: str | None = None  # the batch as it is asked for, where it is not the delivered one
    edit: tuple[str, str, str] | None = None  # a file of the project, a text in it, another


def one(body: bytes, name: str = FILE) -> dict[str, bytes]:
    return {name: body}


def promising(**changed: object) -> Callable[[Document], object]:
    return lambda manifest: {**manifest, **changed}


def entry(**changed: object) -> Callable[[Document], object]:
    """The first entry of the manifest, changed."""

    def change(manifest: Document) -> object:
        entries = manifest["entries"]
        assert isinstance(entries, list)
        return {**manifest, "entries": [{**entries[0], **changed}, *entries[1:]]}

    return change


def further(url: str) -> Callable[[Document], object]:
    """One more entry."""

    def change(manifest: Document) -> object:
        entries = manifest["entries"]
        assert isinstance(entries, list)
        return {**manifest, "entries": [*entries, {"url": url}]}

    return change


MANIFESTS = [
    Case("no manifest", one(GOOD), 3, "manifest-missing", [FILE], manifest=lambda _: None),
    Case("nothing delivered", {}, 2, "batch-unknown", manifest=lambda _: None),
    Case(
        "a manifest that is no JSON",
        one(GOOD),
        3,
        "manifest-not-json",
        ["_manifest.json", "line 1"],
        manifest=lambda _: b'{"version": 1, ',
    ),
    Case(
        "a manifest of an unknown version",
        one(GOOD),
        3,
        "manifest-version-unknown",
        ["_manifest.json", "version 2"],
        manifest=promising(version=2),
    ),
    Case(
        "a manifest of another batch",
        one(GOOD),
        3,
        "manifest-of-another",
        ["_manifest.json", "1999-01-01"],
        manifest=promising(batch="1999-01-01"),
    ),
    Case(
        "a path outside the delivery",
        one(GOOD),
        3,
        "manifest-path-outside",
        ["_manifest.json", "../other/readings.csv"],
        manifest=further("../other/readings.csv"),
    ),
    Case(
        "a path to another bucket",
        one(GOOD),
        3,
        "manifest-path-outside",
        ["s3://elsewhere/readings.csv"],
        manifest=further("s3://elsewhere/readings.csv"),
    ),
    Case(
        "a file named twice",
        one(GOOD),
        3,
        "manifest-file-twice",
        [FILE],
        manifest=further(FILE),
    ),
    Case(
        "a file named that is not there",
        one(GOOD),
        3,
        "file-missing",
        ["gone.csv"],
        manifest=further("gone.csv"),
    ),
    Case(
        "a file that is not named",
        {**one(GOOD), "stray.csv": GOOD},
        3,
        "file-unexpected",
        ["stray.csv"],
        manifest=lambda m: {**m, "entries": [e for e in entries_of(m) if e["url"] == FILE]},
    ),
    Case(
        "a file that no table takes",
        {**one(GOOD), "notes.txt": b"hello"},
        3,
        "file-without-table",
        ["notes.txt"],
    ),
    Case(
        "a wrong hash",
        one(GOOD),
        3,
        "checksum-mismatch",
        [FILE],
        manifest=entry(sha256="0" * 64),
    ),
    Case(
        "a wrong size",
        one(GOOD),
        3,
        "size-disagrees",
        [FILE, str(len(GOOD))],
        manifest=entry(meta={"content_length": len(GOOD) + 1}),
    ),
    Case(
        "a wrong count",
        one(GOOD),
        3,
        "record-count-mismatch",
        [FILE, "4", "3"],
        manifest=entry(meta={"record_count": 4}),
    ),
    Case("a missing part", one(GOOD, "one.csv"), 3, "table-without-file", ["two"], dataset="pair"),
    Case(
        "replaced after it was received: what was pinned is loaded",
        one(GOOD),
        ids=[1, 2, 3],
        meanwhile=HEADER + row(7),
    ),
    Case("as it should be", one(GOOD), ids=[1, 2, 3]),
]


def entries_of(manifest: Document) -> list[Document]:
    entries = manifest["entries"]
    assert isinstance(entries, list)
    return entries


def lines(*bodies: bytes) -> bytes:
    return b"\n".join(bodies) + b"\n"


ZSTD = zstandard.ZstdCompressor().compress
NOISE = b"".join(
    hashlib.sha256(bytes((n % 256, n // 256))).hexdigest().encode() for n in range(999)
)

BYTES = [
    Case("zero bytes", one(b""), 3, "file-empty", [FILE]),
    Case("gzip", one(gzip.compress(GOOD), "readings.csv.gz"), ids=[1, 2, 3]),
    Case("zstd", one(ZSTD(GOOD), "readings.csv.zst"), ids=[1, 2, 3]),
    Case(
        "truncated gzip",
        one(gzip.compress(HEADER + row(1, NOISE.decode()))[:-200], "readings.csv.gz"),
        3,
        "truncated",
        ["readings.csv.gz", "gzip"],
    ),
    Case(
        "truncated zstd",
        one(ZSTD(HEADER + row(1, NOISE.decode()))[:-200], "readings.csv.zst"),
        3,
        "truncated",
        ["readings.csv.zst", "zstd"],
    ),
    Case(
        "gzip that is damaged",
        one(gzip.compress(GOOD)[:-8] + b"\xff" * 8, "readings.csv.gz"),
        3,
        "bad-compression",
        ["readings.csv.gz"],
    ),
    Case(
        "damaged on its way, as the hash tells, whatever else is wrong with it",
        one(HEADER + b"\xff\xfe"),
        3,
        "checksum-mismatch",
        [FILE],
        manifest=entry(sha256="0" * 64),
    ),
    Case(
        "something after the gzip",
        one(gzip.compress(GOOD) + b"more", "readings.csv.gz"),
        3,
        "bad-compression",
        ["readings.csv.gz"],
    ),
    Case(
        "unpacks to over 200 times its size",
        one(gzip.compress(HEADER + b"1,A,1.50,3,2013-01-31\n" * 200_000), "readings.csv.gz"),
        3,
        "too-large",
        ["readings.csv.gz", "200 times"],
    ),
    Case(
        "zstd that unpacks to over 200 times its size",
        one(ZSTD(HEADER + b"1,A,1.50,3,2013-01-31\n" * 200_000), "readings.csv.zst"),
        3,
        "too-large",
        ["readings.csv.zst", "200 times"],
    ),
    Case(
        "unpacks to more than max_bytes",
        one(gzip.compress(HEADER + row(1, NOISE.decode())), "readings.csv.gz"),
        3,
        "too-large",
        ["readings.csv.gz", "20,000 bytes"],
        dataset="small",
    ),
    Case(
        "cp932 where UTF-8 was promised",
        one(HEADER + row(1) + row(2, "山田").decode().encode("cp932") + row(3)),
        3,
        "wrong-encoding",
        [FILE, "line 3", "utf-8"],
    ),
    Case(
        "UTF-16 where UTF-8 was promised",
        one(GOOD.decode().encode("utf-16")),
        3,
        "wrong-encoding",
        [FILE, "line 1", "utf-8"],
    ),
    Case(
        "UTF-8 where UTF-16 was promised",
        one(GOOD),
        3,
        "wrong-encoding",
        [FILE, "utf-16"],
        dataset="wide",
    ),
    Case(
        "bytes that cp932 does not have",
        one(b"1\tA\t1.50\t3\t2013-01-31\n2\t\x81 \t1.50\t3\t2013-01-31\n"),
        3,
        "wrong-encoding",
        [FILE, "line 2", "cp932"],
        dataset="japan",
    ),
    Case("UTF-16", one(GOOD.decode().encode("utf-16")), dataset="wide", ids=[1, 2, 3]),
    Case(
        "cp932",
        one("1\t髙橋\t1.50\t3\t2013-01-31\n".encode("cp932")),
        dataset="japan",
        ids=[1],
    ),
    Case("a byte order mark", one(b"\xef\xbb\xbf" + GOOD), ids=[1, 2, 3]),
    Case("CRLF", one(GOOD.replace(b"\n", b"\r\n")), ids=[1, 2, 3]),
    Case("no line end after the last", one(GOOD[:-1]), ids=[1, 2, 3]),
    Case("blank lines", one(GOOD.replace(b"\n", b"\n\n")), ids=[1, 2, 3]),
    Case("quoted newlines", one(HEADER + row(1, '"A\nB, ""C""\n"') + row(2)), ids=[1, 2]),
    Case(
        "mixed line ends",
        one(HEADER + row(1) + row(2) + row(3).replace(b"\n", b"\r\n") + row(4)),
        3,
        "mixed-line-ends",
        [FILE, "record 4", "line 4", "CRLF"],
    ),
    Case(
        "an open quote",
        one(HEADER + row(1) + row(2, f'"{PRIVATE}') + row(3)),
        3,
        "open-quote",
        [FILE, "record 3", "line 3"],
    ),
    Case(
        "an open quote after a quoted newline",
        one(HEADER + row(1, '"A\nB"') + row(2, f'"{PRIVATE}') + row(3)),
        3,
        "open-quote",
        [FILE, "record 3", "line 4"],
    ),
]

COLUMN_SETS = [
    Case(
        "a missing column",
        one(lines(b"id,name,amount,day", b"1,A,1.50,2013-01-31")),
        3,
        "columns-differ",
        [FILE, "line 1", "visits"],
    ),
    Case(
        "a renamed column",
        one(GOOD.replace(b"visits", b"calls")),
        3,
        "columns-differ",
        [FILE, "visits", "calls"],
    ),
    Case(
        "one more column",
        one(lines(b"id,name,amount,visits,day,room", b"1,A,1.50,3,2013-01-31,9")),
        3,
        "columns-differ",
        [FILE, "room"],
    ),
    Case(
        "a column twice",
        one(lines(b"id,name,amount,visits,day,id", b"1,A,1.50,3,2013-01-31,1")),
        3,
        "columns-differ",
        [FILE, "id"],
    ),
    Case(
        "no header",
        one(row(1, PRIVATE) + row(2)),
        3,
        "header-missing",
        [FILE, "line 1"],
    ),
    Case(
        "no header, and a first line without end",
        one(b"1," + PRIVATE.encode() * 300_000),
        3,
        "header-missing",
        [FILE, "line 1"],
    ),
    Case(
        "columns in another order",
        one(lines(b"day,visits,amount,name,id", b"2013-01-31,3,1.50,A,1")),
        ids=[1],
    ),
    Case("a header only", one(HEADER), ids=[]),
    Case("nothing but blank lines", one(b"\n\n"), 3, "header-missing", [FILE]),
]


def lenient(name: str, body: bytes, *misfits: Misfit, ids: Sequence[int] = (1, 2, 3)) -> Case:
    return Case(name, one(body), dataset="lenient", ids=ids, misfits=misfits)


def planted(bad: bytes) -> bytes:
    """Records 2, 3, 5 are fine; the fourth is bad."""
    return HEADER + row(1) + row(2) + bad + b"\n" + row(3)


def fourth(bad: bytes, column: str | None, reason: str) -> Misfit:
    return Misfit(4, column, reason, bad, 4)


def damaged(name: str, bad: bytes, column: str | None, reason: str) -> Case:
    return lenient(name, planted(bad), fourth(bad, column, reason))


LONG = b"4," + b"x" * (3 << 20) + b",1.50,3,2013-01-31"

ROWS = [
    damaged("a NUL", b"4,Yama\0da,1.50,3,2013-01-31", "name", "nul"),
    damaged("overflow of a decimal", b"4,Yamada,1234.50,3,2013-01-31", "amount", "type"),
    damaged(
        "a decimal that would be rounded", b"4,Yamada,1.505,3,2013-01-31", "amount", "precision"
    ),
    damaged("overflow of an int", b"4,Yamada,1.50,2147483648,2013-01-31", "visits", "type"),
    damaged("a fraction in an int", b"4,Yamada,1.50,3.5,2013-01-31", "visits", "precision"),
    damaged("text in an int", b"4,Yamada,1.50,many,2013-01-31", "visits", "type"),
    damaged("an impossible date", b"4,Yamada,1.50,3,2013-02-29", "day", "type"),
    damaged("a date in another form", b"4,Yamada,1.50,3,01/31/2013", "day", "type"),
    damaged("a missing required value", b",Yamada,1.50,3,2013-01-31", "id", "required"),
    damaged("too few columns", b"4,Yamada,1.50,3", None, "columns"),
    damaged("too many columns", b"4,Yamada,1.50,3,2013-01-31,9", None, "columns"),
    damaged("a million columns", b"4,Yamada" + b",9" * 1_000_000, None, "columns"),
    damaged("a million quoted columns", b"4,Yamada" + b',"9"' * 1_000_000, None, "columns"),
    damaged("a record of 3 MiB", LONG, None, "too-long"),
    damaged("text after a quote", b'4,"Yamada"s,1.50,3,2013-01-31', None, "quote"),
    damaged("the header again", HEADER[:-1], None, "repeated-header"),
    lenient(
        "damage after quoted newlines and blank lines",
        HEADER + row(1, '"A\nB\nC"') + b"\n\n" + b"4,Yamada,1.50,3.5,2013-01-31\n" + row(2),
        Misfit(3, "visits", "precision", b"4,Yamada,1.50,3.5,2013-01-31", 7),
        ids=[1, 2],
    ),
    lenient(
        "damage with CRLF",
        (HEADER + row(1) + b"4,Yamada,1.50,3.5,2013-01-31\n").replace(b"\n", b"\r\n"),
        Misfit(3, "visits", "precision", b"4,Yamada,1.50,3.5,2013-01-31", 3),
        ids=[1],
    ),
    Case(
        "damage in cp932",
        one("1\t髙橋\t1.50\t3\t2013-01-31\n2\t山田\t1.50\tx\t2013-01-31\n".encode("cp932")),
        dataset="japan",
        ids=[1],
        misfits=[Misfit(2, "visits", "type", "2\t山田\t1.50\tx\t2013-01-31".encode("cp932"), 2)],
    ),
    lenient(
        "exactly max_share",
        HEADER + row(1) + b"4,Yamada,1.50,3.5,2013-01-31\n",
        Misfit(3, "visits", "precision", b"4,Yamada,1.50,3.5,2013-01-31", 3),
        ids=[1],
    ),
    replace(
        lenient(
            "above max_share",
            HEADER + row(1) + b"4,Yamada,1.50,3.5,2013-01-31\n" + b"5,Yamada,1.50,3\n",
            Misfit(3, "visits", "precision", b"4,Yamada,1.50,3.5,2013-01-31", 3),
            Misfit(4, None, "columns", b"5,Yamada,1.50,3", 4),
        ),
        code=3,
        error="too-many-misfits",
        says=["2 of 3", "50", FILE, "record 3", "line 3", "visits"],
        ids=[],
    ),
    Case(
        "one misfit where none is allowed",
        one(HEADER + row(1, '"A\nB"') + row(2) + b"4,Yamada,1.50,3.5,2013-01-31\n"),
        3,
        "too-many-misfits",
        [FILE, "record 4", "line 5", "visits", "1 of 3"],
        misfits=[Misfit(4, "visits", "precision", b"4,Yamada,1.50,3.5,2013-01-31", 5)],
    ),
]


def json_lines(*records: bytes) -> bytes:
    return lines(json_row(1), json_row(2), *records, json_row(3))


def json_row(number: int, **changed: object) -> bytes:
    record = {"id": number, "name": "A", "amount": 1.5, "visits": 3, "day": "2013-01-31"}
    return json.dumps({**record, **changed}, ensure_ascii=False).encode()


def broken_line(name: str, bad: bytes, column: str | None, reason: str) -> Case:
    return Case(
        name,
        one(json_lines(bad), "lines.jsonl"),
        dataset="lines",
        ids=[1, 2, 3],
        misfits=[Misfit(3, column, reason, bad, 3)],
    )


JSON_LINES = [
    Case("JSON lines", one(json_lines(), "lines.jsonl"), dataset="lines", ids=[1, 2, 3]),
    broken_line("a broken line", b'{"id": 4, "name": "Yamada', None, "json"),
    broken_line("a line that is no object", b'[4, "Yamada"]', None, "json"),
    broken_line("a line that is null", b"null", None, "json"),
    broken_line("a line of delimiters", b"\x1f" * 1_000_000, None, "json"),
    broken_line("an unknown field", json_row(4, room="Yamada"), None, "unexpected-field"),
    broken_line("text in an int of JSON", json_row(4, visits="many"), "visits", "type"),
    broken_line("a fraction in an int of JSON", json_row(4, visits=3.5), "visits", "precision"),
    broken_line("a missing id", b'{"name": "Yamada"}', "id", "required"),
    broken_line("a field twice", b'{"id": 4, "id": 5}', None, "repeated-field"),
    broken_line("an escaped NUL", b'{"id": 4, "name": "Yamada\\u0000"}', "name", "nul"),
    Case(
        "fields that are left out are null",
        one(lines(b'{"id": 1}', b'{"id": 2, "name": null}'), "lines.jsonl"),
        dataset="lines",
        ids=[1, 2],
    ),
]


def parquet(**changed: pa.Array | None) -> bytes:
    """Three rows; None takes a column away."""
    day = pa.array([date(2013, 1, 31)] * 3)
    columns = {
        "id": pa.array([1, 2, 3], pa.int64()),
        "name": pa.array(["A", "B", None]),
        "amount": pa.array([1, 2, 3], pa.decimal128(5, 2)),
        "visits": pa.array([1, 2, 3], pa.int32()),
        "day": day,
        **changed,
    }
    sink = io.BytesIO()
    pq.write_table(pa.table({k: v for k, v in columns.items() if v is not None}), sink)
    return sink.getvalue()


def misfit_cell(name: str, column: str, reason: str, told: object, values: pa.Array) -> Case:
    raw = {
        "id": 2,
        "name": "B",
        "amount": 2.0,
        "visits": 2,
        "day": "2013-01-31",
        column: told,
    }
    return Case(
        name,
        one(parquet(**{column: values}), "cells.parquet"),
        dataset="cells",
        ids=[1, 3],
        misfits=[Misfit(2, column, reason, json.dumps(raw, separators=(",", ":")).encode(), 0)],
    )


PARQUET = [
    Case("Parquet", one(parquet(), "cells.parquet"), dataset="cells", ids=[1, 2, 3]),
    Case(
        "Parquet, wider types whose values fit",
        one(parquet(visits=pa.array([1, 2, 3], pa.int64())), "cells.parquet"),
        dataset="cells",
        ids=[1, 2, 3],
    ),
    Case(
        "truncated Parquet",
        one(parquet()[:-100], "cells.parquet"),
        3,
        "not-parquet",
        ["cells.parquet"],
        dataset="cells",
    ),
    Case(
        "Parquet whose pages are damaged",
        one(parquet()[:4] + b"\xff" * 200 + parquet()[204:], "cells.parquet"),
        3,
        "not-parquet",
        ["cells.parquet"],
        dataset="cells",
    ),
    Case(
        "CSV where Parquet was promised",
        one(GOOD, "cells.parquet"),
        3,
        "not-parquet",
        ["cells.parquet"],
        dataset="cells",
    ),
    Case(
        "Parquet where CSV was promised",
        one(parquet(), FILE),
        3,
        "wrong-encoding",
        [FILE],
    ),
    Case(
        "Parquet without a column",
        one(parquet(visits=None), "cells.parquet"),
        3,
        "columns-differ",
        ["cells.parquet", "visits"],
        dataset="cells",
    ),
    misfit_cell(
        "a Parquet value too large",
        "visits",
        "type",
        2**40,
        pa.array([1, 2**40, 3], pa.int64()),
    ),
    misfit_cell(
        "a Parquet value that would be rounded",
        "visits",
        "precision",
        2.5,
        pa.array([1.0, 2.5, 3.0], pa.float64()),
    ),
    misfit_cell("Parquet text in an int", "visits", "type", "many", pa.array(["1", "many", "3"])),
    Case(
        "a required value missing in Parquet",
        one(parquet(id=pa.array([1, None, 3], pa.int64())), "cells.parquet"),
        dataset="cells",
        ids=[1, 3],
        misfits=[
            Misfit(
                2,
                "id",
                "required",
                b'{"id":null,"name":"B","amount":2.0,"visits":2,"day":"2013-01-31"}',
                0,
            )
        ],
    ),
]

OTHER = [
    Case(
        "a table that drifted from its template",
        one(GOOD),
        3,
        "table-drifted",
        ["raw.drifted", "visits"],
        dataset="drifted",
    ),
    Case("an unknown dataset", one(GOOD), 2, "dataset-unknown", ["'nothing'"], dataset="nothing"),
    Case("a bad batch key", one(GOOD), 2, "batch-key-invalid", ["'2013-02-30'"], key="2013-02-30"),
    Case("a batch key that leads out", {}, 2, "batch-key-invalid", key="../2013-02-01"),
    Case(
        "a bad template",
        one(GOOD),
        2,
        "template-invalid",
        ["readings.yaml:7:22: ", "'lnog'"],
        edit=("tables/readings.yaml", "type: long", "type: lnog"),
    ),
    Case(
        "a template that is no YAML",
        one(GOOD),
        2,
        "template-invalid",
        ["readings.yaml:7:"],
        edit=("tables/readings.yaml", "type: long", "type: [long"),
    ),
    Case(
        "a bad lakewarden.toml",
        one(GOOD),
        2,
        "settings-invalid",
        ["dataset.readings.batch"],
        edit=("lakewarden.toml", 'batch = "date"', 'batch = "hour"'),
    ),
]

CASES = [*MANIFESTS, *BYTES, *COLUMN_SETS, *ROWS, *JSON_LINES, *PARQUET, *OTHER]


@dataclass
class House:
    """One project for all cases; each gets a batch of its own."""

    project: Project
    days: Iterator[date] = field(
        default_factory=lambda: (date(2013, 1, 1) + timedelta(n) for n in count())
    )

    def deliver(self, case: Case, batch: str) -> str:
        """Put the case's files where a supplier would; returns the prefix."""
        prefix = f"raw/{case.dataset}/{batch}/"
        for name, body in case.files.items():
            self.project.objects.put(prefix + name, body)
        entries = [
            {"url": name, "sha256": hashlib.sha256(body).hexdigest()}
            for name, body in case.files.items()
        ]
        true = {"version": 1, "dataset": case.dataset, "batch": batch, "entries": entries}
        given = case.manifest(true)
        if given is not None:
            body = given if isinstance(given, bytes) else json.dumps(given).encode()
            self.project.objects.put(f"{prefix}_manifest.json", body)
        return prefix

    def run(self, case: Case, batch: str, prefix: str) -> LakewardenError | None:
        """As the case has it; the error that it ended with."""

        def tell(done: StageDone) -> None:
            if case.meanwhile is not None and done.stage == "receive":
                self.project.objects.put(prefix + FILE, case.meanwhile)

        try:
            with self.edited(case) as project:
                project().run(case.dataset, case.key or batch, tell=tell)
        except LakewardenError as error:
            return error
        return None

    @contextmanager
    def edited(self, case: Case) -> Iterator[Callable[[], Project]]:
        """The project, opened anew where one of its files is to be another for this case."""
        if case.edit is None:
            yield lambda: self.project
            return
        name, old, new = case.edit
        file = self.project.root / name
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))
        try:
            yield lambda: lakewarden.open(self.project.root)
        finally:
            file.write_text(text)

    def leftovers(self) -> list[str]:
        """What a run should not leave behind."""
        project = self.project
        return [
            *(branch.name for branch in project.lake.branches()),
            *(lease.key for lease in project.objects.list("ops/leases/")),
            *(str(path) for path in project.scratch.rglob("*")),
        ]

    def receipt(self, case: Case, batch: str) -> Receipt | None:
        """The last one of the batch's only run; None where there was no run."""
        runs = list_runs(self.project.objects, case.dataset)
        return next((run.last for run in runs if run.last.batch == batch), None)

    def ids(self, table: str, batch: str) -> list[int]:
        """The rows of a batch on main."""
        lake = self.project.lake
        scan = lake.load(lake.pin(), table).scan(
            EqualTo(term=Reference("_batch"), value=literal(batch))
        )
        found: list[int] = sorted(scan.to_arrow()["id"].to_pylist())
        return found


def write_project(folder: Path, stack: LocalStack) -> Path:
    """The project of this module, on a bucket of its own."""
    bucket = stack.bucket()
    (folder / "tables").mkdir(parents=True)
    toml = TOML.format(bucket=bucket)
    for name, (more, templates) in DATASETS.items():
        names = [text.partition("\n")[0].removeprefix("name: ") for text in templates]
        globs = [f'{n} = "{n if len(names) > 1 else ""}*.[cjp]*"' for n in names]
        toml += DATASET.format(name=name, tables=", ".join(globs), more=more)
        for table, text in zip(names, templates, strict=True):
            (folder / "tables" / f"{table}.yaml").write_text(text)
    (folder / "lakewarden.toml").write_text(toml)
    connection = stack.connection
    endpoint = {
        "format": 1,
        "endpoint": connection.endpoint,
        "region": connection.region,
        "bucket": bucket,
        "access_key": connection.access_key,
        "secret_key": connection.secret_key,
    }
    (folder / ".lakewarden" / "local").mkdir(parents=True)
    (folder / ".lakewarden" / "local" / "endpoint.json").write_text(json.dumps(endpoint))
    return folder


@pytest.fixture(scope="module")
def house(local_stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> House:
    folder = write_project(tmp_path_factory.mktemp("house") / "project", local_stack)
    drifted = folder / "tables" / "drifted.yaml"
    wanted = drifted.read_text()
    drifted.write_text(wanted.replace("type: int}", "type: string}"))
    lakewarden.open(folder).apply_tables()  # all tables are there, with nothing in them
    drifted.write_text(wanted)
    return House(lakewarden.open(folder))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_a_delivery_gets(house: House, case: Case) -> None:
    batch = str(next(house.days))
    prefix = house.deliver(case, batch)
    delivered = list(house.project.objects.list(prefix))
    before = house.project.lake.pin()

    error = house.run(case, batch, prefix)

    assert (error.exit_code if error else 0, error and error.code) == (case.code, case.error)
    if error:
        assert [part for part in case.says if part not in error.message] == []
        assert error.hint
        assert PRIVATE not in error.message + error.hint
    if case.meanwhile is None:
        assert list(house.project.objects.list(prefix)) == delivered
    assert house.leftovers() == []
    moved_alone(house, case, batch, before)
    told_by_a_receipt(house, case, batch)


def moved_alone(house: House, case: Case, batch: str, before: Pin) -> None:
    """Main moved by this batch and nothing else, or not at all."""
    after = house.project.lake.pin()
    if case.code:
        assert after == before
        return
    table = f"raw.{case.dataset}"
    assert int(after.version) == int(before.version) + 1
    assert {**after.tables, table: None} == {**before.tables, table: None}
    assert house.ids(table, batch) == list(case.ids)
    counts = house.project.lake.publications(case.dataset, batch)[0].contribution.counts
    loaded, quarantined = len(case.ids), len(case.misfits)
    assert counts == {"in": loaded + quarantined, "loaded": loaded, "quarantined": quarantined}


def told_by_a_receipt(house: House, case: Case, batch: str) -> None:
    """What the run left for people: how it ended, and the misfits byte for byte."""
    last = house.receipt(case, batch)
    if last is None:
        assert case.error in NO_RUN
        return
    assert last.outcome == {0: "ok", 2: "failed", 3: "refused"}[case.code]
    assert (last.error and last.error.code) == case.error
    assert PRIVATE not in last.model_dump_json()
    (told,) = last.batches
    kept = list(quarantine.read(house.project.objects, told.quarantine)) if told.quarantine else []
    assert [(m.line, m.column, m.reason, m.raw) for m in kept] == [
        (m.line, m.column, m.reason, m.raw) for m in case.misfits
    ]
    for found, misfit in zip(kept, case.misfits, strict=True):
        assert found.file in case.files
        assert found.file_sha256 == hashlib.sha256(case.files[found.file]).hexdigest()
        assert found.message.startswith(f"line {misfit.physical}: " if misfit.physical else "")
        assert PRIVATE not in found.message
    if kept:
        assert last.counts
        assert last.counts.quarantined == len(kept)
        assert last.counts.records_in == last.counts.loaded + last.counts.quarantined


# These are found before a run begins, so there is none to tell of.
NO_RUN = {"dataset-unknown", "batch-key-invalid", "template-invalid", "settings-invalid"}
