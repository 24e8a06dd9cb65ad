"""The local stack for tests: one for the whole session, with a fresh bucket for each that asks."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from lakewarden.aws.clients import Connection, control_client
from lakewarden.local import cloud
from lakewarden.local.cloud import CloudInfo, Machine
from lakewarden.local.config import CloudConfig, NessieStore
from lakewarden.local.containers.images import Image
from lakewarden.local.health import make_bucket
from lakewarden.local.provision import Pipeline
from lakewarden.local.stack import StackConfig, down, status

CACHE = Path.home() / ".cache" / "lakewarden"  # as a user's: shared by sessions
TASK = Path(__file__).parent / "local" / "container_task.py"


@dataclass(frozen=True)
class LocalStack:
    connection: Connection
    _numbers: "count[int]" = field(default_factory=lambda: count(1))

    def bucket(self) -> str:
        """The name of a fresh bucket, with versioning on."""
        name = f"test-bucket-{next(self._numbers):04d}"
        make_bucket(self.connection, name)
        return name


@dataclass(frozen=True)
class CloudStack:
    """The whole stack of a project."""

    asked: StackConfig
    wanted: CloudConfig
    info: CloudInfo
    pipeline: Callable[[Connection], Pipeline] | None = None

    @property
    def connection(self) -> Connection:
        return self.info.connection

    def client(self, service: str) -> Any:
        """A boto3 client of the control plane; one attempt, so that a fault is seen."""
        return control_client(self.connection, service, attempts=1)

    def again(self, **changes: object) -> "CloudStack":
        """`up` once more."""
        found = machine(self.asked.root, **changes)
        info = cloud.up(self.asked, self.wanted, found, pipeline=self.pipeline)
        return replace(self, info=info)


def task_image(root: Path) -> Image:
    """What does as a test tells it to."""
    return Image(
        argv=(sys.executable, "-I", str(TASK)),
        folder=root,
        environment={"PATH": "/usr/bin:/bin", "SECRET_OF_THE_IMAGE": "kept"},
        takes=("LAKEWARDEN_TASK", "LAKEWARDEN_TASK_TOKEN"),
        stop_seconds=3,
    )


def machine(root: Path, **changes: Any) -> Machine:
    """This machine, with an image on the allow-list that does what a test tells it to."""
    allowed = {"test-task": task_image(root)}
    given = {"cache": CACHE, "environment": dict(os.environ), "images": allowed}
    return Machine(**{**given, **changes})


@contextmanager
def cloud_stack(
    root: Path,
    *,
    project: str = "dpc",
    datasets: tuple[str, ...] | None = None,
    nessie: bool = False,
    nessie_store: NessieStore | None = None,
    pipeline: Callable[[Connection], Pipeline] | None = None,
    **changes: Any,
) -> Iterator[CloudStack]:
    """A whole stack in a project's folder, and nothing of it afterwards. `datasets` None: one, of
    the project's name. `changes`: of `local.cloud.Machine`; `images` replaces the allow-list's
    additions."""
    asked = StackConfig(root, f"{project}-dev", "us-east-1")
    wanted = CloudConfig(
        project,
        "dev",
        "us-east-1",
        asked.bucket,
        datasets=datasets or (project,),
        landings=("raw/",),
        nessie=nessie,
        nessie_store=nessie_store,
        dagster="dagster" in changes,
    )
    try:
        info = cloud.up(asked, wanted, machine(root, **changes), pipeline=pipeline)
        yield CloudStack(asked, wanted, info, pipeline)
    finally:
        if pid := status(asked).pid:  # nobody needs its data: asked, it would take its time
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        cloud.down(asked)


def throw_away(config: StackConfig) -> None:
    """End a stack whose data nobody needs: asked, it would take its time to write them."""
    if pid := status(config).pid:
        os.kill(pid, signal.SIGKILL)
    down(config)
