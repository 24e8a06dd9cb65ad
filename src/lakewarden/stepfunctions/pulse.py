"""Signs of life: sent while work moves on, and not by a step that hangs.

Work moves when bytes come or go, a stage ends, or the process computes: a model that takes an hour
keeps a core busy for it. A loop that computes for ever passes for work; TimeoutSeconds ends it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event, Lock, Thread
from typing import Protocol, Self

import structlog

from lakewarden.errors import Failed

_log = structlog.get_logger(__name__)

LEAST_SHARE = 0.1  # of one core; waiting, with its timers, takes a tenth of that
_BEATS = 5  # within the time after which silence counts as death


class TokenLost(Failed):
    """Nobody waits for this task any more: its execution timed out, was stopped, or went on."""


class Line(Protocol):
    """To who waits for the task."""

    def beat(self) -> None:
        """Say that we live; raises TokenLost where nobody waits."""
        ...


@dataclass
class Progress:
    """How far the work is: things that were counted, and seconds that were computed."""

    cpu: Callable[[], float]
    clock: Callable[[], float]
    _counted: int = 0
    _seen: int = -1
    _cpu: float = 0.0
    _at: float = 0.0
    _lock: Lock = field(default_factory=Lock)

    def moved(self, bytes_: int = 0) -> None:
        """Something came, went or ended."""
        del bytes_
        with self._lock:
            self._counted += 1

    def since(self) -> bool:
        """Whether it moved on since this was last asked."""
        with self._lock:
            cpu, at = self.cpu(), self.clock()
            computed = cpu > self._cpu and cpu - self._cpu >= LEAST_SHARE * (at - self._at)
            moved = self._counted != self._seen or computed
            self._seen, self._cpu, self._at = self._counted, cpu, at
        return moved


class Pulse:
    """Beats in the background, while it is entered."""

    def __init__(self, line: Line, progress: Progress, heartbeat_seconds: float) -> None:
        self._line = line
        self._progress = progress
        self._every = heartbeat_seconds / _BEATS
        self._end = Event()
        self._lost: TokenLost | None = None
        self._thread = Thread(target=self._beat_on, name="lakewarden-pulse", daemon=True)

    def __enter__(self) -> Self:
        self._progress.since()
        self.check()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(timeout=2.0)

    def still_wanted(self) -> None:
        """Raises TokenLost where the last beat found that nobody waits."""
        if self._lost:
            raise self._lost

    def check(self) -> None:
        """Ask now; raises TokenLost. Where nobody answers, that is no reason to stop."""
        self.still_wanted()
        self._beat()
        self.still_wanted()

    def _beat_on(self) -> None:
        while not self._end.wait(self._every) and self._lost is None:
            if self._progress.since():
                self._beat()

    def _beat(self) -> None:
        try:
            self._line.beat()
        except TokenLost as lost:
            self._lost = lost
            _log.warning(lost.message)
        except Exception as error:  # it is tried again at the next beat
            _log.warning("no sign of life could be given", why=type(error).__name__)
