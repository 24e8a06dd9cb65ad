"""The stand-ins that run in the agent, each in a thread and a rhythm of its own."""

import sys
import threading
from collections.abc import Callable
from typing import Any

from lakewarden.aws.clients import Connection, control_client
from lakewarden.errors import LakewardenError
from lakewarden.local.config import CloudConfig
from lakewarden.local.containers.memory import LOOK_SECONDS, MemoryWatch
from lakewarden.local.containers.processes import Containers
from lakewarden.local.layout import Layout
from lakewarden.local.standins.arrivals import Arrivals
from lakewarden.local.standins.service_metrics import ServiceMetrics
from lakewarden.local.standins.tasks import Tasks

ARRIVALS_SECONDS = 2.0
METRICS_SECONDS = 4.0
TRIM_SECONDS = 60.0


class Standins:
    """All of them."""

    def __init__(
        self,
        config: CloudConfig,
        connection: Connection,
        containers: Containers,
        layout: Layout,
    ) -> None:
        def client(service: str) -> Any:
            return control_client(connection, service, attempts=1)

        tasks = Tasks(lambda: client("ecs"))
        self._rhythms: list[tuple[str, float, Callable[[], object]]] = [
            ("memory", LOOK_SECONDS, MemoryWatch(containers, tasks.memory_of).look),
            ("output", TRIM_SECONDS, containers.trim),
            (
                "service metrics",
                METRICS_SECONDS,
                ServiceMetrics(containers, tasks, lambda: client("cloudwatch")).publish,
            ),
        ]
        if config.landings:
            arrivals = Arrivals(config, connection, layout.folder / "arrivals.json", client)
            self._rhythms.append(("arrivals", ARRIVALS_SECONDS, arrivals.look))

    def start(self, stop: threading.Event) -> None:
        for name, seconds, look in self._rhythms:
            thread = threading.Thread(
                target=_repeat, args=(name, seconds, look, stop), name=name, daemon=True
            )
            thread.start()


def _repeat(name: str, seconds: float, look: Callable[[], object], stop: threading.Event) -> None:
    """Again and again. What goes wrong is logged when it begins and when it is over: the control
    plane may be away for a while."""
    from botocore.exceptions import BotoCoreError, ClientError

    last: str | None = None
    while not stop.wait(seconds):
        try:
            look()
            trouble = None
        except (BotoCoreError, ClientError, LakewardenError, OSError) as error:
            trouble = f"{type(error).__name__}: {error}"
        if trouble != last:
            print(f"{name}: {trouble or 'works again'}", file=sys.stderr, flush=True)  # noqa: T201 - its log
            last = trouble
