"""One command at a time on one stack."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lakewarden.errors import TryAgain


class LocalStackBusy(TryAgain):
    """Another command is starting or stopping this stack."""


@contextmanager
def locked(path: Path, *, seconds: float) -> Iterator[None]:
    """Hold the file's lock; it goes with the process that holds it, so it cannot be left over."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        until = time.monotonic() + seconds
        while not _try(descriptor):
            if time.monotonic() > until:
                raise LocalStackBusy(
                    "another command is starting or stopping this project's local stack",
                    hint="Wait for it, then try again.",
                )
            time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
