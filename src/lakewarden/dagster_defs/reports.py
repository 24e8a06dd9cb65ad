"""What became of each batch of a run, and what an asset tells of it. Pure.

Nothing here holds a value of the data: names, counts, versions and places.
"""

from collections.abc import Iterable, Mapping, Sequence
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
    """One batch that main holds after a run. `loaded`: what was counted of each table that is
    loaded; `written`: the rows of each table that a model wrote; `models`: those that were made
    again. All are empty where the batch was left as it was."""

    batch: str
    publication: Publication
    is_new: bool
    loaded: Mapping[str, Counts] = field(default_factory=dict)
    written: Mapping[str, int] = field(default_factory=dict)
    models: frozenset[str] = frozenset()

    def counts(self, table: str | None) -> Counts:
        """Of a table; where it was not loaded now, of all the batch's tables together."""
        if table is not None and table in self.loaded:
            return self.loaded[table]
        told = self.publication.contribution.counts
        return Counts(*(told.get(name, 0) for name in ("in", "loaded", "quarantined")))


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
        return BatchReport(batch, publication, is_new=False)
    by_table: dict[str, list[Counts]] = {}
    for file in loaded.files:
        by_table.setdefault(file.table, []).append(file.counts)
    written = {
        output.table: sum(one.record_count for one in output.data_files)
        for output in (transformed.outputs if transformed else ())
    }
    models = frozenset(transformed.models if transformed else ())
    counted = {table: total(counts) for table, counts in by_table.items()}
    return BatchReport(batch, publication, True, counted, written, models)


def total(counts: Iterable[Counts]) -> Counts:
    """All of them together."""
    every = list(counts)
    return Counts(
        sum(one.records_in for one in every),
        sum(one.loaded for one in every),
        sum(one.quarantined for one in every),
    )


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
    if (rows := report.written.get(asset.table or "")) is not None:
        told["rows"] = dg.MetadataValue.int(rows)
    if asset.is_loaded:
        counts = report.counts(asset.table)
        told["records"] = dg.MetadataValue.int(counts.records_in)
        told["rows"] = dg.MetadataValue.int(counts.loaded)
        told["quarantined"] = dg.MetadataValue.int(counts.quarantined)
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
