"""The stack's process: started apart from us, found again, ended; never another's."""

import os
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from pydantic import TypeAdapter, ValidationError

from lakewarden.local.layout import Layout, write_private
from lakewarden.local.overlay import LOG_BYTES, STOP_SECONDS
from lakewarden.records.processes import is_running, started


@dataclass(frozen=True)
class StackProcess:
    pid: int
    started: str  # see records.processes


_PROCESS = TypeAdapter(StackProcess)


def launch(layout: Layout, command: list[str], environment: dict[str, str]) -> StackProcess | None:
    """Start it in a session of its own, in the stack's folder, with nothing of our terminal.
    None when it ended at once."""
    _set_aside(layout.log)
    descriptor = os.open(layout.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        child = subprocess.Popen(
            command,
            cwd=layout.folder,
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
    write_private(layout.process, asdict(process))
    return process


def find(layout: Layout) -> StackProcess | None:
    """The running process of this stack: as written down, or else by the folder that it works in
    (whoever started it may have been killed before it could write)."""
    try:
        process = _PROCESS.validate_json(layout.process.read_bytes())
    except (FileNotFoundError, ValidationError):
        return _find_by_folder(layout.folder)
    if is_running(process.pid, process.started):
        return process
    return _find_by_folder(layout.folder)


def end(layout: Layout, process: StackProcess) -> None:
    """Ask it to stop, then make it; returns when it is gone."""
    for force in (False, True):
        try:
            target = psutil.Process(process.pid)
            if not is_running(process.pid, process.started):
                break
            target.kill() if force else target.terminate()
            _wait(process, STOP_SECONDS)
        except psutil.NoSuchProcess:
            break
    layout.process.unlink(missing_ok=True)


def _wait(process: StackProcess, seconds: float) -> None:
    until = time.monotonic() + seconds
    while is_running(process.pid, process.started) and time.monotonic() < until:
        time.sleep(0.02)


def _find_by_folder(folder: Path) -> StackProcess | None:
    for candidate in psutil.process_iter():
        try:
            ours = candidate.name().startswith("weed") and Path(candidate.cwd()) == folder.resolve()
        except (psutil.Error, OSError):
            continue  # gone meanwhile, or another user's
        since = started(candidate.pid) if ours else None
        if since is not None:
            return StackProcess(candidate.pid, since)
    return None


def _set_aside(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".log.old"))
