"""The containers of an execution's runners, as ECS tells of them: how they ended, and their end."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import structlog
from pydantic import ValidationError

from lakewarden.stepfunctions.words import Killed, Order

if TYPE_CHECKING:
    from mypy_boto3_ecs import ECSClient
    from mypy_boto3_ecs.literals import DesiredStatusType
    from mypy_boto3_ecs.type_defs import TaskTypeDef

_log = structlog.get_logger(__name__)
_AT_ONCE = 100  # ECS: DescribeTasks


def stop_others(ecs: "ECSClient", cluster: str, family: str, execution: str) -> None:
    """End what still runs of an execution that went on without it. Where ECS does not answer, the
    catalog's fence has to do."""
    try:
        for task in _of(ecs, cluster, family, execution, "RUNNING"):
            ecs.stop_task(
                cluster=cluster,
                task=task["taskArn"],
                reason="lakewarden: its execution went on without it",
            )
            _log.warning("stopped a task that its execution gave up", task=task["taskArn"])
    except Exception as error:
        _log.warning("ECS was not asked to stop what runs", why=type(error).__name__)


def why_ended(ecs: "ECSClient", cluster: str, family: str, execution: str) -> Killed | None:
    """How the newest runner ended that did not end well by itself; None where ECS knows none."""
    try:
        ended = list(_of(ecs, cluster, family, execution, "STOPPED"))
    except Exception as error:
        _log.warning("ECS does not tell how the runner ended", why=type(error).__name__)
        return None
    return killed_of(ended)


def killed_of(tasks: "list[TaskTypeDef]") -> Killed | None:
    """Of tasks that stopped by themselves, the newest whose container did not end with 0."""
    for task in sorted(tasks, key=_stopped_at, reverse=True):
        if task.get("stopCode") == "UserInitiated":
            continue
        for container in task.get("containers", []):
            code = container.get("exitCode")
            if code != 0:
                reason = container.get("reason") or task.get("stoppedReason") or ""
                return Killed(exit_code=code, reason=reason)
    return None


def _stopped_at(task: "TaskTypeDef") -> str:
    return str(task.get("stoppedAt") or task.get("createdAt") or "")


def _of(
    ecs: "ECSClient", cluster: str, family: str, execution: str, status: "DesiredStatusType"
) -> "Iterator[TaskTypeDef]":
    """The tasks of an execution, but for those that roll it back."""
    pages = ecs.get_paginator("list_tasks").paginate(
        cluster=cluster, family=family, desiredStatus=status
    )
    arns = [arn for page in pages for arn in page["taskArns"]]
    for start in range(0, len(arns), _AT_ONCE):
        some = arns[start : start + _AT_ONCE]
        for task in ecs.describe_tasks(cluster=cluster, tasks=some)["tasks"]:
            order = _order_of(task)
            if order and order.execution == execution and order.action != "rollback":
                yield task


def _order_of(task: "TaskTypeDef") -> Order | None:
    for container in task.get("overrides", {}).get("containerOverrides", []):
        for variable in container.get("environment", []):
            if variable.get("name") == "LAKEWARDEN_TASK":
                try:
                    return Order.model_validate_json(variable.get("value", ""))
                except ValidationError:
                    return None
    return None
