"""The record scanner against a slow, obvious reading of the same definition."""

import csv
import io
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewarden.batch.parsing.records import (
    MAX_RECORD_BYTES,
    MixedLineEnds,
    OpenQuote,
    RecordForm,
    RecordScanner,
    count,
    cut,
    skip_lines,
)

CSV = RecordForm()
PLAIN = RecordForm(quote=None)
BACKSLASH = RecordForm(escape=b"\\")


def slow_records(data: bytes, form: RecordForm, end: bytes) -> list[tuple[int, bytes]]:
    """(physical line, raw) of each record, character by character; OpenQuote where the last one
    never ends."""
    records: list[tuple[int, bytes]] = []
    line = first_line = 1
    current, at, quoted = b"", 0, False
    field = b""  # what is there of the field, as long as it is not quoted
    while at < len(data):
        byte = data[at : at + 1]
        if quoted:
            if form.escapes and byte == form.escapes:
                byte = data[at : at + 2]
            elif byte == form.quote and data[at + 1 : at + 2] == form.quote:
                byte = byte * 2
            elif byte == form.quote:
                quoted, field = False, b"closed"
            line += byte.endswith(b"\n") or (
                byte.endswith(b"\r") and data[at + 1 : at + 2] != b"\n"
            )
        elif data.startswith(end, at):
            if current:
                records.append((first_line, current))
            line += 1
            first_line, current, field = line, b"", b""
            at += len(end)
            continue
        elif byte == form.delimiter:
            field = b""
        elif byte == form.quote and field in (b"", b" "):
            quoted = True
        else:
            field += byte
        current += byte
        at += len(byte)
    if quoted:
        raise OpenQuote("the last")
    if current:
        records.append((first_line, current))
    return records


def chunked(data: bytes, sizes: list[int]) -> list[bytes]:
    chunks, at = [], 0
    for size in sizes:
        chunks.append(data[at : at + size])
        at += size
    return [*chunks, data[at:]]


field = st.text(st.sampled_from('ab,é日"'), max_size=5).map(
    lambda text: '"' + text.replace('"', '""') + '"' if '"' in text else text
)
inner = st.text(st.sampled_from('a,\n\r"'), max_size=6).map(
    lambda text: '"' + text.replace('"', '""') + '"'
)
record = st.lists(st.one_of(field, inner), min_size=1, max_size=3).map(",".join)
ends = st.sampled_from(["\n", "\r\n", "\r"])


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, bytes]:
    end = draw(ends)
    rows = draw(st.lists(st.one_of(record, st.just("")), max_size=8))
    last = draw(st.sampled_from([end, ""]))
    return (end.join(rows) + last).encode(), end.encode()


@given(files(), st.lists(st.integers(1, 9), max_size=20))
def test_counting_agrees_with_reading_by_character(
    file: tuple[bytes, bytes], sizes: list[int]
) -> None:
    data, end = file
    expected = slow_records(data, CSV, end)
    scanner = RecordScanner(CSV)
    out = b"".join(scanner.feed(chunk) for chunk in chunked(data, sizes)) + scanner.finish()
    assert scanner.records == len(expected)
    assert out.rstrip(b"\r\n") == end.join(raw for _, raw in expected)


@given(files(), st.lists(st.integers(1, 9), max_size=20), st.data())
def test_every_record_is_cut_byte_for_byte(
    file: tuple[bytes, bytes], sizes: list[int], data: st.DataObject
) -> None:
    text, end = file
    expected = slow_records(text, CSV, end)
    numbers = range(1, len(expected) + 1)
    wanted = data.draw(st.sets(st.sampled_from(numbers))) if expected else set()
    got = {found.number: found for found in cut(chunked(text, sizes), CSV, wanted)}
    assert set(got) == wanted
    for number, found in got.items():
        line, raw = expected[number - 1]
        assert found.raw == raw.rstrip(b"\r\n")
        assert found.physical_line == line


@given(
    st.lists(st.sampled_from(list('a,"\\ \n')), max_size=25),
    st.lists(st.integers(1, 5), max_size=20),
    st.sampled_from([CSV, BACKSLASH, RecordForm(b"'", None, b";"), PLAIN]),
)
def test_quotes_anywhere(characters: list[str], sizes: list[int], form: RecordForm) -> None:
    """Most of these are damaged. They are told apart all the same, in chunks of any size."""
    data = "".join(characters).encode()
    data = data.replace(b'"', form.quote or b'"').replace(b",", form.delimiter)
    try:
        expected = slow_records(data, form, b"\n")
    except OpenQuote:
        with pytest.raises(OpenQuote):
            count(chunked(data, sizes), form)
        return
    found = list(cut(chunked(data, sizes), form, range(1, len(expected) + 1)))
    assert [(record.physical_line, record.raw) for record in found] == expected
    assert count(chunked(data, sizes), form) == len(expected)


@given(files(), st.integers(1, 9), st.lists(st.integers(1, 9), max_size=20))
def test_what_fits_the_form_leaves_no_doubt(
    file: tuple[bytes, bytes], fields: int, sizes: list[int]
) -> None:
    data, _ = file
    rows = list(csv.reader(io.StringIO(data.decode(), newline="")))
    scanner = RecordScanner(RecordForm(fields=fields))
    for chunk in chunked(data, sizes):
        scanner.feed(chunk)
    scanner.finish()
    if all(len(row) == fields for row in rows if row):
        assert scanner.doubts == 0
    elif all(len(row) > fields for row in rows if row):
        assert scanner.doubts > 0


@pytest.mark.parametrize(
    "data", [b"a\nb\r\nc\n", b"a\r\nb\nc", b"a\rb\n", b'"x"\r\ny\n', b"a\n\rb\n"]
)
@pytest.mark.parametrize("size", [1, 2, 100])
def test_mixed_line_ends_are_refused(data: bytes, size: int) -> None:
    with pytest.raises(MixedLineEnds):
        count(chunked(data, [size] * len(data)), CSV)


def test_an_open_quote_names_the_record_where_it_opened() -> None:
    with pytest.raises(OpenQuote, match="record 3 "):
        count([b'a,b\n1,2\n3,"four\n5,6\n'], CSV)


def test_without_quoting_a_quote_is_an_ordinary_byte() -> None:
    assert count([b'a "b\nc\n'], PLAIN) == 2


def test_nul_is_noticed_and_blank_lines_are_counted_apart() -> None:
    scanner = RecordScanner(CSV)
    assert scanner.feed(b"a\n\n\nb\0\n") == b"a\nb\0\n"
    assert (scanner.records, scanner.blank_lines, scanner.has_nul) == (2, 2, True)
    assert scanner.physical_lines == 4


@given(
    st.lists(st.sampled_from(["a", "", "bc"]), max_size=6),
    ends,
    st.integers(0, 7),
    st.lists(st.integers(1, 4), max_size=20),
)
def test_skipping_physical_lines(
    lines: list[str], end: str, skipped: int, sizes: list[int]
) -> None:
    data = "".join(line + end for line in lines).encode()
    rest = "".join(line + end for line in lines[skipped:]).encode()
    assert b"".join(skip_lines(chunked(data, sizes), skipped)) == rest


@pytest.mark.parametrize("size", [1 << 10, 8 << 20])
def test_a_huge_record_costs_no_more_than_its_bytes(size: int) -> None:
    """A quoted field of 60 MiB, in chunks of any size: seconds would mean that it is looked at
    again and again."""
    filler = b'line, ""quoted""\n' * 64
    record = b'"' + filler * ((60 << 20) // len(filler)) + b'",1\n'
    chunks = [record[at : at + size] for at in range(0, len(record), size)]
    began = time.process_time()
    assert count([*chunks, b"2,3\n"], CSV) == 2
    assert time.process_time() - began < 10


def test_a_record_without_end_is_given_up_early() -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        yield b'1,2\n3,"'
        while True:
            taken += 1 << 20
            yield b"four\n" * ((1 << 20) // 5)

    with pytest.raises(OpenQuote, match=r"record 2 \(line 2\) has no end within 64 MiB"):
        count(endless(), CSV)
    assert taken < 3 * MAX_RECORD_BYTES
