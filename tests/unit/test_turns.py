"""Turns: the oldest ticket goes first, the dead and the silent hold nobody up."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from lakewarden.aws.objects import ObjectVersion, StorageUnavailable
from lakewarden.batch.turns import TURNS, Turns
from lakewarden.records.lease import Holder, this_process
from tests.fakes.objects import MemoryObjects

NOW = datetime(2024, 1, 1, tzinfo=UTC)


def me(run: str) -> Holder:
    return this_process(run, host="here", since=NOW)


def turns(objects: MemoryObjects, holder: Holder, *, patience: float = 60.0) -> Turns:
    return Turns(objects, holder, now=lambda: NOW, patience=patience)


def waits(turn: threading.Thread, seconds: float = 0.3) -> bool:
    turn.join(seconds)
    return turn.is_alive()


def test_who_has_no_ticket_lets_tickets_go_first_and_others_do_not_wait() -> None:
    objects = MemoryObjects()
    with turns(objects, me("run-1")) as first:
        first.take(["marts.shared"])
        with turns(objects, me("run-2")) as other, turns(objects, me("run-3")) as stranger:
            waiting = threading.Thread(target=other.let_pass, args=[{"marts.shared", "raw.b"}])
            waiting.start()
            stranger.let_pass({"raw.c"})  # at once
            assert waits(waiting)
            first.__exit__(None)
            waiting.join(5)
            assert not waiting.is_alive()
    assert list(objects.list(TURNS)) == []


def test_of_several_tickets_the_oldest_run_goes_first() -> None:
    objects = MemoryObjects()
    with turns(objects, me("run-1")) as old, turns(objects, me("run-2")) as young:
        young.take(["marts.shared"])
        old.take(["marts.shared", "raw.b"])
        old.wait()  # at once
        waiting = threading.Thread(target=young.wait)
        waiting.start()
        assert waits(waiting)
        old.__exit__(None)
        waiting.join(5)
        assert not waiting.is_alive()


def test_the_ticket_of_a_dead_run_counts_for_nothing_and_is_removed() -> None:
    objects = MemoryObjects()
    dead = Holder("run-0", "elsewhere", 1, "then", NOW - timedelta(days=1))
    gone = Turns(objects, dead, now=lambda: NOW - timedelta(days=1))
    gone.take(["marts.shared"])
    with turns(objects, me("run-1")) as mine:
        mine.let_pass({"marts.shared"})
    assert list(objects.list(TURNS)) == []


def test_patience_ends_and_so_does_courtesy() -> None:
    objects = MemoryObjects()
    with turns(objects, me("run-1")) as first, turns(objects, me("run-2"), patience=0.1) as other:
        first.take(["marts.shared"])
        begun = time.monotonic()
        other.let_pass({"marts.shared"})
        assert time.monotonic() - begun < 5


def test_a_store_that_is_away_keeps_nobody_from_publishing() -> None:
    class Away(MemoryObjects):
        def list(self, prefix: str) -> Iterator[ObjectVersion]:
            raise StorageUnavailable("away")

    with turns(Away(), me("run-1")) as mine:
        mine.let_pass({"marts.shared"})
