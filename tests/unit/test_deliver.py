"""Deliveries: a folder as it is found again by receive; half of one is never complete."""

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakewarden.batch.delivery.deliver import FolderDisagrees, Progress, deliver
from lakewarden.batch.delivery.inventory import (
    FileNotDeliverable,
    FolderEmpty,
    FolderUnknown,
    PartMissing,
    manifest_of_folder,
    manifest_of_prefix,
)
from lakewarden.batch.delivery.keys import BatchKeyInvalid, PartUnknown, landing_of
from lakewarden.batch.delivery.manifest import (
    Entry,
    Manifest,
    ManifestAmbiguous,
    ManifestMissing,
    ManifestNotJson,
    write,
)
from lakewarden.batch.model import Dataset, Delivery
from lakewarden.batch.receive import receive
from lakewarden.errors import LakewardenError, Refused, WrongUsage
from tests.fakes.objects import MemoryObjects

FLIGHTS = Dataset("flights", "date", "raw/flights/{batch}/", {"ops.flights": "*"}, 0.0, 1 << 30)
DAY = "2013-01-02"
AT = datetime(2013, 1, 3, tzinfo=UTC)
PREFIX = f"raw/flights/{DAY}/"


def lines(path: Path, name: str) -> int:
    return path.read_bytes().count(b"\n")


def send(objects: MemoryObjects, folder: Path, **more: Any) -> Manifest:
    return deliver(objects, FLIGHTS, DAY, folder, now=lambda: AT, count=lines, **more)


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, body in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return folder


def held(objects: MemoryObjects) -> dict[str, bytes]:
    return {v.key.removeprefix(PREFIX): objects.get(v.key).body for v in objects.list(PREFIX)}


def sha(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def test_a_folder_without_manifest_gets_one_on_the_way_and_stays_as_it_is(tmp_path: Path) -> None:
    files = {"flights.csv": b"h\n1\n", "sub/more.csv": b"h\n", ".DS_Store": b"x", ".git/x": b"x"}
    fill(tmp_path, files)
    objects = MemoryObjects("lake")
    seen: list[Progress] = []
    manifest = send(objects, tmp_path, progress=seen.append)
    assert manifest == Manifest(
        "flights",
        DAY,
        AT,
        (
            Entry("flights.csv", sha256=sha(b"h\n1\n"), size=4, records=2),
            Entry("sub/more.csv", sha256=sha(b"h\n"), size=2, records=1),
        ),
    )
    assert held(objects).keys() == {"flights.csv", "sub/more.csv", "_manifest.json"}
    assert [(p.name, p.done, p.total, p.bytes) for p in seen] == [
        ("flights.csv", 1, 2, 4),
        ("sub/more.csv", 2, 2, 2),
    ]
    assert {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()} == {
        *files
    }


def test_the_folders_manifest_is_delivered_byte_for_byte(tmp_path: Path) -> None:
    entry = {"url": "a.csv", "meta": {"record_count": 1}}
    document = {"version": 1, "dataset": "flights", "batch": DAY, "entries": [entry]}
    body = json.dumps(document, indent=7).encode()
    fill(tmp_path, {"a.csv": b"1\n", "_manifest.json": body})
    objects = MemoryObjects("lake")
    assert send(objects, tmp_path).entries == (Entry("a.csv", records=1),)
    assert held(objects) == {"a.csv": b"1\n", "_manifest.json": body}


def older(**changed: Any) -> bytes:
    document: dict[str, Any] = {
        "yyyymm": "2013-01",
        "file_type": "y1",
        "facility_cd": "012345678",
        "records": 1,
        "hash": {"algorithm": "SHA256", "value": sha(b"1\n")},
    }
    return json.dumps({**document, **changed}).encode()


@pytest.mark.parametrize(
    "files",
    [
        {"x_y1_01.txt": b"1\n", "_manifest.json": older()},
        {"x_y1_01.txt": b"1\n", "x_y1_01_manifest.json": older()},
        {"x.csv.gz": b"1\n", "x_manifest.json": older()},
        {"x.csv.gz": b"1\n", "x.csv_manifest.json": older()},
        {"a.txt": b"1\n", "a_manifest.json": older(), "b": b"1\n", "b_manifest.json": older()},
        {
            "y1/a.txt": b"1\n",
            "y1/_manifest.json": older(),
            "y3/b": b"1\n",
            "y3/_manifest.json": older(),
        },
    ],
)
def test_older_manifests_are_delivered_as_they_are_and_cover_their_files(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    objects = MemoryObjects("lake")
    send(objects, fill(tmp_path, files))
    assert held(objects) == files
    received = receive(objects, FLIGHTS, DAY, now=AT)
    assert {f.name for f in received.files} == {n for n in files if not n.endswith("manifest.json")}
    assert {(f.sha256, f.records) for f in received.files} == {(sha(b"1\n"), 1)}


OLDER = {"a_manifest.json": older()}
BAD_FOLDERS: list[tuple[str, dict[str, bytes], type[LakewardenError]]] = [
    ("nothing", {}, FolderEmpty),
    ("only hidden files", {".DS_Store": b"x"}, FolderEmpty),
    ("only a manifest", {"_manifest.json": b"{}"}, FolderEmpty),
    ("a manifest that is not JSON", {"a": b"1", "_manifest.json": b"{"}, ManifestNotJson),
    ("a name with a backslash", {"a\\b.csv": b"1"}, FileNotDeliverable),
    ("a name with a newline", {"a\nb.csv": b"1"}, FileNotDeliverable),
    ("a name that hides dots", {"%2e%2e": b"1"}, FileNotDeliverable),
    (
        "older, a file not covered",
        {"a": b"", **OLDER, "b": b""},
        ManifestMissing,
    ),
    (
        "older, of no file",
        {"a": b"", **OLDER, "b_manifest.json": older()},
        ManifestAmbiguous,
    ),
    ("older, one for two", {"a.x": b"", "a.y": b"", **OLDER}, ManifestAmbiguous),
    (
        "older, two for one",
        {"a": b"", **OLDER, "_manifest.json": older()},
        ManifestAmbiguous,
    ),
    ("two of UNLOAD", {"a": b"", "x_manifest": b"{}", "y_manifest": b"{}"}, ManifestAmbiguous),
]


@pytest.mark.parametrize(
    ("files", "error"), [b[1:] for b in BAD_FOLDERS], ids=[b[0] for b in BAD_FOLDERS]
)
def test_a_folder_that_cannot_be_delivered_changes_nothing(
    tmp_path: Path, files: dict[str, bytes], error: type[LakewardenError]
) -> None:
    objects = MemoryObjects("lake")
    send(objects, fill(tmp_path / "good", {"good.csv": b"1\n"}))
    before = held(objects)
    bad = tmp_path / "bad"
    bad.mkdir()
    with pytest.raises(LakewardenError) as caught:
        send(objects, fill(bad, files))
    assert type(caught.value) is error
    assert caught.value.hint
    assert held(objects) == before


@pytest.mark.parametrize("names", [["a.csv", "b.csv"], [], ["../a.csv"]])
def test_the_manifest_has_to_agree_with_the_folder(tmp_path: Path, names: list[str]) -> None:
    entries = [{"url": name} for name in names]
    document = {"version": 1, "dataset": "flights", "batch": DAY, "entries": entries}
    fill(tmp_path, {"a.csv": b"1\n", "_manifest.json": json.dumps(document).encode()})
    objects = MemoryObjects("lake")
    with pytest.raises(LakewardenError) as caught:
        send(objects, tmp_path)
    assert caught.value.exit_code == 3
    assert isinstance(caught.value, FolderDisagrees) == ("../a.csv" not in names)
    assert held(objects) == {}


def test_a_link_is_followed_only_to_a_file_of_the_folder(tmp_path: Path) -> None:
    folder = fill(tmp_path / "folder", {"a.csv": b"1\n"})
    (tmp_path / "secret").write_bytes(b"s")
    (folder / "b.csv").symlink_to("a.csv")
    objects = MemoryObjects("lake")
    send(objects, folder)
    assert held(objects)["b.csv"] == b"1\n"
    for target in ("../secret", "nowhere", ".."):
        (folder / "c.csv").symlink_to(target)
        with pytest.raises(FileNotDeliverable, match=r"c\.csv"):
            send(objects, folder)
        (folder / "c.csv").unlink()


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(FileNotDeliverable, match="pipe"):
        send(MemoryObjects("lake"), tmp_path)


def test_wrong_usage_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FolderUnknown):
        send(MemoryObjects("lake"), tmp_path / "nowhere")
    with pytest.raises(BatchKeyInvalid):
        deliver(MemoryObjects("lake"), FLIGHTS, "2013-1-2", tmp_path, now=lambda: AT, count=lines)


# ── redeliveries, whole and half ────────────────────────────────────────────────────────────────

names = st.sampled_from(["a.csv", "p/b.csv", "様式 100%"])  # few, so that deliveries overlap
file_sets = st.dictionaries(names, st.sampled_from([b"1\n", b"2\n", b"3"]), min_size=1)


def with_form(folder: Path, form: str) -> Path:
    """Give a folder the manifest of one of the forms."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    if form == "written":
        landing = landing_of(FLIGHTS, DAY, "lake")
        manifest = manifest_of_folder(folder, landing, at=AT, count=lines)
        (folder / "_manifest.json").write_bytes(write(manifest))
    if form == "unload":
        urls = [f"s3://lake/{PREFIX}{p.relative_to(folder).as_posix()}" for p in files]
        document = {"entries": [{"url": url} for url in urls]}
        (folder / "flights_manifest").write_text(json.dumps(document))
    if form == "older":
        for path in files:
            value = {"algorithm": "SHA256", "value": sha(path.read_bytes())}
            body = older(hash=value, records=lines(path, ""))
            path.with_name(f"{path.name.rsplit('.', 1)[0]}_manifest.json").write_bytes(body)
    return folder


deliveries = st.tuples(file_sets, st.sampled_from(["none", "written", "unload", "older"]))


class Killed(BaseException):
    """The process ends here."""


class Fragile(MemoryObjects):
    """A store whose client is killed before the n-th change."""

    changes_left: int | None = None

    def _change(self) -> None:
        if self.changes_left is not None:
            if self.changes_left == 0:
                raise Killed
            self.changes_left -= 1

    def put(self, key: str, body: bytes) -> Any:
        self._change()
        return super().put(key, body)

    def upload(self, key: str, path: Path) -> Any:
        self._change()
        return super().upload(key, path)

    def delete(self, key: str, *, etag: str | None = None) -> None:
        self._change()
        super().delete(key, etag=etag)


def contents(objects: MemoryObjects, received: Delivery) -> dict[str, bytes]:
    return {f.name: b"".join(objects.stream(f.version)) for f in received.files}


@settings(deadline=None, max_examples=200)
@given(st.lists(deliveries, min_size=2, max_size=3), st.integers(min_value=0, max_value=9))
def test_what_is_received_is_one_whole_delivery(
    sent: list[tuple[dict[str, bytes], str]], survives: int
) -> None:
    """Delivered again and again, the last one killed somewhere and then repeated."""
    objects = Fragile("lake")
    with TemporaryDirectory() as scratch:
        folders = [
            with_form(fill(Path(scratch) / str(i), files), form)
            for i, (files, form) in enumerate(sent)
        ]
        for folder in folders[:-1]:
            send(objects, folder)
        whole = [files for files, _ in sent][-2:]
        objects.changes_left = survives
        with suppress(Killed):
            send(objects, folders[-1])
        objects.changes_left = None
        try:
            assert contents(objects, receive(objects, FLIGHTS, DAY, now=AT)) in whole
        except LakewardenError as error:
            assert isinstance(error, Refused | WrongUsage)
        send(objects, folders[-1])
        received = receive(objects, FLIGHTS, DAY, now=AT)
        assert contents(objects, received) == whole[-1]
        assert received.files == tuple(sorted(received.files, key=lambda f: f.name))
        send(objects, folders[-1])
        assert receive(objects, FLIGHTS, DAY, now=AT).hash == received.hash


def test_a_manifest_of_a_prefix_makes_its_files_a_delivery() -> None:
    objects = MemoryObjects("lake")
    objects.put(f"{PREFIX}a.csv", b"1\n")
    objects.put(f"{PREFIX}sub/b.csv", b"2\n")
    objects.put(f"{PREFIX}sub/", b"")
    landing = landing_of(FLIGHTS, DAY, "lake")
    with pytest.raises(ManifestMissing):
        receive(objects, FLIGHTS, DAY, now=AT)
    for _ in range(2):  # the manifest itself is never part of the next one
        manifest = manifest_of_prefix(objects, landing, at=AT)
        assert manifest.entries == (
            Entry("a.csv", sha256=sha(b"1\n"), size=2),
            Entry("sub/b.csv", sha256=sha(b"2\n"), size=2),
        )
        objects.put(landing.key("_manifest.json"), write(manifest))
        assert len(receive(objects, FLIGHTS, DAY, now=AT).files) == 2


def test_a_new_manifest_is_not_put_beside_others(tmp_path: Path) -> None:
    landing = landing_of(FLIGHTS, DAY, "lake")
    fill(tmp_path, {"a.csv": b"1\n", "a_manifest.json": older()})
    with pytest.raises(ManifestAmbiguous):
        manifest_of_folder(tmp_path, landing, at=AT, count=lines)
    objects = MemoryObjects("lake")
    send(objects, tmp_path)
    with pytest.raises(ManifestAmbiguous):
        manifest_of_prefix(objects, landing, at=AT)


@pytest.mark.parametrize("name", ["", "a//b.csv", "../x", "%2e%2e/x"])
def test_objects_with_hostile_names_are_in_no_manifest(name: str) -> None:
    objects = MemoryObjects("lake")
    if name:
        objects.put(f"{PREFIX}{name}", b"1\n")
    with pytest.raises(FileNotDeliverable if name else FolderEmpty):
        manifest_of_prefix(objects, landing_of(FLIGHTS, DAY, "lake"), at=AT)


# ── in parts ────────────────────────────────────────────────────────────────────────────────────

DPC = Dataset(
    "dpc", "month", "raw/{batch}/{part}/", {"raw.all": "*"}, 0.0, 1 << 30, ("y1", "y3", "d")
)
MONTH = "2024-04"


def send_parts(
    objects: MemoryObjects, folder: Path, part: str | None = None, **more: Any
) -> Manifest:
    return deliver(objects, DPC, "2024-04", folder, part=part, now=lambda: AT, count=lines, **more)


def lying(objects: MemoryObjects) -> dict[str, bytes]:
    return {
        v.key.removeprefix("raw/2024-04/"): objects.get(v.key).body for v in objects.list("raw/")
    }


PARTS = {"y1/a.txt": b"1\n", "y3/a.txt": b"2\n", "d/sub/a.txt": b"3\n4\n", ".DS_Store": b"x"}


def test_a_folder_with_a_subfolder_a_part_is_delivered_whole(tmp_path: Path) -> None:
    objects = MemoryObjects("lake")
    seen: list[Progress] = []
    manifest = send_parts(objects, fill(tmp_path, PARTS), progress=seen.append)
    assert [(e.name, e.records) for e in manifest.entries] == [
        ("y1/a.txt", 1),
        ("y3/a.txt", 1),
        ("d/sub/a.txt", 2),
    ]
    assert [(p.name, p.done, p.total) for p in seen] == [
        ("y1/a.txt", 1, 3),
        ("y3/a.txt", 2, 3),
        ("d/sub/a.txt", 3, 3),
    ]
    made = {"y1/_manifest.json", "y3/_manifest.json", "d/_manifest.json"}
    assert lying(objects).keys() == (PARTS.keys() - {".DS_Store"}) | made
    assert contents(objects, receive(objects, DPC, MONTH, now=AT)) == {
        name: body for name, body in PARTS.items() if not name.startswith(".")
    }


def test_one_part_is_delivered_alone_and_the_others_stay(tmp_path: Path) -> None:
    objects = MemoryObjects("lake")
    send_parts(objects, fill(tmp_path / "all", PARTS))
    before = lying(objects)
    again = fill(tmp_path / "y3", {"b.txt": b"5\n", "b_manifest.json": older(yyyymm="2024-04")})
    manifest = send_parts(objects, again, part="y3")
    assert [entry.name for entry in manifest.entries] == ["y3/b.txt"]
    after = lying(objects)
    assert {k: v for k, v in after.items() if k.startswith("y3/")} == {
        "y3/b.txt": b"5\n",
        "y3/b_manifest.json": older(yyyymm="2024-04"),
    }
    others = {k: v for k, v in before.items() if not k.startswith("y3/")}
    assert {k: v for k, v in after.items() if not k.startswith("y3/")} == others
    assert len(receive(objects, DPC, MONTH, now=AT).files) == 3


def test_parts_are_counted_by_the_table_that_takes_them(tmp_path: Path) -> None:
    asked: list[str] = []

    def count(path: Path, name: str) -> None:
        asked.append(name)

    fill(tmp_path, PARTS)
    deliver(MemoryObjects("lake"), DPC, "2024-04", tmp_path, now=lambda: AT, count=count)
    assert asked == ["y1/a.txt", "y3/a.txt", "d/sub/a.txt"]


BAD_PARTS: list[tuple[str, dict[str, bytes], str | None, type[LakewardenError], str]] = [
    ("one missing", {"y1/a": b"1", "d/a": b"1"}, None, PartMissing, "'y3'"),
    ("one empty", {"y1/a": b"1", "d/a": b"1", "y3/.x": b""}, None, FolderEmpty, "y3"),
    ("one unknown", {**PARTS, "y4/a": b"1"}, None, PartUnknown, "'y4'"),
    ("a file beside them", {**PARTS, "a.txt": b"1"}, None, PartUnknown, "'a.txt'"),
    ("a file for a folder", {"y1": b"1", "y3/a": b"1", "d/a": b"1"}, None, PartUnknown, "'y1'"),
    ("a part that is none", {"a": b"1"}, "y4", PartUnknown, "'y4'"),
    ("a bad manifest in one", {**PARTS, "d/_manifest.json": b"{"}, None, ManifestNotJson, "d/_"),
]


@pytest.mark.parametrize(
    ("files", "part", "error", "named"), [b[1:] for b in BAD_PARTS], ids=[b[0] for b in BAD_PARTS]
)
def test_parts_that_cannot_be_delivered_change_nothing(
    tmp_path: Path,
    files: dict[str, bytes],
    part: str | None,
    error: type[LakewardenError],
    named: str,
) -> None:
    objects = MemoryObjects("lake")
    send_parts(objects, fill(tmp_path / "good", PARTS))
    before = lying(objects)
    with pytest.raises(LakewardenError) as caught:
        send_parts(objects, fill(tmp_path / "bad", files), part)
    assert type(caught.value) is error
    assert named in caught.value.message
    assert caught.value.hint
    assert lying(objects) == before


def test_a_dataset_without_parts_takes_none(tmp_path: Path) -> None:
    with pytest.raises(PartUnknown):
        send(MemoryObjects("lake"), fill(tmp_path, {"a": b"1"}), part="y1")


def test_a_part_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", {"secret": b"s"})
    folder = fill(tmp_path / "folder", {"y1/a": b"1", "y3/a": b"1"})
    (folder / "d").symlink_to("../elsewhere")
    with pytest.raises(PartUnknown, match="'d'"):
        send_parts(MemoryObjects("lake"), folder)


part_sets = st.fixed_dictionaries(
    {part: st.sampled_from([b"1\n", b"2\n", b"3\n"]) for part in DPC.parts}
)


@settings(deadline=None, max_examples=100)
@given(st.lists(part_sets, min_size=2, max_size=2), st.integers(min_value=0, max_value=12))
def test_parts_are_never_of_two_deliveries(sent: list[dict[str, bytes]], survives: int) -> None:
    """Delivered whole, again, the second one killed somewhere and then repeated."""
    objects = Fragile("lake")
    with TemporaryDirectory() as scratch:
        whole = [
            {f"{part}/{i}.txt": body for part, body in one.items()} for i, one in enumerate(sent)
        ]
        folders = [fill(Path(scratch) / str(i), files) for i, files in enumerate(whole)]
        send_parts(objects, folders[0])
        objects.changes_left = survives
        with suppress(Killed):
            send_parts(objects, folders[1])
        objects.changes_left = None
        with suppress(Refused):
            assert contents(objects, receive(objects, DPC, MONTH, now=AT)) in whole
        send_parts(objects, folders[1])
        assert contents(objects, receive(objects, DPC, MONTH, now=AT)) == whole[1]


def test_a_manifest_of_a_parts_prefix_completes_that_part() -> None:
    objects = MemoryObjects("lake")
    for part in DPC.parts:
        objects.put(f"raw/2024-04/{part}/a.csv", b"1\n")
    for part in DPC.parts:
        with pytest.raises(ManifestMissing, match=f"/{part}/"):
            receive(objects, DPC, MONTH, now=AT)
        landing = landing_of(DPC, "2024-04", "lake", part)
        manifest = manifest_of_prefix(objects, landing, at=AT)
        assert [entry.name for entry in manifest.entries] == ["a.csv"]
        objects.put(landing.key("_manifest.json"), write(manifest))
    assert [f.name for f in receive(objects, DPC, MONTH, now=AT).files] == [
        "y1/a.csv",
        "y3/a.csv",
        "d/a.csv",
    ]


@pytest.mark.parametrize("name", ["delivery", "closed"])
def test_a_folder_that_may_not_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Pretended, since root may read everything."""
    folder = fill(tmp_path / "delivery", {"a.csv": b"1\n", "closed/b.csv": b"2\n"})
    listing = Path.iterdir

    def refuse(path: Path) -> Iterator[Path]:
        if path.name == name:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    objects = MemoryObjects()
    with pytest.raises(FileNotDeliverable, match=f"{name}.*may not be read"):
        send(objects, folder)
    assert list(objects.list("")) == []
