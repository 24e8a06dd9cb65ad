"""Where bytes of one kind stand in a stretch of text: a bit for each byte, 64 to a word.

What lies between quotes then costs a few operations a word, however many quotes there are. (The
first stage of simdjson, "Parsing Gigabytes of JSON per Second", in numpy.) The first byte is the
lowest bit of the first word; there is at least one bit more than there are bytes.
"""

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]

_WORD = 64
_ONE = np.uint64(1)
_TOP = np.uint64(_WORD - 1)


def where(codes: npt.NDArray[np.uint8], byte: int) -> Bits:
    """The bytes that are this one."""
    return _packed(codes == byte)


def at(positions: Positions, size: int) -> Bits:
    """The bytes at these positions of `size` bytes."""
    found = np.zeros(size, dtype=np.bool_)
    found[positions] = True
    return _packed(found)


def between(bits: Bits) -> Bits:
    """From each odd bit (the first, the third, …) up to the next, which is left out."""
    inside = bits.copy()
    for by in (1, 2, 4, 8, 16, 32):  # each bit becomes the parity of all up to it in its word
        inside ^= inside << np.uint64(by)
    odd = np.bitwise_xor.accumulate(inside >> _TOP)  # words up to here hold an odd number of bits
    inside[1:] ^= np.uint64(0) - odd[:-1]
    return inside


def later(bits: Bits, by: int = 1, *, start: bool = False) -> Bits:
    """Each bit moved on by so many bytes; with `start` as if one stood before the first byte."""
    moved = bits << np.uint64(by)
    moved[1:] |= bits[:-1] >> np.uint64(_WORD - by)
    if start:
        moved[0] |= _ONE << np.uint64(by - 1)
    return moved


def earlier(bits: Bits) -> Bits:
    """Each bit moved back by one byte."""
    moved = bits >> _ONE
    moved[:-1] |= bits[1:] << _TOP
    return moved


def count(bits: Bits, end: int | None = None) -> int:
    """How many there are within the first `end` bytes."""
    return int(np.count_nonzero(_unpacked(bits, end)))


def positions(bits: Bits) -> Positions:
    return np.flatnonzero(_unpacked(bits, None))


def last(bits: Bits) -> int:
    """The position of the last one; -1 where there is none."""
    words = np.flatnonzero(bits)
    return int(words[-1]) * _WORD + int(bits[words[-1]]).bit_length() - 1 if len(words) else -1


def _packed(found: npt.NDArray[np.bool_]) -> Bits:
    words = np.zeros(len(found) // _WORD + 1, dtype="<u8")
    packed = np.packbits(found, bitorder="little")
    words.view(np.uint8)[: len(packed)] = packed
    return words


def _unpacked(bits: Bits, end: int | None) -> npt.NDArray[np.uint8]:
    return np.unpackbits(bits.view(np.uint8), count=end, bitorder="little")
