"""The record scanner against a slow, obvious reading of the same definition."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewarden.batch.parsing.records import (
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
    """(physical line, raw) of each record, character by character."""
    records, line, first_line, current, quoted, at = [], 1, 1, b"", False, 0
    while at < len(data):
        byte = data[at : at + 1]
        if form.escapes and byte == form.escapes:
            current += data[at : at + 2]
            at += 2
            continue
        if form.quote and byte == form.quote:
            quoted = not quoted
        if not quoted and data.startswith(end, at):
            if current:
                records.append((first_line, current))
            at += len(end)
            line += 1
            first_line, current = line, b""
            continue
        if quoted and byte in b"\r\n" and not (byte == b"\r" and data[at + 1 : at + 2] == b"\n"):
            line += 1
        current += byte
        at += 1
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
    st.lists(st.sampled_from([b"a", b",", b'"x"', b'"\\""', b'"\n"', b"\n"]), max_size=20),
    st.lists(st.integers(1, 5), max_size=20),
)
def test_backslash_escapes(pieces: list[bytes], sizes: list[int]) -> None:
    data = b"".join(pieces)
    try:
        found = count(chunked(data, sizes), BACKSLASH)
    except OpenQuote:
        pytest.fail("every quote here is closed")
    assert found == len(slow_records(data, BACKSLASH, b"\n"))


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


@pytest.mark.parametrize("sizes", [[], [1] * 30, [3, 4]])
def test_skipping_physical_lines(sizes: list[int]) -> None:
    chunks = chunked(b"title\nsecond\nthird\n", sizes)
    assert b"".join(skip_lines(chunks, 2)) == b"third\n"
    assert b"".join(skip_lines([b"only\n"], 2)) == b""
