"""Turns: runs that share tables get to publish one after the other, and nobody waits for ever.

A run that lost its base puts down a ticket for each table that moved, and keeps it until it is
done. Whoever is about to publish such a table lets older tickets go first, and of those that have
tickets the oldest run goes first. This is about courtesy only: that nothing is lost is seen to by
the catalog, which asserts what a run has read and written. So clocks may be wrong, a ticket may be
overlooked, and one whose run is dead counts for nothing.
"""

import time
from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from typing import Self

import structlog

from lakewarden.aws.objects import Objects, StorageUnavailable
from lakewarden.records.lease import Holder, Keeper, acquire, holders

_log = structlog.get_logger(__name__)

TURNS = "ops/turns/"
_LOOK_SECONDS = 0.2
# Longer than most transforms take. After that courtesy ends: another's run may hang.
PATIENCE_SECONDS = 600.0


class Turns:
    """The tickets of one run: none until it has lost its base once."""

    def __init__(
        self,
        objects: Objects,
        holder: Holder,
        *,
        now: Callable[[], datetime],
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._objects = objects
        self._holder = holder
        self._now = now
        self._patience = patience
        self._tables: set[str] = set()
        self._keeper = Keeper(now=now)

    def __enter__(self) -> Self:
        self._keeper.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._keeper.__exit__(kind, *rest)

    def take(self, tables: Collection[str]) -> None:
        """Put down tickets for tables that were lost to others."""
        for table in sorted(set(tables) - self._tables):
            key = f"{TURNS}{table}/{self._holder.run}.json"
            self._keeper.hold(acquire(self._objects, key, self._holder, now=self._now()))
            self._tables.add(table)

    def wait(self) -> None:
        """With tickets: until no older run has one for the same tables. Without, at once."""
        if self._tables:
            self._wait(lambda: any(run < self._holder.run for run in self._ahead(self._tables)))

    def let_pass(self, tables: Collection[str]) -> None:
        """Before publishing these tables without a ticket: until nobody else has one for them."""
        if not self._tables:
            self._wait(lambda: any(True for _ in self._ahead(tables)))

    def _wait(self, busy: Callable[[], bool]) -> None:
        end = time.monotonic() + self._patience
        try:
            while busy():
                if time.monotonic() > end:
                    _log.warning("waited long enough for another run's turn")
                    return
                time.sleep(_LOOK_SECONDS)
        except StorageUnavailable as away:  # to publish may work all the same
            _log.warning("nobody knows whose turn it is", why=away.message)

    def _ahead(self, tables: Collection[str]) -> Iterator[str]:
        """Other runs, alive, that have a ticket for one of the tables."""
        found = {
            version.key.removeprefix(TURNS).partition("/")[0]
            for version in self._objects.list(TURNS)
        }
        for table in sorted(found & set(tables)):
            prefix = f"{TURNS}{table}/"
            told = holders(self._objects, prefix, host=self._holder.host, now=self._now())
            for run, alive in told.items():
                if not alive:
                    self._objects.delete(f"{prefix}{run}.json")
                elif run != self._holder.run:
                    yield run
