"""What a run that somebody else started, and that is gone, left behind: found and put away.

Main is as it was before, or the run had published; nothing here changes it. First the run is
fenced, so that it cannot publish late, where it is only slow or silent; then the catalog tells
what it had published until then.
"""

import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from lakewarden.aws.objects import Objects
from lakewarden.lake.model import Lake, Publication, TakenOver
from lakewarden.records.lease import LEASES, Holder, LeaseHeld, acquire, holders


@dataclass(frozen=True)
class RolledBack:
    """`publication`: what the runs published after all. `fenced`: those that never will."""

    publication: Publication | None
    fenced: tuple[str, ...]


def roll_back(
    lake: Lake,
    objects: Objects,
    scratch: Path,
    dataset: str,
    batch: str,
    mark: str,
    holder: Holder,
    now: datetime,
) -> RolledBack:
    """Put away every run of this batch whose id ends with the mark. Safe to repeat. `scratch`
    holds one folder a run, where it ran on this machine.

    Raises CatalogUnavailable, StorageUnavailable."""
    lease = f"{LEASES}{dataset}/{batch}.json"
    left = {one.run for one in lake.branches() if one.run.endswith(mark)}
    told = holders(objects, lease, host=holder.host, now=now)
    left |= {run for run in told if run.endswith(mark)}
    fenced = []
    for run in sorted(left):
        outcome = lake.take_over(run, by=holder.run, at=now)
        shutil.rmtree(scratch / Path(run).name, ignore_errors=True)
        if isinstance(outcome, TakenOver):
            fenced.append(run)
    published = [one for one in lake.publications(dataset, batch) if one.run.endswith(mark)]
    if any(run.endswith(mark) for run in told):
        _let_go(objects, lake, lease, mark, holder, now)
    return RolledBack(published[0] if published else None, tuple(fenced))


def _let_go(
    objects: Objects, lake: Lake, key: str, mark: str, holder: Holder, now: datetime
) -> None:
    """Release the lease that the dead run holds, with all that it remembers of others. Somebody
    alive who has it by now, of another execution, keeps it: they tidy up after the dead."""
    try:
        lease = acquire(
            objects, key, holder, now=now, take_over=True, of=lambda run: run.endswith(mark)
        )
    except LeaseHeld:
        return
    for dead in lease.predecessors:
        lake.take_over(dead.run, by=holder.run, at=now)
    lease.release()
