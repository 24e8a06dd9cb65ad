"""A delivery comes from its producer's bucket whole, or not at all."""

import json
from datetime import UTC, datetime

import pytest

from lakewarden.aws.objects import Objects, ObjectVersion, StorageUnavailable
from lakewarden.batch.delivery.copy import (
    Copied,
    SourceInvalid,
    copy_delivery,
    parse_source,
    places_at,
)
from lakewarden.batch.model import Complete, Dataset
from lakewarden.batch.receive import (
    ChecksumMismatch,
    FileMissing,
    SizeDisagrees,
    receive,
    validate,
)
from tests.fakes.objects import MemoryObjects

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SALES = Dataset("sales", "date", "raw/sales/{batch}/", {"orders": "*.csv"}, 0.0, 1 << 20)
PARTS = Dataset(
    "cases", "month", "raw/{batch}/{part}/", {"a": "a/*", "b": "b/*"}, 0.0, 1 << 20, ("a", "b")
)
DAY = "2026-01-01"


def manifest(**files: bytes) -> bytes:
    entries = [
        {"url": f"{name}.csv", "mandatory": True, "meta": {"content_length": len(body)}}
        for name, body in files.items()
    ]
    return json.dumps({"entries": entries}).encode()


def producer(prefix: str = "out/", **files: bytes) -> MemoryObjects:
    found = MemoryObjects("producer")
    for name, body in files.items():
        found.put(f"{prefix}{name}.csv", body)
    found.put(f"{prefix}_manifest.json", manifest(**files))
    return found


def copy(source: MemoryObjects, objects: Objects, dataset: Dataset = SALES) -> Copied:
    batch = DAY if dataset is SALES else "2026-01"
    places = places_at(parse_source("s3://producer/out/"), dataset, batch, objects.bucket)
    return copy_delivery(source, places, objects, dataset, batch, now=NOW)


def test_what_is_copied_can_be_received() -> None:
    objects = MemoryObjects()
    assert copy(producer(a=b"1", b=b"22"), objects) == Copied(2, 3, 0)
    found = receive(objects, SALES, DAY, now=NOW)
    assert [(file.name, file.version.size) for file in found.files] == [("a.csv", 1), ("b.csv", 2)]


def test_again_copies_nothing_and_what_changed_alone() -> None:
    objects, source = MemoryObjects(), producer(a=b"1", b=b"22")
    copy(source, objects)
    before = list(objects.list(""))
    assert copy(source, objects) == Copied(0, 0, 2)
    assert list(objects.list("")) == before
    source.put("out/b.csv", b"33")
    assert copy(source, objects) == Copied(1, 2, 1)
    assert objects.get(f"raw/sales/{DAY}/b.csv").body == b"33"


def test_what_lay_there_before_goes() -> None:
    objects = MemoryObjects()
    objects.put(f"raw/sales/{DAY}/old.csv", b"old")
    objects.put(f"raw/sales/{DAY}/old_manifest.json", b"{}")
    copy(producer(a=b"1"), objects)
    assert sorted(one.key for one in objects.list("")) == [
        f"raw/sales/{DAY}/_manifest.json",
        f"raw/sales/{DAY}/a.csv",
    ]


@pytest.mark.parametrize("name", ["/_manifest.json", "../x_manifest.json", "a\n_manifest.json"])
def test_what_lay_there_goes_whatever_it_is_called(name: str) -> None:
    objects = MemoryObjects()
    objects.put(f"raw/sales/{DAY}/{name}", b"somebody's")
    copy(producer(a=b"1"), objects)
    assert f"raw/sales/{DAY}/{name}" not in {version.key for version in objects.list("")}


def test_a_delivery_that_is_not_whole_changes_nothing() -> None:
    objects, source = MemoryObjects(), producer(a=b"1", b=b"22")
    copy(source, objects)
    before = list(objects.list(""))
    source.put("out/a.csv", b"longer")
    with pytest.raises(SizeDisagrees):
        copy(source, objects)
    source.delete("out/a.csv")
    with pytest.raises(FileMissing):
        copy(source, objects)
    assert list(objects.list("")) == before


def test_parts_come_each_to_its_own_place() -> None:
    source, objects = MemoryObjects("producer"), MemoryObjects()
    for part in ("a", "b"):
        source.put(f"out/{part}/x.csv", part.encode())
        source.put(f"out/{part}/_manifest.json", manifest(x=part.encode()))
    assert copy(source, objects, PARTS) == Copied(2, 2, 0)
    found = receive(objects, PARTS, "2026-01", now=NOW)
    assert [file.name for file in found.files] == ["a/x.csv", "b/x.csv"]


def test_a_manifest_by_addresses_at_the_producers_is_written_anew() -> None:
    source, objects = producer(a=b"1"), MemoryObjects()
    entries = [{"url": "s3://producer/out/a.csv", "mandatory": True, "meta": {"content_length": 1}}]
    source.put("out/_manifest.json", json.dumps({"entries": entries}).encode())
    copy(source, objects)
    assert [file.name for file in receive(objects, SALES, DAY, now=NOW).files] == ["a.csv"]
    assert copy(source, objects) == Copied(0, 0, 1)


def test_a_marker_comes_last() -> None:
    dataset = Dataset(**{**vars(SALES), "complete": Complete(marker="_SUCCESS")})
    source, objects = MemoryObjects("producer"), MemoryObjects()
    source.put("out/a.csv", b"1")
    source.put("out/_SUCCESS", b"")
    places = places_at(parse_source("s3://producer/out"), dataset, DAY, objects.bucket)
    copy_delivery(source, places, objects, dataset, DAY, now=NOW)
    receive(objects, dataset, DAY, now=NOW)


class Breaking(MemoryObjects):
    """Goes away after so many copies."""

    left = 1

    def copy(self, source: Objects, version: ObjectVersion, key: str) -> ObjectVersion:
        self.left -= 1
        if self.left < 0:
            raise StorageUnavailable("away")
        return super().copy(source, version, key)


def test_a_copy_that_was_cut_off_is_never_a_mixture_and_goes_on() -> None:
    objects = Breaking()
    objects.left = 2
    copy(producer(a=b"1", b=b"22"), objects)
    objects.left = 1
    newer = producer(a=b"8", b=b"99")
    with pytest.raises(StorageUnavailable):
        copy(newer, objects)
    with pytest.raises(Exception, match="manifest"):
        receive(objects, SALES, DAY, now=NOW)
    objects.left = 1  # what was copied is not copied again
    assert copy(newer, objects) == Copied(1, 2, 1)
    receive(objects, SALES, DAY, now=NOW)


@pytest.mark.parametrize(
    "text",
    ["", "out/", "http://x/y/", "s3://", "s3:///x", "s3://b/../x/", "s3://b/a//c/", "s3://b/\n/"],
)
def test_what_is_no_source_is_refused(text: str) -> None:
    with pytest.raises(SourceInvalid):
        parse_source(text)


@pytest.mark.parametrize("prefix", [f"raw/sales/{DAY}/", "raw/", f"raw/sales/{DAY}/x/", ""])
def test_the_landing_is_no_source_of_its_own(prefix: str) -> None:
    with pytest.raises(SourceInvalid):
        places_at(parse_source(f"s3://memory/{prefix}"), SALES, DAY, "memory")


def test_a_hash_that_the_store_keeps_is_compared() -> None:
    objects = MemoryObjects()
    objects.hashes = True
    objects.put(f"raw/sales/{DAY}/a.csv", b"1")
    entry = {"url": "a.csv", "mandatory": True, "sha256": "0" * 64, "meta": {"content_length": 1}}
    told = {"version": 1, "dataset": "sales", "batch": DAY, "entries": [entry]}
    told["created_at"] = "2026-01-02T00:00:00Z"
    objects.put(f"raw/sales/{DAY}/_manifest.json", json.dumps(told).encode())
    receive(objects, SALES, DAY, now=NOW)
    with pytest.raises(ChecksumMismatch):
        validate(objects, SALES, DAY, now=NOW)
    objects.hashes = False
    validate(objects, SALES, DAY, now=NOW)
