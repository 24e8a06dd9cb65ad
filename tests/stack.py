"""The local stack for tests: one for the whole session, with a fresh bucket for each that asks."""

import os
import signal
from dataclasses import dataclass, field
from itertools import count

from lakewarden.aws.clients import Connection
from lakewarden.local.health import make_bucket
from lakewarden.local.stack import StackConfig, down, status


@dataclass(frozen=True)
class LocalStack:
    connection: Connection
    _numbers: "count[int]" = field(default_factory=lambda: count(1))

    def bucket(self) -> str:
        """The name of a fresh bucket, with versioning on."""
        name = f"test-bucket-{next(self._numbers):04d}"
        make_bucket(self.connection, name)
        return name


def throw_away(config: StackConfig) -> None:
    """End a stack whose data nobody needs: asked, it would take its time to write them."""
    if pid := status(config).pid:
        os.kill(pid, signal.SIGKILL)
    down(config)
