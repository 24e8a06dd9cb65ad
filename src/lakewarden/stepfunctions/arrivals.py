"""What starts an execution, and what tells that nothing came: a look at landings and calendars.

Three events: the daily schedule, the arrival of a manifest or marker, and a look every quarter
of an hour for what should be there and is not, which an alarm counts. It runs outside of the
runner, so that it tells also of a runner that never began.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from lakewarden.batch.arrival import Due, newest_due, not_arrived
from lakewarden.batch.delivery.inventory import is_manifest
from lakewarden.batch.delivery.keys import PrefixUnknown, landing_at
from lakewarden.batch.receive import NotReady, validate
from lakewarden.errors import LakewardenError, TryAgain
from lakewarden.wiring import Project, now

NAMESPACE = "Lakewarden"
METRIC = "MissingDeliveries"  # of each dataset: definitions/alarms.json
_NAME = 80  # characters of an execution's name


class _Bucket(BaseModel):
    name: str


class _Object(BaseModel):
    key: str
    sequencer: str = Field("again", pattern="^[0-9A-Za-z]{1,24}$")  # another one for each write


class _Detail(BaseModel):
    bucket: _Bucket
    object: _Object


class _Event(BaseModel):
    """Ours, with a `kind`; or EventBridge's of an object."""

    model_config = ConfigDict(extra="ignore")

    kind: str | None = None
    detail_type: str | None = Field(None, alias="detail-type")
    detail: _Detail | None = None


class Checked(BaseModel):
    """Executions that were started, by name; and batches that are not there."""

    started: list[str] = []
    missing: list[str] = []


def check(project: Project, document: dict[str, Any]) -> Checked:
    """Do what the event asks for."""
    event = _Event.model_validate(document)
    at = now()
    if event.detail is not None:
        return Checked(started=list(_arrived(project, event.detail)))
    if event.kind == "start":
        return Checked(started=list(_start_due(project, at)))
    return Checked(missing=[f"{one.dataset} {one.batch}" for one in _tell_missing(project, at)])


def _arrived(project: Project, detail: _Detail) -> Iterator[str]:
    """An execution for the delivery that this object completes, if it does."""
    if detail.bucket.name != project.env.bucket:
        return
    datasets = [project.arriving(name) for name in project.settings.dataset]
    prefix, _, name = detail.object.key.rpartition("/")
    try:
        landing = landing_at(f"s3://{detail.bucket.name}/{prefix}/", datasets, detail.bucket.name)
    except PrefixUnknown:
        return
    marker = next(one.complete.marker for one in datasets if one.name == landing.dataset)
    if not (is_manifest(name) or name == marker):
        return
    try:
        dataset = project.arriving(landing.dataset)
        found = validate(project.objects, dataset, landing.batch, now=now())
    except LakewardenError as error:
        if isinstance(error, TryAgain) and not isinstance(error, NotReady):
            raise  # the store is away: Lambda gives the event again, and nothing else would
        return  # not whole yet, or refused: the schedule's execution tells why
    words = (landing.dataset, landing.batch, found.hash[:16])
    yield _start(project, *words, again=detail.object.sequencer)


def _start_due(project: Project, at: datetime) -> Iterator[str]:
    for dataset, settings in project.settings.dataset.items():
        calendar = settings.due.calendar(settings.batch) if settings.due else None
        batch = newest_due(calendar, at) if calendar else None
        if batch is not None:
            yield _start(project, dataset, str(batch), f"daily-{at:%Y%m%d}")


def _tell_missing(project: Project, at: datetime) -> list[Due]:
    """Count what is not there. A dataset that cannot be looked at is raised when all others are
    counted: it must not hide that theirs are late."""
    missing: dict[str, list[Due]] = {}
    failed: list[Exception] = []
    for dataset, settings in project.settings.dataset.items():
        if settings.due is None:
            continue
        calendar = settings.due.calendar(settings.batch)
        try:
            found = not_arrived(project.objects, project.arriving(dataset), calendar, at)
            missing[dataset] = list(found)
        except Exception as error:
            failed.append(error)
    _put_metrics(project, {dataset: len(found) for dataset, found in missing.items()})
    if failed:
        raise failed[0]
    return [one for found in missing.values() for one in found]


def _start(
    project: Project, dataset: str, batch: str, why: str, *, again: str | None = None
) -> str:
    """A name serves once at AWS, so an event that comes twice starts one execution. Where that one
    has failed since, `again` makes another name."""
    client = project.client("stepfunctions")
    name = execution_name(dataset, batch, why)
    try:
        client.start_execution(
            stateMachineArn=project.arn("states", f"stateMachine:{project.names.pipeline}"),
            name=name,
            input=json.dumps({"dataset": dataset, "batch": batch}),
        )
    except client.exceptions.ExecutionAlreadyExists:
        if again is not None and _failed(project, name):
            return _start(project, dataset, batch, f"{why}-{again}")
    return name


def _failed(project: Project, name: str) -> bool:
    execution = f"execution:{project.names.pipeline}:{name}"
    client = project.client("stepfunctions")
    told = client.describe_execution(executionArn=project.arn("states", execution))
    return told["status"] in ("FAILED", "TIMED_OUT", "ABORTED")


def execution_name(dataset: str, batch: str, why: str) -> str:
    """Another one for every other reason, however long the dataset's name is."""
    end = f"-{batch}-{why}"
    return f"{dataset[: _NAME - len(end)]}{end}"


def _put_metrics(project: Project, counts: Mapping[str, int]) -> None:
    """By dataset; 0 too, so that the alarm ends when it came."""
    if counts:
        data = [
            datum(project.settings.project, project.env_name, dataset, count)
            for dataset, count in counts.items()
        ]
        project.client("cloudwatch").put_metric_data(Namespace=NAMESPACE, MetricData=data)


def datum(project: str, env: str, dataset: str, missing: int) -> dict[str, object]:
    """How many batches of a dataset are missing, as the alarm looks for it."""
    named = {"Project": project, "Env": env, "Dataset": dataset}
    return {
        "MetricName": METRIC,
        "Dimensions": [{"Name": name, "Value": value} for name, value in named.items()],
        "Value": missing,
        "Unit": "Count",
    }
