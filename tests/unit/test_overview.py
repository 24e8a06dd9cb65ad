"""What there is of each batch: what is published counts for more than what a run says."""

import tomllib
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

import lakewarden
from lakewarden.batch.calendar import Calendar
from lakewarden.batch.delivery.keys import parse_key
from lakewarden.batch.history import BatchRecord, RunRecord
from lakewarden.batch.overview import BatchState, last_published, overview
from lakewarden.cli.status import chart, headline, troubles
from lakewarden.lake.model import Contribution, Publication
from lakewarden.settings import DueSettings

EXAMPLES = Path(lakewarden.__file__).parent / "examples"
NOW = datetime(2024, 1, 6, 7, 30, tzinfo=UTC)
DAILY = Calendar(
    "date", time(6), ZoneInfo("UTC"), timedelta(hours=2), first=parse_key("date", "2024-01-01")
)


def published(version: int, batch: str, rows: int, *, withdrawn: bool = False) -> Publication:
    counts = {"in": rows, "loaded": rows, "quarantined": 0}
    made = Contribution("sales", batch, "hash", counts, withdrawn=withdrawn)
    return Publication(version, f"run-{version}", NOW, made, {})


def ran(
    outcome: str,
    *batches: str,
    left_out: str = "",
    why: str = "too-many-misfits",
    error: str | None = None,
    rebuilds: tuple[str, ...] = (),
    at: datetime = NOW,
) -> RunRecord:
    told = [BatchRecord(one, None, None, why if one == left_out else None) for one in batches]
    return RunRecord(
        *("sales", batches[0], told, rebuilds, "run", at, outcome),
        version=None,
        records_in=None,
        loaded=None,
        quarantined=None,
        error=error,
    )


def states(found: list[BatchState]) -> dict[str, str]:
    return {one.batch: one.state for one in found}


def test_each_batch_has_what_became_of_it() -> None:
    found = list(
        overview(
            DAILY,
            [
                published(4, "2024-01-02", 0, withdrawn=True),
                published(3, "2024-01-02", 8),
                published(2, "2024-01-01", 7),
            ],
            [
                ran("refused", "2024-01-01", error="tests-failed"),  # a later delivery of it
                ran("published", "2024-01-02", "2024-01-03", left_out="2024-01-03"),
            ],
            lambda batch: batch == "2024-01-04",
            NOW,
            most=100,
        )
    )
    assert states(found) == {
        "2024-01-01": "published",
        "2024-01-02": "unpublished",
        "2024-01-03": "refused",
        "2024-01-04": "waiting",
        "2024-01-05": "late",
        "2024-01-06": "expected",
    }
    first, second, third, *_ = found
    assert (first.rows, first.version, first.error) == (7, 2, "tests-failed")
    assert (second.rows, second.version) == (None, 4)
    assert third.error == "too-many-misfits"
    assert third.due == datetime(2024, 1, 4, 6, tzinfo=UTC)


def test_a_run_that_came_too_soon_or_loads_nothing_says_nothing_of_a_batch() -> None:
    runs = [
        ran("failed", "2024-01-05", error="batch-unknown"),
        ran("published", "2024-01-04", left_out="2024-01-04", why="not-settled"),
        ran("published", "2024-01-01", "2024-01-02", "2024-01-03", rebuilds=("daily",)),
        ran("ended after load", "2024-01-03"),
    ]
    found = overview(DAILY, [], runs, lambda batch: batch == "2024-01-02", NOW, most=100)
    assert states(list(found)) == {
        "2024-01-01": "missing",
        "2024-01-02": "waiting",
        "2024-01-03": "failed",
        "2024-01-04": "missing",
        "2024-01-05": "late",
        "2024-01-06": "expected",
    }


def test_without_a_calendar_nothing_is_expected() -> None:
    found = overview(None, [published(1, "2023-05-01", 7)], [], lambda _: True, NOW, most=9)
    assert states(list(found)) == {"2023-05-01": "published"}


def test_only_what_is_told_is_looked_for() -> None:
    asked: list[str] = []

    def is_delivered(batch: str) -> bool:
        asked.append(batch)
        return False

    found = overview(DAILY, [], [], is_delivered, NOW, most=2)
    assert [one.batch for one in found] == ["2024-01-05", "2024-01-06"]
    assert asked == ["2024-01-05", "2024-01-06"]


def test_the_newest_are_told() -> None:
    every = [published(n, f"2024-01-{n:02d}", n) for n in range(9, 0, -1)]
    found = overview(None, every, [], lambda _: False, NOW, most=2)
    assert [one.batch for one in found] == ["2024-01-08", "2024-01-09"]


LATER, EARLIER = NOW + timedelta(hours=1), NOW - timedelta(hours=1)


def since(*runs: RunRecord, withdrawn: bool = False) -> str | None:
    newest = published(2, "2024-01-01", 7, withdrawn=withdrawn)
    (found,) = overview(None, [newest], runs, lambda _: False, NOW, most=9)
    assert found.state == ("unpublished" if withdrawn else "published")
    return found.since


def test_a_correction_that_did_not_get_through_is_told_of_a_published_batch() -> None:
    refused = ran("refused", "2024-01-01", error="tests-failed", at=LATER)
    assert since(refused) == "refused"
    assert since(refused, withdrawn=True) == "refused"
    assert since(ran("ended after load", "2024-01-01", at=LATER)) == "failed"
    set_without_it = ran("published", "2024-01-01", "2024-01-02", left_out="2024-01-01", at=LATER)
    (first, *_) = overview(
        None, [published(2, "2024-01-01", 7)], [set_without_it], lambda _: False, NOW, most=9
    )
    assert first.since == "refused"


def test_what_is_over_or_said_nothing_is_not_told_of_a_published_batch() -> None:
    assert since() is None
    assert since(ran("published", "2024-01-01")) is None
    assert since(ran("unchanged", "2024-01-01", at=LATER)) is None
    assert since(ran("left", "2024-01-01", at=LATER)) is None
    # looked at with --no-publish, and its branch discarded
    assert since(ran("ended after audit", "2024-01-01", at=LATER)) is None
    # refused while another run of the batch, begun before, was about to publish it
    assert since(ran("refused", "2024-01-01", error="tests-failed", at=EARLIER)) is None
    too_soon = ran("failed", "2024-01-01", error="not-settled", at=LATER)
    assert since(too_soon, ran("published", "2024-01-01")) is None


def test_the_last_published_batch_is_the_newest_by_its_key() -> None:
    assert last_published([]) is None
    every = [
        published(4, "2024-01-03", 0, withdrawn=True),
        published(3, "2024-01-01", 5),
        published(2, "2024-01-03", 9),
        published(1, "2024-01-02", 8),
    ]
    found = last_published(every)
    assert found
    assert (found.version, found.contribution.batch) == (1, "2024-01-02")


def test_the_headline_tells_the_last_published_batch_also_when_the_chart_does_not() -> None:
    missing = BatchState("2024-06-01", "missing", None, None, None, None, None)
    line = str(headline("sales", [missing], published(3, "2024-01-02", 8)))
    assert line == "sales  ·  last 2024-01-02: 8 rows, version 3"
    assert str(headline("sales", [], None)) == "sales  no batch yet"
    assert (
        str(headline("sales", [missing], None)) == "sales  none of the last 1 batches is published"
    )


def test_a_correction_that_was_refused_is_a_line_of_the_status() -> None:
    held = BatchState("2024-05", "published", None, 2, 70, "tests-failed", "refused")
    out = BatchState("2024-06", "unpublished", None, 4, None, None, "failed")
    fine = BatchState("2024-07", "published", None, 3, 70, None, None)
    assert list(troubles("cases", [held, out, fine])) == [
        "refused   2024-05  tests-failed (version 2 stays)  → lakewarden batch show cases 2024-05",
        "failed    2024-06  (it stays unpublished)  → lakewarden batch show cases 2024-06",
    ]


def test_the_chart_has_a_sign_for_each_batch() -> None:
    def state(rows: int | None) -> BatchState:
        return BatchState("2024-01-01", "published", None, 1, rows, None, None)

    assert chart([state(rows) for rows in (0, 50, None, 100)]) == "▁▅·█"
    assert chart([state(0)]) == "▁"
    assert chart([]) == ""


@pytest.mark.parametrize("example", ["flights", "dpc", "events"])
def test_of_an_example_nothing_is_missing(example: str) -> None:
    """Its data are of the past: with a calendar every day since then would be."""
    text = (EXAMPLES / example / "lakewarden.toml").read_text()
    datasets = tomllib.loads(text)["dataset"]
    assert not [name for name, told in datasets.items() if "due" in told]
    # With the lines that show how, it has to be read as well.
    datasets = tomllib.loads(text.replace("\n# due =", "\ndue ="))["dataset"]
    assert example == "flights" or all(
        DueSettings.model_validate(told["due"]).calendar(told["batch"])
        for told in datasets.values()
    )
