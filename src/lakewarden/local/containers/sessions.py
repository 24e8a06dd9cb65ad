"""All processes of one session: a container's, its children and theirs."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil


def members(session: int) -> Iterator[psutil.Process]:
    """Every process of a session that still runs."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                yield process


def kill(session: int, *, seconds: float = 5.0) -> None:
    """Kill them, and those that they started meanwhile; returns when none is left."""
    until = time.monotonic() + seconds
    while left := list(members(session)):
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        if time.monotonic() > until:
            return
        time.sleep(0.01)


def memory(session: int) -> int:
    """Bytes that they hold in memory together."""
    total = 0
    for process in members(session):
        with suppress(psutil.Error):
            total += process.memory_info().rss
    return total
