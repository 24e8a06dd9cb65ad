"""From a place in decoded text back to the bytes that it was decoded from."""

import codecs
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_BLOCK_BYTES = 1 << 10
# Codecs that take the mark for themselves and give no text for it.
_MARKS = {
    "utf-8-sig": (codecs.BOM_UTF8,),
    "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
    "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
}


class _Block(NamedTuple):
    """A few bytes, the decoder's state before them, and where their text ends (in UTF-8)."""

    data: bytes
    state: tuple[bytes, int]
    start: int
    end: int


class Origin:
    """A stream of bytes that is decoded, and remembered as long as somebody may ask for it."""

    def __init__(self, encoding: str) -> None:
        self._encoding = codecs.lookup(encoding).name
        self._decoder = codecs.getincrementaldecoder(self._encoding)("strict")
        self._blocks: deque[_Block] = deque()
        self._passed = 0  # bytes of UTF-8
        once, twice = "\n".encode(self._encoding), "\n\n".encode(self._encoding)
        self._width = len(twice) - len(once)  # bytes of a line end's character

    @property
    def passed(self) -> int:
        """Bytes of UTF-8 so far."""
        return self._passed

    def decode(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The text as UTF-8, its byte order mark (where the codec gives one) included."""
        for chunk in chunks:
            text = b"".join(
                self._decode(chunk[at : at + _BLOCK_BYTES])
                for at in range(0, len(chunk), _BLOCK_BYTES)
            )
            if text:
                yield text

    def forget(self, before: int) -> None:
        """Nobody will ask for bytes of the text before this place."""
        while self._blocks and self._blocks[0].end < before:
            self._blocks.popleft()

    def between(self, start: int, after: int, line_end: int) -> bytes:
        """The bytes of the text from `start` to `after`, less so many characters of its line end;
        up to the end of the stream where `after` lies beyond it."""
        first = self._block_of(start)
        begin = self._place(self._blocks[first], start)
        beyond = after > self._passed
        last = len(self._blocks) if beyond else self._block_of(after)
        data = b"".join(self._blocks[number].data for number in range(first, last))
        if not beyond:
            stop = len(data) + self._place(self._blocks[last], after) - line_end * self._width
            data = (data + self._blocks[last].data)[:stop]
        return self._unmarked(data[begin:], start)

    def _block_of(self, place: int) -> int:
        """The first block that takes the text as far as that place."""
        return bisect_left(self._blocks, place, key=lambda block: block.end)

    def _decode(self, data: bytes) -> bytes:
        state = self._decoder.getstate()
        text = self._decoder.decode(data).encode()
        start, self._passed = self._passed, self._passed + len(text)
        self._blocks.append(_Block(data, state, start, self._passed))
        return text

    def _place(self, block: _Block, wanted: int) -> int:
        """How many of the block's bytes it takes to get to that place: the fewest."""
        decoder = codecs.getincrementaldecoder(self._encoding)("strict")

        def text_of(length: int) -> int:
            decoder.setstate(block.state)
            return len(decoder.decode(block.data[:length]).encode())

        return bisect_left(range(len(block.data)), wanted - block.start, key=text_of)

    def _unmarked(self, data: bytes, start: int) -> bytes:
        if start == 0:
            for mark in _MARKS.get(self._encoding, ()):
                data = data.removeprefix(mark)
        return data
