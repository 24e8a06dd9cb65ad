"""Dagster's definitions of a project, put together. Nothing here asks the store or the catalog: a
code location has to load while both are away."""

from collections.abc import Mapping, Sequence
from datetime import date

import dagster as dg

from lakewarden.dagster_defs import schedules, sensors
from lakewarden.dagster_defs.assets import RETRY, DatasetRun, asset_spec, dataset_assets
from lakewarden.dagster_defs.lineage import Lineage, lineage
from lakewarden.dagster_defs.naming import Naming
from lakewarden.dagster_defs.timing import freshness, partitions
from lakewarden.errors import WrongUsage
from lakewarden.wiring import Project


class FirstBatchUnsaid(WrongUsage):
    """A dataset does not say where its partitions begin."""


def definitions(
    project: Project,
    *,
    key_prefix: str | Sequence[str] | None = None,
    first: Mapping[str, date] | None = None,
    topic: str | None = None,
    running: bool | None = None,
    retry: dg.RetryPolicy = RETRY,
) -> dg.Definitions:
    """Assets, checks, jobs, sensors and schedules of a project, for `Definitions.merge`.

    key_prefix: before every asset key, and in every name. first: by dataset, the day of the oldest
    partition, where its calendar does not say. topic: of SNS, an ARN or a name. running: whether
    sensors and schedules are on from the start. What is not given is as `[dagster]` of
    lakewarden.toml has it. Asks neither the store nor the catalog, now; reads the dbt project.

    Raises FirstBatchUnsaid, and WrongUsage where a file of the project is wrong."""
    said = project.settings.dagster
    prefix = (key_prefix,) if isinstance(key_prefix, str) else key_prefix
    naming = Naming(tuple(said.key_prefix if prefix is None else prefix))
    firsts = {**said.first, **(first or {})}
    on = said.running if running is None else running
    drawn = _lineage(project)
    parts = [_dataset(project, name, drawn, naming, firsts, on, retry) for name in _names(project)]
    made = {name: one for name, (one, _) in zip(_names(project), parts, strict=True)}
    status = dg.DefaultSensorStatus.RUNNING if on else dg.DefaultSensorStatus.STOPPED
    told = topic or said.topic
    ours = dg.Definitions(
        assets=[asset_spec(asset, drawn, naming) for asset in drawn.of(None)],
        sensors=[
            sensors.drift(project, told, naming, status),
            sensors.failures(project, told, made, naming, status),
        ],
    )
    return dg.Definitions.merge(*(found for _, found in parts), ours)


def _names(project: Project) -> Sequence[str]:
    return list(project.settings.dataset)


def _lineage(project: Project) -> Lineage:
    tables = {name: list(project.dataset(name).tables) for name in _names(project)}
    return lineage(tables, project.graph())


def _dataset(
    project: Project,
    name: str,
    drawn: Lineage,
    naming: Naming,
    firsts: Mapping[str, date],
    on: bool,
    retry: dg.RetryPolicy,
) -> tuple[dg.AssetsDefinition, dg.Definitions]:
    calendar = project.calendar(name)
    keys = partitions(
        project.dataset(name).key_form,
        _first(project, name, firsts),
        calendar.zone.key if calendar else "UTC",
    )
    run = DatasetRun(project, name, drawn, naming)
    made = dataset_assets(run, keys, freshness(calendar) if calendar else None, retry)
    job = dg.define_asset_job(naming.job(name), selection=[made])
    sensing = dg.DefaultSensorStatus.RUNNING if on else dg.DefaultSensorStatus.STOPPED
    timing = dg.DefaultScheduleStatus.RUNNING if on else dg.DefaultScheduleStatus.STOPPED
    return made, dg.Definitions(
        assets=[made],
        jobs=[job],
        sensors=[sensors.deliveries(project, name, job, keys, naming, sensing)],
        schedules=[schedules.due(project, name, calendar, job, naming, timing)] if calendar else [],
    )


def _first(project: Project, name: str, firsts: Mapping[str, date]) -> date:
    due = project.settings.dataset[name].due
    found = firsts.get(name) or (due.first if due else None)
    if found is None:
        raise FirstBatchUnsaid(
            f"dataset {name} does not say where its partitions begin",
            hint=f'In lakewarden.toml: [dagster] first = {{ {name} = 2024-01-01 }}, or "first" in'
            f" due of [dataset.{name}]; or definitions(…, first={{...}}).",
        )
    return found
