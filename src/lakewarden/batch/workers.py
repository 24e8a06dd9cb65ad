"""Threads that work side by side, and that nobody has to wait long for after an error.

A thread cannot be ended from outside, and one that waits for a silent store may wait for most of a
minute. After an error (Ctrl-C is one) its work is worth nothing any more.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")

_GRACE = 1.0  # seconds; what takes longer is left to itself
_ASK_EVERY = 0.1


def result_of(future: Future[_T]) -> _T:
    """A future's result. It is asked for again and again: Python does not hear a signal that comes
    just before a wait until that wait is over, and this one may be without an end."""
    while not future.done():
        wait((future,), timeout=_ASK_EVERY)
    return future.result()


class Workers:
    """A pool that is waited for at the end of a `with`; after an error only for a moment, in which
    `stop` is asked, again and again, to end what is under way."""

    def __init__(self, threads: int, *, stop: Callable[[], None] = lambda: None) -> None:
        self._pool = ThreadPoolExecutor(threads)
        self._stop = stop
        self._futures: set[Future[Any]] = set()  # of whatever type the work has

    def submit(self, work: Callable[_P, _T], *args: _P.args, **named: _P.kwargs) -> Future[_T]:
        """As ThreadPoolExecutor's."""
        future = self._pool.submit(work, *args, **named)
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        return future

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._pool.shutdown()
            return
        self._pool.shutdown(wait=False, cancel_futures=True)
        until = time.monotonic() + _GRACE
        while self._futures and time.monotonic() < until:
            self._stop()
            wait(tuple(self._futures), timeout=_ASK_EVERY)
