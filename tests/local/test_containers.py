"""Containers as processes, without the control plane: what goes wrong below them."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Protocol

import pytest

from lakewarden.local.containers import images
from lakewarden.local.containers.images import Image
from lakewarden.local.containers.processes import Containers, ContainersConfig, end_left
from lakewarden.local.containers.records import Record

pytestmark = pytest.mark.timeout(60)

WAITS = "import sys; open(sys.argv[1]).read()"


class Make(Protocol):
    def __call__(self, script: str, *arguments: str) -> Containers: ...


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Containers whose one image runs a script."""
    made: list[Containers] = []
    numbers = count(1)

    def containers(script: str, *arguments: str) -> Containers:
        argv = (sys.executable, "-I", "-c", script, *arguments)
        images.write(tmp_path / "images.json", {"task": Image(argv, tmp_path, {})})
        (tmp_path / "containers").mkdir()
        config = ContainersConfig(
            folder=tmp_path / "containers",
            allowed=tmp_path / "images.json",
            now=lambda: datetime(2025, 5, 1, tzinfo=UTC),
            new_id=lambda: f"{next(numbers):064x}",
        )
        made.append(Containers(config))
        return made[-1]

    yield containers
    for each in made:
        each.close()


def start(containers: Containers) -> str:
    made = containers.create("one", "task:1", {}, {})
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
