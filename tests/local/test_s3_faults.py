"""S3 that fails, stalls, throttles or loses its answers: nothing is lost, doubled or hung."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest

from lakewarden.aws.clients import Connection, Patience
from lakewarden.aws.objects import (
    ObjectChanged,
    ObjectExists,
    Objects,
    ObjectVersion,
    StorageUnavailable,
)
from lakewarden.aws.retry import BucketMissing, StorageDenied
from lakewarden.aws.s3 import S3Objects
from tests.faults import FINE, Fault, FaultyProxy, Request, faulty_proxy
from tests.stack import LocalStack

USUAL = Patience(read=1.0)  # a busy store takes its time; a stall that passes is to pass soon
HASTY = Patience(total=0.6, connect=0.5, read=0.4, refused=0.2)
BUSY = [
    Fault(status=503, code="SlowDown"),
    Fault(status=500, code="InternalError"),
    Fault(status=429, code="TooManyRequests"),
    Fault(reset=True),
    Fault(stall=True),
]
CALLS: dict[str, Callable[[Objects, ObjectVersion], object]] = {
    "put": lambda objects, seen: objects.put("x", b"1"),
    "create": lambda objects, seen: objects.create("x", b"1"),
    "replace": lambda objects, seen: objects.replace("k", b"1", etag=seen.etag),
    "head": lambda objects, seen: objects.head("k"),
    "get": lambda objects, seen: objects.get("k"),
    "stream": lambda objects, seen: list(objects.stream(seen)),
    "list": lambda objects, seen: list(objects.list("")),
    "delete": lambda objects, seen: objects.delete("k"),
}
BODY = hashlib.sha512(b"body").digest() * 20_000  # 1.28 MB


@pytest.fixture
def proxy(local_stack: LocalStack) -> Iterator[FaultyProxy]:
    with faulty_proxy(local_stack.connection.endpoint or "") as proxy:
        yield proxy


@pytest.fixture
def connection(local_stack: LocalStack, proxy: FaultyProxy) -> Connection:
    return replace(local_stack.connection, endpoint=proxy.endpoint, patience=USUAL)


@pytest.fixture
def objects(local_stack: LocalStack, connection: Connection) -> S3Objects:
    return S3Objects(connection, local_stack.bucket())


@pytest.fixture
def hasty(connection: Connection, objects: S3Objects) -> S3Objects:
    """For calls that are to be given up."""
    return S3Objects(replace(connection, patience=HASTY), objects.bucket)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", BUSY, ids=str)
def test_a_fault_that_passes_is_not_noticed(
    objects: S3Objects, proxy: FaultyProxy, call: str, fault: Fault
) -> None:
    seen = objects.put("k", b"seen")
    proxy.fail(fault)
    CALLS[call](objects, seen)


@pytest.mark.parametrize("call", [*CALLS, "upload"])
@pytest.mark.parametrize("fault", [BUSY[0], Fault(stall=True), Fault(reset=True)], ids=str)
def test_a_fault_that_stays_is_told_in_time(
    objects: S3Objects,
    hasty: S3Objects,
    proxy: FaultyProxy,
    tmp_path: Path,
    call: str,
    fault: Fault,
) -> None:
    seen = objects.put("k", b"seen")
    (tmp_path / "file").write_bytes(b"1")
    proxy.always(fault)
    begun = monotonic()
    with pytest.raises(StorageUnavailable, match="s3://") as caught:
        if call == "upload":
            hasty.upload("x", tmp_path / "file")
        else:
            CALLS[call](hasty, seen)
    assert monotonic() - begun < 15
    assert caught.value.hint
    assert caught.value.exit_code == 75


def test_a_conflict_of_two_writes_is_asked_again(objects: S3Objects, proxy: FaultyProxy) -> None:
    proxy.fail(Fault(status=409, code="ConditionalRequestConflict"))
    objects.create("k", b"1")
    proxy.fail(Fault(status=409, code="ConditionalRequestConflict"))
    with pytest.raises(ObjectExists):
        objects.create("k", b"2")


def test_an_answer_that_was_lost_does_not_turn_a_win_into_a_loss(
    objects: S3Objects, proxy: FaultyProxy
) -> None:
    proxy.fail(Fault(lose_answer=True), method="PUT")
    created = objects.create("k", b"ours")
    assert objects.get("k").version == created

    proxy.fail(Fault(lose_answer=True), method="PUT")
    replaced = objects.replace("k", b"ours too", etag=created.etag)
    assert objects.get("k").version == replaced

    proxy.fail(Fault(lose_answer=True), method="DELETE")
    objects.delete("k", etag=replaced.etag)
    assert objects.head("k") is None


def test_a_loss_stays_a_loss_when_an_answer_was_lost(
    objects: S3Objects, proxy: FaultyProxy
) -> None:
    """Equal bytes are no proof: two runs may write the same."""
    before = objects.put("k", b"same")
    proxy.fail(Fault(lose_answer=True), method="PUT")
    with pytest.raises(ObjectExists):
        objects.create("k", b"same")
    objects.put("k", b"other")
    proxy.fail(Fault(lose_answer=True), method="PUT")
    with pytest.raises(ObjectChanged):
        objects.replace("k", b"other", etag=before.etag)


@pytest.mark.parametrize("fault", [Fault(cut_after=30_000), Fault(stall_after=70_000)], ids=str)
def test_a_stream_is_resumed_where_it_broke(
    objects: S3Objects, proxy: FaultyProxy, fault: Fault
) -> None:
    version = objects.put("k", BODY)
    proxy.requests.clear()
    proxy.fail(*[fault] * 4)
    assert b"".join(objects.stream(version, chunk_bytes=300_000)) == BODY
    ranges = [request.range for request in proxy.requests if request.method == "GET"]
    again = len(ranges) - 5  # more than the faults where the store was busy
    assert again >= 4
    asked = sum(_length(one) for one in ranges if one)
    assert asked < len(BODY) + again * 300_000  # less than if each had begun again


def test_a_stream_never_mixes_two_versions(objects: S3Objects, proxy: FaultyProxy) -> None:
    version = objects.put("k", BODY)
    proxy.fail(FINE, Fault(cut_after=1000))
    stream = objects.stream(version, chunk_bytes=100_000)
    first = next(stream)
    objects.put("k", b"another" * 200_000)
    assert first + b"".join(stream) == BODY


def test_a_trickle_is_a_stall(objects: S3Objects, hasty: S3Objects, proxy: FaultyProxy) -> None:
    version = objects.put("k", BODY)
    proxy.always(Fault(bytes_per_second=2000))
    begun = monotonic()
    with pytest.raises(StorageUnavailable):
        list(hasty.stream(version))
    assert monotonic() - begun < 30


def test_a_stream_that_is_left_stops_reading(objects: S3Objects, proxy: FaultyProxy) -> None:
    version = objects.put("k", BODY)
    stream = objects.stream(version, chunk_bytes=1000)
    next(stream)
    asked = len(proxy.requests)
    stream.close()  # type: ignore[attr-defined] # every generator has it; the interface does not
    assert len(proxy.requests) <= asked + 4
    assert len(proxy.requests) < 20


def test_an_upload_survives_broken_parts(
    objects: S3Objects, proxy: FaultyProxy, tmp_path: Path
) -> None:
    path = tmp_path / "large"
    path.write_bytes(BODY * 40)  # 51 MB

    broken: set[str] = set()

    def plan(request: Request) -> Fault:
        if request.method == "PUT" and request.path not in broken:
            broken.add(request.path)
            return Fault(status=503, code="SlowDown")
        return FINE

    proxy.plan = plan
    version = objects.upload("k", path)
    assert len(broken) == 4
    assert version == objects.head("k")
    assert hashlib.sha256(b"".join(objects.stream(version))).digest() == _sha256(path)


def test_a_no_is_not_repeated(objects: S3Objects, proxy: FaultyProxy) -> None:
    proxy.requests.clear()
    proxy.always(Fault(status=403, code="AccessDenied"))
    with pytest.raises(StorageDenied):
        objects.put("k", b"1")
    assert len(proxy.requests) == 1


def test_a_bucket_that_is_not_there(connection: Connection) -> None:
    with pytest.raises(BucketMissing, match="nowhere"):
        S3Objects(connection, "nowhere").put("k", b"1")


def _length(text: str) -> int:
    start, end = text.removeprefix("bytes=").split("-")
    return int(end) - int(start) + 1


def _sha256(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
