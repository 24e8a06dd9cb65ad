"""The stack's processes: started apart from us, found again, ended; never another's."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from pydantic import TypeAdapter, ValidationError

from lakewarden.local.layout import write_private
from lakewarden.local.overlay import LOG_BYTES, STOP_SECONDS
from lakewarden.records.processes import is_running, started


@dataclass(frozen=True)
class StackProcess:
    pid: int
    started: str  # see records.processes


@dataclass(frozen=True)
class Daemon:
    """One process of the stack, which outlives the command that starts it."""

    folder: Path  # where it works
    record: Path  # which process it is
    log: Path
    words: tuple[str, ...]  # of its command line: by them, and its folder, it is found again


_PROCESS = TypeAdapter(StackProcess)


def launch(
    daemon: Daemon, command: Sequence[str], environment: Mapping[str, str]
) -> StackProcess | None:
    """Start it in a session of its own, in its folder, with nothing of our terminal.
    None when it ended at once."""
    _set_aside(daemon.log)
    descriptor = os.open(daemon.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        child = subprocess.Popen(
            command,
            cwd=daemon.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    since = started(child.pid)
    if since is None:
        return None
    process = StackProcess(child.pid, since)
    write_private(daemon.record, asdict(process))
    return process


def find(daemon: Daemon) -> StackProcess | None:
    """The running process: as written down, or else by the folder that it works in (whoever
    started it may have been killed before it could write)."""
    try:
        process = _PROCESS.validate_json(daemon.record.read_bytes())
    except (FileNotFoundError, ValidationError):
        return _find_by_folder(daemon)
    if is_running(process.pid, process.started):
        return process
    return _find_by_folder(daemon)


def end(daemon: Daemon, process: StackProcess, *, seconds: float = STOP_SECONDS) -> None:
    """Ask it to stop, then after so many seconds make it; returns when it is gone."""
    for force in (False, True):
        try:
            target = psutil.Process(process.pid)
            if not is_running(process.pid, process.started):
                break
            target.kill() if force else target.terminate()
            _wait(process, seconds)
        except psutil.NoSuchProcess:
            break
    daemon.record.unlink(missing_ok=True)


def _wait(process: StackProcess, seconds: float) -> None:
    until = time.monotonic() + seconds
    while is_running(process.pid, process.started) and time.monotonic() < until:
        time.sleep(0.02)


def _find_by_folder(daemon: Daemon) -> StackProcess | None:
    folder = daemon.folder.resolve()
    for candidate in psutil.process_iter():
        try:
            ours = Path(candidate.cwd()) == folder and _is_called(candidate.cmdline(), daemon.words)
        except (psutil.Error, OSError):
            continue  # gone meanwhile, or another user's
        since = started(candidate.pid) if ours else None
        if since is not None:
            return StackProcess(candidate.pid, since)
    return None


def _is_called(command: Sequence[str], words: tuple[str, ...]) -> bool:
    return all(word in command for word in words)


def _set_aside(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".log.old"))
