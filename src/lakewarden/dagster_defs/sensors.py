"""Sensors: on deliveries, on drift, on failures. Each evaluation looks at the world anew; what
cannot be reached fails the tick, and its cursor stays where it was."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import dagster as dg
from dagster import DagsterEventType

from lakewarden.batch.waiting import Lying
from lakewarden.dagster_defs.alerts import Alert, FailedStep, digest, of_drift, of_failure
from lakewarden.dagster_defs.naming import Naming
from lakewarden.wiring import Project

if TYPE_CHECKING:
    # Dagster gives it no public name.
    from dagster._core.definitions.unresolved_asset_job_definition import (
        UnresolvedAssetJobDefinition,
    )

_SECONDS = 60  # between looks at deliveries, and at failures
_HOUR = 3600
_LOOKS = 100  # at deliveries, in one tick
_FAILURES = 20  # that one tick tells of
_SENT = "lakewarden/delivery"  # a run's tag


def deliveries(
    project: Project,
    dataset: str,
    job: "UnresolvedAssetJobDefinition",
    partitions: dg.PartitionsDefinition[str],
    naming: Naming,
    status: dg.DefaultSensorStatus,
) -> dg.SensorDefinition:
    """Requests a run of each delivery that is whole and not published: of one and the same once,
    of a corrected one again."""

    @dg.sensor(
        name=naming.deliveries(dataset),
        job=job,
        minimum_interval_seconds=_SECONDS,
        default_status=status,
        description=f"Runs deliveries of {dataset} that are whole and not published.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        now = replace(project)
        seen = _read(context.cursor)
        there = now.landed(dataset)
        new = {b: there[b] for b in sorted(there) if seen.get(b) != there[b]}
        some = dict(islice(new.items(), _LOOKS))
        inside = {b: d for b, d in some.items() if partitions.has_partition_key(b)}
        found = list(now.look(dataset, inside))
        settled = some.keys() - {one.batch for one in found if one.hash is None}
        cursor = {b: there[b] for b in there if b in settled or seen.get(b) == there[b]}
        requests = [_request(dataset, one) for one in found if one.waits]
        context.update_cursor(json.dumps(cursor, sort_keys=True))
        outside = sorted(some.keys() - inside.keys())
        if outside:
            context.log.warning(f"without a partition: {', '.join(outside)}")
        if requests:
            return dg.SensorResult(run_requests=requests)
        return dg.SkipReason(_nothing(len(there), [one for one in found if one.hash is None]))

    return sensor


def _read(cursor: str | None) -> Mapping[str, str]:
    """What was settled before: digests by batch. Anything else counts as nothing."""
    try:
        found = json.loads(cursor or "{}")
    except ValueError:
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def _request(dataset: str, one: Lying) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=f"{dataset}/{one.batch}/{one.hash}",
        partition_key=one.batch,
        tags={_SENT: (one.hash or "")[:32]},
    )


def _nothing(there: int, coming: Sequence[Lying]) -> str:
    on_its_way = f"; on its way: {', '.join(one.batch for one in coming)}" if coming else ""
    return f"nothing new among {there} deliveries{on_its_way}"


def drift(
    project: Project, topic: str | None, naming: Naming, status: dg.DefaultSensorStatus
) -> dg.SensorDefinition:
    """Tells once of each change of what differs from the templates. An outage is a failed tick."""

    @dg.sensor(
        name=naming.drift,
        minimum_interval_seconds=_HOUR,
        default_status=status,
        description="Compares every table with its template, and tells the topic of what changed.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        now = replace(project)
        found = now.drift()
        known = digest(found)
        tables = ", ".join(sorted(found)) or "none"
        if known == (context.cursor or ""):
            return dg.SkipReason(f"no change; tables that drift: {tables}")
        _send(now, of_drift(project.settings.project, found), topic)
        context.update_cursor(known)
        return dg.SkipReason(f"told the topic; tables that drift: {tables}")

    return sensor


@dataclass(frozen=True)
class _Ours:
    """How a run of ours is known: by its step, its job or its assets."""

    datasets: Mapping[str, str]  # by op and by job
    keys: Mapping[dg.AssetKey, str]

    def dataset(self, run: dg.DagsterRun, steps: Collection[str]) -> str | None:
        for name in (*steps, run.job_name):
            if found := self.datasets.get(name):
                return found
        if steps:  # somebody else's step failed
            return None
        chosen = run.asset_selection or frozenset()
        return next((self.keys[key] for key in sorted(chosen) if key in self.keys), None)


def failures(
    project: Project,
    topic: str | None,
    assets: Mapping[str, dg.AssetsDefinition],
    naming: Naming,
    status: dg.DefaultSensorStatus,
) -> dg.SensorDefinition:
    """Tells the topic of each run of ours that failed, whoever started it, and of nobody else's.

    Its cursor moves when the topic has the message: what SNS did not take is told again. (That is
    why it is not Dagster's own run_failure_sensor, which goes on.)"""
    ours = _Ours(
        {n: name for name in assets for n in (naming.op(name), naming.job(name))},
        {key: name for name, one in assets.items() for key in one.keys},
    )

    @dg.sensor(
        name=naming.failures,
        minimum_interval_seconds=_SECONDS,
        default_status=status,
        description="Tells the topic of runs of batches that failed.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        if context.cursor is None:
            context.update_cursor(str(_newest(context.instance)))
            return dg.SkipReason("from now on")
        now, told = replace(project), 0
        for number, run in _failed(context.instance, int(context.cursor)):
            alert = _alert(project.settings.project, context.instance, run, ours)
            if alert is not None:
                try:
                    _send(now, alert, topic)
                except Exception:
                    if told == 0:
                        raise
                    # What was told is not told again; the next tick meets this one first.
                    break
                told += 1
            context.update_cursor(str(number))
        return dg.SkipReason(f"told of {told} failed runs")

    return sensor


def _newest(instance: dg.DagsterInstance) -> int:
    found = instance.fetch_run_status_changes(DagsterEventType.RUN_FAILURE, limit=1).records
    return found[0].storage_id if found else 0


def _failed(instance: dg.DagsterInstance, after: int) -> Iterator[tuple[int, dg.DagsterRun]]:
    wanted = dg.RunStatusChangeRecordsFilter(DagsterEventType.RUN_FAILURE, after_storage_id=after)
    found = instance.fetch_run_status_changes(wanted, limit=_FAILURES, ascending=True).records
    for record in found:
        run = instance.get_run_by_id(record.event_log_entry.run_id)
        if run is not None:  # else somebody deleted it
            yield record.storage_id, run


def _alert(
    project: str, instance: dg.DagsterInstance, run: dg.DagsterRun, ours: _Ours
) -> Alert | None:
    steps = list(_steps(instance, run))
    dataset = ours.dataset(run, [one.step for one in steps])
    if dataset is None:
        return None
    own = next((one for one in steps if ours.datasets.get(one.step)), None)
    batch = run.tags.get("dagster/partition") or _range(run)
    return of_failure(project, run.job_name, run.run_id, dataset, batch, own)


def _range(run: dg.DagsterRun) -> str | None:
    ends = [run.tags.get(f"dagster/asset_partition_range_{end}") for end in ("start", "end")]
    return "..".join(end for end in ends if end) or None


def _steps(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Iterator[FailedStep]:
    for entry in instance.all_logs(run.run_id, of_type=DagsterEventType.STEP_FAILURE):
        event = entry.dagster_event
        if event is not None and event.step_key:
            told = event.step_failure_data.user_failure_data
            yield FailedStep(event.step_key, told.metadata if told else {})


def _send(project: Project, alert: Alert, topic: str | None) -> None:
    project.alert(alert.subject, alert.message, topic)
