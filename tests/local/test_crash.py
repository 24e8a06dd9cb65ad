"""kill -9 at every boundary and at random moments: main is never half a batch, and the same command
again gives what an undisturbed run gives.

The killed thing is a process of its own (crash_driver.py). What is compared is what was published
by a shop that nobody disturbed.
"""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import cycle, pairwise
from pathlib import Path
from threading import Event, Thread

import psutil
import pytest
import yaml

import lakewarden
from lakewarden.aws.clients import Patience
from lakewarden.batch.conductor import StageDone
from lakewarden.errors import Refused, TryAgain
from lakewarden.lake.model import CatalogUnavailable, Pin
from lakewarden.lake.sql import SqlLake
from lakewarden.local.stack import StackConfig, up
from tests.local.crash_driver import Driver
from tests.local.shop import (
    DATASET,
    DAY,
    MARTS,
    MISFITS,
    TABLES,
    Shop,
    digest,
    make_shop,
    new_shop,
    write_delivery,
)
from tests.stack import LocalStack, throw_away

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

Digest = Mapping[str, str]
RANDOM_KILLS = 10
COMMAND = Path(sys.executable).with_name("lakewarden")


@dataclass(frozen=True)
class Delivery:
    """Of one batch: a corrected delivery differs in every row and in how many there are."""

    generation: int
    orders: int
    files: int

    @property
    def records(self) -> int:
        return 3 * self.orders + MISFITS


FIRST = Delivery(generation=1, orders=12, files=1)
SECOND = Delivery(generation=2, orders=9, files=2)


def deliver(shop: Shop, one: Delivery) -> None:
    shop.deliver(one.generation, orders=one.orders, files=one.files, damaged=True)


def run(shop: Shop) -> str:
    return shop.project.run(DATASET, DAY).status


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    with Driver(tmp_path_factory.mktemp("driver") / "log") as driver:
        yield driver


@pytest.fixture
def shop(local_stack: LocalStack, tmp_path: Path) -> Shop:
    return new_shop(local_stack, tmp_path / "shop")


@pytest.fixture(scope="module")
def undisturbed(
    local_stack: LocalStack, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[Delivery, Digest]:
    """What each delivery comes to where nobody disturbs."""
    shop = new_shop(local_stack, tmp_path_factory.mktemp("undisturbed") / "shop")
    found = {}
    for one in (FIRST, SECOND):
        deliver(shop, one)
        assert run(shop) == "published"
        found[one] = digest(shop.rows())
    assert found[FIRST] != found[SECOND]
    return found


# ── a witness ───────────────────────────────────────────────────────────────────────────────────


@dataclass
class Witness:
    """Looks at main all the time, through the lake and through plain SQL, and remembers every
    state that it saw."""

    shop: Shop
    pins: dict[tuple[str, frozenset[tuple[str, str]]], Pin] = field(default_factory=dict)
    tables: set[frozenset[tuple[str, str]]] = field(default_factory=set)
    looks: int = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        end = Event()
        failure: list[BaseException] = []

        def look() -> None:
            try:
                self._look(end)
            except BaseException as error:
                failure.append(error)

        thread = Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()
        assert not failure, failure

    def _look(self, end: Event) -> None:
        lake = self.shop.project.lake
        lake.pin()  # makes the catalog where there is none
        database = sqlite3.connect(self.shop.root / ".lakewarden" / "catalog.db")
        while not end.wait(0.002):
            pin = lake.pin()
            self.pins[pin.version, frozenset(pin.tables.items())] = pin
            rows = database.execute(
                "SELECT table_namespace || '.' || table_name, metadata_location"
                " FROM iceberg_tables WHERE catalog_name = 'main'"
            )
            self.tables.add(frozenset(rows.fetchall()))
            self.looks += 1
        database.close()

    def check(self, states: Sequence[Digest]) -> None:
        """Each was the state of a publication, and whole: its rows are those of one of `states`."""
        lake = self.shop.project.lake
        for (version, tables), pin in self.pins.items():
            expected = lake.pin_at(int(version)).tables if version != "0" else {}
            assert dict(tables) == expected
            assert digest(self.shop.rows(pin)) in states
        published = [{}, *(lake.pin_at(one.version).tables for one in lake.publications())]
        assert [dict(one) for one in self.tables if dict(one) not in published] == []


def check(shop: Shop, expected: Digest, one: Delivery, publications: int) -> None:
    """The batch is published as if nothing had happened, once, and nothing is left behind."""
    assert digest(shop.rows()) == expected
    found = shop.publications()
    assert len(found) == publications
    counts = found[0].contribution.counts
    assert counts["in"] == one.records == counts["loaded"] + counts["quarantined"]
    assert counts["loaded"] == sum(len(rows) for rows in shop.rows().values())
    assert shop.leftovers() == {}


# ── a run ───────────────────────────────────────────────────────────────────────────────────────


def boundaries(driver: Driver, shop: Shop) -> Sequence[str]:
    """What an undisturbed run of what was delivered comes by."""
    driver.start("run", shop.root, dataset=DATASET, batch=DAY)
    ended = driver.end()
    assert (ended.status, ended.result) == (0, "published")
    return ended.boundaries


def places(names: Sequence[str]) -> list[int]:
    """Where a kill leaves another world than at the place before: after each change, and inside
    each transaction that writes. (What comes before a change comes after another; a stage is told
    when its receipt is written; metadata files are nothing before a table's commit.)"""
    return [
        number
        for number, (before, name) in enumerate(pairwise(["", *names]), start=1)
        if (name.startswith("after") and not name.startswith("after create warehouse/"))
        or (name == "inside a transaction" and before.startswith("before"))
    ]


def kill_run_at(driver: Driver, shop: Shop, stop: int | str) -> str:
    """Returns the name of the boundary at which it was killed."""
    driver.start("run", shop.root, dataset=DATASET, batch=DAY, stop=stop)
    name = driver.stopped()
    assert name is not None, f"it never came to {stop}"
    assert driver.kill().status == -signal.SIGKILL
    return name


def test_a_redelivery_killed_at_every_boundary(
    driver: Driver, shop: Shop, undisturbed: Mapping[Delivery, Digest]
) -> None:
    deliver(shop, FIRST)
    assert run(shop) == "published"
    deliver(shop, SECOND)
    names = boundaries(driver, shop)
    assert {
        f"stage {stage}" for stage in ("receive", "load", "transform", "audit", "publish")
    } <= set(names)
    before, publications = SECOND, 2
    witness = Witness(shop)
    with witness.watching():
        for place, one in zip(places(names), cycle([FIRST, SECOND]), strict=False):
            deliver(shop, one)
            name = kill_run_at(driver, shop, place)
            published = len(shop.publications()) - publications
            told = f"killed at boundary {place}: {name}"
            assert digest(shop.rows()) == undisturbed[one if published else before], told
            assert run(shop) == ("unchanged" if published else "published"), told
            before, publications = one, publications + 1
            check(shop, undisturbed[one], one, publications)
    assert publications >= 25
    assert witness.looks > publications
    witness.check(list(undisturbed.values()))
    assert shop.check_receipts() >= publications


def test_a_first_run_killed_while_it_makes_the_tables(
    driver: Driver, local_stack: LocalStack, tmp_path: Path, undisturbed: Mapping[Delivery, Digest]
) -> None:
    """Each in a new project, so that each makes the catalog and the tables anew."""
    model = new_shop(local_stack, tmp_path / "model")
    deliver(model, FIRST)
    names = boundaries(driver, model)
    upload = next(n for n, name in enumerate(names) if name.startswith("before upload"))
    chosen = [place for place in places(names) if names.index("stage receive") < place <= upload]
    killed = {names[place - 1] for place in chosen}
    assert {"after create_table raw.orders", "after create_table raw.lines"} <= killed
    for place in chosen:
        shop = new_shop(local_stack, tmp_path / str(place))
        deliver(shop, FIRST)
        kill_run_at(driver, shop, place)
        assert shop.rows() == {}
        assert run(shop) == "published"
        check(shop, undisturbed[FIRST], FIRST, 1)
        shop.check_receipts()


def test_killed_at_random_moments(
    driver: Driver, shop: Shop, undisturbed: Mapping[Delivery, Digest]
) -> None:
    """Without a stop: whatever it does at that moment."""
    deliver(shop, FIRST)
    begun = time.perf_counter()
    driver.start("run", shop.root, dataset=DATASET, batch=DAY)
    assert driver.end().status == 0
    seconds = time.perf_counter() - begun
    moments = random.Random(20130101)  # noqa: S311 # the same moments each time
    killed = 0
    before, publications = FIRST, 1
    witness = Witness(shop)
    with witness.watching():
        for one in (SECOND, FIRST) * 20:
            if killed == RANDOM_KILLS:
                break
            deliver(shop, one)
            driver.start("run", shop.root, dataset=DATASET, batch=DAY)
            time.sleep(moments.uniform(0, seconds))
            in_time = driver.kill().status == -signal.SIGKILL
            killed += in_time
            seconds *= 1 if in_time else 0.8  # the first run may have been a slow one
            published = len(shop.publications()) - publications
            assert digest(shop.rows()) == undisturbed[one if published else before]
            assert run(shop) == ("unchanged" if published else "published")
            before, publications = one, publications + 1
            check(shop, undisturbed[one], one, publications)
    assert killed == RANDOM_KILLS
    witness.check(list(undisturbed.values()))
    shop.check_receipts()


def test_killed_between_the_commit_and_our_hearing_of_it(
    driver: Driver, shop: Shop, undisturbed: Mapping[Delivery, Digest]
) -> None:
    deliver(shop, SECOND)
    kill_run_at(driver, shop, "after publish")
    assert digest(shop.rows()) == undisturbed[SECOND]
    assert run(shop) == "unchanged"
    check(shop, undisturbed[SECOND], SECOND, 1)
    shop.check_receipts()


@pytest.mark.parametrize("second", ["before take_over", "after take_over", "after begin"])
def test_killed_while_taking_over(
    driver: Driver,
    shop: Shop,
    undisturbed: Mapping[Delivery, Digest],
    second: str,
) -> None:
    """Two dead, one after the other, and the second had perhaps not tidied up after the first."""
    deliver(shop, FIRST)
    for stop in ("before publish", second):
        kill_run_at(driver, shop, stop)
    assert run(shop) == "published"
    check(shop, undisturbed[FIRST], FIRST, 1)
    shop.check_receipts()


def test_killed_while_models_are_built(
    driver: Driver, local_stack: LocalStack, tmp_path: Path
) -> None:
    """At random moments of dbt's, and where a model is half written."""
    model = new_shop(local_stack, tmp_path / "undisturbed", models=True)
    expected = {}
    for one in (FIRST, SECOND):
        deliver(model, one)
        assert run(model) == "published"
        expected[one] = digest(model.rows())
        assert set(expected[one]) == {*TABLES, *MARTS}

    shop = new_shop(local_stack, tmp_path / "shop", models=True)
    moments = random.Random(20130102)  # noqa: S311 # the same moments each time
    witness = Witness(shop)
    stops = ["stage load", "stage load", "stage load", "after upload warehouse/marts/items"]
    with witness.watching():
        for publications, (stop, one) in enumerate(zip(stops, cycle([FIRST, SECOND])), start=1):
            deliver(shop, one)
            driver.start("run", shop.root, dataset=DATASET, batch=DAY, stop=stop)
            assert driver.stopped()
            if stop == "stage load":
                driver.go_on()
                time.sleep(moments.uniform(0.1, 1.5))
            assert driver.kill().status == -signal.SIGKILL
            assert run(shop) == "published"
            assert digest(shop.rows()) == expected[one]
            assert len(shop.publications()) == publications
            assert shop.leftovers() == {}
    witness.check([{}, *expected.values()])
    shop.check_receipts()


# ── a run that only slept ───────────────────────────────────────────────────────────────────────

PAUSED_AT = [
    "stage receive",
    "after begin",
    "before create_namespace",
    "before upload warehouse/raw/lines",
    "before commit_table",
    "before publish",
]


@pytest.mark.parametrize("place", PAUSED_AT)
def test_a_paused_run_whose_successor_took_over(
    driver: Driver, shop: Shop, undisturbed: Mapping[Delivery, Digest], place: str
) -> None:
    """It wakes up, fails because it was taken over, and changes nothing."""
    deliver(shop, FIRST)
    driver.start("run", shop.root, dataset=DATASET, batch=DAY, stop=place)
    assert driver.stopped()
    driver.pause()
    driver.go_on()
    deliver(shop, SECOND)
    assert shop.project.run(DATASET, DAY, take_over=True).status == "published"
    check(shop, undisturbed[SECOND], SECOND, 1)
    main = shop.project.pin()

    driver.wake()
    ended = driver.end()
    assert (ended.status, ended.error) == (1, "run-fenced")
    assert shop.project.pin() == main
    check(shop, undisturbed[SECOND], SECOND, 1)
    shop.check_receipts()
    assert run(shop) == "unchanged"


@pytest.mark.parametrize("place", ["stage receive", "after begin", "before publish"])
def test_two_runs_that_do_not_know_of_each_other(
    driver: Driver, shop: Shop, undisturbed: Mapping[Delivery, Digest], place: str
) -> None:
    """Somebody deleted the lease of a run that slept: rows are replaced all the same, never
    doubled, and who publishes last is what is seen."""
    deliver(shop, FIRST)
    driver.start("run", shop.root, dataset=DATASET, batch=DAY, stop=place)
    assert driver.stopped()
    for lease in shop.project.objects.list("ops/leases/"):
        shop.project.objects.delete(lease.key)
    deliver(shop, SECOND)
    assert run(shop) == "published"
    assert digest(shop.rows()) == undisturbed[SECOND]

    driver.go_on()
    ended = driver.end()
    assert (ended.status, ended.result) == (0, "published")
    check(shop, undisturbed[FIRST], FIRST, 2)
    shop.check_receipts()


def test_a_successor_that_cannot_tidy_up(
    driver: Driver, shop: Shop, undisturbed: Mapping[Delivery, Digest]
) -> None:
    """The catalog is busy when the dead run is to be fenced: the next one still finds it."""
    deliver(shop, FIRST)
    kill_run_at(driver, shop, "before publish")
    project = lakewarden.open(shop.root)
    uri = project.catalog_uri()
    project.__dict__["lake"] = SqlLake(uri, "s3://unused", {}, lock_timeout=1)
    database = sqlite3.connect(shop.root / ".lakewarden" / "catalog.db")
    database.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(CatalogUnavailable):
            project.run(DATASET, DAY)
    finally:
        database.close()
    assert set(shop.leftovers()) == {"branches", "catalog rows", "leases", "scratch"}
    assert run(shop) == "published"
    check(shop, undisturbed[FIRST], FIRST, 1)


# ── the command itself ──────────────────────────────────────────────────────────────────────────


def test_the_command_killed(shop: Shop, undisturbed: Mapping[Delivery, Digest]) -> None:
    """The real command line, from its first moment on."""
    command = [str(COMMAND), "batch", "run", DATASET, DAY, "--project", str(shop.root)]
    deliver(shop, FIRST)
    with Witness(shop).watching():
        for seconds in (0.3, 2.0):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            time.sleep(seconds)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    check(shop, undisturbed[FIRST], FIRST, 1)
    shop.check_receipts()


# ── a delivery, a change of tables, the stack ───────────────────────────────────────────────────


def test_a_delivery_killed_at_every_boundary(
    driver: Driver, shop: Shop, undisturbed: Mapping[Delivery, Digest]
) -> None:
    """What lies there is the old delivery, the new one, or incomplete; never a mixture."""
    folder = {}
    for one in (FIRST, SECOND):
        folder[one] = shop.root / f"delivery {one.generation}"
        write_delivery(
            folder[one], one.generation, orders=one.orders, files=one.files, damaged=True
        )
    deliver(shop, FIRST)
    assert run(shop) == "published"
    before, publications, place = FIRST, 1, 0
    for one in cycle([SECOND, FIRST]):
        place += 1
        what = {"dataset": DATASET, "batch": DAY, "folder": str(folder[one])}
        driver.start("deliver", shop.root, stop=place, **what)
        if driver.stopped() is None:
            assert driver.end().status == 0
            break
        driver.kill()
        try:
            status = run(shop)
        except Refused as refused:
            assert "manifest" in str(refused)
            status = "refused"
        publications += status == "published"
        now = one if status == "published" else before
        assert digest(shop.rows()) == undisturbed[now]

        driver.start("deliver", shop.root, **what)
        assert driver.end().status == 0
        assert run(shop) == ("unchanged" if now == one else "published")
        before, publications = one, publications + (now != one)
        check(shop, undisturbed[one], one, publications)
    assert place > 8


def test_a_change_of_tables_killed_at_every_boundary(driver: Driver, shop: Shop) -> None:
    """Both tables get a column, or neither."""
    deliver(shop, FIRST)
    assert run(shop) == "published"
    before = shop.rows()
    _add_column(shop, "extra_0")
    driver.start("apply", shop.root)
    ended = driver.end()
    assert (ended.status, ended.result) == (0, "2")
    for place in places(ended.boundaries):
        main, versions = shop.project.pin(), len(shop.project.lake.publications())
        _add_column(shop, f"extra_{place}")
        driver.start("apply", shop.root, stop=place)
        name = driver.stopped()
        assert driver.kill().status == -signal.SIGKILL
        project = lakewarden.open(shop.root)  # knows the new templates
        applied = project.pin() != main
        assert set(project.drift()) == (set() if applied else set(main.tables)), name
        assert (project.apply_tables() is None) == applied, name
        assert project.drift() == {}
        assert len(project.lake.publications()) == versions + 1
    # Nobody waits for a change of tables, so nobody looks for dead ones: their branches are listed,
    # and discarding them leaves nothing.
    for branch in shop.project.lake.branches():
        assert branch.name.startswith("tables/")
        shop.project.lake.discard(branch.name)
    assert shop.leftovers() == {}
    kept = {table: [row[:2] for row in rows] for table, rows in shop.rows().items()}
    assert kept == {table: [row[:2] for row in rows] for table, rows in before.items()}


@pytest.fixture
def own_stack(tmp_path: Path) -> Iterator[StackConfig]:
    config = StackConfig(tmp_path / "shop", "shop-dev", "us-east-1")
    (tmp_path / "shop").mkdir()
    up(config)
    yield config
    throw_away(config)


@pytest.mark.parametrize("stage", ["receive", "load", "audit"])
def test_the_stack_killed_under_a_run(
    own_stack: StackConfig, undisturbed: Mapping[Delivery, Digest], stage: str
) -> None:
    """The run fails and can be tried again, by the very process too that saw it fail."""
    info = up(own_stack)
    shop = Shop(make_shop(own_stack.root, info.connection, own_stack.bucket))
    shop.project.__dict__["connection"] = impatient = replace(
        shop.project.connection, patience=Patience(total=5, connect=1, read=2, refused=0.3)
    )
    deliver(shop, FIRST)

    def kill(done: StageDone) -> None:
        if done.stage == stage:
            psutil.Process(info.pid).kill()

    try:
        with Witness(shop).watching():
            status = shop.project.run(DATASET, DAY, tell=kill).status
    except TryAgain as error:
        status = error.code
    # After the audit only the catalog is needed: what is published stands, without its receipt.
    assert status == ("published" if stage == "audit" else "storage-unavailable")

    assert up(own_stack).connection.endpoint == impatient.endpoint
    assert run(shop) == ("unchanged" if stage == "audit" else "published")
    check(shop, undisturbed[FIRST], FIRST, 1)
    shop.check_receipts()


def _add_column(shop: Shop, name: str) -> None:
    for path in (shop.root / "tables").iterdir():
        template = yaml.safe_load(path.read_text())
        template["columns"].append({"name": name, "type": "string"})
        path.write_text(yaml.safe_dump(template))
