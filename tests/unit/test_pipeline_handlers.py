"""The Lambda functions: what they answer, and that nobody's words get out."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lakewarden.aws.objects import ObjectVersion
from lakewarden.aws.retry import StorageDenied
from lakewarden.stepfunctions import arrivals, handlers
from lakewarden.stepfunctions.arrivals import execution_name
from lakewarden.stepfunctions.containers import stop_others, why_ended
from lakewarden.stepfunctions.handlers import HandlerFailed
from lakewarden.wiring import Project, open_project
from tests.fakes.objects import MemoryObjects

EXAMPLE = Path(__file__).parents[2] / "src" / "lakewarden" / "examples" / "dpc"
PAYLOAD = {"dataset": "dpc", "batch": "2025-04"}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """lakewarden.toml alone, as in the zip; its local stack is down."""
    shutil.copy(EXAMPLE / "lakewarden.toml", tmp_path)
    monkeypatch.setenv("LAKEWARDEN_PROJECT", str(tmp_path))
    monkeypatch.delenv("LAKEWARDEN_ENV", raising=False)
    return tmp_path


@pytest.mark.parametrize("handler", [handlers.validate_manifest, handlers.copy_raw])
@pytest.mark.parametrize("event", [{}, [], None, "x", {"dataset": 1}, {"dataset": "dpc"}])
def test_what_is_no_payload_is_refused_by_name(handler: Any, event: Any) -> None:
    answer = handler(event)
    assert answer["outcome"] == "refused"
    assert answer["error"]["name"] == "PayloadInvalid"


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({"dataset": "nobody"}, "DatasetUnknown"),
        ({"source": "elsewhere"}, "SourceInvalid"),
    ],
)
def test_what_cannot_be_is_refused(more: dict[str, str], name: str) -> None:
    assert handlers.validate_manifest({**PAYLOAD, **more})["error"]["name"] == name


def test_what_is_away_is_tried_again() -> None:
    assert handlers.validate_manifest(PAYLOAD)["outcome"] == "again"


def test_an_arrival_that_could_not_be_looked_at_is_not_forgotten() -> None:
    """What is raised Lambda tries again; nothing else would start that delivery."""
    key = "raw/yyyymm=2025-04/y1/_manifest.json"
    bucket = open_project().env.bucket
    event = {
        "detail-type": "Object Created",
        "detail": {"bucket": {"name": bucket}, "object": {"key": key}},
    }
    with pytest.raises(HandlerFailed):
        handlers.check_deliveries(event)


class Metrics:
    """CloudWatch, as far as it is asked here."""

    def __init__(self) -> None:
        self.told: dict[str, float] = {}

    def put_metric_data(self, Namespace: str, MetricData: list[dict[str, Any]]) -> None:  # noqa: N803 - boto3's names
        assert Namespace == arrivals.NAMESPACE
        for datum in MetricData:
            dimensions = {one["Name"]: one["Value"] for one in datum["Dimensions"]}
            self.told[dimensions["Dataset"]] = datum["Value"]


def test_a_dataset_that_cannot_be_looked_at_does_not_hide_that_others_are_late(
    project: Path,
) -> None:
    due = 'due = { at = "00:00", zone = "UTC", grace = "0m", first = 2026-01-01 }'
    dataset = f'batch = "date"\ntables = {{ "raw.t" = "*.csv" }}\n{due}'
    (project / "lakewarden.toml").write_text(
        'project = "p"\n[env.dev]\naccount = "local"\nbucket = "p-dev"\n'
        'catalog = { type = "sql", uri = "sqlite:///c.db" }\n'
        f'[dataset.a]\nlanding = "raw/a/{{batch}}/"\n{dataset}\n'
        f'[dataset.b]\nlanding = "raw/b/{{batch}}/"\n{dataset}\n'
    )

    class Denied(MemoryObjects):
        def list(self, prefix: str) -> Iterator[ObjectVersion]:
            if prefix.startswith("raw/a/"):
                raise StorageDenied("raw/a/ may not be listed")
            return super().list(prefix)

    metrics = Metrics()

    class There(Project):
        def client(self, service: str) -> Metrics:
            return metrics

    opened = open_project()
    there = There(opened.settings, opened.env_name, opened.env)
    there.__dict__["objects"] = Denied()
    with pytest.raises(StorageDenied):
        arrivals.check(there, {"kind": "check"})
    assert metrics.told.keys() == {"b"}
    assert metrics.told["b"] > 0


@pytest.mark.parametrize("dataset", ["dpc", "d" * 79, "d" * 200])
def test_an_execution_s_name_tells_its_reason_whatever_the_dataset_is_called(dataset: str) -> None:
    one, other = (execution_name(dataset, "2025-04", why) for why in ("a" * 16, "b" * 16))
    assert one != other
    assert len(one) <= 80


def test_without_a_source_nothing_is_copied() -> None:
    assert handlers.copy_raw(PAYLOAD) == {"outcome": "ok", "files": 0, "bytes": 0, "equal": 0}


def test_a_mistake_of_ours_is_told_by_its_class_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ValueError("ZQ00000001")

    monkeypatch.setattr(handlers, "open_project", broken)
    with pytest.raises(HandlerFailed) as raised:
        handlers.validate_manifest(PAYLOAD)
    assert "ValueError" in str(raised.value)
    assert "ZQ" not in str(raised.value)
    assert raised.value.__suppress_context__


class Ecs:
    """As much of ECS as is asked, with tasks of several executions."""

    def __init__(self, *tasks: dict[str, Any]) -> None:
        self.tasks = {task["taskArn"]: task for task in tasks}
        self.stopped: list[str] = []

    def get_paginator(self, _name: str) -> "Ecs":
        return self

    def paginate(self, *, cluster: str, family: str, desiredStatus: str) -> Any:  # noqa: N803 - boto3's
        found = self.tasks.items()
        yield {"taskArns": [arn for arn, one in found if one["desiredStatus"] == desiredStatus]}

    def describe_tasks(self, *, cluster: str, tasks: list[str]) -> Any:
        return {"tasks": [self.tasks[arn] for arn in tasks]}

    def stop_task(self, *, cluster: str, task: str, reason: str) -> None:
        self.stopped.append(task)


def task(arn: str, status: str, execution: str, action: str = "run", code: int = 0) -> Any:
    order = f'{{"action": "{action}", "dataset": "d", "batch": "b", "execution": "{execution}"}}'
    variables = [{"name": "LAKEWARDEN_TASK", "value": order}]
    return {
        "taskArn": arn,
        "desiredStatus": status,
        "overrides": {"containerOverrides": [{"environment": variables}]},
        "containers": [{"exitCode": code}],
        "stopCode": "EssentialContainerExited",
    }


def test_only_tasks_of_the_execution_are_stopped_and_asked() -> None:
    ecs: Any = Ecs(
        task("a", "RUNNING", "mine"),
        task("b", "RUNNING", "theirs"),
        task("c", "RUNNING", "mine", "rollback"),
        task("d", "STOPPED", "theirs", code=1),
        task("e", "STOPPED", "mine", code=137),
        {"taskArn": "f", "desiredStatus": "RUNNING", "overrides": {}},
    )
    stop_others(ecs, "c", "f", "mine")
    assert ecs.stopped == ["a"]
    found = why_ended(ecs, "c", "f", "mine")
    assert found is not None and found.name == "RunnerKilled"
    assert why_ended(ecs, "c", "f", "nobody") is None
