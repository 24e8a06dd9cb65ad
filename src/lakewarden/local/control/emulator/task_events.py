"""Stands in for the event "ECS Task State Change", and for what ECS says of a task's end.

The event's form: "Amazon ECS task state change events" in the ECS Developer Guide.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

OUT_OF_MEMORY = "OutOfMemoryError: Container killed due to memory usage"


def mend() -> None:
    from ministack.services import ecs, eventbridge

    def publish(task: Mapping[str, Any]) -> None:
        entry = {
            "Source": "aws.ecs",
            "DetailType": "ECS Task State Change",
            "Detail": json.dumps(ecs._sanitize(task), default=str),
            "Resources": [task["taskArn"]],
        }
        eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)

    def inspect(container: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = ecs._get_docker().api.inspect_container(container)["State"]
        return found

    ecs._mark_task_running = telling(ecs._mark_task_running, publish)
    ecs._mark_task_stopped = explaining(telling(ecs._mark_task_stopped, publish), inspect)


def telling(
    mark: Callable[..., bool], publish: Callable[[Mapping[str, Any]], None]
) -> Callable[..., bool]:
    """`mark`, and the event where it changed something."""

    def mark_and_tell(arn: str, task: Any, *args: Any, **kwargs: Any) -> bool:
        changed = mark(arn, task, *args, **kwargs)
        if changed:
            publish(task)
        return changed

    return mark_and_tell


def explaining(
    mark: Callable[..., bool], inspect: Callable[[str], Mapping[str, Any]]
) -> Callable[..., bool]:
    """`mark`, after it was noted which containers were killed for their memory."""

    def explain_and_mark(arn: str, task: Any, *args: Any, **kwargs: Any) -> bool:
        for index, container in enumerate(list(task.get("_docker_ids") or [])):
            with suppress(Exception):  # whatever Docker's client raises: then nothing is known
                if inspect(container).get("OOMKilled"):
                    task["containers"][index]["reason"] = OUT_OF_MEMORY
        return mark(arn, task, *args, **kwargs)

    return explain_and_mark
