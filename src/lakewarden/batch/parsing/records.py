"""Counting and cutting records, independently of the parser that loads them.

A record is a non-blank logical line: it ends at the first line end outside quotes. A quote opens a
field where it is its first character, or the second after a space (as DuckDB has it, which then
leaves out the spaces around the quotes); any other quote in a field that began without is text.
Blank lines are counted apart. The scanner folds over UTF-8, in chunks of any size.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from lakewarden.batch.parsing import bits
from lakewarden.batch.parsing.bits import Bits, Positions
from lakewarden.errors import Refused
from lakewarden.tables.template import CsvOptions, FileFormat

# A record longer than this has no end that we would believe in.
MAX_RECORD_BYTES = 64 << 20

_LF, _CR = 0x0A, 0x0D


class MixedLineEnds(Refused):
    """Records end in more than one way, so they cannot be told apart."""


class OpenQuote(Refused):
    """A quote is opened and never closed, so the records after it cannot be told apart."""


@dataclass(frozen=True)
class RecordForm:
    """How records are quoted and delimited. `quote` None: never. `escape` None or equal to it:
    doubled quotes. `fields` is how many each record should have; None: nobody knows yet."""

    quote: bytes | None = b'"'
    escape: bytes | None = None
    delimiter: bytes = b","
    fields: int | None = None

    @property
    def escapes(self) -> bytes | None:
        """The escape byte, where it is one of its own."""
        return self.escape if self.quote and self.escape and self.escape != self.quote else None

    @cached_property
    def record(self) -> re.Pattern[bytes]:
        """One record, whatever its quotes look like; group 1 is its line end."""
        return _record_pattern(self)

    def field(self, *, strict: bool) -> bytes:
        """The pattern of one field. `strict`: as the form wants it; otherwise also text after a
        closing quote (up to the next delimiter) and doubled quotes where an escape is due."""
        rest = b"[^%b\r\n]*+" % re.escape(self.delimiter)
        if not self.quote:
            return rest
        quote, escape = re.escape(self.quote), self.escapes
        space, spaces = (b"", b"") if self.delimiter == b" " else (b" ?+", b" *+")
        inside = b"[^%b]++" % quote
        doubled = b"|" + quote * 2
        if escape:
            inside = b"[^%b%b]++|%b(?s:.)" % (quote, re.escape(escape), re.escape(escape))
            doubled = b"" if strict else doubled
        after = spaces + b"(?=%b|\\Z)" % re.escape(self.delimiter) if strict else rest
        quoted = space + quote + b"(?:" + inside + doubled + b")*+" + quote + after
        return b"(?>" + quoted + b"|(?!" + space + quote + b")" + rest + b")"


# No text may hold this raw: JSON forbids it, so a JSON line is always one field.
JSON_DELIMITER = b"\x1f"


def record_form(kind: FileFormat, options: CsvOptions, fields: int | None = None) -> RecordForm:
    """How a text source's records are quoted: JSON lines never, CSV as its options say."""
    if kind is FileFormat.JSON:
        return RecordForm(quote=None, delimiter=JSON_DELIMITER, fields=1)
    quote = options.quote.encode() if options.quote else None
    escape = options.escape.encode() if options.escape else None
    return RecordForm(quote, escape, options.delimiter.encode(), fields)


def _record_pattern(form: RecordForm) -> re.Pattern[bytes]:
    field, delimiter = form.field(strict=False), re.escape(form.delimiter)
    return re.compile(field + b"(?:" + delimiter + field + b")*+(\r\n|\n|\r)")


class Record(NamedTuple):
    """One record as it was cut: numbers from 1; `raw` without its line end."""

    number: int
    physical_line: int
    raw: bytes


class Span(NamedTuple):
    """Where a record stands in the bytes that were scanned, and where its line end stops."""

    number: int
    physical_line: int
    start: int
    end: int
    after: int


class RecordScanner:
    """A fold over chunks: `feed` returns the whole records so far, without blank lines.

    `skipped`: physical lines that were left out before the first byte, for messages."""

    def __init__(self, form: RecordForm, *, keep_blank: bool = False, skipped: int = 0) -> None:
        self._form = form
        self._keep_blank = keep_blank
        self._skipped = skipped
        self._pending = b""  # from the start of the record that has no end yet
        self._waiting: list[bytes] = []  # what came after it
        self._waiting_bytes = 0
        self._line_end: bytes | None = None
        self.records = 0
        self.blank_lines = 0
        self.lines_before_first = 0  # blank ones, before the first record
        self.inner_lines = 0  # line ends within quotes
        self.has_nul = False
        self.has_quotes = False
        # How often there was something that a parser may read otherwise than we do: a quote where
        # the form puts none, more delimiters than the fields need.
        self.doubts = 0

    @property
    def line_end(self) -> bytes:
        """What ends a record; LF as long as none has ended."""
        return self._line_end or b"\n"

    @property
    def physical_lines(self) -> int:
        """Line ends passed so far."""
        return self.records + self.blank_lines + self.inner_lines

    def feed(self, chunk: bytes) -> bytes:
        """Take more bytes; return what is complete: whole records with their line ends."""
        if not chunk:
            return b""
        if b"\0" in chunk:
            self.has_nul = True
        self._waiting.append(chunk)
        self._waiting_bytes += len(chunk)
        # A long record is looked at again only when it has doubled, so that its cost stays linear.
        held = len(self._pending)
        if self._waiting_bytes < held and held + self._waiting_bytes <= MAX_RECORD_BYTES:
            return b""
        return self._scan(self._take())

    def finish(self) -> bytes:
        """Take the end of the input; return the last record where no line end followed it."""
        data = self._take()
        out = self._scan(data, last=True) if data else b""
        rest = self._take()
        if rest:
            out += self._scan(rest + self.line_end, last=True)
        if self._pending:
            raise OpenQuote(
                f"{self._place()} opens a quote that is never closed",
                hint="Deliver the file whole, or set csv_options.quote to what the file uses"
                " (null for none).",
            )
        return out

    def spans(self, whole: bytes) -> tuple[Positions, Positions]:
        """Where each record starts and ends (line end included) in what `feed` returned."""
        ends = bits.positions(self._ends(_outside(whole, self._form))) + 1
        starts = np.concatenate((np.zeros(1, dtype=np.int64), ends))[: len(ends)]
        records = (ends - starts) > len(self.line_end)
        return starts[records], ends[records]

    def _take(self) -> bytes:
        pieces = [self._pending, *self._waiting] if self._pending else self._waiting
        data = b"".join(pieces)
        self._pending, self._waiting, self._waiting_bytes = b"", [], 0
        return data

    def _scan(self, data: bytes, *, last: bool = False) -> bytes:
        """Release whole records; `data` begins where a record does."""
        held = b""
        if data.endswith(b"\r") and not last:  # its LF may come with the next chunk
            data, held = data[:-1], b"\r"
        whole, cut = self._whole(data)
        self._pending = data[cut:] + held
        if len(self._pending) > MAX_RECORD_BYTES:
            raise OpenQuote(
                f"{self._place()} has no end within {MAX_RECORD_BYTES >> 20} MiB",
                hint="Look for an open quote there, or set csv_options.quote to what it uses.",
            )
        return whole

    def _whole(self, data: bytes) -> tuple[bytes, int]:
        """The whole records, without blank lines, and where they end."""
        seen = _outside(data, self._form)
        kinds = seen.line_ends()
        if not self._agree(*kinds):
            raise self._mixed(data, bits.positions(seen.line_feeds | seen.returns))
        ends = self._ends(seen)
        cut = bits.last(ends) + 1
        if not cut:
            return b"", 0
        if self._form.quote and self._form.quote in data:
            self.has_quotes = True
        if seen.inner.any():
            self.inner_lines += bits.count(seen.inner, cut)
        blank = ends & bits.later(ends, len(self.line_end), start=True)
        if not blank.any():
            self._pass(sum(kinds), seen, cut)
            return data[:cut], cut
        return self._without_blank(data, bits.positions(ends) + 1, seen), cut

    def _without_blank(self, data: bytes, ends: Positions, seen: "_Outside") -> bytes:
        starts = np.concatenate((np.zeros(1, dtype=np.int64), ends[:-1]))
        blank = (ends - starts) == len(self.line_end)
        cut, blanks = int(ends[-1]), int(blank.sum())
        if not self.records:
            self.lines_before_first += blanks if blank.all() else int(np.argmin(blank))
        self.blank_lines += blanks
        self._pass(len(ends) - blanks, seen, cut)
        return data[:cut] if self._keep_blank else _without(data, starts[blank], ends[blank], cut)

    def _pass(self, records: int, seen: "_Outside", cut: int) -> None:
        """Doubt that every record has its fields, where there are not as many delimiters."""
        self.records += records
        fields = self._form.fields
        if seen.delimiters is None:
            self.doubts += 1
        elif fields is not None:
            self.doubts += bits.count(seen.delimiters, cut) != records * (fields - 1)

    def _ends(self, seen: "_Outside") -> Bits:
        """The last byte of each line end."""
        return seen.returns if self._line_end == b"\r" else seen.line_feeds

    def _agree(self, line_feeds: int, returns: int, pairs: int) -> bool:
        """Whether all records end alike so far; otherwise nobody can tell them apart."""
        seen = [
            end for end, count in ((b"\r\n", pairs), (b"\n", line_feeds), (b"\r", returns)) if count
        ]
        if self._line_end is None and len(seen) == 1:
            self._line_end = seen[0]
        return all(end == self._line_end for end in seen)

    def _mixed(self, data: bytes, outside: Positions) -> MixedLineEnds:
        """Where the first line end stands that is not like those before it."""
        record, start, at, end = self.records + 1, 0, 0, b""
        for at in outside.tolist():
            if at < start:  # the LF of a CRLF
                continue
            end = b"\r\n" if data.startswith(b"\r\n", at) else data[at : at + 1]
            if self._line_end is None:
                self._line_end = end
            if end != self._line_end:
                break
            record += at > start
            start = at + len(end)
        line = self._skipped + self.physical_lines + _line_ends_in(data[:at]) + 1
        return MixedLineEnds(
            f"line ends are mixed: {_END_NAMES[end]} at record {record} (line {line}),"
            f" {_END_NAMES[self._line_end or b'']} before",
            hint="Deliver the file with one kind of line end.",
        )

    def _place(self) -> str:
        """The record that has begun, and the physical line that it begins on."""
        return f"record {self.records + 1} (line {self._skipped + self.physical_lines + 1})"


_END_NAMES = {b"\r\n": "CRLF", b"\n": "LF", b"\r": "CR", b"": "none"}


class _Outside(NamedTuple):
    """What stands outside quotes in data that begin with a record, and the last byte of each line
    end inside them. `delimiters` None: quotes are not where the form puts them, so a parser may see
    other fields than we do."""

    line_feeds: Bits
    returns: Bits
    delimiters: Bits | None
    inner: Bits

    def line_ends(self) -> tuple[int, int, int]:
        """How many LF, CR and CRLF there are."""
        line_feeds = bits.count(self.line_feeds)
        if not self.returns.any():
            return line_feeds, 0, 0
        pairs = bits.count(self.line_feeds & bits.later(self.returns))
        return line_feeds - pairs, bits.count(self.returns) - pairs, pairs


def _outside(data: bytes, form: RecordForm) -> _Outside:
    codes = np.frombuffer(data, dtype=np.uint8)
    line_feeds, delimiters = bits.where(codes, _LF), bits.where(codes, form.delimiter[0])
    nothing = np.zeros_like(line_feeds)
    returns = bits.where(codes, _CR) if b"\r" in data else nothing
    if not form.quote or form.quote not in data:
        return _Outside(line_feeds, returns, delimiters, nothing)
    quotes = bits.where(codes, form.quote[0])
    inside = bits.between(quotes)
    clear = not (form.escapes and form.escapes in data) and _regular(
        quotes, inside, line_feeds | returns | delimiters, len(data)
    )
    if not clear:
        inside = ~bits.at(_outside_by_record(data, form.record), len(data))
    inner = (line_feeds | (returns & ~bits.earlier(line_feeds))) & inside
    return _Outside(
        line_feeds & ~inside, returns & ~inside, delimiters & ~inside if clear else None, inner
    )


def _regular(quotes: Bits, inside: Bits, edges: Bits, size: int) -> bool:
    """Whether every opening quote follows a delimiter or a line end, and every closing one is
    followed by one, so that every parser sees them alike. A doubled quote closes and opens."""
    opening = quotes & inside
    closing = quotes ^ opening
    edges[size // 64] |= np.uint64(1) << np.uint64(size % 64)
    stray_opening = opening & ~bits.later(edges | closing, start=True)
    stray_closing = closing & ~bits.earlier(edges | opening)
    return not (stray_opening.any() or stray_closing.any())


def _outside_by_record(data: bytes, record: re.Pattern[bytes]) -> Positions:
    marks: list[int] = []
    at = 0
    while found := record.match(data, at):
        marks.extend(range(*found.span(1)))
        at = found.end()
    return np.array(marks, dtype=np.int64)


def _line_ends(data: bytes, end: int | None = None) -> tuple[int, int, int]:
    """How many LF, CR and (counted in both) CRLF there are, up to `end`."""
    line_feeds, returns = data.count(b"\n", 0, end), data.count(b"\r", 0, end)
    return line_feeds, returns, data.count(b"\r\n", 0, end) if line_feeds and returns else 0


def _line_ends_in(data: bytes) -> int:
    line_feeds, returns, pairs = _line_ends(data)
    return line_feeds + returns - pairs


def _without(data: bytes, starts: Positions, ends: Positions, cut: int) -> bytes:
    kept: list[bytes] = []
    at = 0
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        kept.append(data[at:start])
        at = end
    kept.append(data[at:cut])
    return b"".join(kept)


def count(chunks: Iterable[bytes], form: RecordForm) -> int:
    """The records in a stream of bytes."""
    scanner = RecordScanner(form)
    for chunk in chunks:
        scanner.feed(chunk)
    scanner.finish()
    return scanner.records


def cut(chunks: Iterable[bytes], form: RecordForm, wanted: Iterable[int]) -> Iterator[Record]:
    """The wanted records (numbers from 1), in order, byte for byte, with their physical lines."""
    for base, whole, spans in find(chunks, form, wanted):
        for span in spans:
            raw = whole[span.start - base : span.end - base]
            yield Record(span.number, span.physical_line, raw)


def find(
    chunks: Iterable[bytes], form: RecordForm, wanted: Iterable[int]
) -> Iterator[tuple[int, bytes, Sequence[Span]]]:
    """Go through the text up to the last wanted record: for each stretch of whole records where it
    begins, its bytes, and where the wanted ones in it (numbers from 1) stand, in order."""
    numbers = sorted(set(wanted), reverse=True)
    scanner = RecordScanner(form, keep_blank=True)
    base = number = line = 0
    for whole in _wholes(scanner, chunks):
        if not numbers:
            return
        starts, ends = scanner.spans(whole)
        first, number = number, number + len(starts)
        found: list[Span] = []
        at = 0
        while numbers and numbers[-1] <= number:
            start = int(starts[numbers[-1] - first - 1])
            after = int(ends[numbers[-1] - first - 1])
            line += _line_ends_in(whole[at:start])
            at = start
            end = after - (2 if whole.endswith(b"\r\n", start, after) else 1)
            found.append(Span(numbers.pop(), line + 1, base + start, base + end, base + after))
        line += _line_ends_in(whole[at:])
        yield base, whole, found
        base += len(whole)


def skip_lines(chunks: Iterable[bytes], lines: int) -> Iterator[bytes]:
    """The stream after its first physical lines, which end with LF, CRLF or CR."""
    held = b""
    for chunk in chunks:
        data, held = held + chunk, b""
        at = 0
        while lines and (found := _LINE_END.search(data, at)):
            if found.end() == len(data) and found[0] == b"\r":
                held = b"\r"  # its LF may come with the next chunk
                break
            at, lines = found.end(), lines - 1
        if not lines and at < len(data):
            yield data[at:]


_LINE_END = re.compile(rb"\r\n|\n|\r")


def _wholes(scanner: RecordScanner, chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        yield scanner.feed(chunk)
    yield scanner.finish()
