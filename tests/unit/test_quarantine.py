"""Quarantine files: what is kept is found again byte for byte, in order, in little memory."""

import io
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakewarden.batch.model import Misfit
from lakewarden.batch.quarantine import (
    QuarantineUnknown,
    QuarantineUnreadable,
    key_of,
    list_quarantines,
    read,
    write,
)
from tests.fakes.objects import MemoryObjects

KEY = "ops/quarantine/flights/2013-01-02/run-1.parquet"
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
misfits = st.builds(
    Misfit,
    file=texts,
    file_sha256=texts,
    line=st.integers(min_value=1, max_value=2**63 - 1),
    column=st.none() | texts,
    reason=texts,
    message=texts,
    raw=st.binary(max_size=30),
)


def misfit(line: int, raw: bytes = b"1,\xff\x00,\r") -> Misfit:
    return Misfit("a.csv", "ab" * 32, line, "dep_delay", "type", "not a number", raw)


@settings(deadline=None, max_examples=30)
@given(st.lists(misfits, min_size=1, max_size=20))
def test_every_misfit_is_found_again_byte_for_byte(kept: list[Misfit]) -> None:
    objects = MemoryObjects("lake")
    with TemporaryDirectory() as scratch:
        assert write(objects, KEY, iter(kept), Path(scratch))
        assert list(Path(scratch).iterdir()) == []
    assert list(read(objects, KEY)) == kept


def test_nothing_is_written_where_nothing_misfits(tmp_path: Path) -> None:
    objects = MemoryObjects("lake")
    assert not write(objects, KEY, [], tmp_path)
    assert list(objects.list("")) == []


def test_many_are_kept_in_order_and_in_little_memory(tmp_path: Path) -> None:
    def many() -> Iterator[Misfit]:
        return (misfit(line, b"%08d" % line * 4096) for line in range(1, 2001))  # 64 MB

    objects = MemoryObjects("lake")
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    peak = 0

    def watched() -> Iterator[Misfit]:
        nonlocal peak
        for one in many():
            peak = max(
                peak, pa.total_allocated_bytes() - before + tracemalloc.get_traced_memory()[0]
            )
            yield one

    write(objects, KEY, watched(), tmp_path)
    tracemalloc.stop()
    assert peak < 32 << 20
    assert all(one == other for one, other in zip(read(objects, KEY), many(), strict=True))


def test_a_failure_leaves_no_row_data_on_disk(tmp_path: Path) -> None:
    def failing() -> Iterator[Misfit]:
        yield misfit(1)
        raise OSError("the disk is full")

    objects = MemoryObjects("lake")
    with pytest.raises(OSError, match="full"):
        write(objects, KEY, failing(), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert list(objects.list("")) == []


@pytest.mark.parametrize("key", [KEY, "raw/flights/2013-01-02/a.csv", ""])
def test_reading_what_is_no_quarantine_is_wrong_usage(key: str) -> None:
    objects = MemoryObjects("lake")
    objects.put("raw/flights/2013-01-02/a.csv", b"1")
    with pytest.raises(QuarantineUnknown):
        list(read(objects, key))


def test_a_file_of_another_format_is_told(tmp_path: Path) -> None:
    objects = MemoryObjects("lake")
    pq.write_table(pa.table({"raw": [b"1"]}), tmp_path / "x.parquet")
    for body in (b"", b"PAR1", (tmp_path / "x.parquet").read_bytes()):
        objects.put(KEY, body)
        with pytest.raises(QuarantineUnreadable, match="run-1"):
            list(read(objects, KEY))


def test_listing_tells_whose_they_are_newest_first(tmp_path: Path) -> None:
    objects = MemoryObjects("lake")
    for dataset, run in (("flights", "run-1"), ("weather", "run-2"), ("flights", "run-3")):
        write(objects, key_of(dataset, "2013-01-02", run), [misfit(1)], tmp_path)
    write(objects, key_of("flights", "2013-01-03", "run-0"), [misfit(1)], tmp_path)
    objects.put("ops/quarantine/flights/notes.txt", b"")
    assert [q.run for q in list_quarantines(objects, "flights")] == ["run-3", "run-1", "run-0"]
    (one,) = list_quarantines(objects, "flights", "2013-01-03")
    assert (one.batch, one.run) == ("2013-01-03", "run-0")
    found = list_quarantines(objects)
    assert [(q.dataset, q.run) for q in found][1] == ("weather", "run-2")
    assert list(read(objects, found[0].key)) == [misfit(1)]


def test_only_the_reader_s_own_thread_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread of Arrow's that has Python's file when the process ends aborts the process."""
    seen: set[int] = set()

    class Watched(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            seen.add(threading.get_ident())
            return super().read(size)

    objects = MemoryObjects("lake")
    write(objects, KEY, map(misfit, range(1, 10_000)), tmp_path)
    monkeypatch.setattr("tempfile.TemporaryFile", Watched)
    assert len(list(read(objects, KEY))) == 9_999
    assert seen == {threading.get_ident()}
