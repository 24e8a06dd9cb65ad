"""Leases, over every `Objects`."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Event

import pytest

from lakewarden.aws.objects import Objects, ObjectVersion, StorageUnavailable
from lakewarden.aws.s3 import S3Objects
from lakewarden.records.lease import (
    Holder,
    Keeper,
    Lease,
    LeaseHeld,
    LeaseUnreadable,
    acquire,
    holders,
    this_process,
)
from lakewarden.records.processes import started
from tests.fakes.objects import MemoryObjects
from tests.stack import LocalStack

KEY = "ops/leases/flights/2013-01-01.json"
NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


@pytest.fixture(params=["memory", "s3"])
def objects(request: pytest.FixtureRequest) -> Objects:
    if request.param == "memory":
        return MemoryObjects("memory")
    stack: LocalStack = request.getfixturevalue("local_stack")
    return S3Objects(stack.connection, stack.bucket())


@pytest.fixture
def other_process() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def here(run: str) -> Holder:
    return this_process(run, host="here", since=NOW)


def elsewhere(run: str, host: str = "elsewhere") -> Holder:
    return Holder(run, host, 4711, "then", NOW)


def take(objects: Objects, holder: Holder, after: float = 0, *, take_over: bool = False) -> Lease:
    return acquire(objects, KEY, holder, now=NOW + timedelta(seconds=after), take_over=take_over)


def test_a_free_lease_is_taken_and_released(objects: Objects) -> None:
    lease = take(objects, here("one"))
    assert (lease.holder, lease.predecessors, lease.lost) == (here("one"), (), False)
    lease.release()
    assert objects.head(KEY) is None
    assert take(objects, elsewhere("two")).predecessors == ()


def test_a_listing_tells_the_living_from_the_dead(objects: Objects) -> None:
    def told(after: float) -> Mapping[str, bool]:
        return holders(objects, "ops/leases/", host="here", now=NOW + timedelta(seconds=after))

    assert told(0) == {}
    take(objects, here("one"))
    assert told(61) == {"one": True}  # its process is there
    take(objects, elsewhere("two"), take_over=True)
    assert told(0) == {"one": False, "two": True}
    assert told(61) == {"one": False, "two": False}


def test_a_live_one_says_who_and_since_when(objects: Objects) -> None:
    take(objects, here("one"))
    with pytest.raises(LeaseHeld) as caught:
        take(objects, here("two"), after=3600)
    assert caught.value.exit_code == 75
    assert caught.value.holder == here("one")
    for told in ("one", "here", str(here("one").pid), "2026-05-04T03:02:01+00:00"):
        assert told in str(caught.value)


def test_of_this_host_only_the_process_counts(
    objects: Objects, other_process: "subprocess.Popen[bytes]"
) -> None:
    pid = other_process.pid
    holder = Holder("one", "here", pid, started(pid) or "", NOW)
    take(objects, holder)
    with pytest.raises(LeaseHeld):
        take(objects, here("two"), after=3600)
    other_process.kill()
    other_process.wait()
    lease = take(objects, here("two"), after=0.1)
    assert lease.predecessors == (holder,)


def test_a_pid_that_is_used_again_is_another_process(objects: Objects) -> None:
    mine = here("one")
    take(objects, Holder("one", "here", mine.pid, "an earlier process", NOW))
    assert take(objects, here("two")).predecessors


def test_another_host_is_dead_after_a_minute_without_renewal(objects: Objects) -> None:
    first = take(objects, elsewhere("one"))
    first.renew(NOW + timedelta(seconds=30))
    with pytest.raises(LeaseHeld):
        take(objects, here("two"), after=89)
    second = take(objects, here("two"), after=91)
    assert second.predecessors == (elsewhere("one"),)
    first.renew(NOW + timedelta(seconds=92))
    assert first.lost
    first.release()
    second.renew(NOW + timedelta(seconds=93))
    assert not second.lost


def test_take_over_takes_it_from_the_living(objects: Objects) -> None:
    first = take(objects, here("one"))
    second = take(objects, elsewhere("two"), take_over=True)
    assert second.predecessors == (here("one"),)
    first.release()
    assert first.lost
    assert objects.head(KEY) is not None
    with pytest.raises(LeaseHeld):
        take(objects, here("three"))


def test_the_dead_are_remembered_until_somebody_releases(objects: Objects) -> None:
    """A successor may die before it has tidied up after its predecessor."""
    for number in range(3):
        lease = take(objects, elsewhere(str(number)), after=100 * number)
    assert [dead.run for dead in lease.predecessors] == ["1", "0"]
    lease.release()
    assert take(objects, elsewhere("3")).predecessors == ()


def test_one_that_was_left_counts_as_dead(objects: Objects) -> None:
    """Its process lives on, and would pass for the holder for ever."""
    take(objects, elsewhere("zero"))
    take(objects, here("one"), after=100).leave()
    successor = take(objects, here("two"), after=101)
    assert [dead.run for dead in successor.predecessors] == ["one", "zero"]


def test_of_many_one_gets_it(objects: Objects) -> None:
    def attempt(number: int) -> Lease | None:
        try:
            return take(objects, elsewhere(str(number), f"host-{number}"), after=1000)
        except LeaseHeld:
            return None

    take(objects, elsewhere("dead"))
    with ThreadPoolExecutor(8) as pool:
        leases = [lease for lease in pool.map(attempt, range(8)) if lease]
    assert len(leases) == 1
    assert [dead.run for dead in leases[0].predecessors] == ["dead"]


def test_of_many_that_take_over_one_gets_it(objects: Objects) -> None:
    """--take-over means the holder that was seen, not whoever was quicker."""
    barrier = Event()

    def attempt(number: int) -> Lease | None:
        barrier.wait()
        try:
            return take(objects, elsewhere(str(number), f"host-{number}"), take_over=True)
        except LeaseHeld:
            return None

    take(objects, elsewhere("alive"))
    with ThreadPoolExecutor(8) as pool:
        attempts = [pool.submit(attempt, number) for number in range(8)]
        barrier.set()
        leases = [lease for one in attempts if (lease := one.result())]
    for lease in leases:
        lease.renew(NOW)
    assert [lease.lost for lease in leases].count(False) == 1


def test_clocks_that_disagree_leave_one_holder(objects: Objects) -> None:
    first = take(objects, elsewhere("one", "slow clock"), after=-86_400)
    second = take(objects, elsewhere("two", "right clock"))
    first.renew(NOW + timedelta(days=1))
    second.renew(NOW)
    assert (first.lost, second.lost) == (True, False)


@pytest.mark.parametrize("take_over", [False, True])
def test_what_is_not_a_lease_is_told(objects: Objects, take_over: bool) -> None:
    objects.put(KEY, b"not a lease")
    with pytest.raises(LeaseUnreadable, match=KEY):
        take(objects, here("one"), take_over=take_over)
    assert holders(objects, "ops/leases/", host="here", now=NOW) == {}


@pytest.mark.parametrize("run", ["..", ".", "", "a/b", "../a", ".hidden", "-r", "a\\b", "a\n"])
def test_a_run_whose_name_could_be_a_path_is_none(objects: Objects, run: str) -> None:
    take(objects, elsewhere("one"))
    body = json.loads(objects.get(KEY).body)
    holder = body["holder"]
    for found in ({"holder": {**holder, "run": run}}, {"replaced": [{**holder, "run": run}]}):
        objects.put(KEY, json.dumps({**body, **found}).encode())
        with pytest.raises(LeaseUnreadable, match=KEY):
            take(objects, here("two"), after=3600)


def test_a_keeper_renews_and_releases(objects: Objects) -> None:
    lease = take(objects, elsewhere("one"))
    clock = iter(NOW + timedelta(seconds=second) for second in range(10**6))
    with Keeper(lease, now=lambda: next(clock), every=0.01):
        before = objects.get(KEY).version
        wait_until(lambda: objects.get(KEY).version != before)
        assert not lease.lost
    assert objects.head(KEY) is None


def test_a_keeper_tells_that_the_lease_was_lost(objects: Objects) -> None:
    lease = take(objects, elsewhere("one"))
    with Keeper(lease, now=lambda: NOW, every=0.01):
        take(objects, here("two"), take_over=True)
        wait_until(lambda: lease.lost)
    with pytest.raises(LeaseHeld):
        take(objects, here("three"))


class Away(MemoryObjects):
    """An object store that can go away."""

    away = False

    def replace(self, key: str, body: bytes, *, etag: str) -> ObjectVersion:
        if self.away:
            raise StorageUnavailable("away")
        return super().replace(key, body, etag=etag)

    def delete(self, key: str, *, etag: str | None = None) -> None:
        if self.away:
            raise StorageUnavailable("away")
        super().delete(key, etag=etag)


def test_a_store_that_is_away_does_not_lose_the_lease() -> None:
    objects = Away()
    lease = take(objects, elsewhere("one"))
    clock = iter(NOW + timedelta(seconds=second) for second in range(10**6))
    with Keeper(lease, now=lambda: next(clock), every=0.005):
        objects.away = True
        time.sleep(0.05)
        assert not lease.lost
        objects.away = False
        before = objects.get(KEY).version
        wait_until(lambda: objects.get(KEY).version != before)
        objects.away = True
    assert objects.head(KEY) is not None
    objects.away = False
    assert take(objects, here("two"), after=10**7).predecessors


class Forgetful(MemoryObjects):
    """Does what it is asked, and does not answer."""

    forgets = False

    def replace(self, key: str, body: bytes, *, etag: str) -> ObjectVersion:
        version = super().replace(key, body, etag=etag)
        if self.forgets:
            raise StorageUnavailable("no answer")
        return version


def test_a_renewal_that_was_not_answered_is_ours_all_the_same() -> None:
    objects = Forgetful()

    def lose_an_answer(lease: Lease, after: float) -> None:
        objects.forgets = True
        with pytest.raises(StorageUnavailable):
            lease.renew(NOW + timedelta(seconds=after))
        objects.forgets = False

    lease = take(objects, elsewhere("unheard"))
    lose_an_answer(lease, 10)
    lease.renew(NOW + timedelta(seconds=20))
    with pytest.raises(LeaseHeld):
        take(objects, here("two"), after=79)
    lose_an_answer(lease, 30)
    lease.release()
    assert (lease.lost, objects.head(KEY)) == (False, None)

    lease = take(objects, elsewhere("unheard-too"))
    lose_an_answer(lease, 10)
    take(objects, here("four"), take_over=True)
    lease.renew(NOW + timedelta(seconds=20))
    assert lease.lost


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.005)
