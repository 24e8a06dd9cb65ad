"""Misfits are found again, byte for byte, in what was delivered: whatever it is encoded in."""

import codecs
import gzip
import time
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lakewarden.batch.model import DeliveredFile
from lakewarden.batch.parsing.raw import raw_records
from lakewarden.tables.template import CsvOptions, FileFormat, Source
from tests.fakes.objects import MemoryObjects

# encoding → the codec that adds no mark, and the mark
ENCODINGS = {
    "utf-8": ("utf-8", b""),
    "utf-8-sig": ("utf-8", codecs.BOM_UTF8),
    "utf-16": ("utf-16-be", codecs.BOM_UTF16_BE),
    "utf-16-le": ("utf-16-le", b""),
    "utf-32": ("utf-32-le", codecs.BOM_UTF32_LE),
    **{
        name: (name, b"")
        for name in ["cp932", "shift_jis", "euc_jp", "latin-1", "iso2022_jp", "iso2022_jp_2004",
                     "gb18030", "big5", "utf-7", "hz", "cp1252"]
    },
}  # fmt: skip


def write(lines: list[str], end: str, codec: str, *, ended: bool) -> tuple[bytes, list[bytes]]:
    """A file, and the bytes of each of its lines without their ends. What leaves another character
    set before a line's end belongs to the line."""
    encoder = codecs.getincrementalencoder(codec)()
    end_bytes = len(end) * (len("\n\n".encode(codec)) - len("\n".encode(codec)))
    stored, raws = b"", []
    for number, line in enumerate(lines, start=1):
        raw = encoder.encode(line)
        if number < len(lines) or ended:
            ending = encoder.encode(end, final=number == len(lines))
            raws.append(raw + ending[:-end_bytes])
            stored += raws[-1] + ending[-end_bytes:]
        else:
            raws.append(raw + encoder.encode("", final=True))
            stored += raws[-1]
    return stored, raws


def cut_out(stored: bytes, options: CsvOptions, wanted: list[int]) -> list[tuple[int, int, bytes]]:
    objects = MemoryObjects()
    file = DeliveredFile("f", "raw.t", objects.put("f", stored), None, None, None)
    source = Source(FileFormat.CSV, options)
    found = raw_records(objects, file, source, wanted, max_bytes=1 << 40, scratch=Path())
    return [(record.number, record.physical_line, record.raw) for record in found]


@given(
    st.lists(st.text('ab,"é日本髙ポソ|\\~', max_size=12), max_size=8),
    st.sampled_from(list(ENCODINGS)),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.integers(0, 2),
    st.booleans(),
    st.booleans(),
    st.data(),
)
def test_each_line_is_found_in_the_bytes_it_was_delivered_in(
    lines: list[str],
    encoding: str,
    end: str,
    skipped: int,
    ended: bool,
    marked: bool,
    data: st.DataObject,
) -> None:
    codec, mark = ENCODINGS[encoding]
    if marked and codec.startswith(("utf-8", "utf-16-le", "gb18030")):
        mark = "\ufeff".encode(codec)
    try:
        stored, raws = write(lines, end, codec, ended=ended)
    except UnicodeEncodeError:
        assume(False)
    if stored.decode(codec) != end.join(lines) + (end if ended and lines else ""):
        assume(False)  # some codecs have two ways to say the same
    content = [
        (line, raw)
        for line, (raw, text) in enumerate(zip(raws, lines, strict=True), start=1)
        if text and line > skipped
    ]
    expected = [(number, *found) for number, found in enumerate(content, start=1)]
    wanted = data.draw(st.sets(st.sampled_from(expected))) if expected else set()
    options = CsvOptions(header=False, quote=None, skip_rows=skipped, encoding=encoding)
    assert cut_out(mark + stored, options, [found[0] for found in wanted]) == sorted(wanted)


@pytest.mark.parametrize("encoding", ["cp932", "utf-16", "iso2022_jp", "euc_jp"])
def test_a_quote_is_one_in_the_text_not_in_the_bytes(encoding: str) -> None:
    """ポ ends with | in Shift_JIS, ソ with a backslash; in ISO 2022 many characters have a byte
    that is a quote in ASCII."""
    fields = ["ポ", "ソ", "表", "ア", "\u3042\n\u3042", "本"]
    text = "".join(f"{number}|'{field}'\n" for number, field in enumerate(fields))
    stored = text.encode(encoding)
    options = CsvOptions(header=False, quote="'", escape="\\", delimiter="|", encoding=encoding)
    found = cut_out(stored, options, [2, 5, 6])
    assert [(number, line) for number, line, _ in found] == [(2, 2), (5, 5), (6, 7)]
    marks = {"utf-16": "utf-16-le"}
    codec = marks.get(encoding, encoding)
    assert [raw for _, _, raw in found] == [
        f"{number}|'{fields[number]}'".encode(codec) for number in (1, 4, 5)
    ]


def test_many_misfits_in_a_large_file_take_seconds() -> None:
    line = "髙橋,日本,1234567890,abcdefghij\n".encode("cp932")
    stored = gzip.compress(line * 400_000, 1)
    began = time.process_time()
    options = CsvOptions(header=False, encoding="cp932")
    found = cut_out(stored, options, list(range(1, 400_000, 40)))
    assert {raw for _, _, raw in found} == {line.rstrip(b"\n")}
    assert time.process_time() - began < 15
