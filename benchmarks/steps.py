"""A stopwatch at each step within the load. Streams are nested: each step's own time is its
stream's, less that of the stream it reads from."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from benchmarks.trial import Detail


class Stopwatch:
    """Seconds by step, summed over threads: of wall clock, and of the calling thread's CPU."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wall: dict[str, float] = {}
        self._cpu: dict[str, float] = {}

    @contextmanager
    def on(self, step: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
            with self._lock:
                self._wall[step] = self._wall.get(step, 0.0) + wall
                self._cpu[step] = self._cpu.get(step, 0.0) + cpu

    def call(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.on(step):
                return function(*args, **kwargs)

        return timed

    def stream(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Iterator[Any]:
            items = iter(function(*args, **kwargs))
            while True:
                with self.on(step):
                    item = next(items, None)
                if item is None:
                    return
                yield item

        return timed

    def told(self) -> Detail:
        """Each step's own seconds: `wall` of all its threads together, and `cpu` where it is
        Python's thread that works (DuckDB's own threads do the COPY)."""
        return {"wall": _own(self._wall), "cpu": _own(self._cpu)}


def _own(total: dict[str, float]) -> dict[str, float]:
    def of(step: str) -> float:
        return total.get(step, 0.0)

    return {
        "wait for the store": of("stream"),
        "hash": of("tallied") - of("stream"),
        "unpack": of("unpacked") - of("tallied"),
        "decode": of("decoded") - of("unpacked"),
        "count": of("feed"),
        "write parts": of("read") - of("decoded") - of("feed") - of("emit"),
        "wait for parsers": of("emit"),
        "parse and write Parquet": of("copy"),
        "look at misfits": of("diagnose"),
        "upload": of("upload"),
        "describe": of("describe") - of("upload"),
    }


@contextmanager
def watched(stopwatch: Stopwatch) -> Iterator[None]:
    """Put the stopwatch at every step, for as long as this lasts."""
    from lakewarden.aws.s3 import S3Objects
    from lakewarden.batch import intake, parquet
    from lakewarden.batch.parsing import read, records

    places: list[tuple[Any, str, str, Callable[[str, Callable[..., Any]], Callable[..., Any]]]] = [
        (S3Objects, "stream", "stream", stopwatch.stream),
        (read, "tallied", "tallied", stopwatch.stream),
        (read, "unpacked", "unpacked", stopwatch.stream),
        (read, "decoded", "decoded", stopwatch.stream),
        (records.RecordScanner, "feed", "feed", stopwatch.call),
        (read.Reader, "read", "read", stopwatch.call),
        (intake._Readers, "_put", "emit", stopwatch.call),
        (intake, "copy", "copy", stopwatch.call),
        (parquet, "copy", "copy", stopwatch.call),
        (intake, "diagnose", "diagnose", stopwatch.call),
        (S3Objects, "upload", "upload", stopwatch.call),
        (parquet, "_upload_one", "describe", stopwatch.call),
    ]
    with ExitStack() as stack:
        for place, name, step, wrap in places:
            stack.enter_context(patch.object(place, name, wrap(step, getattr(place, name))))
        yield
