"""The pipeline on the whole stack, while its parts are killed: runner, Nessie, control plane, S3.

After each fault it is looked at whether a batch was ever half there, whether anything was lost or
left behind, and whether every failed execution was counted, once.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from threading import Event, Thread, Timer
from typing import Any

import psutil
import pytest

import lakewarden
from lakewarden.aws.clients import Connection
from lakewarden.aws.definitions import runner_task
from lakewarden.batch.export import read_export
from lakewarden.lake.model import CatalogUnavailable, Pin
from lakewarden.local import agent, nessie, process, weed
from lakewarden.local.containers import images
from lakewarden.local.control import ministack
from lakewarden.local.layout import Layout
from lakewarden.local.process import Daemon
from tests import needs
from tests.faults import FINE, Fault, FaultyProxy, Request, faulty_proxy
from tests.local.pipeline_site import Execution, Site, pipeline_site, wait_for
from tests.local.shop import DATASET, Rows, Shop, make_shop, rows_of
from tests.local.test_cloud_ecs import is_gone, listener
from tests.local.test_nessie import on_local_nessie

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

HEARTBEAT = 20  # seconds; a runner begins within it, on two cores that start a Nessie too
NOTICED = 3  # seconds: silence is looked for five times a second, and time stamps are rounded
ORDERS = 12
UNDONE = ["RollbackStage", "NotifyFailure", "Failed"]

Tables = Mapping[str, Rows]


@dataclass
class Whole:
    """A shop on the whole stack; its runner reaches Nessie through a proxy."""

    shop: Shop
    site: Site
    proxy: FaultyProxy
    published: dict[str, int] = field(default_factory=dict)  # generations by day

    @property
    def layout(self) -> Layout:
        return Layout(self.site.root)

    def to_proxy(self, **variables: str) -> None:
        """What the runner's image sees of its settings."""
        known = dict(images.read(self.layout.images))
        runner = self.site.names.runner
        seen = {
            **known[runner].environment,
            "LAKEWARDEN__ENV__DEV__CATALOG__URI": self.proxy.endpoint,
            **variables,
        }
        known[runner] = replace(known[runner], environment=seen)
        images.write(self.layout.images, known)

    def again(self) -> None:
        """`local up`, as a person types it."""
        self.site.again()
        self.to_proxy()

    def kill(self, *daemons: Callable[[Layout], Daemon]) -> None:
        found = [process.find(daemon(self.layout)) for daemon in daemons]
        killed = [one.pid for one in found if one]
        assert len(killed) == len(daemons)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: all(is_gone(pid) for pid in killed))

    @property
    def nessie_port(self) -> int:
        address = self.site.cloud.info.nessie
        assert address is not None
        return int(address.rpartition(":")[2])

    @contextmanager
    def day(self, number: int) -> Iterator["Day"]:
        """A delivery, and a fault that meets it; in the end everything is as if there had been
        none, whatever was seen between."""
        day = Day(self, f"2024-03-{number:02d}", number)
        self.shop.deliver(number, day.batch, orders=ORDERS)
        day.begin()
        with Witness(self.shop.root).watching() as witness:
            yield day
        self.proxy.always(FINE)
        day.check(witness)


@dataclass
class Day:
    whole: Whole
    batch: str
    generation: int
    executions: list[Execution] = field(default_factory=list)
    _before: dict[str, int] = field(default_factory=dict)
    _kept: dict[str, str | None] = field(default_factory=dict)

    def begin(self) -> None:
        self.whole.site.notices()
        self._before = self._counts()
        self._kept = self._objects()

    def start(self) -> Execution:
        self.executions.append(self.whole.site.start(DATASET, self.batch))
        return self.executions[-1]

    def halt(self, stage: str = "load") -> tuple[Execution, psutil.Process]:
        objects = self.whole.shop.project.objects
        execution, runner = self.whole.site.halt(objects, DATASET, self.batch, stage)
        self.executions.append(execution)
        assert self.whole.shop.publications(self.batch) == ()
        return execution, runner

    def again(self) -> Mapping[str, Any]:
        """The same payload, which succeeds; what was told."""
        assert self.start().end()["status"] == "SUCCEEDED", self.whole.site.log()
        (notice,) = self.whole.site.notices()
        return notice

    def failed(self, execution: Execution, error: str) -> Mapping[str, Any]:
        """It ended in the Fail state; what was told."""
        ended = execution.end()
        assert (ended["status"], ended["error"]) == ("FAILED", error), self.whole.site.log()
        assert execution.states()[-3:] == UNDONE
        (notice,) = self.whole.site.notices()
        assert notice["error"]["name"] == error
        return notice

    def _counts(self) -> dict[str, int]:
        kinds = ("Started", "Succeeded", "Failed", "TimedOut", "Aborted")
        return {kind: self.whole.site.counted(f"Executions{kind}") for kind in kinds}

    def _objects(self) -> dict[str, str | None]:
        """What must not be lost: the delivery, and every receipt there ever was."""
        objects = self.whole.shop.project.objects
        return {
            one.key: one.version_id
            for prefix in ("raw/sales/", "ops/batches/")
            for one in objects.list(prefix)
        }

    def check(self, witness: "Witness") -> None:
        whole, shop = self.whole, self.whole.shop
        before, after = expected(whole.published), expected(self._all())
        for pin in witness.pins:
            assert shop.rows(pin) in (before, after), "a reader saw half a batch"
        assert shop.rows() == after
        whole.published[self.batch] = self.generation
        self._nothing_lost()
        assert shop.leftovers() == {}
        assert exported(shop) == {
            name: rows for name, rows in after.items() if name.startswith("marts.")
        }
        ends = [one.end()["status"] for one in self.executions]
        counts = {
            "Started": len(ends),
            "Succeeded": ends.count("SUCCEEDED"),
            "Failed": ends.count("FAILED"),
            "TimedOut": 0,
            "Aborted": 0,
        }
        assert {kind: now - self._before[kind] for kind, now in self._counts().items()} == counts

    def _nothing_lost(self) -> None:
        shop = self.whole.shop
        now = self._objects()
        assert {key: now.get(key) for key in self._kept} == self._kept
        shop.check_receipts()
        found = [one.contribution.batch for one in shop.project.lake.publications(DATASET)]
        assert sorted(map(str, found)) == sorted(self.whole.published)

    def _all(self) -> dict[str, int]:
        return {**self.whole.published, self.batch: self.generation}


def expected(days: Mapping[str, int]) -> Tables:
    """All tables' rows when these days are published."""
    each = [rows_of(number, day, orders=ORDERS) for day, number in sorted(days.items())]
    raw = {
        table: tuple(sorted(row for rows in each for row in rows[table]))
        for table in ("raw.lines", "raw.orders")
    }
    amount = sum((Decimal(f"{n + 1}.50") for n in range(ORDERS)), Decimal())
    lines = 2 * ORDERS // 3 * len(days)
    return {
        "marts.daily": tuple((day, ORDERS, amount) for day in sorted(days)),
        "marts.items": tuple((f"item {n}", len(days), lines) for n in range(3) if days),
        **raw,
    }


def exported(shop: Shop) -> Tables:
    """Rows of what was exported, as those read them who go by the manifest."""
    project, found = shop.project, {}
    export, _ = read_export(project.objects, "processed/")
    assert export is not None
    with project.session(project.pin()) as connection:
        for name, table in export.tables.items():
            files = [f"s3://{project.env.bucket}/{file.key}" for file in table.files]
            select = "SELECT * FROM read_parquet(?) ORDER BY ALL"
            found[name] = tuple(connection.execute(select, [files]).fetchall())
    return found


@dataclass
class Witness:
    """A reader who looks at main all the time, and remembers every state that it was in."""

    root: Path
    pins: list[Pin] = field(default_factory=list)

    @contextmanager
    def watching(self) -> Iterator["Witness"]:
        end = Event()
        thread = Thread(target=self._watch, args=(end,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            end.set()
            thread.join()
        assert self.pins

    def _watch(self, end: Event) -> None:
        lake = lakewarden.open(self.root).lake
        while not end.wait(0.1):
            try:
                pin = lake.pin()
            except CatalogUnavailable:
                continue
            if all(pin.tables != known.tables for known in self.pins):
                self.pins.append(pin)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    """One stack for all faults, each with a day of its own."""
    needs.java()
    needs.maven()
    root = tmp_path_factory.mktemp("shop")
    make_shop(root, Connection("local", "us-east-1"), "shop-dev", models=True)
    on_local_nessie(root)
    with pipeline_site(root, "shop", nessie=True, heartbeat=HEARTBEAT) as site:
        address = site.cloud.info.nessie
        assert address is not None
        with faulty_proxy(address) as proxy:
            made = Whole(Shop(root), site, proxy)
            made.to_proxy()
            made.shop.project.apply_tables()
            yield made


def publishes(request: Request) -> bool:
    """Whether it is the one commit on main that publishes."""
    return request.path.startswith("/api/v2/trees/main@") and "history/commit" in request.path


def at_publish(proxy: FaultyProxy, fault: Callable[[], Fault]) -> None:
    """This happens to the next commit on main; then all is fine."""
    left = [fault]
    proxy.plan = lambda request: left.pop()() if left and publishes(request) else FINE


# ── the runner ──────────────────────────────────────────────────────────────────────────────────


def test_a_runner_killed_in_the_middle_is_put_away_within_the_heartbeat(whole: Whole) -> None:
    with whole.day(1) as day:
        execution, runner = day.halt()
        killed = datetime.now(UTC)
        runner.kill()
        notice = day.failed(execution, "RunnerKilled")
        assert (notice["outcome"], len(notice["fenced_runs"])) == ("failed", 1)
        assert (_noticed(execution) - killed).total_seconds() <= HEARTBEAT + NOTICED
        assert whole.shop.leftovers() == {}
        assert whole.shop.publications(day.batch) == ()
        assert day.again()["outcome"] == "published"


def _noticed(execution: Execution) -> datetime:
    """When the state that waited for the runner failed."""
    client = execution.site.client("stepfunctions")
    pages = client.get_paginator("get_execution_history").paginate(executionArn=execution.arn)
    events = [event for page in pages for event in page["events"]]
    found: datetime = next(one["timestamp"] for one in events if one["type"] == "TaskFailed")
    return found


def test_a_runner_killed_between_publish_and_answer_is_told_as_published(whole: Whole) -> None:
    with whole.day(2) as day:
        at_publish(whole.proxy, lambda: Fault(then=lambda: _runner(day).kill()))
        execution = day.start()
        notice = day.failed(execution, "RunnerKilled")
        (publication,) = whole.shop.publications(day.batch)
        assert notice["outcome"] == "published, not exported"
        assert notice["version"] == publication.version
        assert whole.shop.leftovers() == {}
        told = day.again()
        assert (told["outcome"], told["version"]) == ("unchanged", publication.version)
        assert whole.shop.publications(day.batch) == (publication,)


def _runner(day: Day) -> psutil.Process:
    found = day.whole.site.running(day.executions[-1], "run")
    assert found is not None
    return found


# ── Nessie ──────────────────────────────────────────────────────────────────────────────────────


def test_nessie_is_killed_while_it_publishes(whole: Whole) -> None:
    """The kill meets the commit somewhere on its way; it is done, or it is not."""

    def meanwhile() -> Fault:
        Timer(0.003, os.kill, (listener(whole.nessie_port), signal.SIGKILL)).start()
        return FINE

    _away(whole, 3, meanwhile)


def test_nessie_is_killed_after_it_published_and_before_it_answers(whole: Whole) -> None:
    def afterwards() -> Fault:
        found = listener(whole.nessie_port)
        return Fault(then=lambda: os.kill(found, signal.SIGKILL), lose_answer=True)

    versions = _away(whole, 4, afterwards)
    assert len(versions) == 1  # it was there, and it was not published a second time


def _away(whole: Whole, number: int, fault: Callable[[], Fault]) -> list[int]:
    """Nessie goes away in a publish, and ECS brings it back; the versions that were published
    before it was tried again by hand."""
    with whole.day(number) as day:
        killed = listener(whole.nessie_port)
        at_publish(whole.proxy, fault)
        ended = day.start().end()
        wait_for(lambda: nessie.is_ready(whole.nessie_port), 90)
        assert is_gone(killed)
        versions = [one.version for one in whole.shop.publications(day.batch)]
        if ended["status"] == "SUCCEEDED":  # the state was tried again until Nessie was back
            assert len(versions) == 1
        else:
            assert "CatalogUnavailable" in ended["error"], ended
        whole.site.notices()
        day.again()
    return versions


# ── the control plane ───────────────────────────────────────────────────────────────────────────


def test_the_control_plane_is_killed_and_its_task_does_not_publish(whole: Whole) -> None:
    """What comes up again ends the tasks that it does not know any more; one that is faster finds
    that its token is worth nothing."""
    with whole.day(5) as day:
        execution, runner = day.halt()
        _remembered(whole, execution)
        whole.kill(ministack.daemon)
        whole.again()
        with suppress(psutil.NoSuchProcess):
            runner.resume()
        ended = execution.end()
        assert (ended["status"], ended["error"]) == ("FAILED", "States.ServiceRestart")
        wait_for(lambda: is_gone(runner.pid))
        assert whole.shop.publications(day.batch) == ()
        assert day.again()["outcome"] == "published"


def test_the_control_plane_and_everything_that_it_ran_is_killed(whole: Whole) -> None:
    with whole.day(6) as day:
        execution, runner = day.halt()
        _remembered(whole, execution)
        whole.kill(ministack.daemon, agent.daemon)
        wait_for(lambda: is_gone(runner.pid))
        whole.again()
        assert execution.end()["error"] == "States.ServiceRestart"
        assert whole.shop.publications(day.batch) == ()
        assert day.again()["outcome"] == "published"  # and puts away what nobody else did


def _remembered(whole: Whole, execution: Execution) -> None:
    """What the control plane knows is on disk some seconds later."""
    state = whole.layout.control / "state" / "stepfunctions.json"
    wait_for(lambda: state.exists() and execution.arn in state.read_text())


# ── S3 ──────────────────────────────────────────────────────────────────────────────────────────


def test_s3_is_away_for_half_a_minute(whole: Whole) -> None:
    with whole.day(7) as day, heartbeat(whole, 60):
        execution, runner = day.halt("receive")
        found = process.find(weed.daemon(whole.layout))
        assert found is not None
        os.kill(found.pid, signal.SIGSTOP)
        try:
            runner.resume()
            time.sleep(30)  # that it is away for so long is what this is about
            assert runner.is_running()
        finally:
            os.kill(found.pid, signal.SIGCONT)
        assert execution.end()["status"] == "SUCCEEDED", whole.site.log()
        (notice,) = whole.site.notices()
        assert notice["outcome"] == "published"


@contextmanager
def heartbeat(whole: Whole, seconds: int) -> Iterator[None]:
    """The state machine with another patience."""
    machines, arn = whole.site.client("stepfunctions"), whole.site.machine
    before = machines.describe_state_machine(stateMachineArn=arn)["definition"]
    told = before.replace(f'"HeartbeatSeconds": {HEARTBEAT}', f'"HeartbeatSeconds": {seconds}')
    told = told.replace(f"'heartbeat_seconds': {HEARTBEAT}", f"'heartbeat_seconds': {seconds}")
    assert told != before
    machines.update_state_machine(stateMachineArn=arn, definition=told)
    try:
        yield
    finally:
        machines.update_state_machine(stateMachineArn=arn, definition=before)


# ── memory ──────────────────────────────────────────────────────────────────────────────────────


def test_a_model_that_takes_more_memory_than_the_task_has_is_named(whole: Whole) -> None:
    """memory_limit says more than the task has; the model takes it."""
    greedy = whole.shop.root / "transform" / "models" / "items.sql"
    model = greedy.read_text()
    with whole.day(8) as day:
        greedy.write_text(
            f"{model}\nhaving (select count(distinct hash(i)) from range(200000000) t(i)) > 0\n"
        )
        whole.to_proxy(LAKEWARDEN__LOAD__MEMORY_LIMIT="8GB")
        with task_memory(whole, 700):
            execution = day.start()
            notice = day.failed(execution, "RunnerOutOfMemory")
        assert "memory" in notice["error"]["message"]
        assert "killed for memory" in execution.end()["cause"]
        assert whole.shop.publications(day.batch) == ()
        assert whole.shop.leftovers() == {}
        greedy.write_text(model)
        whole.to_proxy()
        assert day.again()["outcome"] == "published"


@contextmanager
def task_memory(whole: Whole, mebibytes: int) -> Iterator[None]:
    """The runner's task definition with less memory."""
    names = whole.site.names
    given = runner_task(names, names.runner, "us-east-1", {})
    ecs = whole.site.client("ecs")
    ecs.register_task_definition(**{**given, "memory": str(mebibytes)})
    try:
        yield
    finally:
        ecs.register_task_definition(**given)
