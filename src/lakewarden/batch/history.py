"""What happened to batches: receipts tell of every run, publications of those that reached main."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from lakewarden.aws.objects import Objects
from lakewarden.batch.receipts import RunSummary, list_runs
from lakewarden.lake.model import Lake


@dataclass(frozen=True)
class RunRecord:
    """One run. `outcome`: published, refused, failed, left (not published), or where it is."""

    dataset: str
    batch: str
    run: str
    at: datetime
    outcome: str
    version: int | None
    records_in: int | None
    loaded: int | None
    quarantined: int | None
    error: str | None


def runs(
    objects: Objects, lake: Lake, dataset: str | None = None, *, most: int | None = None
) -> Sequence[RunRecord]:
    """Runs, newest first. The catalog says what is published, whatever a receipt says."""
    published = {one.run: one.version for one in lake.publications(dataset)}
    left = {branch.run for branch in lake.branches()}
    return [
        _record(summary, published.get(summary.run), summary.run in left)
        for summary in list_runs(objects, dataset, most=most)
    ]


def runs_of(objects: Objects, dataset: str, batch: str) -> Sequence[str]:
    """The runs of one batch, newest first."""
    return [one.run for one in list_runs(objects, dataset) if one.last.batch == batch]


def find_run(objects: Objects, dataset: str, which: str) -> str:
    """The last run of a batch; or `which` itself, taken for a run."""
    return next(iter(runs_of(objects, dataset, which)), which)


def _record(summary: RunSummary, version: int | None, left: bool) -> RunRecord:
    last, counts = summary.last, summary.last.counts
    return RunRecord(
        dataset=summary.dataset,
        batch=last.batch,
        run=summary.run,
        at=last.at,
        outcome=_outcome(summary, version, left),
        version=version,
        records_in=counts.records_in if counts else None,
        loaded=counts.loaded if counts else None,
        quarantined=counts.quarantined if counts else None,
        error=last.error.code if last.error and version is None else None,
    )


def _outcome(summary: RunSummary, version: int | None, left: bool) -> str:
    if version is not None:
        return "published"
    if summary.last.outcome != "ok":
        return summary.last.outcome
    if summary.last.stage == "receive":
        return "unchanged"
    return "left" if left else f"ended after {summary.last.stage}"
