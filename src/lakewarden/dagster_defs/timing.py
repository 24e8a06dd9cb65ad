"""Partitions, schedules and freshness, from a dataset's form and its calendar. Pure."""

from datetime import date, datetime, timedelta

import dagster as dg

from lakewarden.batch.calendar import Calendar, is_expected
from lakewarden.batch.delivery.keys import BatchKey, key_of, preceding

_DAY = timedelta(days=1)
_SHORTEST_MONTH = 28
_MINUTES = 24 * 60
_WEEK = 7


def partitions(form: str, first: date, zone: str) -> dg.PartitionsDefinition[str]:
    """Batch keys as partition keys, from that of `first` to today's: what is delivered before its
    day or month is over has a partition too."""
    start = key_of(first, form).first_day.isoformat()
    if form == "month":
        return dg.MonthlyPartitionsDefinition(
            start_date=start[:7], fmt="%Y-%m", timezone=zone, end_offset=1
        )
    return dg.DailyPartitionsDefinition(start, fmt="%Y-%m-%d", timezone=zone, end_offset=1)


def cron(calendar: Calendar) -> str:
    """When something may be due, in the calendar's zone: each day, or the one day of the month."""
    return _cron(calendar, calendar.at.hour * 60 + calendar.at.minute)


def due_on(calendar: Calendar, day: date) -> BatchKey | None:
    """The batch that is due on a day (in the calendar's zone), if one is."""
    try:
        begin = day - calendar.after * _DAY  # the first day after the batch's own day or month
    except OverflowError:
        return None
    key = preceding(key_of(begin, calendar.form))
    if key is None or (calendar.form == "month" and begin.day != 1):
        return None
    return key if is_expected(calendar, key) else None


def due_at_tick(calendar: Calendar, at: datetime) -> BatchKey | None:
    """The batch that is due at a schedule's tick."""
    return due_on(calendar, at.astimezone(calendar.zone).date())


def freshness(calendar: Calendar) -> dg.FreshnessPolicy | None:
    """Published once between one end of grace and the next. None where no single line of cron
    says when that is: then days are skipped, or the month's day moves."""
    if calendar.holidays:
        return None
    minutes = calendar.at.hour * 60 + calendar.at.minute + int(calendar.grace.total_seconds() // 60)
    if calendar.form == "month":
        if calendar.after + 1 + minutes // _MINUTES > _SHORTEST_MONTH:
            return None
        span = timedelta(days=_SHORTEST_MONTH)
    else:
        span = _DAY
    return dg.FreshnessPolicy.cron(
        _cron(calendar, minutes), lower_bound_delta=span, timezone=calendar.zone.key
    )


def _cron(calendar: Calendar, minutes: int) -> str:
    """A line of cron: so many minutes after the midnight at which due days begin."""
    days, rest = divmod(minutes, _MINUTES)
    clock = f"{rest % 60} {rest // 60}"
    shift = 1 + calendar.after + days
    if calendar.form == "month":
        return f"{clock} {shift} * *" if shift <= _SHORTEST_MONTH else f"{clock} * * *"
    if len(calendar.weekdays) == _WEEK:
        return f"{clock} * * *"
    # Cron's week begins on Sunday, Python's on Monday.
    week = sorted((day + 1 + shift) % _WEEK for day in calendar.weekdays)
    return f"{clock} * * {','.join(map(str, week))}"
