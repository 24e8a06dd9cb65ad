"""What the Dagster room decides: lineage, times, alerts, failures, charts."""

import json
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewarden.aws.objects import ObjectVersion
from lakewarden.batch.calendar import Calendar, due_at, is_expected
from lakewarden.batch.conductor import Outcome
from lakewarden.batch.delivery.keys import key_of
from lakewarden.batch.model import (
    Counts,
    Delivery,
    LeftOut,
    Loaded,
    LoadedBatch,
    LoadedFile,
    Run,
)
from lakewarden.batch.models.selection import Kind, LakeMark, Node, Write
from lakewarden.dagster_defs.alerts import FailedStep, digest, of_drift, of_failure
from lakewarden.dagster_defs.checks import worst
from lakewarden.dagster_defs.failures import failure, failure_of_some
from lakewarden.dagster_defs.lineage import Asset, Check, lineage
from lakewarden.dagster_defs.reports import chart, metadata, reports
from lakewarden.dagster_defs.timing import cron, due_at_tick, due_on, freshness
from lakewarden.errors import Failed, Refused, TryAgain
from lakewarden.lake.model import Branch, Contribution, Pin, Publication, TableChange
from lakewarden.tables.drift import Finding, FindingKind

# ── lineage ─────────────────────────────────────────────────────────────────────────────────────


def source(table: str, *, schema: str = "raw") -> Node:
    return Node(f"source.{table}", table, Kind.SOURCE, schema=schema, relation=table)


def model(name: str, *parents: str, table: str | None = None, inlined: bool = False) -> Node:
    mark = LakeMark(table, Write.ALL) if table else None
    id = f"model.{name}"
    return Node(id, name, Kind.MODEL, parents, "main", name, inlined=inlined, mark=mark)


def check(name: str, *parents: str, about: str | None = None) -> Node:
    return Node(f"test.{name}", name, Kind.TEST, parents, about=about)


NODES = [
    source("orders"),
    source("shops"),
    source("rates", schema=""),
    model("stg_shops", "source.shops"),
    model("inline", "model.stg_shops", inlined=True),
    model("report", "source.orders", "model.inline", "source.rates", table="marts.report"),
    Node("seed.codes", "codes", Kind.SEED),
    model("decoded", "seed.codes"),
    check("amount > 0", "model.report"),
    check("refers", "model.stg_shops", "model.report", about="model.report"),
    check("adds_up", "source.orders", "model.report"),
    check("of_a_seed", "seed.codes"),
    check("inlined", "model.inline"),
]
TABLES = {"sales": ["raw.orders"], "stores": ["raw.shops"]}


def test_models_belong_to_the_first_dataset_that_they_are_made_from() -> None:
    drawn = lineage(TABLES, {node.id: node for node in NODES})
    report, stg = ("marts", "report"), ("models", "stg_shops")
    assert drawn.by_key == {
        ("raw", "orders"): Asset(("raw", "orders"), "sales", table="raw.orders"),
        ("raw", "shops"): Asset(("raw", "shops"), "stores", table="raw.shops"),
        ("sources", "rates"): Asset(("sources", "rates"), None),
        ("models", "codes"): Asset(("models", "codes"), None, model="codes"),
        ("models", "decoded"): Asset(
            ("models", "decoded"), None, (("models", "codes"),), model="decoded"
        ),
        stg: Asset(stg, "stores", (("raw", "shops"),), model="stg_shops"),
        report: Asset(
            report,
            "sales",
            (("raw", "orders"), stg, ("sources", "rates")),
            "marts.report",
            "report",
        ),
    }
    order = [asset.key for asset in drawn.assets]
    assert order.index(stg) < order.index(report)
    assert set(drawn.checks) == {
        Check(("raw", "orders"), "conservation"),
        Check(("raw", "shops"), "conservation"),
        Check(report, "amount___0", "amount > 0"),
        Check(report, "refers", "refers", (stg,)),
        Check(report, "adds_up", "adds_up", (("raw", "orders"),)),
        Check(stg, "inlined", "inlined"),
    }


def test_without_models_there_are_tables_and_their_conservation() -> None:
    drawn = lineage(TABLES, {})
    assert [asset.key for asset in drawn.assets] == [("raw", "orders"), ("raw", "shops")]
    assert len(drawn.checks) == 2


# ── times ───────────────────────────────────────────────────────────────────────────────────────

DAYS = st.dates(date(1990, 1, 1), date(2050, 1, 1))
CALENDARS = st.builds(
    Calendar,
    form=st.sampled_from(["date", "month"]),
    at=st.times().map(lambda at: at.replace(second=0, microsecond=0)),
    zone=st.sampled_from(["UTC", "Asia/Tokyo", "America/New_York"]).map(ZoneInfo),
    grace=st.integers(0, 3000).map(lambda n: timedelta(minutes=n)),
    after=st.integers(0, 40),
    weekdays=st.frozensets(st.integers(0, 6), min_size=1),
    holidays=st.frozensets(DAYS, max_size=3),
)


@given(CALENDARS, DAYS)
def test_what_is_due_on_a_day_is_due_on_it(calendar: Calendar, day: date) -> None:
    found = due_on(calendar, day)
    if found is not None:
        assert is_expected(calendar, found)
        wall = due_at(calendar, found).astimezone(calendar.zone)
        # A wall time that the clocks skip around midnight is told as the next day's.
        assert wall.date() - day in (timedelta(0), timedelta(days=1))


@given(CALENDARS, DAYS)
def test_every_expected_batch_is_due_on_some_day(calendar: Calendar, day: date) -> None:
    key = key_of(day, calendar.form)
    if is_expected(calendar, key):
        due = due_at(calendar, key).astimezone(calendar.zone).date()
        assert key in (due_on(calendar, due), due_on(calendar, due - timedelta(days=1)))


@given(CALENDARS)
def test_cron_and_freshness_are_what_dagster_takes(calendar: Calendar) -> None:
    assert dg.ScheduleDefinition(job_name="x", cron_schedule=cron(calendar)).cron_schedule
    freshness(calendar)


def calendar(**changed: object) -> Calendar:
    said = {"form": "date", "at": time(6), "zone": ZoneInfo("Asia/Tokyo"), **changed}
    return Calendar(**said)  # type: ignore[arg-type] # the names are those of its fields


def deadline(found: dg.FreshnessPolicy | None) -> str | None:
    return getattr(found, "deadline_cron", None)


def test_the_clock_of_a_calendar() -> None:
    working = frozenset(range(5))
    late = timedelta(hours=20)
    assert cron(calendar()) == "0 6 * * *"
    assert cron(calendar(weekdays=working)) == "0 6 * * 2,3,4,5,6"
    assert deadline(freshness(calendar(weekdays=working, grace=late))) == "0 2 * * 0,3,4,5,6"
    assert cron(calendar(form="month", after=2)) == "0 6 3 * *"
    assert cron(calendar(form="month", after=30)) == "0 6 * * *"
    assert freshness(calendar(form="month", after=30)) is None
    assert freshness(calendar(holidays=frozenset([date(2026, 1, 1)]))) is None
    tick = datetime(2026, 3, 1, 21, 0, tzinfo=UTC)  # six o'clock of the second, in Tokyo
    assert str(due_at_tick(calendar(), tick)) == "2026-03-01"
    assert due_at_tick(calendar(form="month"), tick) is None


# ── errors and alerts ───────────────────────────────────────────────────────────────────────────


class DataWrong(Refused):
    """For this test."""


class StoreAway(TryAgain):
    """For this test."""


def text(found: dg.Failure, name: str) -> object:
    return found.metadata[name].value


def test_a_refusal_is_not_tried_again_and_an_outage_is() -> None:
    refused = failure(DataWrong("wrong", hint="mend it"), "sales", ["2024-01-01"])
    assert not refused.allow_retries and refused.description == "wrong"
    assert (text(refused, "code"), text(refused, "hint")) == ("data-wrong", "mend it")
    assert failure(StoreAway("away"), "sales", ["2024-01-01"]).allow_retries
    assert not failure(Failed("bad"), "sales", ["2024-01-01"]).allow_retries


def test_an_unknown_error_tells_nothing_but_its_class_and_its_way() -> None:
    try:
        raise ValueError("cannot cast 'Patient 4711'")
    except ValueError as error:
        found = failure(error, "sales", ["2024-01-01", "2024-01-02"])
    assert "4711" not in repr(found.metadata) + str(found.description)
    assert found.__cause__ is None and found.__context__ is None
    assert text(found, "batch") == "2024-01-01..2024-01-02"
    assert "test_dagster_decisions.py" in str(text(found, "came_by"))


def test_of_a_range_it_is_told_what_is_missing() -> None:
    left = [LeftOut("2024-01-02", DataWrong("wrong")), LeftOut("2024-01-03", StoreAway("away"))]
    found = failure_of_some(left, "sales", 5)
    assert not found.allow_retries
    assert text(found, "code") == "batches-left-out"
    assert failure_of_some(left[1:], "sales", 5).allow_retries
    assert text(failure_of_some(left[:1], "sales", 5), "code") == "data-wrong"


def test_an_alert_has_names_and_codes() -> None:
    said = failure(DataWrong("wrong", hint="mend it"), "sales", ["2024-01-01"]).metadata
    alert = of_failure("shop", "job", "run-1", "sales", None, FailedStep("step", said))
    assert alert.subject == "shop: sales 2024-01-01 failed: data-wrong"
    assert json.loads(alert.message) == {
        "format": 1,
        "kind": "run-failed",
        "project": "shop",
        "job": "job",
        "run": "run-1",
        "dataset": "sales",
        "batch": "2024-01-01",
        "error": "data-wrong",
        "hint": "mend it",
    }
    killed = of_failure("shop", "job", "run-1", "sales", "2024-01-01", None)
    assert killed.body["error"] == "run-ended" and "run-1" in str(killed.body["hint"])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_drift_has_a_digest_of_its_own(count: int) -> None:
    found = {f"raw.t{n}": [Finding(FindingKind.TYPE, "x", "int", "long")] for n in range(count)}
    assert (digest(found) == "") is (count == 0)
    assert digest(found) == digest(dict(reversed(found.items())))
    assert of_drift("shop", found).body["tables"] == count


def test_of_several_groups_a_test_is_as_bad_as_its_worst() -> None:
    assert worst([{"a": "pass", "b": "warn"}, {"a": "fail", "b": "pass"}]) == {
        "a": "fail",
        "b": "warn",
    }


def test_the_chart_shows_what_main_holds() -> None:
    def one(version: int, batch: str, loaded: int, *, withdrawn: bool = False) -> Publication:
        counts = {"in": loaded, "loaded": loaded, "quarantined": 0}
        held = Contribution("sales", batch, "", counts, withdrawn=withdrawn)
        return Publication(version, "run", datetime(2024, 1, 1, tzinfo=UTC), held, {})

    newest_first = [
        one(4, "2024-01-02", 10),
        one(3, "2024-01-03", 1, withdrawn=True),
        one(2, "2024-01-02", 99),
        one(1, "2024-01-01", 5),
    ]
    assert chart(newest_first).splitlines()[2:] == [
        f"| 2024-01-01 | 5 | {'█' * 10} |",
        f"| 2024-01-02 | 10 | {'█' * 20} |",
    ]
    assert chart([]).count("\n") == 1


def test_a_batch_is_counted_by_table() -> None:
    counts = {"in": 9, "loaded": 8, "quarantined": 1}
    held = Contribution("sales", "2024-01-01", "", counts)
    version = ObjectVersion("key", "1", "etag", 1, datetime(2024, 1, 1, tzinfo=UTC))
    publication = Publication(
        3, "run", version.modified, held, {"raw.a": TableChange(None, "s3://b/a.json")}
    )

    def file(table: str, *counted: int) -> LoadedFile:
        return LoadedFile("file", table, version, "", 1, Counts(*counted))

    files = [file("raw.a", 3, 3, 0), file("raw.a", 2, 1, 1), file("raw.b", 4, 4, 0)]
    delivery = Delivery("2024-01-01", [], "hash", "manifest")
    batch = LoadedBatch(delivery, files, {}, None, Counts(9, 8, 1))
    run = Run("run", "sales", ("2024-01-01", "2024-01-02"))
    branch = Branch("b", "run", Pin("main", "2", {}), version.modified)
    loaded = Loaded(run, branch, frozenset(), [batch])
    left = [LeftOut("2024-01-02", DataWrong("wrong"))]
    outcome = Outcome(run, "published", publication, None, loaded, left)
    (found,) = reports(outcome, None, [publication])
    assert found.is_new and found.counts("raw.a") == Counts(5, 4, 1)
    assert found.counts("raw.b") == Counts(4, 4, 0)
    told = metadata(Asset(("raw", "a"), "sales", table="raw.a"), found, "chart")
    assert (told["rows"].value, told["quarantined"].value) == (4, 1)
    assert told["metadata_location"].value == "s3://b/a.json"
    (same,) = reports(Outcome(Run("x", "sales", ("2024-01-01",)), "unchanged"), None, [publication])
    assert not same.is_new and same.counts("raw.a") == Counts(9, 8, 1)
