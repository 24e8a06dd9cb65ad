"""kill -9 of sets of batches, of mends and of unpublish: all of it or nothing, and the same command
again gives what an undisturbed one gives."""

import json
import signal
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path

import pytest

from tests.local.crash_driver import Driver
from tests.local.shop import DATASET, DAY, MISFITS, Shop, digest, new_shop
from tests.local.test_crash import places
from tests.stack import LocalStack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DAYS = (DAY, "2024-03-02", "2024-03-03")
SPAN = f"{DAYS[0]}..{DAYS[-1]}"
Digest = Mapping[str, str]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    with Driver(tmp_path_factory.mktemp("driver") / "log") as driver:
        yield driver


@pytest.fixture
def shop(local_stack: LocalStack, tmp_path: Path) -> Shop:
    return new_shop(local_stack, tmp_path / "shop")


def deliver_all(shop: Shop, generation: int) -> None:
    for number, day in enumerate(DAYS):
        shop.deliver(generation, day, orders=4 + number + generation)


def undisturbed(driver: Driver, shop: Shop, do: str, result: str, **what: str) -> Sequence[str]:
    """The boundaries that a command comes by."""
    driver.start(do, shop.root, dataset=DATASET, **what)
    ended = driver.end()
    assert (ended.status, ended.result) == (0, result)
    return ended.boundaries


def killed_at(driver: Driver, shop: Shop, do: str, stop: int, **what: str) -> str:
    """Returns the boundary at which it was killed. (Rows that are not spread over as many files
    as before have a few boundaries less: then it had ended.)"""
    driver.start(do, shop.root, dataset=DATASET, stop=stop, **what)
    name = driver.stopped()
    if name is None:
        assert driver.end().status == 0
        return "it had ended"
    assert driver.kill().status == -signal.SIGKILL
    return name


def run_set(shop: Shop) -> list[str]:
    return [outcome.status for outcome in shop.project.run_set(DATASET, DAYS)]


def test_a_set_killed_at_every_boundary(driver: Driver, shop: Shop) -> None:
    """Its batches are published together, or none of them is."""
    states: dict[int, Digest] = {}
    for generation in (1, 2):
        deliver_all(shop, generation)
        names = undisturbed(driver, shop, "run_set", "published", batch=SPAN)
        states[generation] = digest(shop.rows())
    before, killed = 2, 0
    for place, generation in zip(places(names), cycle([1, 2]), strict=False):
        deliver_all(shop, generation)
        versions = shop.project.pin().version
        name = killed_at(driver, shop, "run_set", place, batch=SPAN)
        killed += name != "it had ended"
        moved = shop.project.pin().version != versions
        told = f"killed at boundary {place}: {name}"
        assert digest(shop.rows()) == states[generation if moved else before], told
        assert run_set(shop) == ["unchanged" if moved else "published"], told
        assert digest(shop.rows()) == states[generation], told
        assert shop.leftovers() == {}, told
        before = generation
    assert killed >= 35
    shop.check_receipts()


def test_unpublish_killed_at_every_boundary(driver: Driver, shop: Shop) -> None:
    deliver_all(shop, 1)
    run_set(shop)
    whole = digest(shop.rows())
    names = undisturbed(driver, shop, "unpublish", "published", batch=DAY)
    without = digest(shop.rows())
    assert whole != without
    killed = 0
    for place in places(names):
        assert shop.project.run(DATASET, DAY).status == "published"
        assert digest(shop.rows()) == whole
        version = shop.project.pin().version
        name = killed_at(driver, shop, "unpublish", place, batch=DAY)
        killed += name != "it had ended"
        moved = shop.project.pin().version != version
        told = f"killed at boundary {place}: {name}"
        assert digest(shop.rows()) == (without if moved else whole), told
        again = shop.project.unpublish(DATASET, [DAY]).status
        assert again == ("unchanged" if moved else "published"), told
        assert digest(shop.rows()) == without, told
        assert shop.leftovers() == {}, told
    assert killed >= 15
    shop.check_receipts()


def test_mends_and_their_replay_killed_at_every_boundary(driver: Driver, shop: Shop) -> None:
    """A mend is kept whole or not at all, and a replay publishes the batch with all of them."""
    first = 14  # record number of the first misfit: a header and twelve orders are before it
    corrections = json.dumps(
        [{"line": first + n, "values": {"amount": f"{n}.25"}} for n in range(MISFITS)]
    )
    shop.deliver(1, damaged=True)
    assert shop.project.run(DATASET, DAY).status == "published"
    mending = undisturbed(driver, shop, "mend", "2", batch=DAY, corrections=corrections)
    replaying = undisturbed(driver, shop, "replay", "published", batch=DAY)
    wanted = [("mend", place) for place in places(mending)]
    wanted += [("replay", place) for place in places(replaying)]
    killed = 0
    for generation, (do, place) in enumerate(wanted, start=2):
        # Other bytes each time, so that the mends of before are of another file.
        shop.deliver(generation, damaged=True)
        assert shop.project.run(DATASET, DAY).status == "published"
        damaged = len(shop.rows()["raw.orders"])
        if do == "mend":
            name = killed_at(driver, shop, "mend", place, batch=DAY, corrections=corrections)
        undisturbed_or_done(driver, shop, corrections)
        if do == "replay":
            name = killed_at(driver, shop, "replay", place, batch=DAY)
        killed += name != "it had ended"
        told = f"{do} killed at boundary {place}: {name}"
        assert len(shop.rows()["raw.orders"]) in (damaged, damaged + MISFITS), told
        assert shop.project.replay(DATASET, DAY).status in ("published", "unchanged"), told
        rows = shop.rows()["raw.orders"]
        assert len(rows) == damaged + MISFITS, told
        mended = [row for row in rows if row[-1] in (first, first + 1)]
        assert [str(row[3]) for row in mended] == ["0.25", "1.25"], told
        assert {row[1] for row in rows} == {generation}, told
        assert shop.leftovers() == {}, told
    assert killed >= 25
    shop.check_receipts()


def undisturbed_or_done(driver: Driver, shop: Shop, corrections: str) -> None:
    """The mends, whether they were kept already or not."""
    driver.start("mend", shop.root, dataset=DATASET, batch=DAY, corrections=corrections)
    ended = driver.end()
    assert (ended.status, ended.result) in [(0, "0"), (0, "2")]
