"""What there is of each batch: what is published counts for more than what a run says."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from lakewarden.batch.calendar import Calendar
from lakewarden.batch.delivery.keys import parse_key
from lakewarden.batch.history import BatchRecord, RunRecord
from lakewarden.batch.overview import BatchState, overview
from lakewarden.cli.status import chart
from lakewarden.lake.model import Contribution, Publication

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
) -> RunRecord:
    told = [BatchRecord(one, None, None, why if one == left_out else None) for one in batches]
    return RunRecord(
        *("sales", batches[0], told, rebuilds, "run", NOW, outcome),
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


def test_the_chart_has_a_sign_for_each_batch() -> None:
    def state(rows: int | None) -> BatchState:
        return BatchState("2024-01-01", "published", None, 1, rows, None)

    assert chart([state(rows) for rows in (0, 50, None, 100)]) == "▁▅·█"
    assert chart([state(0)]) == "▁"
    assert chart([]) == ""
