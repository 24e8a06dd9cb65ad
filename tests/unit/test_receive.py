"""Receiving: what is wrong with a delivery is refused by name; what is right is pinned."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lakewarden.aws.objects import ObjectVersion
from lakewarden.batch.delivery.inventory import FileNotDeliverable, PartMissing
from lakewarden.batch.delivery.keys import BatchKeyInvalid
from lakewarden.batch.delivery.manifest import (
    ManifestMissing,
    ManifestOfAnother,
    ManifestPathOutside,
    ManifestTooLarge,
)
from lakewarden.batch.delivery.manifest_read import MAX_BYTES
from lakewarden.batch.model import Complete, Dataset
from lakewarden.batch.receive import (
    BatchUnknown,
    DeliveryMoving,
    FileEmpty,
    FileMissing,
    FileOfTwoTables,
    FileUnexpected,
    FileWithoutTable,
    MarkerMissing,
    NotSettled,
    SizeDisagrees,
    TableWithoutFile,
    receive,
)
from lakewarden.errors import LakewardenError
from tests.fakes.objects import MemoryObjects

TABLES = {"ops.flights": "flights*.csv*", "ops.planes": "planes*.csv"}
AIR = Dataset("air", "date", "raw/air/{batch}/", TABLES, 0.0, 1 << 30)
DAY = "2013-01-02"
NOW = datetime(2013, 1, 3, 6, tzinfo=UTC)
PREFIX = "raw/air/2013-01-02/"
SHA = "ab" * 32
F = {"url": "flights.csv"}
P = {"url": "planes.csv"}


def lying(files: dict[str, bytes], *entries: dict[str, Any], **changed: Any) -> MemoryObjects:
    """A bucket with these files in the landing prefix, and a manifest of these entries."""
    objects = MemoryObjects("lake")
    for name, body in files.items():
        objects.put(PREFIX + name, body)
    if entries:
        document = {"version": 1, "dataset": "air", "batch": "2013-01-02", "entries": entries}
        objects.put(f"{PREFIX}_manifest.json", json.dumps({**document, **changed}).encode())
    return objects


GOOD = {"flights.csv": b"h\n1\n", "planes.csv": b"h\n"}


def test_every_file_is_pinned_with_what_was_promised_of_it() -> None:
    meta = {"content_length": 4, "record_count": 1}
    objects = lying(GOOD, {**F, "sha256": SHA, "meta": meta}, P)
    received = receive(objects, AIR, DAY, now=NOW)
    flights, planes = received.files
    assert (flights.name, flights.table) == ("flights.csv", "ops.flights")
    assert (flights.sha256, flights.md5, flights.records) == (SHA, None, 1)
    assert (planes.name, planes.table, planes.records) == ("planes.csv", "ops.planes", None)
    assert received.completeness == "manifest"
    objects.put(f"{PREFIX}flights.csv", b"replaced afterwards")
    assert b"".join(objects.stream(flights.version)) == b"h\n1\n"


def also(**files: bytes) -> dict[str, bytes]:
    return {**GOOD, **{f"{name}.csv": body for name, body in files.items()}}


OUTSIDE = {"url": "../2013-01-03/planes.csv"}
SHORT = {**F, "meta": {"content_length": 5}}
TWO = {**GOOD, "old_manifest.json": b"{}"}
HUGE = {**GOOD, "_manifest.json": b" " * (MAX_BYTES + 1)}
CASES: list[tuple[str, MemoryObjects, type[LakewardenError], str]] = [
    ("nothing at all", lying({}), BatchUnknown, "2013-01-02"),
    ("no manifest", lying(GOOD), ManifestMissing, "flights.csv"),
    ("an entry without file", lying(GOOD, F, P, {"url": "x.csv"}), FileMissing, "x.csv"),
    ("a file without entry", lying(also(x=b"1"), F, P), FileUnexpected, "x.csv"),
    ("two manifests", lying(TWO, F, P), FileUnexpected, "old_manifest"),
    ("too short", lying(GOOD, SHORT, P), SizeDisagrees, "flights.csv"),
    ("zero bytes", lying(also(planes=b""), F, P), FileEmpty, "planes.csv"),
    ("no table", lying(also(x=b"1"), F, P, {"url": "x.csv"}), FileWithoutTable, "x.csv"),
    ("other case", lying(also(Planes=b"1"), F, P, {"url": "Planes.csv"}), FileWithoutTable, "Pl"),
    ("a table without file", lying({"flights.csv": b"h\n"}, F), TableWithoutFile, "ops.planes"),
    ("another batch's", lying(GOOD, F, P, batch="2013-01-03"), ManifestOfAnother, "2013-01-03"),
    ("a path outside", lying(GOOD, F, P, OUTSIDE), ManifestPathOutside, "planes.csv"),
    ("a hostile object", lying({**GOOD, "../x": b"1"}, F, P), FileNotDeliverable, "../x"),
    ("a huge manifest", lying(HUGE), ManifestTooLarge, "_manifest.json"),
]


@pytest.mark.parametrize(
    ("objects", "error", "named"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_a_delivery_that_is_not_right_is_refused_by_name(
    objects: MemoryObjects, error: type[LakewardenError], named: str
) -> None:
    with pytest.raises(LakewardenError) as caught:
        receive(objects, AIR, DAY, now=NOW)
    assert type(caught.value) is error
    assert named in caught.value.message
    assert caught.value.exit_code == (2 if error is BatchUnknown else 3)
    assert caught.value.hint


def test_a_file_that_two_tables_would_take_is_refused() -> None:
    both = replace(AIR, tables={**TABLES, "ops.other": "planes*"})
    with pytest.raises(FileOfTwoTables, match=r"ops\.planes and ops\.other"):
        receive(lying(GOOD, F, P), both, DAY, now=NOW)


def test_a_bad_key_is_wrong_usage_before_anything_is_read() -> None:
    with pytest.raises(BatchKeyInvalid):
        receive(lying(GOOD, F, P), AIR, "2013-1-2", now=NOW)


def test_a_file_may_be_missing_where_the_manifest_says_that_it_may() -> None:
    objects = lying({"flights.csv": b"h\n"}, F, {**P, "mandatory": False})
    assert [f.name for f in receive(objects, AIR, DAY, now=NOW).files] == ["flights.csv"]


def test_an_empty_file_is_fine_where_no_records_are_promised() -> None:
    objects = lying({**GOOD, "planes.csv": b""}, F, {**P, "meta": {"record_count": 0}})
    assert receive(objects, AIR, DAY, now=NOW).files[1].records == 0


def test_folders_that_a_console_made_are_no_files() -> None:
    assert len(receive(lying({**GOOD, "": b"", "sub/": b""}, F, P), AIR, DAY, now=NOW).files) == 2


def test_the_next_batch_is_not_part_of_this_one() -> None:
    objects = lying(GOOD, F, P)
    objects.put("raw/air/2013-01-03/flights.csv", b"1")
    assert len(receive(objects, AIR, DAY, now=NOW).files) == 2


def of(files: dict[str, bytes], *entries: dict[str, Any]) -> str:
    return receive(lying(files, *entries), AIR, DAY, now=NOW).hash


def test_the_delivery_hash_tells_deliveries_apart_and_equal_ones_not() -> None:
    promised = {**F, "sha256": SHA}
    first = receive(lying(GOOD, promised, P), AIR, DAY, now=NOW)
    assert of(GOOD, P, promised) == first.hash
    renamed = {"flights2.csv": GOOD["flights.csv"], "planes.csv": GOOD["planes.csv"]}
    others = [
        of(GOOD, {**F, "sha256": SHA[::-1]}, P),
        of(GOOD, F, P),
        of({**GOOD, "planes.csv": b"x\n"}, promised, P),
        of(renamed, {**promised, "url": "flights2.csv"}, P),
        of({**GOOD, "planes2.csv": b"h\n"}, promised, P, {"url": "planes2.csv"}),
        # Mended, with the manifest of before: only reading it finds out, so it has to be read.
        of({**GOOD, "flights.csv": GOOD["flights.csv"][::-1]}, promised, P),
    ]
    assert len({first.hash, *others}) == 7


class Moving(MemoryObjects):
    """A store in which somebody delivers between one page of a listing and the next."""

    def list(self, prefix: str) -> Iterator[ObjectVersion]:
        for version in super().list(prefix):
            yield version
            if version.key.endswith("_manifest.json"):
                self.delete(version.key)
                self.put(f"{PREFIX}planes.csv", b"of the next delivery")


def test_a_delivery_that_moves_while_it_is_read_is_tried_again_later() -> None:
    objects = Moving("lake")
    for name, body in GOOD.items():
        objects.put(PREFIX + name, body)
    document = {"version": 1, "dataset": "air", "batch": "2013-01-02", "entries": [F, P]}
    objects.put(f"{PREFIX}_manifest.json", json.dumps(document).encode())
    with pytest.raises(DeliveryMoving) as caught:
        receive(objects, AIR, DAY, now=NOW)
    assert caught.value.exit_code == 75


# ── in parts ────────────────────────────────────────────────────────────────────────────────────

DPC = Dataset(
    "dpc",
    "month",
    "raw/yyyymm={batch}/{part}/",
    {"raw.y1": "y1/*", "raw.d": "d/*"},
    0.0,
    1 << 30,
    ("y1", "d"),
)
MONTH = "2024-04"
PARTS = "raw/yyyymm=2024-04/"


def promised(*names: str, **changed: Any) -> bytes:
    document = {"version": 1, "dataset": "dpc", "batch": "2024-04"}
    return json.dumps({**document, "entries": [{"url": n} for n in names], **changed}).encode()


def older(records: int, **changed: Any) -> bytes:
    value = {"algorithm": "MD5", "value": "cd" * 16}
    document = {"yyyymm": "2024-04", "file_type": "y1", "facility_cd": "012345678", "hash": value}
    return json.dumps({**document, "records": records, **changed}).encode()


WHOLE = {
    "y1/a.txt": b"1\n",
    "y1/_manifest.json": promised("a.txt"),
    "d/a.txt": b"2\n",
    "d/b.txt": b"3\n",
    "d/a_manifest.json": older(1),
    "d/b_manifest.json": older(1),
}


def parted(files: dict[str, bytes]) -> MemoryObjects:
    objects = MemoryObjects("lake")
    for name, body in files.items():
        objects.put(PARTS + name, body)
    return objects


def test_every_part_is_received_by_its_own_manifest_and_its_files_are_told_apart() -> None:
    received = receive(parted(WHOLE), DPC, MONTH, now=NOW)
    assert [(f.name, f.table, f.md5, f.version.key) for f in received.files] == [
        ("y1/a.txt", "raw.y1", None, f"{PARTS}y1/a.txt"),
        ("d/a.txt", "raw.d", "cd" * 16, f"{PARTS}d/a.txt"),
        ("d/b.txt", "raw.d", "cd" * 16, f"{PARTS}d/b.txt"),
    ]


def without(*prefixes: str, **more: bytes) -> dict[str, bytes]:
    return {k: v for k, v in WHOLE.items() if not k.startswith(prefixes)}


IN_PARTS: list[tuple[str, dict[str, bytes], type[LakewardenError], str]] = [
    ("nothing", {}, BatchUnknown, "2024-04"),
    ("only a part that is not ours", {"y4/a.txt": b"1"}, BatchUnknown, "2024-04"),
    ("one missing", without("d/"), PartMissing, "'d'"),
    ("the other missing", without("y1/"), PartMissing, "'y1'"),
    ("one still being delivered", without("y1/_m"), ManifestMissing, f"{PARTS}y1/"),
    ("a file not covered", without("d/b_m"), ManifestMissing, "b.txt"),
    ("a manifest for all parts", {**without("d/a_m", "d/b_m")}, ManifestMissing, f"{PARTS}d/"),
    (
        "a manifest that reaches into another part",
        {**WHOLE, "y1/_manifest.json": promised("a.txt", f"s3://lake/{PARTS}d/a.txt")},
        ManifestPathOutside,
        "y1/_manifest.json",
    ),
    (
        "another month's",
        {**WHOLE, "d/a_manifest.json": older(1, yyyymm="2024-05")},
        ManifestOfAnother,
        "d/a_",
    ),
    ("a file gone", without("y1/a"), FileMissing, f"{PARTS}y1/"),
    ("a file too many", {**WHOLE, "y1/b.txt": b"1"}, FileUnexpected, "b.txt"),
    ("a hostile object", {**WHOLE, "y1/../x": b"1"}, FileNotDeliverable, "../x"),
]


@pytest.mark.parametrize(
    ("files", "error", "named"), [c[1:] for c in IN_PARTS], ids=[c[0] for c in IN_PARTS]
)
def test_parts_that_are_not_right_are_refused_by_name(
    files: dict[str, bytes], error: type[LakewardenError], named: str
) -> None:
    with pytest.raises(LakewardenError) as caught:
        receive(parted(files), DPC, MONTH, now=NOW)
    assert type(caught.value) is error
    assert named in caught.value.message
    assert caught.value.exit_code == (2 if error is BatchUnknown else 3)
    assert caught.value.hint


def test_what_lies_beside_the_parts_is_no_part_of_the_batch() -> None:
    files = {**WHOLE, "_manifest.json": b"{", "y4/a.txt": b"1", "y1x/a.txt": b"1"}
    assert receive(parted(files), DPC, MONTH, now=NOW) == receive(
        parted(WHOLE), DPC, MONTH, now=NOW
    )


def test_the_delivery_hash_tells_parts_apart() -> None:
    swapped = {**WHOLE, "y1/a.txt": WHOLE["d/a.txt"], "d/a.txt": WHOLE["y1/a.txt"]}
    bare = {k: v for k, v in WHOLE.items() if not k.endswith("b.txt") and "_" not in k}
    manifests = {"y1/_manifest.json": promised("a.txt"), "d/_manifest.json": promised("a.txt")}
    hashes = {
        receive(parted({**files, **manifests}), DPC, MONTH, now=NOW).hash
        for files in (bare, {**bare, "y1/a.txt": swapped["y1/a.txt"]})
    }
    assert len(hashes) == 2


def test_a_part_that_changes_while_another_is_listed_is_tried_again_later() -> None:
    class Slow(MemoryObjects):
        def list(self, prefix: str) -> Iterator[ObjectVersion]:
            yield from super().list(prefix)
            if prefix.endswith("/d/"):
                self.put(f"{PARTS}y1/_manifest.json", promised("a.txt"))

    objects = Slow("lake")
    for name, body in WHOLE.items():
        objects.put(PARTS + name, body)
    with pytest.raises(DeliveryMoving):
        receive(objects, DPC, MONTH, now=NOW)


# ── complete by a marker, or by having settled ──────────────────────────────────────────────────

MARKED = replace(AIR, complete=Complete(marker="_SUCCESS"))
SETTLED = replace(AIR, complete=Complete(settled=timedelta(minutes=15)))


def written_at(files: dict[str, tuple[bytes, int]]) -> MemoryObjects:
    """Files of a delivery, each with the seconds after NOW at which it was written."""
    objects = MemoryObjects("lake")
    for name, (body, seconds) in files.items():
        objects.clock = NOW + timedelta(seconds=seconds)
        objects.put(PREFIX + name, body)
    return objects


def test_a_delivery_is_complete_when_its_marker_is_there() -> None:
    files = {"flights.csv": (b"h\n1\n", 0), "planes.csv": (b"h\n", 1)}
    with pytest.raises(MarkerMissing) as caught:
        receive(written_at(files), MARKED, DAY, now=NOW)
    assert caught.value.exit_code == 75
    found = receive(written_at({**files, "_SUCCESS": (b"", 2)}), MARKED, DAY, now=NOW)
    assert [file.name for file in found.files] == ["flights.csv", "planes.csv"]
    assert (found.completeness, found.files[0].records) == ("marker", None)


def test_what_came_after_the_marker_is_still_on_its_way() -> None:
    files = {"flights.csv": (b"h\n1\n", 0), "_SUCCESS": (b"", 1), "planes.csv": (b"h\n", 60)}
    with pytest.raises(MarkerMissing, match=r"planes\.csv"):
        receive(written_at(files), MARKED, DAY, now=NOW)


@pytest.mark.parametrize("dataset", [MARKED, SETTLED], ids=["marker", "settled"])
def test_a_manifest_is_held_to_what_it_says_all_the_same(dataset: Dataset) -> None:
    objects = lying(
        {**GOOD, "_SUCCESS": b""} if dataset is MARKED else GOOD, F, {**P, "sha256": SHA}
    )
    found = receive(objects, dataset, DAY, now=datetime.now(UTC) + timedelta(days=1))
    assert [file.sha256 for file in found.files] == [None, SHA]
    assert found.completeness == str(dataset.complete)
    with pytest.raises(FileUnexpected):
        objects.put(f"{PREFIX}more.csv", b"1")
        if dataset is MARKED:
            objects.put(f"{PREFIX}_SUCCESS", b"")
        receive(objects, dataset, DAY, now=datetime.now(UTC) + timedelta(days=1))


def test_a_delivery_settles_when_nothing_came_for_a_while() -> None:
    objects = written_at({"flights.csv": (b"h\n1\n", 0), "planes.csv": (b"h\n", 300)})
    with pytest.raises(NotSettled, match="in 10 s") as caught:
        receive(objects, SETTLED, DAY, now=NOW + timedelta(seconds=300 + 890))
    assert caught.value.exit_code == 75
    found = receive(objects, SETTLED, DAY, now=NOW + timedelta(seconds=300 + 900))
    assert (len(found.files), found.completeness) == (2, "settled")
