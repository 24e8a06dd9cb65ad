"""Receipts: what each stage leaves, what may never be in one, and reading them again."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lakewarden.aws.objects import ObjectVersion
from lakewarden.batch.model import (
    Audited,
    Counts,
    DeliveredFile,
    Delivery,
    Loaded,
    LoadedBatch,
    LoadedFile,
    Published,
    Received,
    Run,
    TestResult,
    TooManyMisfits,
    Transformed,
)
from lakewarden.batch.receipts import (
    PREFIX,
    Receipt,
    ReceiptUnreadable,
    Result,
    RunUnknown,
    list_runs,
    parse_receipt,
    receipt_of,
    receipts_of,
)
from lakewarden.errors import Refused, TryAgain
from lakewarden.lake.model import Branch, Contribution, Pin, Publication, TableChange
from lakewarden.records.stream import Stream
from tests.fakes.objects import MemoryObjects

AT = datetime(2013, 1, 3, 6, 0, tzinfo=UTC)
RUN = Run("run-1", "flights", ("2013-01-02",))
VERSION = ObjectVersion("raw/flights/2013-01-02/a.csv", "v1", '"e"', 40, AT)
COUNTS = Counts(3, 2, 1)
KEPT = "ops/quarantine/flights/2013-01-02/run-1.parquet"
DELIVERY = Delivery(
    "2013-01-02",
    (DeliveredFile("a.csv", "ops.flights", VERSION, "ab" * 32, None, 3),),
    "cd" * 32,
    "manifest",
)
RECEIVED = Received(RUN, (DELIVERY,))
LOADED = Loaded(
    RUN,
    Branch("batch/flights/run-1", "run-1", Pin("main", "0", {}), AT),
    frozenset({"ops.flights"}),
    (
        LoadedBatch(
            DELIVERY,
            (LoadedFile("a.csv", "ops.flights", VERSION, "ab" * 32, 40, COUNTS),),
            {},
            KEPT,
            COUNTS,
        ),
    ),
)
FAILING = TestResult("not_null_carrier", "fail", 2, "got 2 rows: Jane Doe")
TRANSFORMED = Transformed(LOADED, ("daily_delays",), (FAILING,), frozenset(), None)
AUDITED = Audited(TRANSFORMED, (), FAILING)
PUBLISHED = Published(
    AUDITED,
    Publication(
        7,
        "run-1",
        AT,
        Contribution("flights", "2013-01-02", "ef" * 32, {"in": 3}),
        {"ops.flights": TableChange(None, "s3://lake/m1.json")},
    ),
)
RESULTS: dict[str, Result] = {
    "receive": RECEIVED,
    "load": LOADED,
    "transform": TRANSFORMED,
    "audit": AUDITED,
    "publish": PUBLISHED,
}


def made(stage: str, outcome: Result | BaseException, **more: Any) -> Receipt:
    return receipt_of(RUN, stage, outcome, at=AT, seconds=1.23456, **more)


@pytest.mark.parametrize("percent", range(101))
def test_a_share_is_what_people_write(percent: int) -> None:
    assert Counts(100, 100 - percent, percent).share == float(f"{percent / 100:.2f}")
    assert Counts(0, 0, 0).share == 0


def test_a_receipt_has_the_fields_that_the_format_promises() -> None:
    assert made("load", LOADED).body() == {
        "format": 2,
        "dataset": "flights",
        "batches": [
            {
                "batch": "2013-01-02",
                "counts": {"in": 3, "loaded": 2, "quarantined": 1},
                "completeness": "manifest",
                "delivery_hash": "cd" * 32,
                "quarantine": KEPT,
                "withdrawn": False,
            }
        ],
        "run": "run-1",
        "stage": "load",
        "outcome": "ok",
        "at": "2013-01-03T06:00:00Z",
        "seconds": 1.235,
        "counts": {"in": 3, "loaded": 2, "quarantined": 1},
        "tables": {},
        "objects": [
            {
                "key": VERSION.key,
                "version_id": "v1",
                "sha256": "ab" * 32,
                "bytes": 40,
                "records": 3,
            }
        ],
        "branch": "batch/flights/run-1",
        "models": [],
        "rebuilds": [],
        "tests": [],
    }


def test_each_stage_tells_its_part() -> None:
    received = made("receive", RECEIVED)
    (batch,) = received.batches
    assert (batch.completeness, batch.delivery_hash) == ("manifest", "cd" * 32)
    assert received.objects[0].records == 3
    transformed = made("transform", TRANSFORMED)
    assert transformed.models == ("daily_delays",)
    assert [(t.name, t.status, t.failures) for t in transformed.tests] == [
        ("not_null_carrier", "fail", 2)
    ]
    assert made("audit", AUDITED).accepted == "not_null_carrier"
    published = made("publish", PUBLISHED)
    assert published.version == 7
    assert published.tables["ops.flights"].before is None
    assert published.tables["ops.flights"].after == "s3://lake/m1.json"
    for stage in ("load", "transform", "audit", "publish"):
        counts = made(stage, RESULTS[stage]).counts
        assert counts is not None
        assert counts.records_in == counts.loaded + counts.quarantined == 3


class TooManyRows(Refused):
    """An error of ours."""


class StoreAway(TryAgain):
    """Another one."""


def test_an_error_of_ours_is_told_with_its_code_and_hint() -> None:
    told = "a.csv, line 3: dep_delay: expected int"
    error = TooManyMisfits(told, hint="Mend it.", quarantine=KEPT, counts=COUNTS)
    refused = made("load", error)
    assert refused.outcome == "refused"
    assert refused.body()["error"] == {
        "code": "too-many-misfits",
        "message": "a.csv, line 3: dep_delay: expected int",
        "hint": "Mend it.",
    }
    assert refused.counts is not None
    assert refused.counts.quarantined == 1
    assert refused.batches[0].quarantine == KEPT
    assert made("load", StoreAway("away")).outcome == "failed"


@pytest.mark.parametrize(
    "outcome",
    [
        *RESULTS.values(),
        ValueError("could not convert 'Jane Doe' to int"),
        KeyboardInterrupt("Jane Doe"),
        ExceptionGroup("Jane Doe", [ValueError("Jane Doe")]),
    ],
)
def test_what_libraries_and_tests_say_of_cells_stays_out(outcome: Result | BaseException) -> None:
    assert "Jane Doe" not in json.dumps(made("load", outcome).body())


def test_an_unknown_error_is_told_by_its_class() -> None:
    receipt = made("load", ValueError("'Jane Doe'"))
    assert receipt.outcome == "failed"
    assert receipt.error is not None
    assert "ValueError" in receipt.error.message
    interrupted = made("load", KeyboardInterrupt())
    assert interrupted.error is not None
    assert interrupted.error.code == "interrupted"


@pytest.mark.parametrize("stage", RESULTS)
def test_what_is_written_is_read_again(stage: str) -> None:
    receipt = made(stage, RESULTS[stage])
    assert parse_receipt(json.loads(json.dumps(receipt.body())), key="k") == receipt


# As releases stored them. Never change these texts: later releases have to read them.
FORMAT_1 = """{
  "format": 1, "dataset": "flights", "batch": "2013-01-02", "run": "run-1", "stage": "publish",
  "outcome": "ok", "at": "2013-01-03T06:00:00Z", "seconds": 0.25,
  "counts": {"in": 3, "loaded": 2, "quarantined": 1},
  "tables": {"ops.flights": {"before": "s3://lake/m0.json", "after": "s3://lake/m1.json"}},
  "objects": [{"key": "raw/a.csv", "version_id": "v1", "sha256": "ab", "bytes": 40, "records": 3}],
  "branch": "batch/flights/run-1", "quarantine": "ops/quarantine/flights/run-1.parquet",
  "models": ["daily_delays"], "tests": [{"name": "t", "status": "pass", "failures": 0}],
  "version": 7
}"""


FORMAT_2 = """{
  "format": 2, "dataset": "flights", "run": "run-1", "stage": "publish",
  "batches": [
    {"batch": "2013-01-02", "counts": {"in": 3, "loaded": 2, "quarantined": 1},
     "completeness": "settled", "delivery_hash": "cd",
     "quarantine": "ops/quarantine/flights/2013-01-02/run-1.parquet"},
    {"batch": "2013-01-03", "error": {"code": "file-missing", "message": "m", "hint": "h"}},
    {"batch": "2013-01-04", "withdrawn": true}
  ],
  "outcome": "ok", "at": "2013-01-03T06:00:00Z", "seconds": 0.25,
  "counts": {"in": 3, "loaded": 2, "quarantined": 1},
  "tables": {"ops.flights": {"before": "s3://lake/m0.json", "after": "s3://lake/m1.json"}},
  "objects": [{"key": "raw/a.csv", "version_id": "v1", "sha256": "ab", "bytes": 40, "records": 3}],
  "branch": "batch/flights/run-1",
  "models": ["daily_delays"], "tests": [{"name": "t", "status": "pass", "failures": 0}],
  "version": 7
}"""


@pytest.mark.parametrize("stored", [FORMAT_1, FORMAT_2])
def test_a_receipt_as_a_release_stored_it_is_read(stored: str) -> None:
    receipt = parse_receipt(json.loads(stored), key="k")
    assert receipt.at == AT
    assert receipt.version == 7
    first = receipt.batches[0]
    assert first.batch == "2013-01-02"
    assert first.quarantine is not None
    for counts in (receipt.counts, first.counts):
        assert counts is not None
        assert counts.records_in == 3
    assert receipt.tables["ops.flights"].before == "s3://lake/m0.json"
    assert receipt.objects[0].bytes == 40
    assert receipt.tests[0].status == "pass"


def test_fields_of_a_later_release_are_passed_over() -> None:
    document = json.loads(FORMAT_1)
    document["weather"] = {"rain": True}
    document["objects"][0]["storage_class"] = "STANDARD"
    assert parse_receipt(document, key="k") == parse_receipt(json.loads(FORMAT_1), key="k")


@pytest.mark.parametrize(
    "body", ["", "\xff", "[]", "{}", FORMAT_2.replace('format": 2', 'format": 3')]
)
def test_what_is_no_receipt_is_told_with_its_key(body: str) -> None:
    objects = MemoryObjects("lake")
    objects.put(f"{PREFIX}flights/run-1/0001-load.json", body.encode("latin-1"))
    with pytest.raises(ReceiptUnreadable, match=r"flights/run-1/0001-load\.json"):
        list_runs(objects)


def keep(objects: MemoryObjects, run: Run, stage: str, outcome: Result | BaseException) -> None:
    receipt = receipt_of(run, stage, outcome, at=AT + timedelta(minutes=1), seconds=1)
    Stream(objects, f"{PREFIX}{run.dataset}/{run.id}/").append(stage, receipt.body())


def test_runs_are_listed_newest_first_by_their_last_receipt() -> None:
    objects = MemoryObjects("lake")
    other = Run("run-2", "weather", ("2013-01",))
    for stage, result in RESULTS.items():
        keep(objects, RUN, stage, result)
    keep(objects, other, "receive", TooManyRows("no"))
    objects.put(f"{PREFIX}flights/run-1/dbt/0009-manifest.json", b"{}")
    objects.put(f"{PREFIX}flights/run-1/notes.txt", b"")
    found = list_runs(objects)
    assert [(r.run, r.dataset, r.receipts) for r in found] == [
        ("run-2", "weather", 1),
        ("run-1", "flights", 5),
    ]
    assert (found[0].last.stage, found[0].last.outcome) == ("receive", "refused")
    assert (found[1].last.stage, found[1].last.version) == ("publish", 7)
    assert [r.run for r in list_runs(objects, "flights")] == ["run-1"]
    assert [r.run for r in list_runs(objects, most=1)] == ["run-2"]


def test_the_receipts_of_a_run_are_read_in_order() -> None:
    objects = MemoryObjects("lake")
    for stage, result in RESULTS.items():
        keep(objects, RUN, stage, result)
    assert [r.stage for r in receipts_of(objects, "flights", "run-1")] == list(RESULTS)
    with pytest.raises(RunUnknown):
        receipts_of(objects, "flights", "run")
