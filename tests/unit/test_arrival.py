"""What should have arrived by now, from the calendar and the landing alone."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from lakewarden.batch.arrival import newest_due, not_arrived
from lakewarden.batch.calendar import Calendar
from lakewarden.batch.delivery.keys import BatchKey
from lakewarden.batch.model import Dataset
from tests.fakes.objects import MemoryObjects

TOKYO = ZoneInfo("Asia/Tokyo")
SALES = Dataset("sales", "date", "raw/sales/{batch}/", {"orders": "*.csv"}, 0.0, 1 << 20)
MANIFEST = b'{"entries": [{"url": "a.csv", "mandatory": true, "meta": {"content_length": 1}}]}'


def calendar(first: date | None = None, **more: object) -> Calendar:
    key = BatchKey(first, "date") if first else None
    return Calendar("date", time(6), TOKYO, timedelta(minutes=90), first=key, **more)  # type: ignore[arg-type]  # of the test's own


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=TOKYO).astimezone(UTC)


def missing(objects: MemoryObjects, now: str, first: date | None = None) -> list[str]:
    return [one.batch for one in not_arrived(objects, SALES, calendar(first), at(now))]


def test_the_newest_due_batch_is_of_the_day_before() -> None:
    assert str(newest_due(calendar(), at("2026-03-02 06:01"))) == "2026-03-01"
    assert str(newest_due(calendar(), at("2026-03-02 05:59"))) == "2026-02-28"
    assert newest_due(calendar(date(2026, 3, 1)), at("2026-03-02 05:59")) is None


def test_months_are_due_in_the_next_one() -> None:
    monthly = Calendar("month", time(3), TOKYO, after=9)
    assert str(newest_due(monthly, at("2026-04-10 03:01"))) == "2026-03"
    assert str(newest_due(monthly, at("2026-04-10 02:59"))) == "2026-02"


def test_a_delivery_is_missed_after_its_grace() -> None:
    objects, first = MemoryObjects(), date(2026, 3, 1)
    assert missing(objects, "2026-03-02 07:29", first) == []
    assert missing(objects, "2026-03-02 07:31", first) == ["2026-03-01"]
    objects.put("raw/sales/2026-03-01/_manifest.json", MANIFEST)
    objects.put("raw/sales/2026-03-01/a.csv", b"1")
    assert missing(objects, "2026-03-02 07:31", first) == []
    assert missing(objects, "2026-03-04 07:31", first) == ["2026-03-03", "2026-03-02"]


def test_without_its_manifest_it_has_not_come_and_a_wrong_one_has() -> None:
    objects = MemoryObjects()
    objects.put("raw/sales/2026-03-01/a.csv", b"1")
    assert missing(objects, "2026-03-02 08:00") == ["2026-03-01"]
    objects.put("raw/sales/2026-03-01/_manifest.json", b"{")
    assert missing(objects, "2026-03-02 08:00") == []


def test_without_a_first_batch_only_the_newest_is_looked_for() -> None:
    assert missing(MemoryObjects(), "2026-03-05 08:00") == ["2026-03-04"]


def test_it_does_not_look_back_for_ever() -> None:
    assert len(missing(MemoryObjects(), "2026-03-05 08:00", date(2020, 1, 1))) == 35
