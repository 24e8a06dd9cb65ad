"""Containers as processes, without the control plane: what goes wrong below them."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Protocol

import pytest

from lakewarden.local.containers import images
from lakewarden.local.containers.images import Image
from lakewarden.local.containers.processes import Containers, ContainersConfig, end_left
from lakewarden.local.containers.records import Record
from tests.local.test_cloud_ecs import is_gone, wait_for

pytestmark = pytest.mark.timeout(60)

WAITS = "import sys; open(sys.argv[1]).read()"


SLEEPS = "import time; time.sleep(600)"
MOMENT = datetime(2025, 5, 1, tzinfo=UTC)


class Clock:
    """The time of day; while somebody looks at it the next time, `meanwhile` happens."""

    def __init__(self) -> None:
        self.meanwhile: Callable[[], None] | None = None

    def __call__(self) -> datetime:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return MOMENT


class Make(Protocol):
    def __call__(
        self,
        script: str,
        *arguments: str,
        now: Callable[[], datetime] = ...,
        kind: type[Containers] = ...,
    ) -> Containers: ...


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Containers whose images run a script: `task`, and `single`, one at a time."""
    made: list[Containers] = []
    numbers = count(1)

    def containers(
        script: str,
        *arguments: str,
        now: Callable[[], datetime] = lambda: MOMENT,
        kind: type[Containers] = Containers,
    ) -> Containers:
        task = Image((sys.executable, "-I", "-c", script, *arguments), tmp_path, {})
        single = replace(task, single=True)
        images.write(tmp_path / "images.json", {"task": task, "single": single})
        (tmp_path / "containers").mkdir()
        config = ContainersConfig(
            folder=tmp_path / "containers",
            allowed=tmp_path / "images.json",
            now=now,
            new_id=lambda: f"{next(numbers):064x}",
        )
        made.append(kind(config))
        return made[-1]

    yield containers
    for each in made:
        each.close()


def start(containers: Containers, image: str = "task:1") -> str:
    made = containers.create("one", image, {}, {})
    containers.start(made.id)
    return made.id


def test_a_container_that_could_not_be_noted_does_not_keep_the_next_from_starting(
    make: Make, tmp_path: Path
) -> None:
    """As with a disk that is full for a while."""
    containers = make("")
    first = containers.create("one", "task:1", {}, {})
    folder = tmp_path / "containers"
    moved = folder.rename(tmp_path / "aside")
    containers.start(first.id)
    assert containers.wait(first.id) == 127
    moved.rename(folder)
    assert containers.wait(start(containers)) == 0


def test_who_waits_hears_of_an_end_that_could_not_be_noted(make: Make, tmp_path: Path) -> None:
    fifo = tmp_path / "go"
    os.mkfifo(fifo)
    containers = make(WAITS, str(fifo))
    container = start(containers)
    ended: list[int] = []
    waiting = threading.Thread(target=lambda: ended.append(containers.wait(container)))
    waiting.start()
    shutil.move(tmp_path / "containers", tmp_path / "aside")
    fifo.write_text("go\n")
    waiting.join(timeout=20)
    assert ended == [0]


@pytest.mark.parametrize("end", [Containers.stop, Containers.kill])
def test_who_begins_while_it_is_told_to_end_is_ended(
    make: Make, end: Callable[[Containers, str], None]
) -> None:
    """It was found waiting; before that is noted as its end, it gets its turn."""
    clock = Clock()
    containers = make(SLEEPS, now=clock)
    first = start(containers, "single")
    wait_for(lambda: containers.get(first).state == "running")
    second = start(containers, "single")
    assert containers.get(second).state == "waiting"

    def its_turn() -> None:
        containers.kill(first)
        wait_for(lambda: containers.get(second).state == "running")

    clock.meanwhile = its_turn
    end(containers, second)
    containers.wait(second)
    number = containers.get(second).pid
    assert number is not None
    assert is_gone(number)


def test_who_was_told_to_end_while_its_process_started_leaves_nothing(
    make: Make, tmp_path: Path
) -> None:
    """It was found waiting, and is exited and forgotten before its process is there."""
    begun: list[int] = []

    class Late(Containers):
        def _launch(self, record: Record, image: Image) -> "subprocess.Popen[bytes]":
            self.stop(record.id)
            self.remove(record.id)
            child = super()._launch(record, image)
            begun.append(child.pid)
            return child

    start(make(SLEEPS, kind=Late))
    wait_for(lambda: begun and is_gone(begun[0]))
    wait_for(lambda: not list((tmp_path / "containers").iterdir()))


def test_of_those_who_wait_for_a_single_image_one_begins(make: Make) -> None:
    """Both found that none of it runs: the one had not begun when the other looked."""
    reached, gate = threading.Event(), threading.Event()

    class Gated(Containers):
        def _launch(self, record: Record, image: Image) -> "subprocess.Popen[bytes]":
            reached.set()
            assert gate.wait(20)
            return super()._launch(record, image)

    containers = make(SLEEPS, kind=Gated)
    first = start(containers, "single")
    assert reached.wait(20)
    second = start(containers, "single")
    wait_for(lambda: containers._asked.qsize() == 1)  # it has looked, and is the next
    gate.set()
    third = start(containers)  # they begin in order: the second had its chance before this one
    wait_for(lambda: containers.get(third).state == "running")
    assert [containers.get(each).state for each in (first, second)] == ["running", "waiting"]
    containers.kill(first)
    wait_for(lambda: containers.get(second).state == "running")


def test_output_is_followed_beyond_a_trim(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fifo = tmp_path / "go"
    os.mkfifo(fifo)
    script = "import sys\nprint('before ' * 9, flush=True)\n"
    script += "for line in open(sys.argv[1]): print(line, end='', flush=True)\n"
    containers = make(script, str(fifo))
    container = start(containers)
    monkeypatch.setattr("lakewarden.local.containers.processes._LOG_LIMIT", 10)
    pieces = containers.output(container, follow=True)
    assert b"before" in next(pieces)
    containers.trim()
    fifo.write_text("after\n")
    assert b"after" in b"".join(pieces)
    assert containers.wait(container) == 0


def test_who_has_a_container_s_number_after_a_boot_is_left_alone() -> None:
    """A stranger: what somebody's session left running, whose number a container had before."""
    script = "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid)"
    leader = subprocess.Popen(
        [sys.executable, "-c", script], start_new_session=True, stdout=subprocess.PIPE, text=True
    )
    assert leader.stdout
    stranger = int(leader.stdout.readline())
    leader.wait()
    try:
        record = Record(
            id="0" * 64,
            name="one",
            image="task",
            labels={},
            variables={},
            created="",
            state="running",
            pid=leader.pid,
            started="00000000-0000-0000-0000-000000000000/1",
        )
        end_left(record)
        os.kill(stranger, 0)
    finally:
        os.kill(stranger, 9)
