"""What became of each batch of a run, and what an asset tells of it. Pure.

Nothing here holds a value of the data: names, counts, versions and places.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import dagster as dg

from lakewarden.batch.conductor import Outcome
from lakewarden.batch.model import Counts, Loaded, LoadedBatch, Transformed
from lakewarden.batch.published import newest_of_each
from lakewarden.dagster_defs.lineage import Asset
from lakewarden.lake.model import Publication

_BATCHES = 31  # that the chart shows
_WIDTH = 20  # of its longest bar


@dataclass(frozen=True)
class BatchReport:
    """One batch that main holds after a run. `rows`: what was written for it, by table of the
    lake; `models`: those that were made again; both empty where the batch was left as it was."""

    batch: str
    publication: Publication
    counts: Counts
    is_new: bool
    rows: Mapping[str, int] = field(default_factory=dict)
    models: frozenset[str] = frozenset()


def reports(
    outcome: Outcome, transformed: Transformed | None, publications: Sequence[Publication]
) -> Sequence[BatchReport]:
    """Of each batch that the run did not leave out. publications: the dataset's, newest first, as
    they are after the run."""
    left_out = {one.batch for one in outcome.left_out}
    loaded = {one.delivery.batch: one for one in _loaded(outcome.loaded)}
    held = newest_of_each(publications)
    return [
        _report(held[batch], loaded.get(batch), transformed)
        for batch in outcome.run.batches
        if batch not in left_out and batch in held
    ]


def _loaded(loaded: Loaded | None) -> Sequence[LoadedBatch]:
    return loaded.batches if loaded else ()


def _report(
    publication: Publication, loaded: LoadedBatch | None, transformed: Transformed | None
) -> BatchReport:
    batch = publication.contribution.batch or ""
    if loaded is None:
        told = publication.contribution.counts
        counts = Counts(*(told.get(name, 0) for name in ("in", "loaded", "quarantined")))
        return BatchReport(batch, publication, counts, is_new=False)
    rows: dict[str, int] = {}
    for file in loaded.files:
        rows[file.table] = rows.get(file.table, 0) + file.counts.loaded
    for output in transformed.outputs if transformed else ():
        rows[output.table] = sum(one.record_count for one in output.data_files)
    models = frozenset(transformed.models if transformed else ())
    return BatchReport(batch, publication, loaded.counts, True, rows, models)


def metadata(
    asset: Asset, report: BatchReport, rows_by_batch: str
) -> Mapping[str, dg.MetadataValue]:
    """What a materialization of this asset tells of a batch. rows_by_batch: see `chart`."""
    told: dict[str, dg.MetadataValue] = {
        "batch": dg.MetadataValue.text(report.batch),
        "status": dg.MetadataValue.text("published" if report.is_new else "unchanged"),
        "version": dg.MetadataValue.int(report.publication.version),
        "run": dg.MetadataValue.text(report.publication.run),
    }
    change = report.publication.tables.get(asset.table or "")
    if change and change.after:
        told["metadata_location"] = dg.MetadataValue.path(change.after)
    if (rows := report.rows.get(asset.table or "")) is not None:
        told["rows"] = dg.MetadataValue.int(rows)
    if asset.is_loaded:
        told["records"] = dg.MetadataValue.int(report.counts.records_in)
        told["loaded"] = dg.MetadataValue.int(report.counts.loaded)
        told["quarantined"] = dg.MetadataValue.int(report.counts.quarantined)
        told["rows_by_batch"] = dg.MetadataValue.md(rows_by_batch)
    return told


def chart(publications: Sequence[Publication]) -> str:
    """Loaded rows by batch, the newest batches last, as a table with bars, in Markdown."""
    held = {
        batch: one.contribution.counts.get("loaded", 0)
        for batch, one in newest_of_each(publications).items()
        if batch and not one.contribution.withdrawn
    }
    newest = sorted(held)[-_BATCHES:]
    most = max((held[batch] for batch in newest), default=0) or 1
    lines = [f"| {b} | {held[b]:,} | {'█' * round(_WIDTH * held[b] / most)} |" for b in newest]
    return "\n".join(["| batch | rows | |", "| --- | ---: | :--- |", *lines])
