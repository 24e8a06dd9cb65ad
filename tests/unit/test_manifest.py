"""Reading manifests: each thing that can be wrong has its own error; anything else is read."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakewarden.batch.delivery.keys import Landing
from lakewarden.batch.delivery.manifest import (
    Entry,
    Manifest,
    ManifestAmbiguous,
    ManifestCountNegative,
    ManifestFileTwice,
    ManifestHashInvalid,
    ManifestMalformed,
    ManifestNotJson,
    ManifestOfAnother,
    ManifestPathOutside,
    ManifestRefused,
    ManifestTooLarge,
    ManifestVersionUnknown,
    write,
)
from lakewarden.batch.delivery.manifest_read import MAX_BYTES, parse

LANDING = Landing("lake", "raw/flights/2013-01-02/", "flights", "2013-01-02")
HOME = f"s3://{LANDING.bucket}/{LANDING.prefix}"
SHA = "ab" * 32
MD5 = "cd" * 16


def version_one(*entries: dict[str, Any], **changed: Any) -> bytes:
    document: dict[str, Any] = {
        "version": 1,
        "dataset": "flights",
        "batch": "2013-01-02",
        "created_at": "2013-01-03T06:00:00+09:00",
        "entries": list(entries) or [{"url": "flights.csv", "mandatory": True, "sha256": SHA}],
    }
    return json.dumps({**document, **changed}).encode()


def naming(url: str) -> bytes:
    return version_one({"url": url})


def promising(meta: dict[str, Any]) -> bytes:
    return version_one({"url": "a", "meta": meta})


def older(**changed: Any) -> bytes:
    document: dict[str, Any] = {
        "yyyymm": "2013-01",
        "file_type": "y1",
        "facility_cd": "012345678",
        "records": 3,
        "hash": {"algorithm": "MD5", "value": MD5.upper()},
        "created_at": "2013-02-01T00:00:00",
        "notes": "as submitted",
    }
    return json.dumps({**document, **changed}).encode()


def read(body: bytes, covers: str | None = None) -> Manifest:
    return parse(body, LANDING, file="_manifest.json", covers=covers)


def test_version_one_is_read() -> None:
    meta = {"content_length": 10, "record_count": 2}
    body = version_one(
        {"url": "b.csv", "mandatory": False},
        {"url": f"{HOME}sub/a.csv", "sha256": SHA.upper(), "meta": meta},
    )
    manifest = read(body)
    assert manifest.dataset == "flights"
    assert manifest.batch == "2013-01-02"
    assert manifest.created_at == datetime(2013, 1, 2, 21, tzinfo=UTC)
    assert manifest.entries == (
        Entry("b.csv", mandatory=False),
        Entry("sub/a.csv", sha256=SHA, size=10, records=2),
    )


def test_what_redshift_unload_writes_is_read() -> None:
    body = json.dumps(
        {
            "entries": [
                {
                    "url": f"{HOME}0000_part_00",
                    "meta": {"content_length": 32295, "record_count": 10},
                },
                {"url": f"{HOME}0001_part_00"},
            ],
            "schema": {"elements": [{"name": "lo_orderkey", "type": {"base": "integer"}}]},
            "meta": {"content_length": 32295, "record_count": 10},
            "author": {"name": "Amazon Redshift", "version": "1.0.0"},
        }
    ).encode()
    assert read(body).entries == (
        Entry("0000_part_00", size=32295, records=10),
        Entry("0001_part_00"),
    )


def test_the_older_form_speaks_of_the_file_beside_it() -> None:
    assert read(older(), covers="x_y1_01.txt").entries == (
        Entry("x_y1_01.txt", md5=MD5, records=3),
    )
    of_sha = older(hash={"algorithm": "SHA256", "value": SHA}, yyyymm="201301")
    assert read(of_sha, covers="x.txt").entries[0].sha256 == SHA


BAD: list[tuple[str, bytes, type[ManifestRefused]]] = [
    ("nothing", b"", ManifestNotJson),
    ("cut off", version_one()[:-9], ManifestNotJson),
    ("not UTF-8", '{"version": 1, "dataset": "日"}'.encode("cp932"), ManifestNotJson),
    ("UTF-16", '{"version": 1}'.encode("utf-16"), ManifestNotJson),
    ("a list", b"[]", ManifestNotJson),
    ("a key twice", b'{"version": 1, "version": 2}', ManifestNotJson),
    ("a key twice, deep", b'{"entries": [{"url": "a", "url": "b"}]}', ManifestNotJson),
    ("NaN", version_one(meta=float("nan")), ManifestNotJson),
    ("an endless number", b'{"version": 1e999}', ManifestNotJson),
    ("a number of 9999 digits", b'{"version": ' + b"9" * 9999 + b"}", ManifestNotJson),
    ("nested deeply", b"[" * 200_000, ManifestNotJson),
    ("nested deeply, closed", b"[" * 200_000 + b"]" * 200_000, ManifestNotJson),
    ("two documents", b"{} {}", ManifestNotJson),
    ("too many bytes", b" " * (MAX_BYTES + 1), ManifestTooLarge),
    ("too many entries", version_one(entries=[{"url": "a"}] * 100_001), ManifestTooLarge),
    ("version 2", version_one(version=2), ManifestVersionUnknown),
    ("version true", version_one(version=True), ManifestVersionUnknown),
    ("version as text", version_one(version="1"), ManifestVersionUnknown),
    ("version 1.0", version_one(version=1.0), ManifestVersionUnknown),
    ("no form", b"{}", ManifestVersionUnknown),
    ("another dataset", version_one(dataset="weather"), ManifestOfAnother),
    ("another batch", version_one(batch="2013-01-03"), ManifestOfAnother),
    ("older, another month", older(yyyymm="2013-02"), ManifestOfAnother),
    ("dataset as number", version_one(dataset=1), ManifestMalformed),
    ("no dataset", b'{"version": 1, "batch": "2013-01-02", "entries": []}', ManifestMalformed),
    ("a time without sense", version_one(created_at="yesterday"), ManifestMalformed),
    ("a time as number", version_one(created_at=1357171200), ManifestMalformed),
    ("entries no list", version_one(entries={"url": "a"}), ManifestMalformed),
    ("entry no object", version_one(entries=["a.csv"]), ManifestMalformed),
    ("no url", version_one({"mandatory": True}), ManifestMalformed),
    ("mandatory as text", version_one({"url": "a", "mandatory": "no"}), ManifestMalformed),
    ("a misspelt field", version_one({"url": "a", "sha265": SHA}), ManifestMalformed),
    ("count as text", promising({"record_count": "3"}), ManifestMalformed),
    ("half a record", promising({"record_count": 1.5}), ManifestMalformed),
    ("count true", promising({"record_count": True}), ManifestMalformed),
    ("count 2^63", promising({"record_count": 2**63}), ManifestMalformed),
    ("null count", version_one({"url": "a", "meta": None}), ManifestMalformed),
    ("older, leading zeros lost", older(facility_cd=12345678), ManifestMalformed),
    ("older, another hash", older(hash={"algorithm": "CRC32", "value": ""}), ManifestMalformed),
    ("records below 0", promising({"record_count": -1}), ManifestCountNegative),
    ("size below 0", promising({"content_length": -1}), ManifestCountNegative),
    ("older, records below 0", older(records=-1), ManifestCountNegative),
    ("sha256 too short", version_one({"url": "a", "sha256": SHA[:-1]}), ManifestHashInvalid),
    ("sha256 not hex", version_one({"url": "a", "sha256": "g" * 64}), ManifestHashInvalid),
    ("sha256 and a newline", version_one({"url": "a", "sha256": f"{SHA}\n"}), ManifestHashInvalid),
    ("md5 for sha256", version_one({"url": "a", "sha256": MD5}), ManifestHashInvalid),
    ("older, bad md5", older(hash={"algorithm": "MD5", "value": SHA}), ManifestHashInvalid),
    ("up and out", naming("../2013-01-03/a.csv"), ManifestPathOutside),
    ("up and out, encoded", naming("%2e%2e/a.csv"), ManifestPathOutside),
    ("up, backslash", naming("..\\a.csv"), ManifestPathOutside),
    ("up inside an address", naming(f"{HOME}../a"), ManifestPathOutside),
    ("absolute", naming("/etc/passwd"), ManifestPathOutside),
    ("another bucket", naming(f"s3://other/{LANDING.prefix}a.csv"), ManifestPathOutside),
    ("another prefix", naming("s3://lake/raw/flights/2013-01-03/a"), ManifestPathOutside),
    ("the prefix itself", naming(HOME), ManifestPathOutside),
    ("another scheme", naming("https://lake/a.csv"), ManifestPathOutside),
    ("a NUL", naming("a\0.csv"), ManifestPathOutside),
    ("half a character", naming("a\ud800.csv"), ManifestPathOutside),
    ("no name", naming(""), ManifestPathOutside),
    ("a file twice", version_one({"url": "a"}, {"url": "b"}, {"url": "a"}), ManifestFileTwice),
    ("twice, two ways", version_one({"url": "a"}, {"url": f"{HOME}a"}), ManifestFileTwice),
    ("older, of no file", older(), ManifestAmbiguous),
]  # fmt: skip


@pytest.mark.parametrize(("body", "error"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_a_bad_manifest_is_refused_by_its_own_error(
    body: bytes, error: type[ManifestRefused]
) -> None:
    with pytest.raises(ManifestRefused) as caught:
        read(body)
    assert type(caught.value) is error
    assert caught.value.exit_code == 3
    assert caught.value.message.startswith("_manifest.json: expected ")
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 1000
    assert caught.value.hint


def test_where_the_json_breaks_is_told() -> None:
    with pytest.raises(ManifestNotJson, match=r"line 3, column 15"):
        read(b'{\n"version": 1,\n"dataset":    flights\n}')


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
KNOWN = ["version", "dataset", "batch", "created_at", "entries", "url", "sha256", "md5", "meta"]
KNOWN += [
    "records",
    "hash",
    "algorithm",
    "value",
    "yyyymm",
    "file_type",
    "facility_cd",
    "mandatory",
]
likely_values = st.recursive(
    st.sampled_from([1, "flights", "2013-01-02", "2013-01", SHA, MD5, "MD5", "a.csv", "../a", True])
    | st.integers()
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KNOWN), inner, max_size=8)
    ),
    max_leaves=15,
)


@given(json_values | likely_values, st.none() | st.just("a.csv"))
def test_any_json_is_read_or_refused(value: object, covers: str | None) -> None:
    check_read(json.dumps(value).encode(), covers)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    check_read(body, None)


@given(st.lists(st.fixed_dictionaries({"url": st.text(max_size=30)}), min_size=1, max_size=4))
def test_whatever_names_come_none_leads_out(entries: list[dict[str, Any]]) -> None:
    check_read(version_one(*entries), None)


@settings(max_examples=300)
@given(st.integers(min_value=0), st.binary(min_size=1, max_size=3))
def test_a_damaged_manifest_is_read_or_refused(at: int, damage: bytes) -> None:
    body = version_one({"url": "a.csv", "sha256": SHA, "meta": {"record_count": 3}}, {"url": "b"})
    at %= len(body)
    check_read(body[:at] + damage + body[at + len(damage) :], None)


def test_a_field_whose_name_is_no_text_is_refused() -> None:
    check_read(version_one({"url": "a.csv"})[:-1] + b', "\\ud800": 1}', None)
    with pytest.raises(ManifestRefused):
        read(version_one({"url": "a.csv"})[:-1] + b', "\\ud800": 1}', None)


def check_read(body: bytes, covers: str | None) -> None:
    try:
        manifest = read(body, covers)
    except ManifestRefused as error:
        assert error.message.isprintable()
        assert len(error.message) < 1000
    else:
        names = [entry.name for entry in manifest.entries]
        assert len(set(names)) == len(names)
        assert all(LANDING.key(name).startswith(LANDING.prefix) for name in names)
        assert (manifest.dataset, manifest.batch) == ("flights", "2013-01-02")


names = st.text(alphabet="ab/.% _-日", min_size=1, max_size=8).filter(
    lambda n: not LANDING.fault(n)
)
counts = st.none() | st.integers(min_value=0, max_value=2**63 - 1)
entries = st.builds(
    Entry,
    names,
    st.booleans(),
    st.none() | st.just(SHA),
    st.none() | st.just(MD5),
    counts,
    counts,
)
manifests = st.builds(
    Manifest,
    st.just("flights"),
    st.just("2013-01-02"),
    st.none() | st.datetimes(timezones=st.just(UTC)),
    st.lists(entries, unique_by=lambda e: e.name, max_size=5).map(
        lambda found: tuple(sorted(found, key=lambda e: e.name))
    ),
)


@given(manifests)
def test_what_is_written_is_read_again(manifest: Manifest) -> None:
    body = write(manifest)
    assert read(body) == manifest
    assert write(read(body)) == body
