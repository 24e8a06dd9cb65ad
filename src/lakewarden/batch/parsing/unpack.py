"""Stored bytes → unpacked bytes → UTF-8, as a chain of streams; each byte is seen once."""

import codecs
import hashlib
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol

from lakewarden.errors import Refused

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
PARQUET_MAGIC = b"PAR1"
_MAGIC_BYTES = 4
_SKIPPABLE_FIRST = frozenset(bytes((first,)) for first in range(0x50, 0x60))

# Bytes of text that are handed on at once: all that is done with them then stays in the cache.
_PIECE = 1 << 20

# A file that unpacks to more than this many times its size is taken for a bomb (once it is large).
MAX_RATIO = 200
_RATIO_COUNTS_FROM = 1 << 20


class Truncated(Refused):
    """A compressed file ends before its end."""


class BadCompression(Refused):
    """A compressed file is damaged, or something follows it."""


class TooLarge(Refused):
    """A file unpacks to more than the dataset allows."""


class WrongEncoding(Refused):
    """The bytes are not text in the encoding that the template names."""


class _Inflater(Protocol):
    """What zlib and zstandard have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: memoryview, /) -> bytes: ...


@dataclass
class Tally:
    """What passed through `tallied`: the digest and the size of the stored bytes."""

    sha256: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    md5: "hashlib._Hash | None" = None
    bytes: int = 0


def tallied(chunks: Iterable[bytes], tally: Tally) -> Iterator[bytes]:
    """The same chunks, hashed and measured on their way."""
    for chunk in chunks:
        tally.sha256.update(chunk)
        if tally.md5 is not None:
            tally.md5.update(chunk)
        tally.bytes += len(chunk)
        yield chunk


def unpacked(chunks: Iterable[bytes], *, max_bytes: int) -> Iterator[bytes]:
    """The bytes of a gzip or zstd file (by its magic), or the bytes as they are.

    Raises Truncated, BadCompression, and TooLarge above `max_bytes` or MAX_RATIO."""
    stream = iter(chunks)
    first = b""
    for chunk in stream:
        first += chunk
        if len(first) >= _MAGIC_BYTES:
            break
    kind = _kind(first)
    start = chain((first,), stream)
    if kind is None:
        yield from within(_pieces(start), max_bytes=max_bytes)
    else:
        yield from _limited(_inflated(start, kind), max_bytes)


def within(chunks: Iterable[bytes], *, max_bytes: int) -> Iterator[bytes]:
    """The same chunks. Raises TooLarge above `max_bytes`."""
    return _limited(((chunk, 0) for chunk in chunks), max_bytes)


def check_size(unpacked: int, packed: int, *, max_bytes: int) -> None:
    """Raises TooLarge where so many bytes are too many, or too many for what they came from (0:
    they were not compressed)."""
    if unpacked > max_bytes:
        raise TooLarge(
            f"more than {max_bytes:,} bytes unpacked",
            hint="Raise max_bytes of the dataset if such files are meant.",
        )
    if packed and unpacked > max(_RATIO_COUNTS_FROM, MAX_RATIO * packed):
        raise TooLarge(
            f"unpacks to more than {MAX_RATIO} times its size",
            hint="Deliver it uncompressed if such files are meant.",
        )


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        for at in range(0, len(chunk), _PIECE):
            yield chunk[at : at + _PIECE]


def _kind(magic: bytes) -> str | None:
    if magic.startswith(GZIP_MAGIC):
        return "gzip"
    return "zstd" if magic.startswith(ZSTD_MAGIC) or _is_skippable(magic) else None


def _is_skippable(magic: bytes) -> bool:
    """A zstd frame that holds no data: pzstd puts them before the others, seekable zstd after."""
    return magic[:1] in _SKIPPABLE_FIRST and magic[1:_MAGIC_BYTES] == b"\x2a\x4d\x18"


def decoded(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """The text as UTF-8 without a byte order mark. Python's own strict codecs decide what is
    valid; bytes that are UTF-8 already pass untouched. Raises WrongEncoding with the line."""
    name = codecs.lookup(encoding).name
    decoder = codecs.getincrementaldecoder(name)("strict")
    same = name in ("utf-8", "ascii", "utf-8-sig")
    lines = passed = 0
    first = True
    held = b""
    for data, final in _with_end(chunks):
        try:
            if same and data.isascii() and not decoder.getstate()[0]:
                out = data  # which is quicker to see than to decode
            else:
                text = decoder.decode(data, final)
                out = data if same else text.encode()
        except UnicodeError as error:
            raise _wrong_encoding(encoding, error, lines, passed + len(data)) from None
        lines += out.count(b"\n") or out.count(b"\r")
        passed += len(data)
        if first and (out or final):
            held += out
            if len(held) < len(codecs.BOM_UTF8) and not final:
                continue
            out, held, first = held.removeprefix(codecs.BOM_UTF8), b"", False
        if out:
            yield out


def _with_end(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    for chunk in chunks:
        yield chunk, False
    yield b"", True


def _wrong_encoding(encoding: str, error: UnicodeError, lines: int, passed: int) -> WrongEncoding:
    """`passed`: bytes that were given to the decoder, the last of which it may have kept."""
    line, near, why = lines + 1, passed, str(error)  # UTF-16 without its mark says no more
    if isinstance(error, UnicodeDecodeError):
        line += bytes(error.object[: error.start]).count(b"\n")
        near, why = passed - len(error.object) + error.start + 1, error.reason
    return WrongEncoding(
        f"line {line}, near byte {near}: not valid {encoding} ({why})",
        hint="Set csv_options.encoding in the template to what the file is in, or deliver it anew.",
    )


def _limited(pieces: Iterable[tuple[bytes, int]], max_bytes: int) -> Iterator[bytes]:
    """Pieces with the compressed bytes read so far (0: not compressed), as long as they fit."""
    total = 0
    for piece, packed in pieces:
        total += len(piece)
        check_size(total, packed, max_bytes=max_bytes)
        yield piece


def _inflated(chunks: Iterable[bytes], kind: str) -> Iterator[tuple[bytes, int]]:
    """Every member of the file, one after the other, in pieces of bounded size."""
    inflater = _new(kind)
    step = _STEP[kind]
    packed = 0
    for chunk in chunks:
        packed += len(chunk)
        view = memoryview(chunk)
        at = 0
        while at < len(view):
            if inflater.eof:
                inflater = _next_member(kind, chunk[at : at + _MAGIC_BYTES])
            data = view[at : at + step]
            piece = _inflate(inflater, data, kind)
            at += len(data) - (len(inflater.unused_data) if inflater.eof else 0)
            if piece:
                yield piece, packed
    if not inflater.eof:
        raise Truncated(
            f"the {kind} data end before their end",
            hint="The file was cut off on its way: deliver it again.",
        )


# Compressed bytes a step, so that what one step unpacks to fits into memory: gzip reaches 1,000:1,
# zstd 32,000:1.
_STEP = {"gzip": 16 << 10, "zstd": 1 << 10}


def _inflate(inflater: _Inflater, data: memoryview, kind: str) -> bytes:
    import zstandard

    try:
        return inflater.decompress(data)
    except (zlib.error, zstandard.ZstdError) as error:
        raise BadCompression(
            f"the {kind} data are damaged ({error})", hint="Deliver the file again."
        ) from error


def _new(kind: str) -> _Inflater:
    if kind == "gzip":
        return zlib.decompressobj(wbits=31)
    import zstandard

    return zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()


def _next_member(kind: str, magic: bytes) -> _Inflater:
    expected = GZIP_MAGIC if kind == "gzip" else ZSTD_MAGIC
    begins = expected.startswith(magic) or magic.startswith(expected)
    # A chunk may end within the magic; what is wrong with the rest of it the inflater tells.
    skippable = kind == "zstd" and magic[:1] in _SKIPPABLE_FIRST
    if not (begins or skippable):
        raise BadCompression(
            f"something follows the {kind} data", hint="Deliver the file again, and nothing else."
        )
    return _new(kind)
