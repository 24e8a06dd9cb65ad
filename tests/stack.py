"""The local stack for tests: one for the whole session, with a fresh bucket for each that asks."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from lakewarden.aws.clients import Connection
from lakewarden.local.health import make_bucket


@dataclass(frozen=True)
class LocalStack:
    connection: Connection
    _numbers: "count[int]" = field(default_factory=lambda: count(1))

    def bucket(self) -> str:
        """The name of a fresh bucket, with versioning on."""
        name = f"test-bucket-{next(self._numbers):04d}"
        make_bucket(self.connection, name)
        return name


BucketFactory = Callable[[], str]
