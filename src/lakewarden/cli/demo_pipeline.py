"""The demonstration's way through Step Functions: one execution a batch, and what it told."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from lakewarden.cli.demo_ways import DemoBroken, Note, Published, Stopped, Tell

if TYPE_CHECKING:
    from lakewarden.local.provision import Made
    from lakewarden.wiring import Project

PAYLOAD = "payload.json"  # as the runbook calls it
_LOOK_SECONDS = 0.2  # between two looks at an execution
_EXECUTION_SECONDS = 300.0  # usually about ten
_NOTICE_SECONDS = 20.0  # usually at once
# States that do something, or end; the others choose and assign.
_SHOWN = ("TaskStateEntered", "WaitStateEntered", "SucceedStateEntered", "FailStateEntered")


class _Error(BaseModel):
    model_config = ConfigDict(extra="ignore")
    code: str
    message: str


class _Told(BaseModel):
    """What the topic was told of an execution (stepfunctions/notices.py)."""

    model_config = ConfigDict(extra="ignore")
    execution: str
    version: int | None = None
    error: _Error | None = None


class _Envelope(BaseModel):
    """What SNS puts into a queue."""

    model_config = ConfigDict(extra="ignore")
    Subject: str = ""
    Message: str


@dataclass(frozen=True)
class Notice:
    subject: str
    told: _Told


@dataclass(frozen=True)
class Execution:
    """One that ended."""

    arn: str
    batch: str
    status: str
    states: Sequence[str]
    seconds: float


class ByExecutions:
    """A payload that starts the state machine; the rest is seen from outside, as on AWS."""

    def __init__(self, project: "Project", made: "Made") -> None:
        if made.pipeline is None:
            raise DemoBroken("the local stack was made without its state machine")
        self._project = project
        self._machine = made.pipeline
        self._queue = made.alerts_queue
        self._machines = project.client("stepfunctions")
        self._sqs = project.client("sqs")
        self.executions: list[Execution] = []

    def run(self, dataset: str, batch: str, tell: Tell) -> Published | Stopped:
        payload = json.dumps({"dataset": dataset, "batch": batch})
        (self._project.root / PAYLOAD).write_text(f"{payload}\n")
        tell("start-execution")
        begun = time.monotonic()
        started = self._machines.start_execution(stateMachineArn=self._machine, input=payload)
        arn = str(started["executionArn"])
        status, states = self._watch(arn, tell)
        done = Execution(arn, batch, status, states, round(time.monotonic() - begun, 1))
        self.executions.append(done)
        notice = self._notice(arn)
        way = Note("execution", f"{done.status} in {done.seconds:.0f} s: {' ▸ '.join(states)}")
        if status == "SUCCEEDED":
            return Published(self._publication(dataset, batch, notice), (way,))
        if status != "FAILED" or states[-1] != "Failed" or notice.told.error is None:
            raise DemoBroken(f"the execution of {dataset} {batch} ended as {status}")
        topic = self._project.names.topic
        notes = (way, Note("told", f"{topic}: {notice.subject}"))
        return Stopped(notice.told.error.code, notice.told.error.message, notes)

    def replay(self, dataset: str, batch: str, tell: Tell) -> Published | Stopped:
        """The same payload again: the runner reads the mends by itself."""
        return self.run(dataset, batch, tell)

    def _watch(self, arn: str, tell: Tell) -> tuple[str, Sequence[str]]:
        """How it ended, and through which states; each is told when it is entered."""
        until = time.monotonic() + _EXECUTION_SECONDS
        while True:
            # In this order: what ended has all its events.
            status = str(self._machines.describe_execution(executionArn=arn)["status"])
            states = entered(self._events(arn))
            if status != "RUNNING":
                return status, states
            if states:
                tell(states[-1])
            if time.monotonic() > until:
                raise DemoBroken(
                    f"an execution is still in {states[-1] if states else 'no state'} after"
                    f" {_EXECUTION_SECONDS:.0f} s",
                    hint="lakewarden local logs runner",
                )
            time.sleep(_LOOK_SECONDS)

    def _events(self, arn: str) -> Iterable[Mapping[str, Any]]:
        pages = self._machines.get_paginator("get_execution_history").paginate(executionArn=arn)
        for page in pages:
            yield from page["events"]

    def _notice(self, arn: str) -> Notice:
        """What the topic was told of this execution; alarms, which it is told too, pass by."""
        until = time.monotonic() + _NOTICE_SECONDS
        while time.monotonic() < until:
            answer = self._sqs.receive_message(
                QueueUrl=self._queue, MaxNumberOfMessages=10, WaitTimeSeconds=1
            )
            for message in answer.get("Messages", []):
                self._sqs.delete_message(
                    QueueUrl=self._queue, ReceiptHandle=message["ReceiptHandle"]
                )
                notice = notice_of(message["Body"])
                if notice is not None and notice.told.execution == arn:
                    return notice
        raise DemoBroken(f"nothing was told of an execution within {_NOTICE_SECONDS:.0f} s")

    def _publication(self, dataset: str, batch: str, notice: Notice) -> Any:
        """What the catalog itself says of the version that was told."""
        for one in self._project.lake.publications():
            found = one.contribution.dataset, one.contribution.batch, one.version
            if found == (dataset, batch, notice.told.version):
                return one
        raise DemoBroken(f"{dataset} {batch} was told as published, and is not")


def entered(events: Iterable[Mapping[str, Any]]) -> Sequence[str]:
    """The states of an execution's history in which something is done."""
    return [
        str(event["stateEnteredEventDetails"]["name"])
        for event in events
        if event["type"] in _SHOWN
    ]


def notice_of(body: str) -> Notice | None:
    """A message of the queue; None where it is of no execution."""
    try:
        envelope = _Envelope.model_validate_json(body)
        return Notice(envelope.Subject, _Told.model_validate_json(envelope.Message))
    except ValidationError:
        return None
