"""The calendar of a dataset's deliveries: which batches are expected, and what is late or missing.

Everything here is a pure function of the calendar, of what is known of each batch, and of the
time. A wall time is read as iCalendar does (RFC 5545, 3.3.5, form 3): one that the clocks skip
counts by the offset before the change (02:30 in the hour that is left out is an hour after 01:30),
and one that they pass twice is the first of the two.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

from lakewarden.batch.delivery.keys import (
    BatchKey,
    BatchKeyInvalid,
    following,
    key_of,
    parse_key,
    preceding,
)

EXPECTED, LATE, MISSING = "expected", "late", "missing"

_DAY = timedelta(days=1)
_EVERY_DAY = frozenset(range(7))
_THE_END = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Calendar:
    """When the batches of one dataset are due.

    A batch is due at the wall time `at` in `zone`, `after` whole days after the first day that
    follows its day or month: the 31st of January is due on the 1st of February, and so is January
    as a whole. `grace` is elapsed time, whatever the clocks do meanwhile.

    A date batch is the data of one day: there is one for each of `weekdays` (0 is Monday) that is
    not among `holidays`. A month batch comes every month. `first`: no batch before it is expected.
    """

    form: str  # date | month
    at: time
    zone: ZoneInfo
    grace: timedelta = timedelta(0)
    after: int = 0
    weekdays: frozenset[int] = _EVERY_DAY
    holidays: frozenset[date] = frozenset()
    first: BatchKey | None = None


@dataclass(frozen=True)
class Expectation:
    """One batch at one time. `state`: expected (not due yet), late (due, and within its grace),
    missing (past its grace), or what became of it."""

    batch: BatchKey
    due: datetime  # UTC
    state: str


def due_at(calendar: Calendar, key: BatchKey) -> datetime:
    """When a batch is due, in UTC; the end of all time where that lies beyond the year 9999.

    Later batches are due later. (Where a zone left out a whole day, as Samoa did on 2011-12-30,
    two are due at once.)
    """
    after = following(key)
    if after is None:
        return _THE_END
    try:
        day = after.first_day + calendar.after * _DAY
        wall = datetime.combine(day, calendar.at.replace(fold=0), tzinfo=calendar.zone)
        return wall.astimezone(UTC)
    except OverflowError:
        return _THE_END


def is_expected(calendar: Calendar, key: BatchKey) -> bool:
    """Whether there is to be such a batch at all."""
    if key.form != calendar.form or (calendar.first is not None and key < calendar.first):
        return False
    if key.form == "month":
        return True
    day = key.first_day
    return day.weekday() in calendar.weekdays and day not in calendar.holidays


def expectations(
    calendar: Calendar, known: Mapping[str, str], now: datetime, *, most: int = 400
) -> Sequence[Expectation]:
    """The expected batches from the first one up to the next that is not due yet, and all known
    ones, in the order of time.

    known: what became of batches, by key; a key of another form (the dataset's was changed) is
    left out. The first batch is the calendar's; without that it is the oldest known one; without
    either, nothing has begun, and only the next batch is expected. Of more than `most` expected
    batches those that are newest are told, and nothing that is older than they.
    """
    became = _read(calendar.form, known)
    wanted = _wanted(calendar, became, now, most + 1)
    told = {*wanted[-most:], *became}
    if len(wanted) > most:
        # What is older would stand there as if nothing were missing in between.
        told = {key for key in told if key > wanted[0]}
    return [_expectation(calendar, key, became.get(key), now) for key in sorted(told)]


def _expectation(
    calendar: Calendar, key: BatchKey, became: str | None, now: datetime
) -> Expectation:
    due = due_at(calendar, key)
    return Expectation(key, due, became or _state(due, calendar.grace, now))


def _state(due: datetime, grace: timedelta, now: datetime) -> str:
    if now <= due:
        return EXPECTED
    return LATE if now - due <= grace else MISSING


def _read(form: str, known: Mapping[str, str]) -> Mapping[BatchKey, str]:
    read: dict[BatchKey, str] = {}
    for text, outcome in known.items():
        try:
            read[parse_key(form, text)] = outcome
        except BatchKeyInvalid:
            continue
    return read


def _wanted(
    calendar: Calendar, became: Mapping[BatchKey, str], now: datetime, most: int
) -> Sequence[BatchKey]:
    """The newest expected batches, from the first one to the next that is not due, in order."""
    upcoming = _next_not_due(calendar, now)
    if upcoming is None:
        return []
    first = calendar.first or min([upcoming, *became])
    # Backwards, and no further than needed: a delivery for the year 213 is soon made.
    since = takewhile(lambda key: key >= first, _back_from(upcoming))
    newest = list(islice((key for key in since if is_expected(calendar, key)), most))
    return newest[::-1]


def _next_not_due(calendar: Calendar, now: datetime) -> BatchKey | None:
    """The oldest expected batch that is not due yet; None at the end of the calendar."""
    begin = key_of(_days_before(now.astimezone(UTC).date(), calendar.after), calendar.form)
    # What is due today is of yesterday, or of last month; a zone is off by a day at most.
    begin = next(islice(_back_from(begin), 3, None), begin)
    keys = _on_from(max(begin, calendar.first) if calendar.first else begin)
    waiting = (key for key in keys if due_at(calendar, key) >= now)
    return next((key for key in waiting if is_expected(calendar, key)), None)


def _days_before(day: date, days: int) -> date:
    return date.fromordinal(max(day.toordinal() - days, 1))


def _on_from(key: BatchKey | None) -> Iterator[BatchKey]:
    while key is not None:
        yield key
        key = following(key)


def _back_from(key: BatchKey | None) -> Iterator[BatchKey]:
    while key is not None:
        yield key
        key = preceding(key)
