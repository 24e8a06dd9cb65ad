"""The calendar: every batch is in one state, states move forward, clocks may change at will."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewarden.batch.calendar import (
    Calendar,
    due_at,
    expectations,
    is_expected,
)
from lakewarden.batch.delivery.keys import BatchKey, following, parse_key, preceding

ZONES = ("Asia/Tokyo", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe")
TOKYO = Calendar("date", time(6), ZoneInfo("Asia/Tokyo"), timedelta(minutes=90))
BERLIN = replace(TOKYO, at=time(2, 30), zone=ZoneInfo("Europe/Berlin"))
MONTHLY = replace(TOKYO, form="month")
WORKDAYS = frozenset(range(5))


def day(text: str) -> BatchKey:
    return parse_key("date", text)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def states(
    calendar: Calendar, known: Mapping[str, str], now: str, *, most: int = 400
) -> dict[str, str]:
    found = expectations(calendar, known, utc(now), most=most)
    return {str(one.batch): one.state for one in found}


# ── when a batch is due ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("calendar", "batch", "due"),
    [
        (TOKYO, "2013-01-31", "2013-01-31T21:00"),  # 06:00 in Tokyo on the 1st of February
        (replace(TOKYO, after=3), "2013-01-31", "2013-02-03T21:00"),
        (MONTHLY, "2013-01", "2013-01-31T21:00"),
        (MONTHLY, "2012-12", "2012-12-31T21:00"),
        (replace(MONTHLY, after=9), "2024-02", "2024-03-09T21:00"),
        (BERLIN, "2024-01-01", "2024-01-02T01:30"),
        (BERLIN, "2024-07-01", "2024-07-02T00:30"),
        # 02:30 on 2024-03-31 is skipped: an hour after 01:30, which is 03:30 in summer time.
        (BERLIN, "2024-03-30", "2024-03-31T01:30"),
        (BERLIN, "2024-03-31", "2024-04-01T00:30"),
        # 02:30 on 2024-10-27 comes twice: the first one, in summer time.
        (BERLIN, "2024-10-26", "2024-10-27T00:30"),
        (BERLIN, "2024-10-27", "2024-10-28T01:30"),
        # Half an hour is skipped on 2024-10-06: 02:15 by the offset of +10:30.
        (
            replace(TOKYO, at=time(2, 15), zone=ZoneInfo("Australia/Lord_Howe")),
            "2024-10-05",
            "2024-10-05T15:45",
        ),
    ],
)
def test_a_batch_is_due_at_its_wall_time(calendar: Calendar, batch: str, due: str) -> None:
    assert due_at(calendar, parse_key(calendar.form, batch)) == utc(due)


def test_a_day_that_a_zone_left_out_is_due_with_the_next_one() -> None:
    samoa = replace(TOKYO, zone=ZoneInfo("Pacific/Apia"))
    assert due_at(samoa, day("2011-12-29")) == due_at(samoa, day("2011-12-30"))
    assert due_at(samoa, day("2011-12-30")) < due_at(samoa, day("2011-12-31"))


def test_grace_is_elapsed_time_whatever_the_clocks_do() -> None:
    # Due at 01:30 summer time; 90 minutes later it is 02:00 winter time.
    calendar = replace(BERLIN, at=time(1, 30), first=day("2024-10-26"))
    assert due_at(calendar, day("2024-10-26")) == utc("2024-10-26T23:30")
    assert states(calendar, {}, "2024-10-26T23:30")["2024-10-26"] == "expected"
    assert states(calendar, {}, "2024-10-26T23:31")["2024-10-26"] == "late"
    assert states(calendar, {}, "2024-10-27T01:00")["2024-10-26"] == "late"
    assert states(calendar, {}, "2024-10-27T01:01")["2024-10-26"] == "missing"


@given(
    st.sampled_from(ZONES),
    st.times(),
    st.integers(0, 40),
    st.sampled_from(["date", "month"]),
    st.dates(date(1990, 1, 1), date(2037, 12, 1)),
)
def test_due_times_rise_and_follow_their_batch(
    zone: str, at: time, after: int, form: str, first: date
) -> None:
    calendar = Calendar(form, at, ZoneInfo(zone), after=after)
    key = BatchKey(first if form == "date" else first.replace(day=1), form)
    later = following(key)
    assert later is not None
    assert due_at(calendar, key) < due_at(calendar, later)
    local = due_at(calendar, key).astimezone(ZoneInfo(zone)).date()
    assert local == later.first_day + timedelta(days=after)
    assert preceding(later) == key


def test_the_calendar_has_two_ends() -> None:
    last, first = day("9999-12-31"), day("0001-01-01")
    assert following(last) is None
    assert preceding(first) is None
    assert due_at(replace(TOKYO, after=1), day("9999-12-30")).year == 9999
    now = "2013-01-01T12:00"
    assert states(TOKYO, {"9999-12-31": "published"}, now)["9999-12-31"] == "published"
    assert len(states(TOKYO, {"0001-01-01": "published"}, now, most=10)) == 10
    assert states(MONTHLY, {"9999-12": "refused"}, "9999-12-31T23:00") == {"9999-12": "refused"}
    assert states(TOKYO, {}, "0001-01-01T00:00") == {"0001-01-01": "expected"}


# ── which batches there are ─────────────────────────────────────────────────────────────────────


def test_there_is_no_batch_of_a_day_off() -> None:
    calendar = replace(TOKYO, weekdays=WORKDAYS, holidays=frozenset({date(2013, 1, 1)}))
    friday, saturday, new_year = day("2013-01-04"), day("2013-01-05"), day("2013-01-01")
    assert is_expected(calendar, friday)
    assert not is_expected(calendar, saturday)
    assert not is_expected(calendar, new_year)
    assert not is_expected(replace(calendar, first=day("2013-01-07")), friday)
    assert not is_expected(calendar, parse_key("month", "2013-01"))


def test_a_month_has_no_days_off() -> None:
    calendar = replace(MONTHLY, weekdays=WORKDAYS, holidays=frozenset({date(2013, 6, 1)}))
    assert is_expected(calendar, parse_key("month", "2013-06"))  # the 1st is a Saturday


def test_a_week_of_deliveries() -> None:
    calendar = replace(
        TOKYO, weekdays=WORKDAYS, holidays=frozenset({date(2013, 1, 9)}), first=day("2013-01-04")
    )
    known = {"2013-01-06": "published", "2013-01-07": "refused", "2013-01-08": "running"}
    # 06:30 in Tokyo on Friday the 11th: Thursday's has been due for half an hour.
    assert states(calendar, known, "2013-01-10T21:30") == {
        "2013-01-04": "missing",
        "2013-01-06": "published",  # a Sunday: not expected, and here
        "2013-01-07": "refused",
        "2013-01-08": "running",
        "2013-01-10": "late",
        "2013-01-11": "expected",
    }


def test_without_a_first_batch_the_oldest_known_one_begins() -> None:
    now = "2013-01-03T12:00"
    assert states(TOKYO, {}, now) == {"2013-01-03": "expected"}
    assert states(TOKYO, {"2013-01-01": "failed"}, now) == {
        "2013-01-01": "failed",
        "2013-01-02": "missing",
        "2013-01-03": "expected",
    }
    assert states(TOKYO, {"2013-02-01": "published"}, now) == {
        "2013-01-03": "expected",
        "2013-02-01": "published",
    }


def test_what_comes_before_its_time_is_kept() -> None:
    calendar = replace(TOKYO, first=day("2013-01-03"))
    known = {"2013-01-01": "published", "2013-01-04": "published", "2013-02-01": "published"}
    assert states(calendar, known, "2013-01-03T12:00") == {
        "2013-01-01": "published",
        "2013-01-03": "expected",
        "2013-01-04": "published",
        "2013-02-01": "published",
    }


def test_a_first_batch_that_is_yet_to_come() -> None:
    calendar = replace(MONTHLY, first=parse_key("month", "2014-05"))
    assert states(calendar, {}, "2013-01-03T12:00") == {"2014-05": "expected"}


def test_keys_of_another_form_are_left_out() -> None:
    assert states(TOKYO, {"2012-12": "published"}, "2013-01-03T12:00") == {"2013-01-03": "expected"}


# ── whatever the calendar ───────────────────────────────────────────────────────────────────────

OUTCOMES = ("published", "refused", "failed", "running")
STEPS = ("expected", "late", "missing")

calendars = st.builds(
    Calendar,
    form=st.just("date"),
    at=st.times(),
    zone=st.sampled_from(ZONES).map(ZoneInfo),
    grace=st.integers(0, 4000).map(lambda minutes: timedelta(minutes=minutes)),
    after=st.integers(0, 5),
    weekdays=st.frozensets(st.integers(0, 6), min_size=1),
    holidays=st.frozensets(st.dates(date(2024, 3, 1), date(2024, 4, 30)), max_size=20),
    first=st.just(day("2024-03-05")),
)
months = st.builds(
    replace, calendars, form=st.just("month"), first=st.just(parse_key("month", "2023-11"))
)
moments = st.datetimes(datetime(2024, 2, 1), datetime(2024, 4, 30), timezones=st.just(UTC))
days_known = st.dictionaries(
    st.dates(date(2024, 2, 25), date(2024, 5, 5)).map(str), st.sampled_from(OUTCOMES), max_size=30
)


@given(calendars | months, days_known, moments)
def test_every_batch_is_told_once_and_every_expected_one_is_told(
    calendar: Calendar, known: Mapping[str, str], now: datetime
) -> None:
    if calendar.form == "month":
        known = {key[:7]: outcome for key, outcome in known.items()}
    found = expectations(calendar, known, now)
    keys = [one.batch for one in found]
    assert keys == sorted(set(keys))
    told = {str(one.batch): one for one in found}
    assert {key: told[key].state for key in known} == dict(known)
    for one in found:
        assert one.due == due_at(calendar, one.batch)
        if str(one.batch) not in known:
            assert is_expected(calendar, one.batch)
            assert one.state in STEPS
    not_due = [one for one in found if one.due >= now and is_expected(calendar, one.batch)]
    assert not_due  # the next one, at least
    key = calendar.first
    while key is not None and key <= not_due[0].batch:
        assert not is_expected(calendar, key) or str(key) in told
        key = following(key)


@given(calendars | months, moments, moments)
def test_states_only_move_forward(calendar: Calendar, one: datetime, other: datetime) -> None:
    before, later = min(one, other), max(one, other)
    then = {e.batch: e.state for e in expectations(calendar, {}, before)}
    now = {e.batch: e.state for e in expectations(calendar, {}, later)}
    assert then.keys() <= now.keys()
    assert all(STEPS.index(then[key]) <= STEPS.index(now[key]) for key in then)


@given(calendars, days_known, moments, st.integers(1, 12))
def test_a_short_list_is_the_newest_part_of_the_long_one(
    calendar: Calendar, known: Mapping[str, str], now: datetime, most: int
) -> None:
    long = expectations(calendar, known, now)
    short = expectations(calendar, known, now, most=most)
    assert short == long[len(long) - len(short) :]
    expected = [one for one in short if is_expected(calendar, one.batch) and one.due < now]
    assert len(expected) <= most
