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
from lakewarden.batch.parsing.records import (
    Record,
    RecordForm,
    RecordScanner,
    cut,
    record_form,
    skip_lines,
)
from lakewarden.batch.parsing.unpack import unpacked
from lakewarden.tables.template import FileFormat, Source

# Codecs in which a quote or a line end is always that one byte and never part of another
# character. (Escapes may be, in cp932, gbk and big5: see `_is_transparent`.)
_TRANSPARENT = frozenset(
    {"ascii", "utf-8", "utf-8-sig", "shift_jis", "shift_jis_2004", "shift_jisx0213", "cp932"}
    | {"euc_jp", "euc_jis_2004", "euc_jisx0213", "euc_kr", "cp949", "johab", "gb2312", "gbk"}
    | {"gb18030", "big5", "big5hkscs", "cp950"}
)


def raw_records(
    objects: Objects,
    file: DeliveredFile,
    source: Source,
    wanted: Collection[int],
    *,
    max_bytes: int,
    scratch: Path,
) -> Iterator[Record]:
    """The wanted records of a file in order; a Parquet row is told as a JSON object."""
    stored = objects.stream(file.version)
    if source.format is FileFormat.PARQUET:
        yield from _rows(stored, wanted, scratch)
        return
    options = source.csv_options
    data = unpacked(stored, max_bytes=max_bytes)
    form = record_form(source.format, source.csv_options)
    if _is_transparent(options.encoding, form):
        found = cut(skip_lines(data, options.skip_rows), form, wanted)
    else:
        found = _cut_encoded(data, options.encoding, form, wanted, options.skip_rows)
    for record in found:
        yield record._replace(physical_line=record.physical_line + options.skip_rows)


def _is_transparent(encoding: str, form: RecordForm) -> bool:
    if form.escapes and encoding not in ("ascii", "utf-8", "utf-8-sig"):
        return False
    return encoding in _TRANSPARENT or _is_single_byte(encoding)


def _is_single_byte(encoding: str) -> bool:
    """Whether every byte is one character, with ASCII in its place (latin-1, cp1252, koi8-r)."""
    every = bytes(range(256))
    text = codecs.decode(every, encoding, "replace")
    return len(text) == 256 and text[:128].encode("ascii", "replace") == every[:128]


def _cut_encoded(
    data: Iterable[bytes], encoding: str, form: RecordForm, wanted: Collection[int], skip: int
) -> Iterator[Record]:
    """The same for codecs that hide quotes and line ends (UTF-16, ISO 2022): byte by byte."""
    last = max(wanted, default=0)
    scanner = RecordScanner(form, keep_blank=True)
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    characters: list[tuple[str, bytes]] = []  # of the record that has begun
    undecoded = b""
    number = 0
    line = 1
    for byte in chain.from_iterable(data):
        undecoded += bytes((byte,))
        text = decoder.decode(undecoded[-1:]).removeprefix("\ufeff")
        if not text:
            continue
        piece, undecoded = (text, undecoded), b""
        if skip:
            skip -= text.count("\n")
            continue
        whole = scanner.feed(text.encode())
        ends_here = text in "\r\n"
        if ends_here:
            characters.append(piece)
        if whole:
            raw = _joined(characters)
            if whole.strip(b"\r\n"):
                number += 1
                if number in wanted:
                    yield Record(number, line, raw)
                if number == last:
                    return
            line += len(whole.splitlines())
            characters = []
        if not ends_here:
            characters.append(piece)
    if scanner.finish().strip(b"\r\n") and number + 1 in wanted:
        yield Record(number + 1, line, _joined(characters))


def _joined(characters: list[tuple[str, bytes]]) -> bytes:
    """The bytes of a record without its line end."""
    end = len(characters)
    while end and characters[end - 1][0] in "\r\n":
        end -= 1
    return b"".join(raw for _, raw in characters[:end])


def _rows(stored: Iterable[bytes], wanted: Collection[int], scratch: Path) -> Iterator[Record]:
    path = scratch / "misfits.parquet"
    with path.open("wb") as output:
        output.writelines(stored)
    # A merge patch with null takes DuckDB's own column out of the row again.
    with connect(DuckConfig(scratch)) as connection:
        connection.execute(
            "SELECT k, json_merge_patch(to_json(t), '{\"file_row_number\": null}')::VARCHAR"
            " FROM (SELECT t, t.file_row_number + 1 AS k"
            "       FROM read_parquet(?, file_row_number = true) AS t)"
            " WHERE k IN (SELECT unnest(?)) ORDER BY k",
            [str(path), sorted(wanted)],
        )
        while rows := connection.fetchmany(1_000):
            for number, row in rows:
                yield Record(number, number, str(row).encode())
    path.unlink()
