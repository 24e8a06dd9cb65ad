"""Stored bytes → unpacked bytes → UTF-8: nothing gets lost, nothing damaged gets through."""

import codecs
import gzip
import time
import zlib
from collections.abc import Callable, Iterator

import pytest
import zstandard
from hypothesis import assume, given
from hypothesis import strategies as st

from lakewarden.batch.parsing.unpack import (
    BadCompression,
    TooLarge,
    Truncated,
    WrongEncoding,
    decoded,
    unpacked,
)

MAX = 1 << 40
Pack = Callable[[bytes], bytes]


def gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def zst(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def zst_unsized(data: bytes) -> bytes:
    """As a program writes that does not know how much will come."""
    packer = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    return packer.compress(data) + packer.flush()


packers = st.sampled_from([gz, zst, zst_unsized])
bodies = st.one_of(
    st.binary(max_size=300), st.text("ab,\n", max_size=30).map(lambda text: text.encode() * 50)
)
sizes = st.lists(st.integers(1, 40), max_size=60)


def chunked(data: bytes, parts: list[int]) -> Iterator[bytes]:
    at = 0
    for size in parts:
        yield data[at : at + size]
        at += size
    yield data[at:]


def unpack(data: bytes, parts: list[int] | None = None) -> bytes:
    return b"".join(unpacked(chunked(data, parts or []), max_bytes=MAX))


@given(st.lists(bodies, min_size=1, max_size=4), packers, sizes)
def test_members_come_out_one_after_the_other(
    members: list[bytes], pack: Pack, parts: list[int]
) -> None:
    assert unpack(b"".join(map(pack, members)), parts) == b"".join(members)


@given(st.binary(max_size=200), sizes)
def test_what_is_not_packed_passes_as_it_is(data: bytes, parts: list[int]) -> None:
    assume(not data.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")))
    assume(data[1:4] != b"\x2a\x4d\x18")
    assert unpack(data, parts) == data


@given(st.lists(bodies, min_size=1, max_size=3), packers, sizes, st.data())
def test_a_member_that_is_cut_off_is_told(
    members: list[bytes], pack: Pack, parts: list[int], data: st.DataObject
) -> None:
    packed = [pack(member) for member in members]
    whole = b"".join(packed)
    ends = {sum(map(len, packed[:number])) for number in range(len(packed) + 1)}
    at = data.draw(st.sampled_from([n for n in range(4, len(whole)) if n not in ends]))
    with pytest.raises(Truncated):
        unpack(whole[:at], parts)


@given(bodies, packers, st.binary(min_size=1, max_size=30), sizes)
def test_garbage_after_the_end_is_told(
    body: bytes, pack: Pack, garbage: bytes, parts: list[int]
) -> None:
    assume(garbage[:1] not in (b"\x1f", b"\x28") and not 0x50 <= garbage[0] < 0x60)
    with pytest.raises(BadCompression):
        unpack(pack(body) + garbage, parts)


@given(bodies, packers, st.sampled_from([b"\x1f\x8bno member", b"\x28\xb5\x2f\xfd\xff\xff\xff"]))
def test_the_beginning_of_a_member_is_not_one(body: bytes, pack: Pack, garbage: bytes) -> None:
    with pytest.raises((BadCompression, Truncated)):
        unpack(pack(body) + garbage)


@given(bodies, packers, sizes, st.data())
def test_a_flipped_bit_is_told_or_changes_nothing(
    body: bytes, pack: Pack, parts: list[int], data: st.DataObject
) -> None:
    packed = bytearray(pack(body))
    # In its magic a flip makes another kind of file of it, which the manifest's hash tells.
    at = data.draw(st.integers(4, len(packed) - 1))
    packed[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = unpack(bytes(packed), parts)
    except (BadCompression, Truncated, TooLarge):
        return
    assert found == body


def test_frames_without_data_are_passed_over() -> None:
    """pzstd and seekable zstd put them around the others."""
    skippable = b"\x5e\x2a\x4d\x18\x03\x00\x00\x00abc"
    assert unpack(skippable + zst(b"one") + zst(b"two") + skippable) == b"onetwo"
    with pytest.raises(Truncated):
        unpack(zst(b"one") + skippable[:-1])


@pytest.mark.parametrize("pack", [gz, zst])
def test_more_than_the_dataset_allows(pack: Pack) -> None:
    packed = pack(bytes(range(256)) * 400)
    with pytest.raises(TooLarge, match="100,000 bytes"):
        list(unpacked([packed], max_bytes=100_000))
    with pytest.raises(TooLarge, match="100,000 bytes"):
        list(unpacked([b"a" * 60_000] * 2, max_bytes=100_000))


def run_length_bomb(blocks: int) -> bytes:
    """A zstd frame of blocks of 4 bytes, each of which is 128 KiB of one letter."""
    header = b"\x28\xb5\x2f\xfd\x00\x58"
    repeated = [((n == blocks - 1) | 1 << 1 | (128 << 10) << 3) for n in range(blocks)]
    return header + b"".join(block.to_bytes(3, "little") + b"A" for block in repeated)


@pytest.mark.parametrize(
    "bomb", [gz(bytes(256 << 20)), run_length_bomb(2_000), gz(bytes(4 << 20)) * 40]
)
def test_a_bomb_is_noticed_while_it_is_small(bomb: bytes) -> None:
    out = 0
    with pytest.raises(TooLarge, match="200 times"):
        for piece in unpacked([bomb], max_bytes=MAX):
            assert len(piece) <= 64 << 20
            out += len(piece)
    assert out <= max(200 * len(bomb), 1 << 20)


def test_many_members_cost_no_more_than_their_bytes() -> None:
    """bgzip writes one a 64 KiB, and nothing keeps a file from having only empty ones."""
    began = time.process_time()
    assert unpack(gz(b"") * 200_000 + gz(b"end")) == b"end"
    noise = b"".join(hash_of(n) for n in range(40_000))
    stored = b"".join(gz(noise[at : at + 4096]) for at in range(0, len(noise), 4096))
    assert unpack(stored * 8) == noise * 8
    assert time.process_time() - began < 15


def hash_of(number: int) -> bytes:
    return zlib.crc32(number.to_bytes(4, "big")).to_bytes(4, "big") * 8


ENCODINGS = ["utf-8", "cp932", "shift_jis", "euc_jp", "latin-1", "utf-16", "utf-16-le", "utf-32",
             "iso2022_jp", "utf-8-sig", "gb18030", "big5", "cp1252", "koi8-r"]  # fmt: skip


@given(st.sampled_from(ENCODINGS), st.text("aé日本髙\n,ポ\\ソ", max_size=40), sizes)
def test_text_becomes_utf_8(encoding: str, text: str, parts: list[int]) -> None:
    try:
        stored = text.encode(encoding)
    except UnicodeEncodeError:
        assume(False)
    assert b"".join(decoded(chunked(stored, parts), encoding)).decode() == stored.decode(encoding)


@given(st.sampled_from(["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "gb18030"]), sizes)
def test_a_byte_order_mark_is_no_text(encoding: str, parts: list[int]) -> None:
    stored = "\ufeff日\n".encode(encoding)
    assert b"".join(decoded(chunked(stored, parts), encoding)).decode() == "日\n"


def japanese() -> Iterator[bytes]:
    """Every character that cp932 has, NEC's and IBM's among them, each twice over where it is."""
    for first in (*range(0x81, 0xA0), *range(0xE0, 0xFD)):
        for second in range(0x40, 0xFD):
            code = bytes((first, second))
            try:
                code.decode("cp932")
            except UnicodeDecodeError:
                continue
            yield code


def test_every_character_of_cp932() -> None:
    codes = list(japanese())
    assert {b"\xfa\x54", b"\x87\x54", b"\xed\x40", b"\xfa\x5b", b"\x81\xca"} <= set(codes)
    stored = b"\n".join(codes)
    text = b"".join(decoded([stored[:5001], stored[5001:]], "cp932")).decode()
    assert text == codecs.decode(stored, "cp932")
    assert len(text.split("\n")) == len(codes) > 9_000


WRONG = {"utf-8": b"\xff", "cp932": b"\x81 ", "euc_jp": b"\xff", "utf-16-le": b"\x00\xdc",
         "iso2022_jp": b"\xff"}  # fmt: skip


@given(st.sampled_from(list(WRONG)), sizes, st.integers(0, 3))
def test_what_is_no_text_is_told_with_its_line(
    encoding: str, parts: list[int], before: int
) -> None:
    right = ("日\n" * (before + 1)).encode(encoding)
    after = "xyz".encode(encoding)
    with pytest.raises(WrongEncoding, match=rf"^line {before + 2}, near byte {len(right) + 1}:"):
        list(decoded(chunked(right + WRONG[encoding] + after, parts), encoding))


@pytest.mark.parametrize(
    ("encoding", "stored"),
    [("utf-16", b"\xff\xfea"), ("cp932", b"\x81"), ("utf-7", b"+2AA-"), ("utf-8", b"\xe6\x97")],
)
def test_half_a_character_is_none(encoding: str, stored: bytes) -> None:
    with pytest.raises(WrongEncoding, match="line 1"):
        list(decoded([stored], encoding))
