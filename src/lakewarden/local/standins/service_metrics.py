"""Stands in for CPUUtilization and MemoryUtilization of AWS/ECS, from the real processes.

Shares of what the tasks reserve, in percent, as "Amazon ECS service utilization metrics" has them:
a task with 512 units that keeps one core busy is at 200 percent (on AWS it could not be).
"""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

from lakewarden.local.containers import sessions
from lakewarden.local.containers.processes import Containers
from lakewarden.local.standins.tasks import Task, Tasks


@dataclass(frozen=True)
class Used:
    """What a container's processes used up to a moment."""

    seconds: float  # of CPU
    memory: int  # bytes
    at: float  # monotonic seconds


class ServiceMetrics:
    def __init__(self, containers: Containers, tasks: Tasks, cloudwatch: Callable[[], Any]) -> None:
        self._containers = containers
        self._tasks = tasks
        self._cloudwatch = cloudwatch
        self._last: Mapping[str, Used] = {}

    def publish(self) -> None:
        """One look: what each service used since the last one."""
        used: dict[str, Used] = {}
        shares: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
        for record in self._containers.all():
            if record.state != "running" or record.pid is None:
                continue
            used[record.id] = now = _used(record.pid)
            task, last = self._tasks.of(record), self._last.get(record.id)
            if task is not None and task.service is not None and last is not None:
                shares[task.cluster, task.service].append(shares_of(task, last, now))
        self._last = used
        data = [datum for service, each in shares.items() for datum in _data(service, each)]
        if data:
            self._cloudwatch().put_metric_data(Namespace="AWS/ECS", MetricData=data)


def shares_of(task: Task, last: Used, now: Used) -> tuple[float, float]:
    """CPU and memory, in percent of what the task reserves."""
    seconds = max(now.at - last.at, 1e-6)
    cores = max(now.seconds - last.seconds, 0.0) / seconds
    return 100 * cores / (task.cpu / 1024), 100 * now.memory / task.memory


def _used(session: int) -> Used:
    seconds, memory = 0.0, 0
    for process in sessions.members(session):
        with suppress(psutil.Error):
            times = process.cpu_times()
            seconds += times.user + times.system
            memory += process.memory_info().rss
    return Used(seconds, memory, time.monotonic())


def _data(service: tuple[str, str], shares: list[tuple[float, float]]) -> list[dict[str, object]]:
    named = [
        {"Name": "ClusterName", "Value": service[0]},
        {"Name": "ServiceName", "Value": service[1]},
    ]
    return [
        {"MetricName": name, "Dimensions": named, "Value": share[index], "Unit": "Percent"}
        for share in shares
        for index, name in enumerate(("CPUUtilization", "MemoryUtilization"))
    ]
