"""What happened to batches: receipts tell of every run, publications of those that reached main."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from lakewarden.aws.objects import Objects
from lakewarden.batch.receipts import (
    Receipt,
    ReceiptBatch,
    ReceiptUnreadable,
    RunSummary,
    RunUnknown,
    list_runs,
    receipts_of,
)
from lakewarden.lake.model import Lake
from lakewarden.records.stream import StreamBroken

_log = structlog.get_logger(__name__)


Leases = Callable[[], Mapping[str, bool]]
"""Tells, by run, whether who holds a lease is alive (records.lease.holders)."""


@dataclass(frozen=True)
class BatchRecord:
    """One batch of a run. `error`: the code of what it was left out for."""

    batch: str
    loaded: int | None
    quarantined: int | None
    error: str | None


@dataclass(frozen=True)
class RunRecord:
    """One run. `outcome`: published, unpublished, unchanged (another version holds the batch),
    refused, failed, left (not published, its branch is there to look at), running, or after which
    stage it died. `batch`: its batches as people write them."""

    dataset: str
    batch: str
    batches: Sequence[BatchRecord]
    rebuilds: Sequence[str]  # models that it made again; then it loads nothing
    run: str
    at: datetime
    outcome: str
    version: int | None
    records_in: int | None
    loaded: int | None
    quarantined: int | None
    error: str | None


def runs(
    objects: Objects,
    lake: Lake,
    dataset: str | None = None,
    *,
    leases: Leases,
    most: int | None = None,
) -> Sequence[RunRecord]:
    """Runs, newest first. The catalog says what is published, whatever a receipt says; `leases`
    tell who is still at work, and who died at it."""
    before = leases()
    found = list_runs(objects, dataset, most=most)
    return _records(found, lake, before, leases)


def runs_named(
    objects: Objects,
    lake: Lake,
    named: Iterable[tuple[str, str]],
    *,
    leases: Leases,
) -> Mapping[tuple[str, str], RunRecord]:
    """The same of some runs, by dataset and run; without those whose receipts do not tell."""
    before, found = leases(), []
    for dataset, run in named:
        try:
            receipts = receipts_of(objects, dataset, run)
        except RunUnknown:  # killed before it could say anything
            continue
        except (ReceiptUnreadable, StreamBroken) as error:
            _log.warning(error.message, hint=error.hint)
            continue
        found.append(RunSummary(run, dataset, len(receipts), receipts[-1]))
    told = _records(found, lake, before, leases)
    return {(one.dataset, one.run): one for one in told}


def _records(
    found: Iterable[RunSummary], lake: Lake, before: Mapping[str, bool], leases: Leases
) -> Sequence[RunRecord]:
    """Leases are asked for before everything else and after it: a run may have begun, or ended,
    in between."""
    published = {one.run: one.version for one in lake.publications()}
    left = {branch.run for branch in lake.branches()}
    alive = {**leases(), **before}
    return [
        _record(
            summary,
            published.get(summary.run),
            left=summary.run in left,
            alive=alive.get(summary.run),
        )
        for summary in found
    ]


def runs_of(objects: Objects, dataset: str, batch: str) -> Sequence[str]:
    """The runs that took a batch, newest first."""
    return [
        summary.run
        for summary in list_runs(objects, dataset)
        if batch in (summary.last.batch, *(one.batch for one in summary.last.batches))
    ]


def find_run(objects: Objects, dataset: str, which: str) -> str:
    """The last run of a batch; or `which` itself, taken for a run."""
    return next(iter(runs_of(objects, dataset, which)), which)


def _record(
    summary: RunSummary, version: int | None, *, left: bool, alive: bool | None
) -> RunRecord:
    last, counts = summary.last, summary.last.counts
    return RunRecord(
        dataset=summary.dataset,
        batch=last.batch,
        batches=tuple(map(_batch, last.batches)),
        rebuilds=last.rebuilds,
        run=summary.run,
        at=last.at,
        outcome=_published(last) if version is not None else _outcome(last, left, alive),
        version=version,
        records_in=counts.records_in if counts else None,
        loaded=counts.loaded if counts else None,
        quarantined=counts.quarantined if counts else None,
        error=last.error.code if last.error and version is None else None,
    )


def _batch(told: ReceiptBatch) -> BatchRecord:
    counts = told.counts
    return BatchRecord(
        told.batch,
        counts.loaded if counts else None,
        counts.quarantined if counts else None,
        told.error.code if told.error else None,
    )


def _published(last: Receipt) -> str:
    return "unpublished" if any(one.withdrawn for one in last.batches) else "published"


def _outcome(last: Receipt, left: bool, alive: bool | None) -> str:
    """Of a run that published nothing. `alive`: None where no lease tells of it."""
    if last.outcome != "ok":
        return last.outcome
    if alive:
        return "running"
    if last.stage == "publish":
        return "unchanged"
    return "left" if left and alive is None else f"ended after {last.stage}"
