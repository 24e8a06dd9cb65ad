"""Who is alive."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from lakewarden.records.lease import Holder, is_alive
from lakewarden.records.processes import is_running, started

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
HOLDER = Holder("one", "there", 4711, "then", NOW)


@pytest.mark.parametrize(
    ("seconds", "alive"), [(-86_400, True), (0, True), (59, True), (60, True), (61, False)]
)
def test_elsewhere_the_last_renewal_tells(seconds: int, alive: bool) -> None:
    now = NOW + timedelta(seconds=seconds)
    assert alive == is_alive(HOLDER, NOW, host="here", now=now, running=_unseen)


def _unseen(pid: int, since: str) -> bool:
    raise AssertionError("another host's processes cannot be asked")


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("seconds", [0, 3600])
def test_here_the_process_tells(seconds: int, running: bool) -> None:
    asked = []

    def told(pid: int, since: str) -> bool:
        asked.append((pid, since))
        return running

    now = NOW + timedelta(seconds=seconds)
    assert is_alive(HOLDER, NOW, host="there", now=now, running=told) == running
    assert asked == [(4711, "then")]


def test_this_process_runs() -> None:
    mine = started(os.getpid())
    assert mine
    assert mine == started(os.getpid())
    assert is_running(os.getpid(), mine)
    assert not is_running(os.getpid(), "another time")


def test_a_process_that_ended_does_not_run_even_before_it_is_collected() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        since = started(process.pid)
        assert since
        assert is_running(process.pid, since)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and still a zombie
        assert not is_running(process.pid, since)
    assert started(process.pid) is None
