"""Containers as processes: made, started, watched and ended, each in a session of its own."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from lakewarden.errors import Refused
from lakewarden.local.containers import begin, images, records, sessions
from lakewarden.local.containers.framing import STDOUT, frame, whole_lines
from lakewarden.local.containers.images import Image
from lakewarden.local.containers.records import KILLED, Record, State
from lakewarden.records.processes import is_of_this_boot, is_running, started

_LOOK_SECONDS = 0.05  # how often output is looked at by who follows it
_PAST = 1_000  # removed containers that are remembered
_LOG_LIMIT = 256 << 20  # bytes of output that are kept of one container
_NOT_BEGUN: tuple[State, ...] = ("created", "waiting")
_NOT_ENDED: tuple[State, ...] = (*_NOT_BEGUN, "running")


class ContainerUnknown(Refused):
    """No container has that id or name."""


@dataclass(frozen=True)
class ContainersConfig:
    folder: Path  # records and output
    allowed: Path  # the allow-list
    now: Callable[[], datetime]
    new_id: Callable[[], str]  # 64 hexadecimal digits


class Containers:
    """All containers of the stack.

    Processes are started by one thread that lives as long as we do: on Linux a process that asks
    to end with its parent ends with the thread that started it."""

    def __init__(self, config: ContainersConfig) -> None:
        self._config = config
        self._changed = threading.Condition()
        self._records: dict[str, Record] = {}
        self._removed: set[str] = set()
        self._past: OrderedDict[str, Record] = OrderedDict()  # removed, and still told of
        self._asked: queue.Queue[Callable[[], None]] = queue.Queue()
        for record in records.read_all(config.folder):
            self._records[record.id] = _taken_over(record, config)
        threading.Thread(target=self._start_all, name="starter", daemon=True).start()

    def all(self) -> list[Record]:
        """As they are now, the oldest first."""
        with self._changed:
            return list(self._records.values())

    def of_task(self, arn: str) -> list[Record]:
        """Of one task, those that were removed a while ago too."""
        with self._changed:
            known = {**self._past, **self._records}
        return [record for record in known.values() if record.task == arn]

    def get(self, name: str) -> Record:
        """By id, the beginning of one, or name; raises ContainerUnknown."""
        with self._changed:
            for record in self._records.values():
                if record.name == name or (len(name) >= 12 and record.id.startswith(name)):
                    return record
        raise ContainerUnknown(f"No such container: {name[:80]}")

    def image(self, reference: str) -> Image:
        """The command that an image stands for; raises ImageUnknown."""
        return images.choose(images.read(self._config.allowed), reference)

    def create(
        self, name: str, reference: str, variables: Mapping[str, str], labels: Mapping[str, str]
    ) -> Record:
        """Note a container that may be started; raises ImageUnknown and VariableRefused."""
        taken = images.added(self.image(reference), variables)
        record = Record(
            id=self._config.new_id(),
            name=name,
            image=reference,
            labels=dict(labels),
            variables=dict(taken),
            created=self._moment(),
        )
        self._put(record)
        return record

    def start(self, container: str) -> None:
        """Start it, as soon as the last of a single image has ended."""
        record, image = self.get(container), self.image(self.get(container).image)
        if not self._move(record.id, ("created",), state="waiting", started_at=self._moment()):
            return
        self._ask_to_start(record.id, image)
        if not image.single:
            self._await(record.id, lambda now: now.state != "waiting", seconds=5)

    def stop(self, container: str) -> None:
        """SIGTERM now, SIGKILL after the image's patience. Returns at once, as StopTask does."""
        record = self._begun(container)
        if record is not None:
            self._signal(record, signal.SIGTERM)
            patience = self.image(record.image).stop_seconds
            stopping = threading.Thread(
                target=self._kill_after, args=(record.id, patience), daemon=True
            )
            stopping.start()

    def kill(self, container: str, number: int = signal.SIGKILL) -> None:
        record = self._begun(container)
        if record is not None and number == signal.SIGKILL and record.pid is not None:
            sessions.kill(record.pid)
        elif record is not None:
            self._signal(record, number)

    def kill_for_memory(self, container: str) -> None:
        """As the kernel would, where a task has a limit."""
        record = self.get(container)
        if record.pid is not None and self._move(record.id, ("running",), out_of_memory=True):
            sessions.kill(record.pid)

    def wait(self, container: str) -> int:
        """Its exit code, once it has ended."""
        record = self.get(container)
        ended = self._await(record.id, lambda now: now.state == "exited", seconds=None)
        return ended.exit_code if ended.exit_code is not None else KILLED

    def remove(self, container: str) -> None:
        """Forget it; what still runs of it is forgotten when it has ended."""
        record = self.get(container)
        with self._changed:
            self._removed.add(record.id)
        if self.get(record.id).state in ("created", "exited"):
            self._forget(record.id)

    def output(self, container: str, *, follow: bool) -> Iterator[bytes]:
        """Its output in Docker's frames; `follow`: until it has ended."""
        record = self.get(container)
        path = records.log_file(self._config.folder, record.id)
        while follow and not path.exists() and self._state(record.id) in ("created", "waiting"):
            time.sleep(_LOOK_SECONDS)
        held = b""
        with suppress(FileNotFoundError), path.open("rb") as file:
            while True:
                ended = not follow or self._state(record.id) == "exited"
                read = file.read(1 << 16)
                send, held = whole_lines(held + read, ended=ended and not read)
                if send:
                    yield frame(STDOUT, send)
                if not read and ended:
                    return
                if not read and path.stat().st_size < file.tell():  # trimmed meanwhile
                    file.seek(0)
                elif not read:
                    time.sleep(_LOOK_SECONDS)

    def trim(self) -> None:
        """Keep each container's output within bounds: its beginning goes."""
        for record in self.all():
            path = records.log_file(self._config.folder, record.id)
            with suppress(FileNotFoundError):
                if path.stat().st_size > _LOG_LIMIT:
                    os.truncate(path, 0)

    def close(self) -> None:
        """End all of them: SIGTERM, each image's patience, SIGKILL."""
        for record in self.all():
            with suppress(Refused):
                self.stop(record.id)
        for record in self.all():
            with suppress(Refused):
                self.wait(record.id)

    def _start_all(self) -> None:
        while True:
            self._asked.get()()

    def _ask_to_start(self, container: str, image: Image) -> None:
        self._asked.put(lambda: self._start_now(container, image))

    def _start_after_others(self, record: Record, image: Image) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._state(record.id) != "waiting" or not self._runs(record.image)
            )
        self._ask_to_start(record.id, image)

    def _runs(self, reference: str) -> bool:
        """Whether a container of that image runs; for who holds `_changed`."""
        name = images.name_of(reference)
        return any(
            images.name_of(each.image) == name and each.state == "running"
            for each in self._records.values()
        )

    def _start_now(self, container: str, image: Image) -> None:
        with self._changed:
            record = self._records.get(container)
            if record is None or record.state != "waiting":  # stopped before it began
                return
            # Here, where one starts at a time: of those who wait, all hear of the last one's end.
            taken = image.single and self._runs(record.image)
        if taken:
            threading.Thread(
                target=self._start_after_others, args=(record, image), daemon=True
            ).start()
            return
        try:
            child = self._launch(record, image)
        except OSError:
            self._end(container, 127)
            return
        since = started(child.pid)
        if not self._move(container, ("waiting",), state="running", pid=child.pid, started=since):
            sessions.kill(child.pid)  # stopped meanwhile, by who could not know of the process
        threading.Thread(target=self._collect, args=(container, child), daemon=True).start()

    def _launch(self, record: Record, image: Image) -> "subprocess.Popen[bytes]":
        path = records.log_file(self._config.folder, record.id)
        output = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        argv = [sys.executable, "-I", "-S", begin.__file__, str(os.getpid()), *image.argv]
        try:
            return subprocess.Popen(
                argv,
                cwd=image.folder,
                env={**record.variables, **image.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        finally:
            os.close(output)

    def _collect(self, container: str, child: "subprocess.Popen[bytes]") -> None:
        code = child.wait()
        sessions.kill(child.pid)  # what it started ends with it, as in a container
        self._end(container, code if code >= 0 else 128 - code)

    def _begun(self, container: str) -> Record | None:
        """The container, where its process runs. Who has not begun is ended, and never will."""
        known = self.get(container).id
        self._end(known, KILLED, of=_NOT_BEGUN)
        with self._changed:
            record = self._records.get(known)
        return record if record is not None and record.state == "running" else None

    def _end(self, container: str, code: int, *, of: tuple[State, ...] = _NOT_ENDED) -> None:
        """Note its end, where it is in one of those states."""
        ended = self._move(container, of, state="exited", exit_code=code, ended_at=self._moment())
        with self._changed:  # of who is unknown by now, output may have come after that
            forgotten = container not in self._records or (ended and container in self._removed)
        if forgotten:
            self._forget(container)

    def _forget(self, container: str) -> None:
        with self._changed:
            record = self._records.pop(container, None)
            if record is not None:
                self._past[container] = record
            while len(self._past) > _PAST:
                self._past.popitem(last=False)
            self._removed.discard(container)
            self._changed.notify_all()
        records.record_file(self._config.folder, container).unlink(missing_ok=True)
        records.log_file(self._config.folder, container).unlink(missing_ok=True)

    def _kill_after(self, container: str, seconds: float) -> None:
        with suppress(Refused):
            record = self._await(container, lambda now: now.state == "exited", seconds=seconds)
            if record.state == "running" and record.pid is not None:
                sessions.kill(record.pid)

    def _signal(self, record: Record, number: int) -> None:
        if record.pid is not None and record.started is not None:
            with suppress(ProcessLookupError):
                if is_running(record.pid, record.started):
                    os.kill(record.pid, number)

    def _await(
        self, container: str, condition: Callable[[Record], bool], *, seconds: float | None
    ) -> Record:
        """The record when the condition holds, or as it is after so many seconds."""
        last = self.get(container)

        def holds() -> bool:
            nonlocal last
            last = self._records.get(container, last.model_copy(update={"state": "exited"}))
            return condition(last)

        with self._changed:
            self._changed.wait_for(holds, timeout=seconds)
        return last

    def _state(self, container: str) -> str:
        record = self._records.get(container)
        return record.state if record else "exited"

    def _move(self, container: str, of: tuple[State, ...], **changes: object) -> bool:
        """Change a container that is in one of those states; whether it was. Who looked a moment
        ago may be too late: another thread starts it, or ends it."""
        with self._changed:
            record = self._records.get(container)
            if record is None or record.state not in of:
                return False
            try:
                self._put(record.model_copy(update=changes))
            except OSError as error:  # a full disk: who runs is known all the same, here
                print(f"container {container[:12]} is not noted: {error}", file=sys.stderr)  # noqa: T201 - the agent's log
            return True

    def _put(self, record: Record) -> None:
        with self._changed:
            self._records[record.id] = record
            self._changed.notify_all()  # first: who waits has to hear of it though the disk is full
            records.write(self._config.folder, record)

    def _moment(self) -> str:
        return self._config.now().isoformat()


def _taken_over(record: Record, config: ContainersConfig) -> Record:
    """A container of a stand-in that was killed: what is left of it is killed too, and it is said
    that it was."""
    if record.state == "exited":
        return record
    end_left(record)
    ended = record.model_copy(
        update={"state": "exited", "exit_code": KILLED, "ended_at": config.now().isoformat()}
    )
    records.write(config.folder, ended)
    return ended


def end_left(record: Record) -> None:
    """Kill what is left of a container whose stand-in is gone: its session, unless its number
    belongs to somebody else by now."""
    if record.pid is None or record.started is None:
        return
    found = started(record.pid)
    gone = found is None and is_of_this_boot(record.started)
    if gone or found == record.started:
        sessions.kill(record.pid)
