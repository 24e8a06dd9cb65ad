"""A project's pipeline on the local stack, as `lakewarden local up --cloud` makes it."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import psutil

from lakewarden.aws.clients import Connection
from lakewarden.aws.definitions import Names
from lakewarden.aws.objects import Objects
from lakewarden.cli.local_pipeline import local_pipeline
from lakewarden.local.provision import Pipeline
from lakewarden.wiring import Project, open_project
from tests.stack import CloudStack, cloud_stack

HEARTBEAT = 20  # seconds, the runner's start included
_OVER = {"SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"}
T = TypeVar("T")


def wait_for(look: Callable[[], T], seconds: float = 60) -> T:
    """What it gave, once that is something."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.2)  # what is looked at is asked over HTTP, by processes that need the CPU
    return found


@dataclass
class Execution:
    site: "Site"
    arn: str

    def end(self, seconds: float = 200) -> Mapping[str, Any]:
        """How it ended."""

        def ended() -> Mapping[str, Any] | None:
            told: Mapping[str, Any] = self.site.client("stepfunctions").describe_execution(
                executionArn=self.arn
            )
            return told if told["status"] in _OVER else None

        found = wait_for(ended, seconds)
        assert found is not None
        return found

    def states(self) -> list[str]:
        """Those that it entered, in order."""
        client = self.site.client("stepfunctions")
        pages = client.get_paginator("get_execution_history").paginate(executionArn=self.arn)
        return [
            event["stateEnteredEventDetails"]["name"]
            for page in pages
            for event in page["events"]
            if event["type"].endswith("StateEntered")
        ]


@dataclass
class Site:
    """One project's pipeline."""

    root: Path
    cloud: CloudStack
    names: Names

    def client(self, service: str) -> Any:
        return self.cloud.client(service)

    @property
    def machine(self) -> str:
        found = self.cloud.info.made.pipeline
        assert found is not None
        return found

    def start(self, dataset: str, batch: str, source: str | None = None) -> Execution:
        payload = {"dataset": dataset, "batch": batch, **({"source": source} if source else {})}
        answer = self.client("stepfunctions").start_execution(
            stateMachineArn=self.machine, input=json.dumps(payload)
        )
        return Execution(self, answer["executionArn"])

    def halt(
        self, objects: Objects, dataset: str, batch: str, stage: str
    ) -> tuple[Execution, psutil.Process]:
        """An execution whose runner stands still, after this stage has ended and before the next
        has."""
        before = _receipts(objects, stage)
        execution = self.start(dataset, batch)
        process = wait_for(lambda: self.running(execution, "run"))
        wait_for(lambda: _receipts(objects, stage) - before)
        assert process is not None
        process.suspend()
        return execution, process

    def counted(self, name: str) -> int:
        """How often a metric of AWS/States counted this pipeline, of all time."""
        told = self.client("cloudwatch").get_metric_statistics(
            Namespace="AWS/States",
            MetricName=name,
            Dimensions=[{"Name": "StateMachineArn", "Value": self.machine}],
            StartTime=datetime.now(UTC) - timedelta(days=1),
            EndTime=datetime.now(UTC) + timedelta(hours=1),
            Period=86_400,
            Statistics=["Sum"],
        )
        return int(sum(point["Sum"] for point in told["Datapoints"]))

    def again(self) -> None:
        """Bring up again what is down."""
        self.cloud = self.cloud.again()

    def notices(self) -> list[Mapping[str, Any]]:
        """What the topic was told of executions since this was last asked."""
        sqs, queue = self.client("sqs"), self.cloud.info.made.alerts_queue
        found: list[Mapping[str, Any]] = []
        while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get(
            "Messages", []
        ):
            for message in messages:
                told = json.loads(json.loads(message["Body"])["Message"])
                if "outcome" in told:  # an alarm has none
                    found.append(told)
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return found

    def running(self, execution: Execution, action: str) -> psutil.Process | None:
        """The process of an execution's task under way."""
        for process in psutil.process_iter(["cmdline"]):
            if "lakewarden.stepfunctions.task" not in (process.info["cmdline"] or ()):
                continue
            with suppress(psutil.Error):
                seen = process.environ()
                order = json.loads(seen.get("LAKEWARDEN_TASK", "{}"))
                mine = seen.get("LAKEWARDEN_PROJECT") == str(self.root.resolve())
                told = (order.get("execution"), order.get("action"))
                if mine and told == (execution.arn, action):
                    return process
        return None

    def log(self) -> str:
        """What the runbook's `logs tail` would show."""
        pages = self.client("logs").get_paginator("filter_log_events")
        found = pages.paginate(logGroupName=self.names.runner_log_group)
        return "\n".join(event["message"] for page in found for event in page["events"])

    def call(self, function: str, event: Mapping[str, object]) -> Any:
        """What a function answers."""
        answer = self.client("lambda").invoke(
            FunctionName=function, Payload=json.dumps(event).encode()
        )
        return json.loads(answer["Payload"].read())


def _receipts(objects: Objects, stage: str) -> set[str]:
    return {one.key for one in objects.list("ops/batches/") if one.key.endswith(f"-{stage}.json")}


@contextmanager
def pipeline_site(
    root: Path,
    project: str,
    *,
    rules: AbstractSet[str] = frozenset(),
    heartbeat: int = HEARTBEAT,
    **stack: Any,
) -> Iterator[Site]:
    """Nothing starts by itself here but what `rules` name: what arrives is told by the tests.
    `stack`: for `cloud_stack`."""
    opened: Project = open_project(root)

    def pipeline(connection: Connection) -> Pipeline:
        made = local_pipeline(opened, ("raw/",), heartbeat=heartbeat)
        whole = made(connection)
        return replace(whole, rules=tuple(rule for rule in whole.rules if rule.name in rules))

    with cloud_stack(root, project=project, pipeline=pipeline, **stack) as cloud:
        yield Site(root, cloud, opened.names)
