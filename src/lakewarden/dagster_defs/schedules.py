"""A schedule a dataset, from its calendar: what is due is run, if it is there."""

from dataclasses import replace
from typing import TYPE_CHECKING

import dagster as dg

from lakewarden.batch.calendar import Calendar
from lakewarden.batch.waiting import Lying
from lakewarden.dagster_defs.naming import Naming
from lakewarden.dagster_defs.timing import cron, due_at_tick
from lakewarden.errors import TryAgain
from lakewarden.wiring import Project

if TYPE_CHECKING:
    # Dagster gives it no public name.
    from dagster._core.definitions.unresolved_asset_job_definition import (
        UnresolvedAssetJobDefinition,
    )


def due(
    project: Project,
    dataset: str,
    calendar: Calendar,
    job: "UnresolvedAssetJobDefinition",
    naming: Naming,
    status: dg.DefaultScheduleStatus,
) -> dg.ScheduleDefinition:
    """Runs the batch that is due at this moment, where it was delivered."""

    @dg.schedule(
        cron(calendar),
        name=naming.due(dataset),
        job=job,
        execution_timezone=calendar.zone.key,
        default_status=status,
        description=f"Runs the batch of {dataset} that is due.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        key = due_at_tick(calendar, context.scheduled_execution_time)
        if key is None:
            return dg.SkipReason("no batch is due")
        return _decide(str(key), _there(replace(project), dataset, str(key)))

    return schedule


def _there(project: Project, dataset: str, batch: str) -> Lying | None:
    """What lies there of a batch; None where nobody can tell: then a run is what waits for it."""
    try:
        landed = project.landed(dataset)
        some = {batch: landed[batch]} if batch in landed else {}
        return next(project.look(dataset, some), Lying(batch, None))
    except TryAgain:
        return None


def _decide(batch: str, there: Lying | None) -> dg.RunRequest | dg.SkipReason:
    if there is not None and there.hash is None:
        return dg.SkipReason(f"batch {batch} is due, and not delivered yet")
    if there is not None and there.published:
        return dg.SkipReason(f"batch {batch} is published already")
    return dg.RunRequest(partition_key=batch, run_key=f"{batch}/{there.hash if there else 'due'}")
