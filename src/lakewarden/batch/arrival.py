"""Which deliveries should be there and are not: calendar and landing only, no catalog."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from lakewarden.aws.objects import Objects
from lakewarden.batch.calendar import Calendar, due_at, is_expected
from lakewarden.batch.delivery.inventory import PartMissing
from lakewarden.batch.delivery.keys import BatchKey, following, key_of, preceding
from lakewarden.batch.delivery.manifest import ManifestMissing
from lakewarden.batch.model import Dataset
from lakewarden.batch.receive import BatchUnknown, NotReady, receive
from lakewarden.errors import Refused

_MOST = 35  # batches that are looked for, back from now: a month of days
# What says that a delivery has not come yet, or not whole.
_NOT_THERE = (BatchUnknown, NotReady, PartMissing, ManifestMissing)


@dataclass(frozen=True)
class Due:
    """A batch that was due at a time, in UTC."""

    dataset: str
    batch: str
    due: datetime


def newest_due(calendar: Calendar, now: datetime) -> BatchKey | None:
    """The newest expected batch that is due; None where none is yet."""
    return next(_due(calendar, now), None)


def not_arrived(
    objects: Objects, dataset: Dataset, calendar: Calendar, now: datetime
) -> Iterator[Due]:
    """Batches past their grace that have not come, or not whole, newest first. Without a first
    batch in the calendar nobody knows since when there should be any: only the newest is looked
    for. What came and is wrong has come. Raises StorageUnavailable, StorageDenied."""
    most = _MOST if calendar.first else 1
    for key in islice(_due(calendar, now - calendar.grace), most):
        if not _has_come(objects, dataset, str(key), now):
            yield Due(dataset.name, str(key), due_at(calendar, key))


def _due(calendar: Calendar, now: datetime) -> Iterator[BatchKey]:
    """Expected batches that are due, newest first."""
    key: BatchKey | None = key_of(now.date(), calendar.form)
    key = following(key) if key else None  # zones are off by a day at most
    while key is not None and (calendar.first is None or key >= calendar.first):
        if is_expected(calendar, key) and due_at(calendar, key) < now:
            yield key
        key = preceding(key)


def _has_come(objects: Objects, dataset: Dataset, batch: str, now: datetime) -> bool:
    with suppress(Refused):  # what is wrong with it is for a run to tell
        try:
            receive(objects, dataset, batch, now=now)
        except _NOT_THERE:
            return False
    return True
