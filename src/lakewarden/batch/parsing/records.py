"""Counting and cutting records, independently of the parser that loads them.

A record is a non-blank logical line: it ends at the first line end outside quotes. Blank lines
are counted apart. The scanner folds over bytes in which quotes and line ends are the ASCII ones
(UTF-8, or a codec whose other bytes never collide with them), in chunks of any size.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lakewarden.errors import Refused
from lakewarden.tables.template import CsvOptions, FileFormat

# A record longer than this has no end that we would believe in.
MAX_RECORD_BYTES = 64 << 20

_LF, _CR = 0x0A, 0x0D
_Positions = npt.NDArray[np.int64]


class MixedLineEnds(Refused):
    """Records end in more than one way, so they cannot be told apart."""


class OpenQuote(Refused):
    """A quote is opened and never closed, so the records after it cannot be told apart."""


@dataclass(frozen=True)
class RecordForm:
    """How records are quoted. `quote` None: never. `escape` None or equal to it: doubled quotes."""

    quote: bytes | None = b'"'
    escape: bytes | None = None

    @property
    def escapes(self) -> bytes | None:
        """The escape byte, where it is one of its own."""
        return self.escape if self.quote and self.escape and self.escape != self.quote else None


def record_form(form: FileFormat, options: CsvOptions) -> RecordForm:
    """How a source's records are quoted: JSON lines never, CSV as its options say."""
    if form is not FileFormat.CSV or not options.quote:
        return RecordForm(quote=None)
    escape = options.escape.encode() if options.escape else None
    return RecordForm(options.quote.encode(), escape)


class Record(NamedTuple):
    """One record as it was cut: numbers from 1; `raw` without its line end."""

    number: int
    physical_line: int
    raw: bytes


class RecordScanner:
    """A fold over chunks: `feed` returns the whole records so far, without blank lines.

    `skipped`: physical lines that were left out before the first byte, for messages."""

    def __init__(self, form: RecordForm, *, keep_blank: bool = False, skipped: int = 0) -> None:
        self._form = form
        self._keep_blank = keep_blank
        self._skipped = skipped
        self._held = b""  # a CR at a chunk's end, whose LF may come with the next
        self._pending: list[bytes] = []  # the record that has begun and not ended
        self._pending_bytes = 0
        self._in_quote = False
        self._escaped = False  # the chunk ended right after an escape
        self._line_end: bytes | None = None
        self.records = 0
        self.blank_lines = 0
        self.inner_lines = 0  # line ends within quotes
        self.has_nul = False

    @property
    def physical_lines(self) -> int:
        """Line ends passed so far."""
        return self.records + self.blank_lines + self.inner_lines

    def feed(self, chunk: bytes) -> bytes:
        """Take more bytes; return what is complete: whole records with their line ends."""
        data = self._held + chunk if self._held else chunk
        self._held = b""
        if data.endswith(b"\r"):
            data, self._held = data[:-1], b"\r"
        return self._scan(data)

    def finish(self) -> bytes:
        """Take the end of the input; return the last record where no line end followed it."""
        out = self._scan(self._held) if self._held else b""
        self._held = b""
        if self._in_quote:
            raise OpenQuote(
                f"{self._pending_place()} opens a quote that is never closed",
                hint="deliver the file whole, or set csv_options.quote to what the file uses"
                " ('' for none)",
            )
        last = b"".join(self._pending)
        self._pending, self._pending_bytes = [], 0
        if last:
            self.records += 1
            last += self._line_end or b"\n"
        return out + last

    def spans(self, whole: bytes) -> tuple[_Positions, _Positions]:
        """Where each record starts and ends (line end included) in what `feed` returned."""
        probe = RecordScanner(self._form)
        probe._line_end = self._line_end
        ends, _ = probe._ends_outside_quotes(whole)
        starts = np.concatenate((np.zeros(1, dtype=np.int64), ends))[: len(ends)]
        records = (ends - starts) > len(self._line_end or b"\n")
        return starts[records], ends[records]

    def _scan(self, data: bytes) -> bytes:
        if not data:
            return b""
        if b"\0" in data:
            self.has_nul = True
        if self._plain(data):
            return self._scan_plain(data)
        return self._scan_quoted(data)

    def _plain(self, data: bytes) -> bool:
        quote = self._form.quote
        return not self._in_quote and not self._escaped and (quote is None or quote not in data)

    def _scan_plain(self, data: bytes) -> bytes:
        """No quotes here: counting and finding are enough, which run at memory speed."""
        line_feeds = data.count(b"\n")
        returns = data.count(b"\r")
        pairs = data.count(b"\r\n") if returns and line_feeds else 0
        if not self._agree(pairs, line_feeds - pairs, returns - pairs):
            raise self._mixed(data, _marks(data))
        ends = line_feeds + returns - pairs
        if not ends:
            return self._hold(data)
        end = self._line_end or b"\n"
        if end * 2 in data or (not self._pending and data.startswith(end)):
            return self._emit(data, _line_ends(data, end))
        self.records += ends
        cut = data.rfind(end) + len(end)
        return self._release(data[:cut], data[cut:])

    def _scan_quoted(self, data: bytes) -> bytes:
        ends, inner = self._ends_outside_quotes(data)
        self.inner_lines += inner
        return self._emit(data, ends) if len(ends) else self._hold(data)

    def _ends_outside_quotes(self, data: bytes) -> tuple[_Positions, int]:
        """Positions just after each line end outside quotes, and how many lie inside."""
        quotes = _positions(self._without_escaped(data), self._form.quote or b"")
        parity = int(self._in_quote)
        self._in_quote = bool((parity + len(quotes)) & 1)
        codes = np.frombuffer(data, dtype=np.uint8)
        marks = _marks(data)
        outside = ((np.searchsorted(quotes, marks) + parity) & 1) == 0
        kept = marks[outside]
        is_lf = codes[kept] == _LF
        paired = is_lf & (kept > 0) & (codes[np.maximum(kept - 1, 0)] == _CR)
        pairs = int(paired.sum())
        line_feeds = int(is_lf.sum())
        if not self._agree(pairs, line_feeds - pairs, len(kept) - line_feeds - pairs):
            raise self._mixed(data, kept)
        ends = kept[is_lf] + 1 if self._line_end != b"\r" else kept + 1
        return ends, self._count_inner(codes, marks[~outside])

    def _count_inner(self, codes: npt.NDArray[np.uint8], inside: _Positions) -> int:
        """Physical lines within quotes: CRLF is one."""
        after_cr = codes[np.maximum(inside - 1, 0)] == _CR
        return len(inside) - int(((codes[inside] == _LF) & (inside > 0) & after_cr).sum())

    def _without_escaped(self, data: bytes) -> bytes:
        """The same length, with every escape and the byte after it made harmless."""
        escape = self._form.escapes
        if escape is None:
            return data
        if escape not in data and not self._escaped:
            return data
        out = bytearray(data)
        at = 0
        if self._escaped:
            out[0] = 0
            at = 1
        self._escaped = False
        while (at := data.find(escape, at)) >= 0:
            out[at] = 0
            if at + 1 == len(data):
                self._escaped = True
                break
            out[at + 1] = 0
            at += 2
        return bytes(out)

    def _agree(self, pairs: int, line_feeds: int, returns: int) -> bool:
        """Whether all records end alike so far; otherwise nobody can tell them apart."""
        seen = [
            end for end, count in ((b"\r\n", pairs), (b"\n", line_feeds), (b"\r", returns)) if count
        ]
        if self._line_end is None and len(seen) == 1:
            self._line_end = seen[0]
        return all(end == self._line_end for end in seen)

    def _mixed(self, data: bytes, outside: _Positions) -> MixedLineEnds:
        """Where the first line end stands that is not like those before it."""
        record, start = self.records + 1, 0
        for at in outside.tolist():
            if at < start:  # the LF of a CRLF
                continue
            end = b"\r\n" if data.startswith(b"\r\n", at) else data[at : at + 1]
            if self._line_end is None:
                self._line_end = end
            if end != self._line_end:
                break
            record += at > start or (start == 0 and bool(self._pending))
            start = at + len(end)
        line = self._skipped + self.physical_lines + _line_ends_in(data[:at]) + 1
        return MixedLineEnds(
            f"line ends are mixed: {_END_NAMES[end]} at record {record} (line {line}),"
            f" {_END_NAMES[self._line_end or b'']} before",
            hint="deliver the file with one kind of line end",
        )

    def _pending_place(self) -> str:
        """The record that has begun, and the physical line that it begins on."""
        inside = sum(_line_ends_in(piece) for piece in self._pending)
        line = self._skipped + self.physical_lines - inside + 1
        return f"record {self.records + 1} (line {line})"

    def _emit(self, data: bytes, ends: _Positions) -> bytes:
        """Release up to the last end, leaving out blank lines."""
        width = len(self._line_end or b"\n")
        starts = np.concatenate((np.zeros(1, dtype=np.int64), ends[:-1]))
        blank = (ends - starts) == width
        if self._pending:
            blank[0] = False
        cut = int(ends[-1])
        blanks = int(blank.sum())
        self.blank_lines += blanks
        self.records += len(ends) - blanks
        keep = self._keep_blank or not blanks
        whole = data[:cut] if keep else _without(data, starts[blank], ends[blank], cut)
        return self._release(whole, data[cut:])

    def _release(self, whole: bytes, rest: bytes) -> bytes:
        out = b"".join((*self._pending, whole)) if self._pending else whole
        self._pending, self._pending_bytes = [], 0
        self._hold(rest)
        return out

    def _hold(self, rest: bytes) -> bytes:
        if rest:
            self._pending.append(rest)
            self._pending_bytes += len(rest)
        if self._pending_bytes > MAX_RECORD_BYTES:
            raise OpenQuote(
                f"{self._pending_place()} has no end within {MAX_RECORD_BYTES >> 20} MiB",
                hint="look for an open quote there, or set csv_options.quote to what the file uses",
            )
        return b""


_END_NAMES = {b"\r\n": "CRLF", b"\n": "LF", b"\r": "CR", b"": "none"}


def _positions(data: bytes, byte: bytes) -> _Positions:
    """Where a byte stands; nowhere, if there is none to look for."""
    codes = np.frombuffer(data, dtype=np.uint8)
    return np.flatnonzero(codes == byte[0]) if byte else np.zeros(0, dtype=np.int64)


def _marks(data: bytes) -> _Positions:
    """Where CR and LF stand."""
    codes = np.frombuffer(data, dtype=np.uint8)
    return np.flatnonzero((codes == _LF) | (codes == _CR))


def _line_ends(data: bytes, end: bytes) -> _Positions:
    """Positions just after each line end, where no quote interferes."""
    return _positions(data, end[-1:]) + 1


def _without(data: bytes, starts: _Positions, ends: _Positions, cut: int) -> bytes:
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
    numbers = sorted(set(wanted), reverse=True)
    scanner = RecordScanner(form, keep_blank=True)
    number = line = 0
    for whole in _wholes(scanner, chunks):
        if not numbers:
            return
        starts, ends = scanner.spans(whole)
        first, number = number, number + len(starts)
        at = 0
        while numbers and numbers[-1] <= number:
            start, end = starts[numbers[-1] - first - 1], ends[numbers[-1] - first - 1]
            line += _lines(whole[at:start])
            at = start
            yield Record(numbers.pop(), line + 1, whole[start:end].rstrip(b"\r\n"))
        line += _lines(whole[at:])


def without_wide(data: bytes, form: RecordForm, delimiter: bytes, most: int, by: bytes) -> bytes:
    """Whole records, in which each that has more than `most` delimiters outside quotes (told in
    one pass, whatever the record's size) is replaced by the record `by`."""
    delimiters = _positions(data, delimiter)
    if len(delimiters) <= most:
        return data
    scanner = RecordScanner(form)
    starts, ends = scanner.spans(scanner.feed(data) + scanner.finish())
    quotes = _positions(data, form.quote or b"")
    outside = delimiters[(np.searchsorted(quotes, delimiters) & 1) == 0]
    fields = np.searchsorted(outside, ends) - np.searchsorted(outside, starts)
    kept: list[bytes] = []
    at = 0
    for number in np.flatnonzero(fields > most).tolist():
        start, end = int(starts[number]), int(ends[number])
        line_end = data[start:end][len(data[start:end].rstrip(b"\r\n")) :]
        kept += [data[at:start], by, line_end]
        at = end
    return b"".join((*kept, data[at:]))


def skip_lines(chunks: Iterable[bytes], lines: int) -> Iterator[bytes]:
    """The stream after its first physical lines."""
    held = b""
    for chunk in chunks:
        if not lines:
            yield chunk
            continue
        held += chunk
        *whole, rest = held.split(b"\n", lines)
        if len(whole) == lines:
            lines, held = 0, b""
            yield rest
    if lines:
        return


def _wholes(scanner: RecordScanner, chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        yield scanner.feed(chunk)
    yield scanner.finish()


def _lines(data: bytes) -> int:
    """Physical lines, the last one with its end or without."""
    return len(data.splitlines())


def _line_ends_in(data: bytes) -> int:
    return _lines(data + b".") - 1
