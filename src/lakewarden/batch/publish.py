"""Publish: main moves to the branch for all tables at once, or not at all."""

from datetime import datetime

from lakewarden.batch.model import Audited, Published
from lakewarden.lake.model import Contribution, Lake, Override


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
    publication = lake.publish(
        loaded.branch, [contribution], reads=audited.transformed.reads, at=at
    )
    return Published(audited, publication)
