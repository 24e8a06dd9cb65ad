"""A bit for each byte, against lists of positions."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lakewarden.batch.parsing import bits

texts = st.lists(st.sampled_from(b'ab"'), max_size=200).map(bytes)


def found(text: bytes) -> tuple[bits.Bits, list[int]]:
    codes = np.frombuffer(text, dtype=np.uint8)
    return bits.where(codes, ord('"')), [n for n, byte in enumerate(text) if byte == ord('"')]


@given(texts, st.integers(0, 200))
def test_they_are_found_and_counted(text: bytes, end: int) -> None:
    got, expected = found(text)
    assert bits.positions(got).tolist() == expected
    assert bits.count(got) == len(expected)
    assert bits.last(got) == max(expected, default=-1)
    end = min(end, len(text))
    assert bits.count(got, end) == len([at for at in expected if at < end])
    again = bits.at(np.array(expected, dtype=np.int64), len(text))
    assert again.tolist() == got.tolist()


@given(texts)
def test_between_one_and_the_next(text: bytes) -> None:
    got, expected = found(text)
    inside = [n for n in range(len(text)) if len([at for at in expected if at <= n]) % 2]
    between = bits.positions(bits.between(got))
    assert between[between < len(text)].tolist() == inside


@given(texts, st.sampled_from([1, 2]))
def test_moved(text: bytes, by: int) -> None:
    got, expected = found(text)
    later = bits.positions(bits.later(got, by))
    assert later[later < len(text)].tolist() == [n + by for n in expected if n + by < len(text)]
    assert bits.positions(bits.later(got, by, start=True))[0] == by - 1
    assert bits.positions(bits.earlier(got)).tolist() == [n - 1 for n in expected if n]
