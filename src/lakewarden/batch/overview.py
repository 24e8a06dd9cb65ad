"""What there is of each batch of a dataset, and what there should be. Pure.

Put together from what is published, from the runs, from what lies in the landing prefix and from
the calendar; what is published counts for more than what a run says.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from lakewarden.batch.calendar import Calendar, expectations, is_expected
from lakewarden.batch.history import RunRecord
from lakewarden.batch.published import newest_of_each
from lakewarden.lake.model import Publication

# Of runs that met no delivery, or not the whole of it yet: they say nothing of the batch.
_CAME_TOO_SOON = frozenset(
    ("batch-unknown", "marker-missing", "not-settled", "delivery-moving", "lease-held")
)
# `batch run --no-publish`, and its branch was discarded: somebody looked at it, no more.
_LOOKED_AT = "ended after audit"
PUBLISHED, UNPUBLISHED, WAITING = "published", "unpublished", "waiting"
# What somebody should look at; the first needs them most.
TROUBLE = ("missing", "refused", "failed", "late", WAITING)


@dataclass(frozen=True)
class BatchState:
    """One batch. `state`: what became of it (published, unpublished, refused, failed, running, …),
    `waiting` (delivered, and not run), or expected, late or missing. `due`: UTC, where there is a
    calendar. `rows`: published ones. `error`: the code of the last run's. `since`: refused or
    failed, where a run that came after `version` ended so and changed nothing: a correction, say.
    """

    batch: str
    state: str
    due: datetime | None
    version: int | None
    rows: int | None
    error: str | None
    since: str | None

    @property
    def trouble(self) -> str | None:
        """Why somebody should look at it, if anybody should."""
        return self.since or (self.state if self.state in TROUBLE else None)


def last_published(publications: Iterable[Publication]) -> Publication | None:
    """What holds the newest batch that is published, however old it is."""
    held = [one for one in newest_of_each(publications).values() if not one.contribution.withdrawn]
    return max(held, key=lambda one: one.contribution.batch or "", default=None)


def overview(
    calendar: Calendar | None,
    publications: Iterable[Publication],
    runs: Iterable[RunRecord],
    is_delivered: Callable[[str], bool],
    now: datetime,
    *,
    most: int,
) -> Sequence[BatchState]:
    """The newest batches of one dataset in the order of time, at most so many.

    publications, runs: of the dataset, newest first. is_delivered: asked of batches that nothing
    else is known of."""
    newest = newest_of_each(publications)
    last: dict[str, RunRecord] = {}
    for run in runs:
        for one in () if run.rebuilds else run.batches:
            if (run.error or one.error) not in _CAME_TOO_SOON:
                last.setdefault(one.batch, run)
    known = {batch: _outcome(batch, run) for batch, run in last.items()}
    known |= {
        batch: UNPUBLISHED if publication.contribution.withdrawn else PUBLISHED
        for batch, publication in newest.items()
    }
    states, dues = _expected(calendar, known, now, most)
    told = sorted(states)[-most:]
    waiting = {batch for batch in told if batch not in known and is_delivered(batch)}
    return [
        _state(
            batch,
            WAITING if batch in waiting else states[batch],
            dues.get(batch),
            newest.get(batch),
            last.get(batch),
        )
        for batch in told
    ]


def _expected(
    calendar: Calendar | None, known: Mapping[str, str], now: datetime, most: int
) -> tuple[Mapping[str, str], Mapping[str, datetime]]:
    """States and due times by batch."""
    if calendar is None:
        return known, {}
    found = expectations(calendar, known, now, most=most)
    states = {str(one.batch): one.state for one in found}
    return states, {str(one.batch): one.due for one in found if is_expected(calendar, one.batch)}


def _outcome(batch: str, run: RunRecord) -> str:
    """What became of a batch in a run that may have gone on without it."""
    if any(one.batch == batch and one.error for one in run.batches):
        return "refused"
    return "failed" if run.outcome.startswith("ended after") else run.outcome


def _state(
    batch: str,
    state: str,
    due: datetime | None,
    publication: Publication | None,
    run: RunRecord | None,
) -> BatchState:
    held = publication is not None and not publication.contribution.withdrawn
    rows = publication.contribution.counts.get("loaded") if publication and held else None
    version = publication.version if publication else None
    since = _since(batch, publication, run)
    return BatchState(batch, state, due, version, rows, _error(batch, run), since)


def _since(batch: str, publication: Publication | None, run: RunRecord | None) -> str | None:
    """Of its last run, where that came after the publication and did not get through."""
    if publication is None or run is None or run.at < publication.at or run.outcome == _LOOKED_AT:
        return None
    became = _outcome(batch, run)
    return became if became in ("refused", "failed") else None


def _error(batch: str, run: RunRecord | None) -> str | None:
    """Also of a batch that is published: a later delivery of it may have been refused."""
    if run is None:
        return None
    return next((one.error for one in run.batches if one.batch == batch), None) or run.error
