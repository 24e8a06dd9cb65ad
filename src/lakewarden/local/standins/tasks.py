"""What the control plane says of the task that a container belongs to."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lakewarden.local.containers.records import Record


@dataclass(frozen=True)
class Task:
    """As its definition has it."""

    cluster: str  # its name
    service: str | None  # the name of the service that it belongs to
    cpu: float  # units: 1024 are one core
    memory: int  # bytes


class Tasks:
    """Asked once for each task: what is looked at here does not change."""

    def __init__(self, ecs: Callable[[], Any]) -> None:
        self._ecs = ecs
        self._known: dict[str, Task] = {}

    def of(self, record: Record) -> Task | None:
        """None where the control plane does not know it."""
        if not record.task:
            return None
        if record.task not in self._known:
            found = self._ask(record)
            if found is None:
                return None
            self._known[record.task] = found
        return self._known[record.task]

    def memory_of(self, record: Record) -> int | None:
        """Bytes that the container may hold; None where nobody said."""
        found = self.of(record)
        return found.memory if found else None

    def _ask(self, record: Record) -> Task | None:
        ecs = self._ecs()
        told = ecs.describe_tasks(cluster=record.cluster, tasks=[record.task])["tasks"]
        if not told:
            return None
        definition = ecs.describe_task_definition(taskDefinition=told[0]["taskDefinitionArn"])
        sizes = definition["taskDefinition"]
        kind, _, service = str(told[0].get("group", "")).partition(":")
        return Task(
            cluster=record.cluster.rsplit("/", 1)[-1],
            service=service if kind == "service" else None,
            cpu=float(sizes.get("cpu") or 256),
            memory=int(sizes.get("memory") or 512) << 20,
        )
