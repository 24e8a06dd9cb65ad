"""Again: whatever was delivered and run, in whatever order, the lake holds what a first and only
run of the last deliveries gives."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

import lakewarden
from lakewarden.aws.objects import StorageUnavailable
from lakewarden.batch.audit import NothingToAccept, TestsFailed
from lakewarden.batch.conductor import StageDone
from lakewarden.batch.history import runs
from lakewarden.batch.models.project import DbtProjectChanged
from lakewarden.batch.receipts import list_runs, receipts_of
from lakewarden.cli import app
from lakewarden.cli.flights_data import write_delivery as write_flights
from lakewarden.cli.flights_data import write_reference
from lakewarden.records.stream import Stream
from lakewarden.wiring import AcceptWithoutReason
from tests.local.shop import (
    DATASET,
    DAY,
    MISFITS,
    Rows,
    Shop,
    connect_project,
    digest,
    new_shop,
    rows_of,
    write_delivery,
)
from tests.stack import LocalStack

DAYS = ("2024-03-01", "2024-03-02", "2024-03-03")


@dataclass(frozen=True)
class Delivery:
    """Of one batch; equal ones have equal bytes."""

    batch: str
    generation: int
    orders: int = 5
    files: int = 1


@dataclass(frozen=True)
class Run:
    batch: str


def deliver(shop: Shop, one: Delivery) -> None:
    shop.deliver(one.generation, one.batch, orders=one.orders, files=one.files)


def run(shop: Shop, batch: str = DAY) -> str:
    return shop.project.run(DATASET, batch).status


def command(shop: Shop, *words: str) -> Result:
    """The command line, in this process."""
    try:
        return CliRunner().invoke(app, [*words, "--project", str(shop.root)])
    finally:
        structlog.reset_defaults()  # it logs to what the runner has closed


@pytest.fixture
def shop(local_stack: LocalStack, tmp_path: Path) -> Shop:
    return new_shop(local_stack, tmp_path / "shop")


# ── the same results ────────────────────────────────────────────────────────────────────────────

FIRST, SECOND, THIRD = DAYS
SEQUENCES: Mapping[str, Sequence[Delivery]] = {
    "a corrected redelivery": [Delivery(FIRST, 1), Delivery(FIRST, 2)],
    "a shrunken one": [Delivery(FIRST, 1, orders=8, files=3), Delivery(FIRST, 2, orders=2)],
    "one of which nothing is left": [Delivery(FIRST, 1), Delivery(FIRST, 2, orders=0)],
    "a correction taken back": [Delivery(FIRST, 1), Delivery(FIRST, 2), Delivery(FIRST, 1)],
    "an older batch after a newer one": [Delivery(SECOND, 1), Delivery(FIRST, 2)],
    "an older one corrected after a newer one": [
        Delivery(FIRST, 1, orders=8, files=2),
        Delivery(SECOND, 2),
        Delivery(FIRST, 3, orders=2),
    ],
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_as_a_first_and_only_run(
    local_stack: LocalStack, shop: Shop, tmp_path: Path, name: str
) -> None:
    for one in SEQUENCES[name]:
        deliver(shop, one)
        assert run(shop, one.batch) == "published"
    last = {one.batch: one for one in SEQUENCES[name]}
    only = new_shop(local_stack, tmp_path / "only")
    for _, one in sorted(last.items()):
        deliver(only, one)
        assert run(only, one.batch) == "published"
    assert digest(shop.rows()) == digest(only.rows())
    assert shop.leftovers() == {}


def test_a_batch_twice(shop: Shop) -> None:
    """The second does nothing, and says so."""
    deliver(shop, Delivery(DAY, 1))
    first = command(shop, "batch", "run", DATASET, DAY)
    assert (first.exit_code, "Nothing to do" in first.output) == (0, False)
    pin, publications = shop.project.pin(), shop.publications()
    second = command(shop, "batch", "run", DATASET, DAY)
    assert (second.exit_code, "Nothing to do" in second.output) == (0, True)
    deliver(shop, Delivery(DAY, 1))  # the same bytes, delivered again
    assert run(shop) == "unchanged"
    assert (shop.project.pin(), shop.publications()) == (pin, publications)
    assert shop.leftovers() == {}


DELIVERIES = st.builds(
    Delivery,
    batch=st.sampled_from(DAYS),
    generation=st.integers(1, 3),
    orders=st.integers(0, 4),
    files=st.integers(1, 2),
)
STEPS = st.lists(DELIVERIES | st.builds(Run, batch=st.sampled_from(DAYS)), min_size=3, max_size=9)


@pytest.fixture(scope="module")
def numbers() -> Iterator[int]:
    return count(1)


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS)
def test_any_order_of_deliveries_and_runs(
    local_stack: LocalStack, tmp_path: Path, numbers: Iterator[int], steps: list[Delivery | Run]
) -> None:
    """After each run main holds, of each batch, what was delivered when it last ran."""
    shop = new_shop(local_stack, tmp_path / str(next(numbers)))
    delivered: dict[str, Delivery] = {}
    published: dict[str, Delivery] = {}

    def run_and_check(batch: str) -> None:
        done = published.get(batch) == delivered[batch]
        assert run(shop, batch) == ("unchanged" if done else "published")
        published[batch] = delivered[batch]
        assert shop.rows() == expected(published)

    for step in steps:
        if isinstance(step, Delivery):
            delivered[step.batch] = step
            deliver(shop, step)
        elif step.batch in delivered:
            run_and_check(step.batch)
    for batch in delivered:
        run_and_check(batch)
    assert shop.leftovers() == {}


def expected(published: Mapping[str, Delivery]) -> Mapping[str, Rows]:
    """The tables' rows, by what was delivered alone."""
    found = [
        rows_of(one.generation, batch, orders=one.orders, files=one.files)
        for batch, one in published.items()
    ]
    tables = {table for rows in found for table in rows}
    return {table: tuple(sorted(row for rows in found for row in rows[table])) for table in tables}


# ── with models: the real flights ───────────────────────────────────────────────────────────────

EXAMPLE = Path(lakewarden.__file__).parent / "examples" / "flights"


class Airport:
    """The example project, on a few flights a day."""

    def __init__(self, root: Path, stack: LocalStack) -> None:
        shutil.copytree(EXAMPLE, root)
        connect_project(root, stack.connection, stack.bucket())
        self.shop = Shop(root)
        self._folder = root / "delivery"

    def flights(self, day: date, rows: int) -> None:
        self.deliver_flights(day, rows)
        assert self.shop.project.run("flights", str(day)).status == "published"

    def deliver_flights(self, day: date, rows: int) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        path = write_flights(day, self._folder)
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[: rows + 1]))
        self.shop.project.deliver("flights", str(day), self._folder)

    def reference(self, month: str) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        write_reference(month, self._folder)
        self.shop.project.deliver("reference", month, self._folder)
        assert self.shop.project.run("reference", month).status == "published"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_marts_do_not_depend_on_the_order(local_stack: LocalStack, tmp_path: Path) -> None:
    """Late, repeated, corrected and shrunken days, and names that come after the flights."""
    first, second = date(2013, 1, 1), date(2013, 1, 2)
    mixed = Airport(tmp_path / "mixed", local_stack)
    mixed.flights(second, 60)
    mixed.flights(first, 80)
    mixed.reference("2013-01")
    mixed.flights(second, 70)
    mixed.flights(first, 50)
    assert mixed.shop.project.run("flights", str(first)).status == "unchanged"

    only = Airport(tmp_path / "only", local_stack)
    only.reference("2013-01")
    only.flights(first, 50)
    only.flights(second, 70)

    rows = only.shop.rows()
    assert len(rows["raw.flights"]) == 120
    assert {"marts.daily_delays", "marts.route_performance"} <= set(rows)
    assert digest(mixed.shop.rows()) == digest(rows)


def test_tables_that_are_only_read_come_meanwhile(local_stack: LocalStack, tmp_path: Path) -> None:
    """The first run of all made its own tables on a branch that is then gone."""
    here = Airport(tmp_path / "here", local_stack)
    day = str(date(2013, 1, 1))
    here.deliver_flights(date(2013, 1, 1), 50)

    def tell(done: StageDone) -> None:
        if done.stage == "audit" and not here.shop.project.pin().tables:
            here.reference("2013-01")

    assert here.shop.project.run("flights", day, tell=tell).status == "published"
    assert len(here.shop.rows()["raw.flights"]) == 50
    last, first = here.shop.project.lake.publications()
    assert (last.contribution.dataset, first.contribution.dataset) == ("flights", "reference")


def test_a_dataset_that_gets_another_name(local_stack: LocalStack, tmp_path: Path) -> None:
    """Its tables hold what the one of before brought there."""
    shop = new_shop(local_stack, tmp_path / "shop")
    shop.deliver(1)
    assert run(shop) == "published"
    rows = shop.rows()
    for file in [shop.root / "lakewarden.toml", *(shop.root / "tables").iterdir()]:
        text = file.read_text().replace("dataset.sales", "dataset.orders")
        file.write_text(text.replace("{dataset: sales}", "{dataset: orders}"))
    renamed = Shop(shop.root)
    renamed.project.deliver("orders", DAY, shop.root / "delivery")
    assert renamed.project.run("orders", DAY).status == "published"
    assert renamed.rows() == rows


def test_a_project_in_a_folder_named_as_a_partition(
    local_stack: LocalStack, tmp_path: Path
) -> None:
    """No value comes from the path of a file."""
    root = tmp_path / "generation=7" / "shop"
    shop = new_shop(local_stack, root)
    settings = root / "lakewarden.toml"
    settings.write_text(f"{settings.read_text()}\n[load]\npart_mib = 1\n")
    shop.deliver(1, orders=80_000, files=2)
    assert run(shop) == "published"
    found = shop.rows()["raw.orders"]
    assert len(found) == 80_000
    assert {row[1] for row in found} == {1}


def forget_lines(shop: Shop) -> Shop:
    """The dataset does not fill the second table any more; its template stays."""
    path = shop.root / "lakewarden.toml"
    path.write_text(path.read_text().replace(', lines = "lines*.csv"', ""))
    return Shop(shop.root)


def test_a_correction_takes_its_rows_out_of_a_table_that_is_not_filled_any_more(
    shop: Shop,
) -> None:
    for batch in (FIRST, SECOND):
        deliver(shop, Delivery(batch, 1))
        assert run(shop, batch) == "published"
    of_second = rows_of(1, SECOND, orders=5)["raw.lines"]
    shop = forget_lines(shop)
    folder = write_delivery(shop.root / "delivery", 2, orders=5)
    (folder / "lines.csv").unlink()
    shop.project.deliver(DATASET, FIRST, folder)
    assert run(shop, FIRST) == "published"
    assert shop.rows()["raw.lines"] == of_second
    assert len(shop.rows()["raw.orders"]) == 10


def test_unpublish_takes_rows_out_of_a_table_that_an_earlier_publication_filled(
    shop: Shop,
) -> None:
    deliver(shop, Delivery(DAY, 1))
    assert run(shop) == "published"
    shop = forget_lines(shop)
    with patch("lakewarden.batch.run.remove_rows"):  # as the release did that published it
        folder = write_delivery(shop.root / "delivery", 2, orders=5)
        (folder / "lines.csv").unlink()
        shop.project.deliver(DATASET, DAY, folder)
        assert run(shop) == "published"
    assert shop.project.unpublish(DATASET, [DAY]).status == "published"
    assert shop.rows() == {"raw.lines": (), "raw.orders": ()}


# ── what is not published ───────────────────────────────────────────────────────────────────────


def test_a_run_that_begins_while_runs_are_listed_is_told_as_running(shop: Shop) -> None:
    shop.deliver(1)
    told: list[str] = []

    def look(done: StageDone) -> None:
        if done.stage == "receive":
            project = shop.project
            run = list_runs(project.objects, DATASET)[0].run
            listed = iter([{}, {run: True}])  # its lease is not there yet, and then is
            found = runs(project.objects, project.lake, DATASET, leases=lambda: next(listed))
            told.extend(one.outcome for one in found)

    shop.project.run(DATASET, DAY, tell=look)
    assert told == ["running"]


def test_a_run_that_is_not_published(shop: Shop) -> None:
    """It leaves its branch to look at, counts for nothing, and a later run starts again."""
    deliver(shop, Delivery(DAY, 1))
    assert run(shop) == "published"
    main, rows = shop.project.pin(), shop.rows()
    deliver(shop, Delivery(DAY, 2, orders=3))
    left = [shop.project.run(DATASET, DAY, publish=False) for _ in range(2)]
    assert [one.status for one in left] == ["left", "left"]
    assert shop.project.pin() == main
    assert len(shop.publications()) == 1
    branches = {one.branch for one in left}
    assert {branch.name for branch in shop.project.lake.branches()} == branches

    corrected = expected({DAY: Delivery(DAY, 2, orders=3)})
    for branch in branches:
        assert branch is not None
        assert shop.rows(shop.project.pin(branch=branch)) == corrected
    assert shop.rows() == rows

    assert run(shop) == "published"
    assert shop.rows() == corrected
    assert {branch.name for branch in shop.project.lake.branches()} == branches
    for one in left:
        assert one.branch is not None
        assert command(shop, "lake", "discard", one.branch).exit_code == 0
    assert shop.leftovers() == {}
    assert shop.rows() == corrected


def test_a_first_run_that_is_discarded(shop: Shop) -> None:
    deliver(shop, Delivery(DAY, 1))
    left = shop.project.run(DATASET, DAY, publish=False)
    assert left.branch is not None
    shop.project.lake.discard(left.branch)
    assert shop.rows() == {}
    assert shop.leftovers() == {}
    assert run(shop) == "published"
    assert shop.rows() == expected({DAY: Delivery(DAY, 1)})


# ── what else makes a batch run again ───────────────────────────────────────────────────────────


def test_a_changed_template_runs_the_same_delivery_again(shop: Shop) -> None:
    deliver(shop, Delivery(DAY, 1))
    assert run(shop) == "published"
    before = shop.rows()
    path = shop.root / "tables" / "lines.yaml"
    text = path.read_text()
    nulls = 'source: {format: csv, csv_options: {null_strings: ["item 1"]}}'
    path.write_text(text.replace("source: {format: csv}", nulls))
    assert run(Shop(shop.root)) == "published"
    assert None in {row[2] for row in shop.rows()["raw.lines"]}
    assert run(Shop(shop.root)) == "unchanged"
    path.write_text(text)
    assert run(Shop(shop.root)) == "published"
    assert shop.rows() == before
    assert len(shop.publications()) == 3


@pytest.mark.slow
def test_a_changed_model_runs_the_same_delivery_again(
    local_stack: LocalStack, tmp_path: Path
) -> None:
    shop = new_shop(local_stack, tmp_path / "shop", models=True)
    deliver(shop, Delivery(DAY, 1))
    assert run(shop) == "published"
    raw, before = shop.rows()["raw.orders"], shop.rows()["marts.daily"]
    (shop.root / "transform" / "notes.txt").write_text("not dbt's\n")
    assert run(shop) == "unchanged"
    model = shop.root / "transform" / "models" / "daily.sql"
    model.write_text(model.read_text().replace("sum(amount)", "2 * sum(amount)"))
    assert run(shop) == "published"
    ((batch, orders, amount),) = before
    assert isinstance(amount, Decimal)
    assert shop.rows()["marts.daily"] == ((batch, orders, 2 * amount),)
    assert shop.rows()["raw.orders"] == raw


def test_a_model_that_is_changed_while_a_run_builds_is_not_published_under_the_old_digest(
    local_stack: LocalStack, tmp_path: Path
) -> None:
    shop = new_shop(local_stack, tmp_path / "shop", models=True)
    deliver(shop, Delivery(DAY, 1))
    model = shop.root / "transform" / "models" / "daily.sql"
    text = model.read_text()

    def change(done: StageDone) -> None:
        if done.stage == "load":
            model.write_text(text.replace("sum(amount)", "2 * sum(amount)"))

    with pytest.raises(DbtProjectChanged):
        shop.project.run(DATASET, DAY, tell=change)
    assert shop.publications() == ()
    assert shop.leftovers() == {}
    assert run(shop) == "published"


@pytest.mark.slow
def test_a_model_that_is_changed_back_is_made_again(
    local_stack: LocalStack, tmp_path: Path
) -> None:
    """Main holds a model by the project that came last; a batch published by the first one is
    then not as it would come out now."""
    shop = new_shop(local_stack, tmp_path / "shop", models=True)
    deliver(shop, Delivery(DAY, 1))
    deliver(shop, Delivery(SECOND, 1))
    assert run(shop) == "published"
    model = shop.root / "transform" / "models" / "daily.sql"
    first = model.read_text()
    model.write_text(first.replace("sum(amount)", "2 * sum(amount)"))
    assert run(shop, SECOND) == "published"
    model.write_text(first)
    assert [run(shop), run(shop)] == ["published", "unchanged"]
    assert [run(shop, SECOND), run(shop, SECOND)] == ["published", "unchanged"]


def test_what_is_in_quarantine_is_told_by_what_is_published(shop: Shop) -> None:
    """A run that dies between its commit and its receipt has published; receipts that somebody
    changed keep nobody from seeing the others."""
    append = Stream.append

    def die(stream: Stream, name: str, body: Mapping[str, Any]) -> str:
        if name == "publish":
            raise StorageUnavailable("away")
        return append(stream, name, body)

    shop.deliver(1, damaged=True)
    with patch.object(Stream, "append", die):
        assert run(shop) == "published"
    shop.deliver(1, SECOND, damaged=True)
    assert run(shop, SECOND) == "published"

    def listed() -> list[tuple[Any, ...]]:
        answer = command(shop, "quarantine", "list", "--json")
        assert answer.exit_code == 0, answer.output
        return [
            (one["batch"], one["outcome"], one["quarantined"]) for one in json.loads(answer.stdout)
        ]

    both = listed()
    assert [told[1:] for told in both] == [("published", MISFITS)] * 2
    newest = shop.project.runs()[0].run
    shop.project.objects.put(f"ops/batches/{DATASET}/{newest}/0002-load.json", b"{}")
    assert listed() == [(SECOND, None, None), both[1]]


@pytest.mark.slow
def test_a_failing_test_that_is_accepted(local_stack: LocalStack, tmp_path: Path) -> None:
    """Published in spite of it, on somebody's word, and the publication says so."""
    shop = new_shop(local_stack, tmp_path / "shop", models=True)
    deliver(shop, Delivery(DAY, 1))
    assert run(shop) == "published"
    rows = shop.rows()
    folder = write_delivery(tmp_path / "free", 2, orders=5)
    path = folder / "orders-0.csv"
    path.write_text(path.read_text().replace(",1.50\n", ",0.00\n"))
    shop.project.deliver(DATASET, DAY, folder)

    with pytest.raises(TestsFailed, match="no_free_orders"):
        run(shop)
    with pytest.raises(AcceptWithoutReason):
        shop.project.run(DATASET, DAY, accept="no_free_orders")
    with pytest.raises(NothingToAccept):
        shop.project.run(DATASET, DAY, accept="not_null_daily_amount", reason="why not")
    assert shop.rows() == rows
    assert shop.leftovers() == {}

    accept = ["--accept", "no_free_orders", "--reason", "a gift"]
    with patch("getpass.getuser", side_effect=KeyError("no name, as in many a container")):
        accepted = command(shop, "batch", "run", DATASET, DAY, *accept)
    assert accepted.exit_code == 0, accepted.output
    published = shop.publications()[0]
    override = published.contribution.override
    assert override is not None
    assert (override.test, override.reason) == ("no_free_orders", "a gift")
    assert override.by == f"uid {os.getuid()}"
    receipts = receipts_of(shop.project.objects, DATASET, published.run)
    assert receipts[-1].accepted == "no_free_orders"
    assert run(shop) == "unchanged"

    deliver(shop, Delivery(DAY, 1))
    assert run(shop) == "published"
    assert shop.publications()[0].contribution.override is None
    assert shop.rows() == rows
