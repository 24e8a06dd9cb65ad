"""Publish: main moves to the branch for all tables at once, or not at all."""

from datetime import datetime

from lakewarden.batch.model import Audited, Published
from lakewarden.lake.model import (
    CatalogUnavailable,
    Contribution,
    Lake,
    Override,
    Publication,
)


def publish(
    audited: Audited, *, lake: Lake, inputs_hash: str, accept: Override | None, at: datetime
) -> Published:
    """One atomic step of the catalog, with the publication as its record.

    Asserts that every table the batch read or wrote is still where its branch began: raises
    BaseMoved otherwise, and RunFenced where the run was taken over."""
    loaded = audited.transformed.loaded
    run, counts = loaded.received.run, loaded.counts
    contribution = Contribution(
        run.dataset,
        run.batch,
        inputs_hash,
        {"in": counts.records_in, "loaded": counts.loaded, "quarantined": counts.quarantined},
        accept if audited.accepted else None,
    )
    reads = audited.transformed.reads
    try:
        publication = lake.publish(loaded.branch, [contribution], reads=reads, at=at)
    except CatalogUnavailable:  # no answer is not a no: main may have moved
        outcome = lake.outcome(run.id)
        if not isinstance(outcome, Publication):
            raise
        publication = outcome
    return Published(audited, publication)
