"""The memory limit of a task, by looking: who goes above it is killed, as the kernel would.

A limit on addresses (RLIMIT_AS) would be wrong for Java and DuckDB, which reserve more than they
use, and a control group needs root. So this looks twice a second at what a container's processes
hold in memory together; what is allocated and freed between two looks is not seen.
"""

from collections.abc import Callable
from contextlib import suppress

from lakewarden.errors import Refused
from lakewarden.local.containers import sessions
from lakewarden.local.containers.images import Image
from lakewarden.local.containers.processes import Containers
from lakewarden.local.containers.records import Record

LOOK_SECONDS = 0.5


class MemoryWatch:
    """`limit_of`: bytes that a container's task definition allows, None where it says nothing."""

    def __init__(self, containers: Containers, limit_of: Callable[[Record], int | None]) -> None:
        self._containers = containers
        self._limit_of = limit_of

    def look(self) -> None:
        """Kill every container that holds more than it may."""
        for record in self._containers.all():
            if record.state != "running" or record.pid is None:
                continue
            with suppress(Refused):  # removed from the allow-list, or ended, meanwhile
                limit = self._limit(record, self._containers.image(record.image))
                if limit is not None and sessions.memory(record.pid) > limit:
                    self._containers.kill_for_memory(record.id)

    def _limit(self, record: Record, image: Image) -> int | None:
        found = self._limit_of(record)
        if found is None and image.memory_mb is not None:
            return image.memory_mb << 20
        return found
