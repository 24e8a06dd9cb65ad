"""Records as they were delivered, byte for byte: cut out of the pinned version a second time.

Only misfits are cut, so a batch without any never reads a byte twice.
"""

import codecs
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from pathlib import Path

from lakewarden.aws.objects import Objects
from lakewarden.batch.duck import DuckConfig, connect
from lakewarden.batch.model import DeliveredFile
from lakewarden.batch.parsing.origin import Origin
from lakewarden.batch.parsing.records import Record, RecordForm, cut, find, record_form, skip_lines
from lakewarden.batch.parsing.unpack import decoded, unpacked
from lakewarden.tables.template import FileFormat, Source

_MARK = codecs.BOM_UTF8


def raw_records(
    objects: Objects,
    file: DeliveredFile,
    source: Source,
    wanted: Collection[int],
    *,
    max_bytes: int,
    scratch: Path,
) -> Iterator[Record]:
    """The wanted records of a file in order, as they were delivered, without their line ends and
    without a byte order mark; a Parquet row is told as a JSON object."""
    stored = objects.stream(file.version)
    if source.format is FileFormat.PARQUET:
        yield from _rows(stored, wanted, scratch)
        return
    options = source.csv_options
    data = unpacked(stored, max_bytes=max_bytes)
    form = record_form(source.format, options)
    if codecs.lookup(options.encoding).name in ("ascii", "utf-8", "utf-8-sig"):
        text = decoded(data, options.encoding)
        found = cut(skip_lines(text, options.skip_rows), form, wanted)
    else:
        found = _cut_decoded(data, options.encoding, form, wanted, options.skip_rows)
    for record in found:
        yield record._replace(physical_line=record.physical_line + options.skip_rows)


def _cut_decoded(
    data: Iterable[bytes], encoding: str, form: RecordForm, wanted: Collection[int], skip: int
) -> Iterator[Record]:
    """Found in the text, where a quote is a quote, and cut from the bytes that it came from."""
    origin = Origin(encoding)
    text = _without_mark(origin.decode(data))
    skipped = 0

    def after_skipping() -> Iterator[bytes]:
        nonlocal skipped
        pieces = skip_lines(text, skip)
        for first in pieces:
            skipped = origin.passed - len(first)
            yield from chain((first,), pieces)

    for base, whole, spans in find(after_skipping(), form, wanted):
        for number, line, start, end, after in spans:
            raw = origin.between(skipped + start, skipped + after, after - end)
            yield Record(number, line, raw)
        origin.forget(skipped + base + len(whole))


def _without_mark(text: Iterator[bytes]) -> Iterator[bytes]:
    first = b""
    for piece in text:
        first += piece
        if len(first) >= len(_MARK):
            break
    yield from chain((first.removeprefix(_MARK),), text)


def _rows(stored: Iterable[bytes], wanted: Collection[int], scratch: Path) -> Iterator[Record]:
    path = scratch / "misfits.parquet"
    with path.open("wb") as output:
        output.writelines(stored)
    with connect(DuckConfig(scratch, threads=1)) as connection:
        connection.execute(
            "SELECT k, row FROM (SELECT to_json(t)::VARCHAR AS row, row_number() OVER () AS k"
            "                    FROM read_parquet(?, hive_partitioning = false) AS t)"
            " WHERE k IN (SELECT unnest(?)) ORDER BY k",
            [str(path), sorted(wanted)],
        )
        while rows := connection.fetchmany(1_000):
            for number, row in rows:
                yield Record(number, number, str(row).encode())
    path.unlink()
