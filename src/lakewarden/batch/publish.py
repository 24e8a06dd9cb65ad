"""Publish: main moves to the branch for all tables at once, or not at all."""

from collections.abc import Sequence
from datetime import datetime

from lakewarden.batch.model import Audited, Published
from lakewarden.lake.model import CatalogUnavailable, Contribution, Lake, Publication


def publish(
    audited: Audited, *, lake: Lake, contributions: Sequence[Contribution], at: datetime
) -> Published:
    """One atomic step of the catalog, with the publication as its record.

    Asserts that every table the batch read or wrote is still where its branch began: raises
    BaseMoved otherwise, and RunFenced where the run was taken over."""
    loaded, reads = audited.transformed.loaded, audited.transformed.reads
    try:
        publication = lake.publish(loaded.branch, contributions, reads=reads, at=at)
    except CatalogUnavailable:  # no answer is not a no: main may have moved
        outcome = lake.outcome(loaded.run.id)
        if not isinstance(outcome, Publication):
            raise
        publication = outcome
    return Published(audited, publication)
