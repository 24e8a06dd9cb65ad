"""Faults from outside while a batch runs: the store, the disk, the catalog, other runs, signals.

Each is waited out, or ends the run with "try again" within seconds, leaves main as it was and
nothing behind; and the same command again publishes what an undisturbed run publishes.
"""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any
from urllib.parse import unquote

import pytest

from lakewarden.aws.clients import Connection, Patience, s3_client
from lakewarden.batch.conductor import Outcome, StageDone
from lakewarden.batch.model import TooManyMisfits
from lakewarden.batch.receipts import list_runs
from lakewarden.errors import LakewardenError
from lakewarden.lake.model import Branch, CatalogUnavailable, Contribution, Publication
from lakewarden.lake.sql import SqlLake
from lakewarden.wiring import Project
from tests import needs
from tests.faults import FINE, Fault, FaultyProxy, Request, faulty_proxy
from tests.local.shop import DATASET, DAY, Shop, make_shop, new_shop
from tests.stack import LocalStack

pytestmark = pytest.mark.timeout(120)

HASTY = Patience(total=2.0, connect=1.0, read=1.0, refused=0.5)
IN_TIME = 20.0  # seconds, on a machine that has other things to do
AT_ONCE = 5.0  # for a signal: two, where nothing else runs

Rows = Mapping[str, tuple[tuple[object, ...], ...]]
Tell = Callable[[StageDone], None]


class Hasty(Project):
    """A project that does not wait long."""

    @cached_property
    def connection(self) -> Connection:
        return replace(super().connection, patience=HASTY)

    @cached_property
    def lake(self) -> SqlLake:
        warehouse = f"s3://{self.env.bucket}/{self.env.warehouse}"
        uri = self.catalog_uri()
        return SqlLake(uri, warehouse, {}, objects=lambda: self.objects, lock_timeout=1)


@dataclass
class Site:
    """A shop whose store is reached through a proxy that can go wrong."""

    shop: Shop
    proxy: FaultyProxy
    undisturbed: Rows

    def run(self, batch: str = DAY, tell: Tell = lambda _: None) -> Outcome:
        found = self.shop.project
        return Hasty(found.settings, found.env_name, found.env).run(DATASET, batch, tell=tell)

    def fails(self, tell: Tell = lambda _: None) -> LakewardenError:
        """Run the batch: it has to say "try again", in time, and change nothing."""
        before = self.shop.project.pin()
        begun = time.monotonic()
        with pytest.raises(LakewardenError) as caught:
            self.run(tell=tell)
        assert time.monotonic() - begun < IN_TIME
        self.proxy.plan = lambda request: FINE
        assert caught.value.exit_code == 75, repr(caught.value)
        assert caught.value.hint
        assert self.shop.project.pin() == before
        return caught.value

    def last_error(self) -> str | None:
        """The code in the last receipt."""
        last = list_runs(self.shop.project.objects, DATASET)[0].last
        return last.error.code if last.error else None

    def recovers(self) -> None:
        """The same command again publishes what it always would have."""
        assert self.shop.project.run(DATASET, DAY).status == "published"
        assert self.shop.leftovers() == {}
        assert self.shop.rows() == self.undisturbed


@pytest.fixture(scope="module")
def undisturbed(local_stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """What the delivery gives where nothing goes wrong."""
    shop = new_shop(local_stack, tmp_path_factory.mktemp("undisturbed") / "shop")
    shop.deliver(1)
    shop.project.run(DATASET, DAY)
    return shop.rows()


@pytest.fixture
def site(local_stack: LocalStack, undisturbed: Rows, tmp_path: Path) -> Iterator[Site]:
    with faulty_proxy(local_stack.connection.endpoint or "") as proxy:
        connection = replace(local_stack.connection, endpoint=proxy.endpoint)
        shop = Shop(make_shop(tmp_path / "shop", connection, local_stack.bucket()))
        shop.deliver(1)
        yield Site(shop, proxy, undisturbed)


# ── the store ───────────────────────────────────────────────────────────────────────────────────

SLOW_DOWN = Fault(status=503, code="SlowDown")
AWAY = [SLOW_DOWN, Fault(status=500, code="InternalError"), Fault(reset=True), Fault(stall=True)]


def wants(method: str, part: str) -> Callable[[Request], bool]:
    return lambda request: request.method == method and part in unquote(request.path)


STAGES: Mapping[str, Callable[[Request], bool]] = {
    "taking the lease": wants("PUT", "ops/leases/"),
    "listing the delivery": wants("GET", "versions&prefix=raw/"),
    "reading the manifest": wants("GET", "_manifest.json"),
    "writing a receipt": wants("PUT", "ops/batches/"),
    "reading metadata": wants("GET", "/metadata/"),
    "reading a file": wants("GET", ".csv"),
    "writing data": wants("PUT", "/data/"),
    "writing metadata": wants("PUT", "/metadata/"),
}
NO_RECEIPT = ("taking the lease", "writing a receipt")


@pytest.mark.parametrize("number", range(len(STAGES)), ids=list(STAGES))
def test_a_store_that_is_away(site: Site, number: int) -> None:
    """One kind of trouble a stage; what each kind does to a call is tested by test_s3_faults."""
    stage, reaches = list(STAGES.items())[number]
    site.shop.project.apply_tables()  # so that there are metadata to be read
    site.proxy.plan = lambda request: AWAY[number % len(AWAY)] if reaches(request) else FINE
    error = site.fails()
    assert error.code == "storage-unavailable"
    assert site.shop.leftovers() == {}
    if stage not in NO_RECEIPT:
        assert site.last_error() == error.code
    site.recovers()


def test_a_store_that_throttles_now_and_then(site: Site) -> None:
    """Every request is refused at first."""
    seen: set[tuple[str, str]] = set()
    lock = Lock()

    def plan(request: Request) -> Fault:
        asked = (request.method, request.path)
        with lock:
            known = asked in seen
            seen.add(asked)
        return FINE if known else SLOW_DOWN

    site.proxy.plan = plan
    site.recovers()


def test_a_store_that_breaks_off_and_trickles(site: Site) -> None:
    """Each file breaks off after some bytes once, and then comes slowly."""
    cut: set[str] = set()

    def plan(request: Request) -> Fault:
        if not wants("GET", ".csv")(request):
            return FINE
        if request.path in cut:
            return Fault(bytes_per_second=2_000)
        cut.add(request.path)
        return Fault(cut_after=30)

    site.proxy.plan = plan
    site.recovers()


@pytest.mark.parametrize("stage", ["receive", "load"])
def test_a_store_that_goes_away_for_good(site: Site, stage: str) -> None:
    """From then on nothing can be written: no receipt, and the lease stays."""

    def gone(done: StageDone) -> None:
        if done.stage == stage:
            site.proxy.always(Fault(reset=True))

    assert site.fails(gone).code == "storage-unavailable"
    assert set(site.shop.leftovers()) <= {"leases"}
    site.recovers()


def test_a_store_that_goes_away_when_all_is_published(site: Site) -> None:
    """What is published is published, whether or not it can be reported."""

    def plan(request: Request) -> Fault:
        published = "publish" in request.path and request.method == "PUT"
        return SLOW_DOWN if published else FINE

    site.proxy.plan = plan
    assert site.run().status == "published"
    site.proxy.plan = lambda request: FINE
    assert site.shop.rows() == site.undisturbed
    assert site.run().status == "unchanged"


@pytest.mark.parametrize("damaged", [False, True], ids=["published", "refused"])
def test_a_store_that_denies_receipts(site: Site, damaged: bool) -> None:
    """Credentials may end before the run does: what came of it is told all the same."""
    denied = Fault(status=403, code="AccessDenied")
    last = "load" if damaged else "publish"

    def plan(request: Request) -> Fault:
        receipt = wants("PUT", "ops/batches/")(request)
        return denied if receipt and last in request.path else FINE

    if damaged:
        settings = site.shop.root / "lakewarden.toml"
        settings.write_text(settings.read_text().replace("max_share = 0.5", "max_share = 0.0"))
        site.shop = Shop(site.shop.root)
        site.shop.deliver(1, damaged=True)
    site.proxy.plan = plan
    if damaged:
        with pytest.raises(TooManyMisfits):
            site.run()
    else:
        assert site.run().status == "published"
        site.proxy.plan = lambda request: FINE
        assert site.shop.rows() == site.undisturbed


def test_a_version_that_is_deleted_after_it_was_received(site: Site) -> None:
    objects = site.shop.project.objects
    folder = f"raw/{DATASET}/{DAY}/"

    def tell(done: StageDone) -> None:
        if done.stage == "receive":
            (found,) = [one for one in objects.list(folder) if one.key.endswith("lines.csv")]
            client = s3_client(site.shop.project.connection)
            client.delete_object(Bucket=objects.bucket, Key=found.key, VersionId=found.version_id)

    assert site.fails(tell).code == "delivery-gone"
    site.shop.deliver(1)
    site.recovers()


# ── this machine ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", ["256k", "900k"], ids=["where files are read", "where rows go"])
def test_a_full_disk(local_stack: LocalStack, tmp_path: Path, size: str) -> None:
    shop = new_shop(local_stack, tmp_path / "shop")
    shop.deliver(1, orders=20_000)
    scratch = shop.project.scratch
    with needs.tmpfs(scratch, size=size):
        with pytest.raises(LakewardenError) as caught:
            shop.project.run(DATASET, DAY)
        assert (caught.value.code, caught.value.exit_code) == ("scratch-full", 75)
        assert str(scratch) in caught.value.message
        assert shop.leftovers() == {}
    assert not shop.project.pin().tables
    assert shop.project.run(DATASET, DAY).status == "published"


# ── the catalog ─────────────────────────────────────────────────────────────────────────────────


def another_batch(site: Site, number: int) -> None:
    batch = f"2024-04-{number:02d}"
    site.shop.deliver(9, batch)
    site.shop.project.run(DATASET, batch)


def test_another_batch_is_published_meanwhile(site: Site) -> None:
    """It is staged again on what main is by then; files are not read again."""
    read = []

    def tell(done: StageDone) -> None:
        if done.stage == "load":
            read.append(len(site.proxy.requests))
            another_batch(site, 1)

    assert site.run(tell=tell).status == "published"
    assert len(read) == 1
    assert site.shop.leftovers() == {}
    of_the_day = {
        table: tuple(row for row in rows if DAY in row) for table, rows in site.shop.rows().items()
    }
    assert of_the_day == site.undisturbed
    assert [one.contribution.batch for one in site.shop.project.lake.publications()] == [
        DAY,
        "2024-04-01",
    ]


class Forgetful(SqlLake):
    """Does what it is asked, and once does not answer."""

    forgets = ""

    def begin(self, *args: Any, **kwargs: Any) -> Branch:
        branch = super().begin(*args, **kwargs)
        self._lose("begin")
        return branch

    def publish(self, *args: Any, **kwargs: Any) -> Publication:
        publication = super().publish(*args, **kwargs)
        self._lose("publish")
        return publication

    def _lose(self, what: str) -> None:
        if self.forgets == what:
            self.forgets = ""
            raise CatalogUnavailable("the connection was lost")


def forgetful(site: Site, what: str) -> Project:
    found = site.shop.project
    project = Hasty(found.settings, found.env_name, found.env)
    warehouse = f"s3://{found.env.bucket}/{found.env.warehouse}"
    lake = Forgetful(found.catalog_uri(), warehouse, {}, objects=lambda: project.objects)
    lake.forgets = what
    project.__dict__["lake"] = lake
    return project


def test_the_answer_to_a_publish_is_lost(site: Site) -> None:
    """No answer is not a no: the run asks what became of it."""
    assert forgetful(site, "publish").run(DATASET, DAY).status == "published"
    assert site.shop.rows() == site.undisturbed
    assert site.shop.leftovers() == {}


def test_the_answer_to_a_beginning_is_lost(site: Site) -> None:
    """The branch that was made all the same does not stay."""
    with pytest.raises(CatalogUnavailable):
        forgetful(site, "begin").run(DATASET, DAY)
    assert site.shop.leftovers() == {}
    site.recovers()


def test_the_answer_to_the_beginning_of_a_table_apply_is_lost(site: Site) -> None:
    with pytest.raises(CatalogUnavailable):
        forgetful(site, "begin").apply_tables()
    assert site.shop.leftovers() == {}
    assert site.shop.project.apply_tables() is not None


def move(site: Site, number: int) -> None:
    """By somebody who does not know of turns."""
    lake, run, at = site.shop.project.lake, f"stranger-{number}", datetime.now(UTC)
    branch = lake.begin(run, run, at)
    with lake.catalog(branch).load_table("raw.orders").transaction() as transaction:
        transaction.set_properties({"moved": str(number)})
    lake.publish(branch, [Contribution(None, None, "", {}, summary=run)], reads=set(), at=at)


def test_main_moves_all_the_time(site: Site) -> None:
    another_batch(site, 1)
    moved = []

    def tell(done: StageDone) -> None:
        if done.stage == "audit":
            moved.append(done)
            move(site, len(moved))

    with pytest.raises(LakewardenError) as caught:
        site.run(tell=tell)
    assert (caught.value.code, caught.value.exit_code) == ("gave-up", 75)
    assert DAY in caught.value.message
    assert len(moved) >= 5
    assert site.shop.publications() == ()
    assert site.shop.leftovers() == {}
    assert site.run().status == "published"


@contextmanager
def locked(site: Site) -> Iterator[None]:
    """Another process writes to the catalog's database, and does not come to an end."""
    with closing(sqlite3.connect(site.shop.root / ".lakewarden" / "catalog.db")) as other:
        other.isolation_level = None
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def test_a_catalog_that_is_locked(site: Site) -> None:
    """Whether a branch was begun cannot be asked either: the lease tells the next run to look."""
    site.shop.project.pin()  # so that there is a catalog
    with locked(site):
        error = site.fails()
    assert error.code == "catalog-unavailable"
    assert "locked" in error.message
    assert set(site.shop.leftovers()) <= {"leases"}
    assert site.last_error() == error.code
    site.recovers()


def test_a_catalog_that_is_locked_when_it_is_to_publish(site: Site) -> None:
    """The branch cannot be removed either: it cannot be published by anybody, and is told."""
    site.shop.project.pin()
    lock = locked(site)

    def tell(done: StageDone) -> None:
        if done.stage == "audit":
            lock.__enter__()

    try:
        error = site.fails(tell)
    finally:
        lock.__exit__(None, None, None)
    assert error.code == "catalog-unavailable"
    assert site.last_error() == error.code
    site.recovers()


def test_a_catalog_that_is_gone(site: Site) -> None:
    """A publish into a file that nobody can open any more would be lost."""
    database = site.shop.root / ".lakewarden" / "catalog.db"

    def tell(done: StageDone) -> None:
        if done.stage == "audit":
            for file in database.parent.glob("catalog.db*"):
                file.rename(file.with_name(f"moved-{file.name}"))

    with pytest.raises(LakewardenError) as caught:
        site.run(tell=tell)
    assert (caught.value.code, caught.value.exit_code) == ("catalog-unavailable", 75)
    for file in database.parent.glob("moved-*"):
        file.replace(file.with_name(file.name.removeprefix("moved-")))
    assert not site.shop.publications()
    site.recovers()


# ── other runs ──────────────────────────────────────────────────────────────────────────────────


def test_a_second_run_of_the_same_batch(site: Site) -> None:
    """It is told who runs, and since when; the first is not disturbed."""
    loaded, go_on = Event(), Event()

    def tell(done: StageDone) -> None:
        if done.stage == "load":
            loaded.set()
            go_on.wait(30)

    first = Thread(target=site.run, kwargs={"tell": tell})
    first.start()
    try:
        assert loaded.wait(30)
        assert [run.outcome for run in site.shop.project.runs()] == ["running"]
        with pytest.raises(LakewardenError) as caught:
            site.run()
    finally:
        go_on.set()
        first.join()
    assert (caught.value.code, caught.value.exit_code) == ("lease-held", 75)
    assert f"process {os.getpid()}" in caught.value.message
    assert re.search(r"since \d{4}-\d\d-\d\dT\d\d:\d\d", caught.value.message)
    assert site.run().status == "unchanged"
    assert [run.outcome for run in site.shop.project.runs()] == ["unchanged", "published"]
    assert site.shop.rows() == site.undisturbed


def test_a_run_that_died_on_this_host_is_taken_over_at_once(site: Site) -> None:
    """It had got as far as a branch."""
    text = f"""
import os, lakewarden
from lakewarden.batch import run
project = lakewarden.open({str(site.shop.root)!r})
project.run({DATASET!r}, {DAY!r}, tell=lambda done: done.stage == "load" and os._exit(9))
"""
    died = subprocess.run([sys.executable, "-c", text], check=False, timeout=60)
    assert died.returncode == 9
    assert set(site.shop.leftovers()) >= {"branches", "leases", "scratch"}
    assert [run.outcome for run in site.shop.project.runs()] == ["ended after load"]
    site.recovers()
    assert [run.outcome for run in site.shop.project.runs()][-1] == "ended after load"


# ── signals ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Ended:
    code: int
    seconds: float
    told: str


def ended_by(site: Site, which: int, when: Callable[[], bool]) -> Ended:
    """The real command, sent a signal as soon as `when` is true."""
    command = Path(sys.executable).with_name("lakewarden")
    argv = [str(command), "batch", "run", DATASET, DAY, "--project", str(site.shop.root)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        try:
            until = time.monotonic() + 60
            while not when():
                assert run.poll() is None, run.communicate()
                assert time.monotonic() < until
                time.sleep(0.01)
            sent = time.monotonic()
            run.send_signal(which)
            _, told = run.communicate(timeout=60)
            return Ended(run.returncode, time.monotonic() - sent, told)
        finally:
            run.kill()


@pytest.mark.parametrize(("which", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_the_store_is_silent(site: Site, which: int, code: int) -> None:
    reading = wants("GET", ".csv")
    site.proxy.plan = lambda request: Fault(stall=True) if reading(request) else FINE
    ended = ended_by(site, which, lambda: any(map(reading, site.proxy.requests)))
    site.proxy.plan = lambda request: FINE
    assert ended.code == code, ended.told
    assert ended.seconds < AT_ONCE
    assert "Traceback" not in ended.told
    assert site.shop.leftovers() == {}
    assert site.last_error() == "interrupted"
    assert not site.shop.project.pin().tables
    site.recovers()


def test_a_signal_while_the_store_answers_nothing(site: Site) -> None:
    """Not even the lease can be released: it dies with its process."""
    silent = Event()

    def plan(request: Request) -> Fault:
        if wants("GET", ".csv")(request):
            silent.set()
        return Fault(stall=True) if silent.is_set() else FINE

    site.proxy.plan = plan
    ended = ended_by(site, signal.SIGINT, silent.is_set)
    site.proxy.plan = lambda request: FINE
    assert ended.code == 130, ended.told
    assert ended.seconds < 2 * AT_ONCE
    assert "Traceback" not in ended.told
    assert set(site.shop.leftovers()) == {"leases"}
    site.recovers()


def test_a_signal_while_rows_are_written(site: Site) -> None:
    """DuckDB is at work, in threads of its own and of ours."""
    site.shop.deliver(1, orders=400_000)
    scratch = site.shop.project.scratch
    ended = ended_by(site, signal.SIGINT, lambda: any(scratch.rglob("*.parquet")))
    assert ended.code == 130, ended.told
    assert ended.seconds < AT_ONCE
    assert "Traceback" not in ended.told
    assert site.shop.leftovers() == {}
    site.shop.deliver(1)
    site.recovers()
