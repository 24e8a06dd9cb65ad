"""What every `Objects` promises: in memory, and on a real S3 server."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from lakewarden.aws.clients import Patience
from lakewarden.aws.objects import (
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    Objects,
    ObjectVersion,
    StorageUnavailable,
)
from lakewarden.aws.s3 import S3Objects
from tests.fakes.objects import MemoryObjects
from tests.stack import LocalStack

ODD_KEYS = [
    "plain",
    " lead and trail ",
    "a+b%20c&d=e?f#g;h:i@j,k$l",
    "quotes'\"<>[]{}|^`~",
    "日本語/é/𝄞.csv",
    "dots/..x/...",
    "a-b",
    "a.b",
    "a/b",
    "aa",
    "A",
]


@pytest.fixture(params=["memory", "s3"])
def objects(request: pytest.FixtureRequest) -> Objects:
    if request.param == "memory":
        return MemoryObjects("memory")
    stack: LocalStack = request.getfixturevalue("local_stack")
    return S3Objects(stack.connection, stack.bucket())


def test_what_was_put_is_read(objects: Objects) -> None:
    version = objects.put("k", b"hello")
    stored = objects.get("k")
    assert stored.body == b"hello"
    assert (version.key, version.size, version.modified.tzinfo is None) == ("k", 5, False)
    assert stored.version == version == objects.head("k") == next(objects.list(""))


def test_an_empty_object(objects: Objects) -> None:
    version = objects.put("k", b"")
    assert objects.get("k").body == b""
    assert list(objects.stream(version)) == []


def test_nothing_is_there(objects: Objects) -> None:
    version = objects.put("k", b"1")
    assert objects.head("other") is None
    assert objects.head("k", "0" * 32) is None
    assert list(objects.list("other")) == []
    with pytest.raises(ObjectMissing):
        objects.get("other")
    with pytest.raises(ObjectMissing):
        objects.get("other", version.version_id)


def test_every_version_stays_readable(objects: Objects) -> None:
    old = objects.put("k", b"old")
    new = objects.put("k", b"new!")
    assert old.version_id != new.version_id
    assert objects.get("k", old.version_id).body == b"old"
    assert objects.head("k", old.version_id) == old
    assert b"".join(objects.stream(old)) == b"old"
    assert objects.head("k") == new


def test_a_delete_hides_and_keeps(objects: Objects) -> None:
    version = objects.put("k", b"1")
    objects.delete("k")
    objects.delete("k")
    objects.delete("never was")
    assert objects.head("k") is None
    assert list(objects.list("")) == []
    with pytest.raises(ObjectMissing):
        objects.get("k")
    assert objects.get("k", version.version_id).body == b"1"
    assert b"".join(objects.stream(version)) == b"1"


def test_create_only_where_nothing_is(objects: Objects) -> None:
    version = objects.create("k", b"1")
    with pytest.raises(ObjectExists, match="k"):
        objects.create("k", b"2")
    assert objects.get("k").version == version
    objects.delete("k")
    objects.create("k", b"3")
    assert objects.get("k").body == b"3"


def test_replace_only_what_was_read(objects: Objects) -> None:
    first = objects.put("k", b"1")
    second = objects.replace("k", b"2", etag=first.etag)
    with pytest.raises(ObjectChanged, match="k"):
        objects.replace("k", b"3", etag=first.etag)
    assert objects.get("k").version == second
    objects.replace("k", b"3", etag=next(objects.list("")).etag)
    with pytest.raises(ObjectChanged):
        objects.replace("nothing", b"3", etag=first.etag)
    objects.delete("k")
    with pytest.raises(ObjectChanged):
        objects.replace("k", b"4", etag=second.etag)


def test_delete_only_what_was_read(objects: Objects) -> None:
    first = objects.put("k", b"1")
    second = objects.put("k", b"2")
    with pytest.raises(ObjectChanged, match="k"):
        objects.delete("k", etag=first.etag)
    assert objects.head("k") == second
    objects.delete("k", etag=second.etag)
    assert objects.head("k") is None
    objects.delete("k", etag=second.etag)


def test_of_many_creates_one_wins(objects: Objects) -> None:
    for round_ in range(5):
        key = f"race/{round_}"
        results = _race(partial(_create, objects, key))
        winners = [result for result in results if isinstance(result, ObjectVersion)]
        assert [type(r) for r in results if r not in winners] == [ObjectExists] * 7
        assert objects.get(key).version == winners[0]


def test_of_many_replaces_one_wins(objects: Objects) -> None:
    etag = objects.put("k", b"start").etag
    for _ in range(5):
        results = _race(partial(_replace, objects, etag))
        winners = [result for result in results if isinstance(result, ObjectVersion)]
        assert [type(r) for r in results if r not in winners] == [ObjectChanged] * 7
        assert objects.get("k").version == winners[0]
        etag = winners[0].etag


def test_a_counter_loses_no_step(objects: Objects) -> None:
    objects.put("k", b"0")

    def count(_: int) -> None:
        for _ in range(5):
            while True:
                read = objects.get("k")
                try:
                    objects.replace("k", b"%d" % (int(read.body) + 1), etag=read.version.etag)
                    break
                except ObjectChanged:
                    pass

    _race(count)
    assert objects.get("k").body == b"40"


@pytest.mark.parametrize("chunk_bytes", [1000, 4096, 1 << 20])
def test_a_stream_is_the_bytes_in_order(objects: Objects, chunk_bytes: int) -> None:
    body = _bytes(20_500)
    version = objects.put("k", body)
    objects.put("k", b"another by now")
    chunks = list(objects.stream(version, chunk_bytes=chunk_bytes))
    assert b"".join(chunks) == body
    assert {len(chunk) for chunk in chunks[:-1]} <= {chunk_bytes}
    assert 0 < len(chunks[-1]) <= chunk_bytes


def test_a_stream_may_be_left_early(objects: Objects) -> None:
    version = objects.put("k", _bytes(20_000))
    stream = objects.stream(version, chunk_bytes=1000)
    assert len(next(stream)) == 1000
    del stream
    assert len(b"".join(objects.stream(version))) == 20_000


def test_a_stream_of_a_removed_version(objects: Objects) -> None:
    version = objects.put("k", b"1")
    if isinstance(objects, S3Objects):
        objects._client.delete_object(  # a lifecycle rule's work; Objects has no word for it
            Bucket=objects.bucket, Key="k", VersionId=version.version_id
        )
    elif isinstance(objects, MemoryObjects):
        objects.remove_version(version)
    with pytest.raises(ObjectMissing):
        list(objects.stream(version))


@pytest.mark.parametrize("body", [b"", b"1"], ids=["empty", "not empty"])
def test_a_stream_of_other_bytes_than_those_that_were_seen(objects: Objects, body: bytes) -> None:
    """As where a bucket keeps no versions: the id is the same, the bytes are not."""
    seen = replace(objects.put("k", body), etag="0" * 32)
    with pytest.raises(ObjectChanged, match="k"):
        list(objects.stream(seen))


@pytest.mark.parametrize("other", [b"other bytes", b"less", b""])
def test_a_bucket_without_versions_gives_no_bytes_of_a_replacement(
    local_stack: LocalStack, other: bytes
) -> None:
    bucket = f"unversioned-{len(other)}"
    objects = S3Objects(local_stack.connection, bucket)
    objects._client.create_bucket(Bucket=bucket)
    seen = objects.put("k", b"these bytes")
    assert (seen.version_id, b"".join(objects.stream(seen))) == ("null", b"these bytes")
    objects.put("k", other)
    with pytest.raises(ObjectChanged, match="k"):
        list(objects.stream(seen, chunk_bytes=6))


def test_upload_of_a_large_file(objects: Objects, tmp_path: Path) -> None:
    path = tmp_path / "a large file.bin"
    path.write_bytes(_bytes(40_000_000))
    objects.put("k", b"before")
    version = objects.upload("k", path)
    assert version == objects.head("k") == next(objects.list(""))
    assert version.size == 40_000_000
    digest = hashlib.sha256()
    for chunk in objects.stream(version):
        digest.update(chunk)
    assert digest.digest() == hashlib.sha256(path.read_bytes()).digest()


def test_upload_of_a_small_file(objects: Objects, tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    assert objects.upload("k", path) == objects.head("k")
    assert objects.get("k").body == b""


def test_a_list_is_in_key_order_and_current(objects: Objects) -> None:
    versions = {key: objects.put(key, key.encode()) for key in ODD_KEYS}
    versions["plain"] = objects.put("plain", b"newer")
    objects.put("gone", b"1")
    objects.delete("gone")
    listed = list(objects.list(""))
    assert [version.key for version in listed] == sorted(ODD_KEYS)
    assert {version.key: version for version in listed} == versions


@pytest.mark.parametrize("key", ODD_KEYS)
def test_keys_of_any_characters(objects: Objects, key: str) -> None:
    version = objects.put(key, b"1")
    assert objects.get(key).version == version == objects.head(key, version.version_id)
    assert b"".join(objects.stream(version)) == b"1"
    assert [found.key for found in objects.list(key)] == [key]
    with pytest.raises(ObjectExists):
        objects.create(key, b"2")
    objects.delete(key)
    assert objects.head(key) is None


def test_a_prefix_is_not_a_folder(objects: Objects) -> None:
    for key in ("p/1", "p/10", "p/2/x", "p", "q"):
        objects.put(key, b"")
    assert [found.key for found in objects.list("p/1")] == ["p/1", "p/10"]
    assert [found.key for found in objects.list("p/")] == ["p/1", "p/10", "p/2/x"]


def test_a_long_list_leaves_nothing_out(objects: Objects) -> None:
    """More than a page of versions, in folders whose names are prefixes of one another."""
    keys = [
        f"n/{a}{b}{c:03d}" for a in "abc" for b in ("", "/", "-", "/x/", ".") for c in range(80)
    ]
    _race(lambda n: [objects.put(key, b"1") for key in keys[n::8]])
    latest = {key: objects.put(key, b"22") for key in keys[::9]}
    gone = set(keys[::100])
    for key in gone:
        objects.delete(key)
    listed = list(objects.list("n/"))
    assert [found.key for found in listed] == sorted(set(keys) - gone)
    sizes = {found.key: found.size for found in listed}
    assert all(sizes[key] == 2 for key in latest.keys() - gone)


def test_nobody_listens(local_stack: LocalStack) -> None:
    deaf = replace(
        local_stack.connection, endpoint="http://127.0.0.1:9", patience=Patience(refused=0.2)
    )
    with pytest.raises(StorageUnavailable, match="s3://lake/k"):
        S3Objects(deaf, "lake").put("k", b"")


def _race(work: Callable[[int], object]) -> list[object]:
    """Eight threads at once; what each returned or raised."""

    def attempt(number: int) -> object:
        try:
            return work(number)
        except (ObjectExists, ObjectChanged) as error:
            return error

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(attempt, range(8)))


def _create(objects: Objects, key: str, number: int) -> ObjectVersion:
    return objects.create(key, b"%d" % number)


def _replace(objects: Objects, etag: str, number: int) -> ObjectVersion:
    return objects.replace("k", f"{number} after {etag}".encode(), etag=etag)


def _bytes(size: int) -> bytes:
    block = hashlib.sha512(b"lakewarden").digest()
    return (block * (size // len(block) + 1))[:size]


@pytest.fixture
def producer(objects: Objects, request: pytest.FixtureRequest) -> Objects:
    """Another bucket of the same store."""
    if isinstance(objects, MemoryObjects):
        return MemoryObjects("producer")
    stack: LocalStack = request.getfixturevalue("local_stack")
    return S3Objects(stack.connection, stack.bucket())


def test_a_copy_is_of_the_pinned_version(objects: Objects, producer: Objects) -> None:
    old = producer.put("out/a b+c%20.csv", b"old")
    producer.put(old.key, b"newer")
    copied = objects.copy(producer, old, "raw/日本 a.csv")
    assert objects.get("raw/日本 a.csv").body == b"old"
    assert objects.head("raw/日本 a.csv") == copied
    assert copied.etag == old.etag
    with pytest.raises(ObjectMissing):
        objects.copy(producer, replace(old, key="out/nothing"), "x")
    with pytest.raises((ObjectChanged, ObjectMissing)):
        objects.copy(producer, replace(old, etag="0" * 32), "x")
    assert objects.head("x") is None


def test_a_large_copy_goes_in_parts(
    objects: Objects, producer: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lakewarden.aws.s3._COPIED_WHOLE", 6 << 20)
    monkeypatch.setattr("lakewarden.aws.s3._COPIED_PART", 5 << 20)
    body = bytes(range(256)) * (11 << 12)  # 11 MiB
    version = producer.put("large", body)
    copied = objects.copy(producer, version, "large")
    assert copied.size == len(body)
    assert objects.get("large").body == body
    assert objects.head("large") == copied


def test_a_hash_that_is_kept_is_that_of_the_bytes(objects: Objects) -> None:
    """A store may keep none; what it keeps has to be true."""
    version = objects.put("k", b"hello")
    assert objects.sha256(version) in (None, hashlib.sha256(b"hello").hexdigest())
