"""A process that exists to be killed: it does with a project what it is told, and tells how far
it is.

    python -m tests.local.crash_driver

Python starts once and imports everything; each command is done by a fork of it. Commands come in
as lines of JSON, `{"root": …, "do": "run" | "deliver" | …, "stop": where, …}`, and lines of
JSON go out:

    {"pid": 4711}                          the process that does it
    {"at": 12, "name": "after put raw/…"}  before and after each thing that changes the world
    {"stopped": 12, "name": …}             it waits there, with everything in its hands, for a line
    {"result": …} or {"error": code}       what came of it
    {"ended": status}                      negative: by that signal

`stop` is a number, or the beginning of a name. `Driver` is the other end of it, for tests.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Self

import psutil
import structlog
from sqlalchemy import Engine, event

from lakewarden.aws.clients import Connection, s3_client
from lakewarden.batch.mending import Correction
from lakewarden.errors import LakewardenError
from lakewarden.lake.sql_catalog import BranchCatalog
from lakewarden.wiring import Project, open_project

_OBJECTS = ("put", "upload", "create", "replace", "delete")
_LAKE = ("begin", "publish", "take_over", "discard")
_CATALOG = ("create_namespace", "create_table", "commit_table")

# ── the process ─────────────────────────────────────────────────────────────────────────────────


class Boundaries:
    """Counts what happens, and stops in one place. A thread that stops holds up the others at
    their next boundary."""

    def __init__(self, stop: str | int | None) -> None:
        self._stop = stop
        self._count = 0
        self._lock = Lock()

    def at(self, name: str) -> None:
        with self._lock:
            self._count += 1
            _tell(at=self._count, name=name)
            if self._is_stop(name):
                self._stop = None
                _tell(stopped=self._count, name=name)
                _read_line()

    def _is_stop(self, name: str) -> bool:
        if isinstance(self._stop, str):
            return name.startswith(self._stop)
        return self._count == self._stop

    def watch(self, thing: object, names: tuple[str, ...]) -> None:
        """Tell before and after each call of these methods, of an object or of a class."""
        for name in names:
            setattr(thing, name, self._watched(getattr(thing, name), name))

    def _watched(self, method: Callable[..., object], name: str) -> Callable[..., object]:
        def watched(*args: object, **kwargs: object) -> object:
            subject = next((arg for arg in args if isinstance(arg, str)), "")
            self.at(f"before {name} {subject}".rstrip())
            result = method(*args, **kwargs)
            self.at(f"after {name} {subject}".rstrip())
            return result

        return watched


def main() -> None:
    """Do commands until there are none; one child at a time."""
    _import_everything()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    while line := _read_line():
        pid = os.fork()
        if pid == 0:
            os._exit(_child(json.loads(line)))
        _, status = os.waitpid(pid, 0)
        _tell(ended=os.waitstatus_to_exitcode(status))


def _import_everything() -> None:
    """What a run imports when it needs it: once, for every fork."""
    for module in (
        "dbt.adapters.duckdb",
        "dbt.cli.main",
        "duckdb",
        "lakewarden.batch.delivery.deliver",
        "lakewarden.batch.run",
        "lakewarden.lake.evolve",
        "lakewarden.lake.sql",
        "pyiceberg.io.pyarrow",
    ):
        importlib.import_module(module)
    # botocore reads its description of S3; it connects to nothing before the first call.
    s3_client(Connection("local", "us-east-1", "http://127.0.0.1:1", "none", "none"))


def _child(command: Mapping[str, object]) -> int:
    _tell(pid=os.getpid())
    try:
        _tell(result=_do(command))
    except LakewardenError as error:
        _tell(error=error.code)
        return error.exit_code
    except BaseException:
        traceback.print_exc()
        _tell(error="unexpected")
        return 1
    return 0


def _do(command: Mapping[str, object]) -> str | None:
    stop = command.get("stop")
    boundaries = Boundaries(stop if isinstance(stop, str | int) else None)
    project = open_project(str(command["root"]))
    _watch(project, boundaries)
    dataset, batch = str(command.get("dataset")), str(command.get("batch"))
    match command["do"]:
        case "run":
            outcome = project.run(
                dataset, batch, tell=lambda done: boundaries.at(f"stage {done.stage}")
            )
            return outcome.status
        case "run_set":
            batches = project.keys(dataset, batch)
            done = project.run_set(
                dataset, batches, tell=lambda done: boundaries.at(f"stage {done.stage}")
            )
            return ", ".join(outcome.status for outcome in done)
        case "unpublish":
            return project.unpublish(dataset, project.keys(dataset, batch)).status
        case "mend":
            corrections = json.loads(str(command["corrections"]))
            made = project.mend(dataset, batch, [Correction(**one) for one in corrections])
            return str(len(made))
        case "replay":
            return project.replay(dataset, batch).status
        case "deliver":
            project.deliver(dataset, batch, Path(str(command["folder"])))
            return None
        case "apply":
            publication = project.apply_tables()
            return str(publication.version) if publication else None
    raise ValueError(f"not a command: {command}")


def _watch(project: Project, boundaries: Boundaries) -> None:
    boundaries.watch(project.objects, _OBJECTS)
    boundaries.watch(project.lake, _LAKE)
    boundaries.watch(BranchCatalog, _CATALOG)

    @event.listens_for(Engine, "commit")
    def _on_commit(_connection: object) -> None:
        boundaries.at("inside a transaction")


def _tell(**what: object) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def _read_line() -> bytes:
    """Without a buffer: the next line may be for another process of us."""
    line = b""
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return line + byte


# ── the other end ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class End:
    """How a command ended. `status`: an exit code, or a signal's number, negative."""

    status: int
    result: str | None
    error: str | None
    boundaries: tuple[str, ...]  # that it came by


class Driver:
    """Starts commands in a process of their own, and kills it by its process id."""

    def __init__(self, log: Path) -> None:
        self._log = log.open("a")
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.local.crash_driver"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            bufsize=1,
        )
        self._process: psutil.Process | None = None
        self._told: list[dict[str, object]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill()
        self._server.communicate()
        self._log.close()

    def start(self, do: str, root: Path, *, stop: str | int | None = None, **what: str) -> None:
        """Returns when the process is there, at the very beginning of its work."""
        if self._process is not None:
            self.kill()  # of a test that failed
        self._told = []
        self._send(json.dumps({"do": do, "root": str(root), "stop": stop, **what}))
        pid = self._read("pid")["pid"]
        assert isinstance(pid, int)
        try:
            self._process = psutil.Process(pid)
        except psutil.NoSuchProcess:
            self._process = None

    def stopped(self) -> str | None:
        """Wait until it stops; the boundary's name, or None where it has ended instead."""
        told = self._read("stopped", "ended")
        return None if "ended" in told else str(told["name"])

    def go_on(self) -> None:
        self._send("")

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> End:
        """kill -9; it may have ended already."""
        try:
            if self._process is not None:
                self._process.kill()  # psutil makes sure that the pid is still that process's
        except psutil.NoSuchProcess:
            pass
        return self.end()

    def end(self) -> End:
        """Wait until it has ended, in whichever way."""
        if not any("ended" in told for told in self._told):
            self._read("ended")
        self._process = None
        told = {key: value for one in self._told for key, value in one.items()}
        result, error, status = told.get("result"), told.get("error"), told["ended"]
        assert isinstance(status, int)
        return End(
            status,
            None if result is None else str(result),
            None if error is None else str(error),
            tuple(str(one["name"]) for one in self._told if "at" in one),
        )

    def _send(self, line: str) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(line + "\n")

    def _read(self, *wanted: str) -> dict[str, object]:
        assert self._server.stdout is not None
        for line in self._server.stdout:
            told: dict[str, object] = json.loads(line)
            self._told.append(told)
            if any(key in told for key in wanted):
                return told
        raise AssertionError("the driver is gone; see its log")


if __name__ == "__main__":
    main()
