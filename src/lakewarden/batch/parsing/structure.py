"""Records that no parser should see: they have other fields than the file's columns, text after a
closing quote, or no measure. They are told by number and cut out, so that what is left is read
alike by every parser.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from lakewarden.batch.parsing.records import RecordForm, RecordScanner


class Flaw(NamedTuple):
    """Why a record is broken, without a word of its content."""

    reason: str
    message: str


def cut_out(path: Path, form: RecordForm, *, max_bytes: int) -> Mapping[int, Flaw]:
    """Rewrite a file of whole records (UTF-8, no blank lines, form.fields known) without those that
    are broken or longer than `max_bytes`; returns them by their number there, from 1, in order."""
    data = path.read_bytes()
    scanner = RecordScanner(form)
    scanner.feed(data)
    scanner.finish()
    begins, ends = scanner.spans(data)
    wanted = _Form(form, max_bytes)
    broken: dict[int, Flaw] = {}
    kept: list[slice] = []
    at = 0
    spans = zip(begins.tolist(), ends.tolist(), strict=True)
    for number, (start, end) in enumerate(spans, start=1):
        flaw = wanted.flaw(data, start, end)
        if flaw is not None:
            broken[number] = flaw
            kept.append(slice(at, start))
            at = end
    if broken:
        kept.append(slice(at, len(data)))
        view = memoryview(data)
        with path.open("wb") as output:
            output.writelines(view[piece] for piece in kept)
    return broken


class _Form:
    """What a record has to look like."""

    def __init__(self, form: RecordForm, max_bytes: int) -> None:
        self._fields = form.fields or 1
        self._max_bytes = max_bytes
        strict, delimiter = form.field(strict=True), re.escape(form.delimiter)
        further = b"(?:" + delimiter + strict + b")"
        self._right = re.compile(strict + further + b"{%d}" % (self._fields - 1))
        self._quoted_right = re.compile(strict + further + b"*+")
        self._first = re.compile(form.field(strict=False))
        self._further = re.compile(delimiter + form.field(strict=False))

    def flaw(self, data: bytes, start: int, end: int) -> Flaw | None:
        """What is wrong with the record between `start` and the end of its line end."""
        end -= 2 if data.endswith(b"\r\n", start, end) else 1
        if self._right.fullmatch(data, start, end):
            if end - start <= self._max_bytes:
                return None
            return Flaw("too-long", f"longer than {self._max_bytes >> 20} MiB")
        if not self._quoted_right.fullmatch(data, start, end):
            return Flaw("quote", "text follows a closing quote")
        first = self._first.match(data, start, end)
        found = 1 + len(self._further.findall(data, first.end() if first else start, end))
        return Flaw("columns", f"expected {self._fields} columns, found {found}")
