"""Streams of records, over every `Objects`."""

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewarden.aws.objects import Objects, ObjectVersion, StorageUnavailable, Stored
from lakewarden.aws.s3 import S3Objects
from lakewarden.records.stream import Stream, StreamBroken
from tests.fakes.objects import MemoryObjects
from tests.stack import LocalStack

PREFIX = "ops/things/one/"


@pytest.fixture(params=["memory", "s3"])
def objects(request: pytest.FixtureRequest) -> Objects:
    if request.param == "memory":
        return MemoryObjects("memory")
    stack: LocalStack = request.getfixturevalue("local_stack")
    return S3Objects(stack.connection, stack.bucket())


def test_records_are_numbered_and_chained(objects: Objects) -> None:
    stream = Stream(objects, PREFIX)
    keys = [stream.append(name, {"value": name}) for name in ("receive", "load", "load")]
    assert keys == [
        f"{PREFIX}0001-receive.json",
        f"{PREFIX}0002-load.json",
        f"{PREFIX}0003-load.json",
    ]
    bodies = [objects.get(key).body for key in keys]
    parsed = [json.loads(body) for body in bodies]
    assert [one["format"] for one in parsed] == [1, 1, 1]
    assert parsed[0]["previous"] is None
    for before, after in pairwise(bodies):
        assert json.loads(after)["previous"] == hashlib.sha256(before).hexdigest()
    records = stream.read()
    assert [(one.number, one.name, one.key) for one in records] == [
        (1, "receive", keys[0]),
        (2, "load", keys[1]),
        (3, "load", keys[2]),
    ]
    assert [one.body for one in records] == parsed


def test_an_empty_stream(objects: Objects) -> None:
    objects.put(f"{PREFIX}notes.txt", b"not a record")
    objects.put(f"{PREFIX}dbt/0001-manifest.json", b"not a record")
    assert Stream(objects, PREFIX).read() == []


def test_another_writer_goes_on_where_one_ended(objects: Objects) -> None:
    first, second = Stream(objects, PREFIX), Stream(objects, PREFIX)
    for number in range(3):
        first.append("a", {"n": number})
        second.append("b", {"n": number})
    assert [one.name for one in Stream(objects, PREFIX).read()] == ["a", "b"] * 3


def test_writers_at_once_never_share_a_number(objects: Objects) -> None:
    """Different names, so that the keys alone would not keep them apart."""

    def write(writer: int) -> list[str]:
        stream = Stream(objects, PREFIX)
        return [stream.append(f"writer-{writer}", {"n": number}) for number in range(5)]

    with ThreadPoolExecutor(6) as pool:
        keys = [key for written in pool.map(write, range(6)) for key in written]
    records = Stream(objects, PREFIX).read()
    assert [one.number for one in records] == list(range(1, 31))
    assert sorted(one.key for one in records) == sorted(keys)
    for writer in range(6):
        mine = [one.body["n"] for one in records if one.name == f"writer-{writer}"]
        assert mine == list(range(5))


def test_a_reader_meets_only_whole_streams(objects: Objects) -> None:
    def write(writer: int) -> None:
        for number in range(8):
            Stream(objects, PREFIX).append(f"writer-{writer}", {"n": number})

    with ThreadPoolExecutor(3) as pool:
        writers = [pool.submit(write, writer) for writer in range(3)]
        seen = 0
        while not all(writer.done() for writer in writers):
            found = len(Stream(objects, PREFIX).read())
            assert found >= seen
            seen = found
        for writer in writers:
            writer.result()
    assert len(Stream(objects, PREFIX).read()) == 24


@pytest.mark.parametrize(
    "damage",
    [
        lambda objects: objects.put(f"{PREFIX}0002-b.json", b'{"format": 1}'),
        lambda objects: objects.put(f"{PREFIX}0002-b.json", b"no json"),
        lambda objects: objects.put(f"{PREFIX}0002-other.json", b'{"format": 1}'),
        lambda objects: objects.put(f"{PREFIX}0004-d.json", b'{"format": 1}'),
        lambda objects: objects.delete(f"{PREFIX}0001-a.json"),
        lambda objects: objects.delete(f"{PREFIX}0002-b.json"),
        lambda objects: _remove_last_two(objects),
        lambda objects: objects.put(f"{PREFIX}0003-c.json", b'{"format": 1, "previous": null}'),
        lambda objects: objects.delete(f"{PREFIX}head.json"),
        lambda objects: objects.put(f"{PREFIX}head.json", b"{}"),
    ],
)
def test_damage_is_found(objects: Objects, damage: Callable[[Objects], object]) -> None:
    stream = Stream(objects, PREFIX)
    for name in ("a", "b", "c"):
        stream.append(name, {})
    assert len(stream.read()) == 3
    damage(objects)
    with pytest.raises(StreamBroken, match=PREFIX):
        Stream(objects, PREFIX).read()


def test_nothing_is_appended_to_records_without_a_head(objects: Objects) -> None:
    Stream(objects, PREFIX).append("a", {})
    objects.delete(f"{PREFIX}head.json")
    with pytest.raises(StreamBroken):
        Stream(objects, PREFIX).append("b", {})


@pytest.mark.parametrize("name", ["", "A", "a b", "a/b", "-a", "a--b", "../a"])
def test_names_that_would_break_a_key(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        Stream(MemoryObjects(), PREFIX).append(name, {})


class Mortal(MemoryObjects):
    """Dies at its n-th write, before or after it took effect: all that it did stays."""

    def __init__(self, kept: MemoryObjects) -> None:
        super().__init__()
        self.__dict__.update(kept.__dict__)
        self.writes_left = 10**6
        self.after = False

    def create(self, key: str, body: bytes) -> ObjectVersion:
        return self._do(lambda: super(Mortal, self).create(key, body))

    def replace(self, key: str, body: bytes, *, etag: str) -> ObjectVersion:
        return self._do(lambda: super(Mortal, self).replace(key, body, etag=etag))

    def _do(self, write: Callable[[], ObjectVersion]) -> ObjectVersion:
        self.writes_left -= 1
        if self.writes_left == 0:
            if self.after:
                write()
            raise StorageUnavailable("died")
        return write()


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 4), st.booleans()), max_size=12))
def test_whoever_dies_the_stream_stays_whole(deaths: list[tuple[str, int, bool]]) -> None:
    """An append that was acknowledged is there once; one that was not, once or not at all."""
    kept = MemoryObjects()
    acknowledged: list[int] = []
    for attempt, (name, write, after) in enumerate(deaths):
        mortal = Mortal(kept)
        mortal.writes_left, mortal.after = write, after
        try:
            Stream(mortal, PREFIX).append(name, {"attempt": attempt})
            acknowledged.append(attempt)
        except StorageUnavailable:
            pass
        found = [one.body["attempt"] for one in Stream(kept, PREFIX).read()]
        assert len(found) == len(set(found))
        assert set(acknowledged) <= set(found)


class Shared(MemoryObjects):
    """Before its n-th operation, another writer appends."""

    def __init__(self, kept: MemoryObjects, operation: int) -> None:
        super().__init__()
        self.__dict__.update(kept.__dict__)
        self._other = Stream(kept, PREFIX)
        self._operations_left = operation

    def get(self, key: str, version_id: str | None = None) -> Stored:
        self._let_others_append()
        return super().get(key, version_id)

    def list(self, prefix: str) -> Iterator[ObjectVersion]:
        self._let_others_append()
        return super().list(prefix)

    def create(self, key: str, body: bytes) -> ObjectVersion:
        self._let_others_append()
        return super().create(key, body)

    def replace(self, key: str, body: bytes, *, etag: str) -> ObjectVersion:
        self._let_others_append()
        return super().replace(key, body, etag=etag)

    def _let_others_append(self) -> None:
        self._operations_left -= 1
        if self._operations_left == 0:
            self._other.append("other", {})


@pytest.mark.parametrize("operation", range(1, 8))
@pytest.mark.parametrize("before", [0, 1, 2])
def test_another_writer_between_any_two_steps(before: int, operation: int) -> None:
    kept = MemoryObjects()
    for _ in range(before):
        Stream(kept, PREFIX).append("before", {})
    Stream(Shared(kept, operation), PREFIX).append("mine", {})
    assert len(Stream(Shared(kept, operation), PREFIX).read()) >= before + 1
    names = [one.name for one in Stream(kept, PREFIX).read()]
    assert names[:before] == ["before"] * before
    assert names.count("mine") == 1


def _remove_last_two(objects: Objects) -> None:
    objects.delete(f"{PREFIX}0002-b.json")
    objects.delete(f"{PREFIX}0003-c.json")
