"""What every lake promises, whatever catalog it is on. Written against the Protocol only."""

import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from multiprocessing.connection import Connection
from threading import Barrier

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NamespaceAlreadyExistsError, NoSuchTableError
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import LongType, NestedField

from lakewarden.lake.model import (
    MAIN,
    BaseMoved,
    Branch,
    BranchNameTaken,
    BranchUnknown,
    CatalogUnavailable,
    Contribution,
    Lake,
    Override,
    Pin,
    Publication,
    RunFenced,
    TableChange,
    TakenOver,
    VersionUnknown,
)
from tests.contract.conftest import Place

SCHEMA = Schema(NestedField(1, "n", LongType()))


def at(second: int = 0) -> datetime:
    return datetime(2013, 1, 1, tzinfo=UTC) + timedelta(seconds=second)


def one(batch: str = "2013-01-01", dataset: str = "flights") -> list[Contribution]:
    return [Contribution(dataset, batch, f"hash-{batch}", {"in": 1, "loaded": 1})]


def touch(catalog: Catalog, *names: str, step: str = "") -> None:
    """Move each table's metadata location, making the table where there is none. Cheap."""
    for name in names:
        try:
            table = catalog.load_table(name)
        except NoSuchTableError:
            catalog.create_namespace_if_not_exists(name.rpartition(".")[0])
            table = catalog.create_table(name, SCHEMA)
        with table.transaction() as transaction:
            was = int(table.properties.get("touched", "0"))
            transaction.set_properties(touched=str(was + 1), step=step)


def publish(
    lake: Lake,
    run: str,
    *tables: str,
    reads: AbstractSet[str] = frozenset(),
    contributions: Sequence[Contribution] | None = None,
    second: int = 0,
) -> Publication:
    """Begin, touch and publish."""
    branch = lake.begin(f"batch/{run}", run, at(second))
    touch(lake.catalog(branch), *tables)
    return lake.publish(branch, contributions or one(), reads=reads, at=at(second))


def numbers(table: Table) -> list[int]:
    return sorted(table.scan().to_arrow()["n"].to_pylist())


def rows(*values: int) -> pa.Table:
    return pa.table({"n": pa.array(values, pa.int64())})


# --- pins and isolation ---------------------------------------------------------------------------


def test_an_empty_lake_is_a_lake(lake: Lake) -> None:
    assert lake.pin().tables == {}
    assert lake.pin().ref == MAIN
    assert list(lake.branches()) == []
    assert list(lake.publications()) == []
    assert lake.outcome("nobody") is None


def test_main_does_not_change_while_a_branch_adds_evolves_and_replaces(lake: Lake) -> None:
    begun = lake.begin("batch/1", "1", at())
    catalog = lake.catalog(begun)
    catalog.create_namespace("raw")
    catalog.create_table("raw.flights", SCHEMA).append(rows(1, 2))
    catalog.create_table("raw.planes", SCHEMA).append(rows(7))
    lake.publish(begun, one(), reads=frozenset(), at=at())
    before = lake.pin()
    held = lake.load(before, "raw.flights")

    branch = lake.begin("batch/2", "2", at())
    catalog = lake.catalog(branch)
    catalog.create_table("raw.new", SCHEMA).append(rows(9))
    with catalog.load_table("raw.flights").update_schema() as update:
        update.add_column("carrier", LongType())
        update.rename_column("n", "number")
    catalog.load_table("raw.flights").delete("number = 1")
    catalog.load_table("raw.planes").overwrite(rows(8))

    assert lake.pin() == before
    assert numbers(held) == [1, 2]
    again = lake.load(lake.pin(), "raw.flights")
    assert numbers(again) == [1, 2]
    assert again.schema().column_names == ["n"]
    assert numbers(lake.load(lake.pin(), "raw.planes")) == [7]
    assert "raw.new" not in lake.pin().tables

    staged = lake.pin(branch.name)
    assert staged.ref == branch.name
    assert set(staged.tables) == {"raw.flights", "raw.planes", "raw.new"}
    assert lake.load(staged, "raw.flights").schema().column_names == ["number", "carrier"]
    assert numbers(lake.load(staged, "raw.planes")) == [8]

    lake.publish(branch, one("2013-01-02"), reads=frozenset(), at=at())
    assert lake.pin().tables == staged.tables
    now = lake.load(lake.pin(), "raw.flights")
    assert now.schema().column_names == ["number", "carrier"]
    assert now.scan().to_arrow().to_pylist() == [{"number": 2, "carrier": None}]
    # Who still holds the old pin still reads the old rows.
    assert numbers(lake.load(before, "raw.flights")) == [1, 2]
    assert numbers(lake.load(before, "raw.planes")) == [7]


def test_branches_do_not_see_each_other(lake: Lake) -> None:
    publish(lake, "1", "raw.a")
    left, right = lake.begin("batch/l", "l", at()), lake.begin("batch/r", "r", at())
    touch(lake.catalog(left), "raw.a", "raw.left")
    assert lake.pin(right.name).tables == right.base.tables == lake.pin().tables
    assert "raw.left" in lake.pin(left.name).tables


def test_a_branch_is_of_main_as_it_is(lake: Lake) -> None:
    before = lake.begin("batch/1", "1", at())
    publish(lake, "2", "raw.a")
    after = lake.begin("batch/3", "3", at())
    assert before.base.tables == {}
    assert lake.pin(before.name).tables == {}
    assert after.base == lake.pin()
    assert lake.pin(after.name).tables == lake.pin().tables


def test_a_pinned_table_is_read_only_and_has_its_name(lake: Lake) -> None:
    publish(lake, "1", "raw.a")
    table = lake.load(lake.pin(), "raw.a")
    assert table.name() == ("raw", "a")
    with pytest.raises(Exception):  # noqa: B017  # which one is PyIceberg's affair
        table.append(rows(1))
    with pytest.raises(KeyError):
        lake.load(lake.pin(), "raw.nothing")


def test_pin_of_an_unknown_branch_is_refused(lake: Lake) -> None:
    with pytest.raises(BranchUnknown):
        lake.pin("batch/none")


# --- publish: whole or not at all -----------------------------------------------------------------


def observe(place: Place, ready: Connection, stop: Connection, answer: Connection) -> None:
    """In a process of its own: take pins until told to stop, and send what was seen."""
    lake = place.open()
    seen: set[frozenset[tuple[str, str]]] = set()
    pins = 0
    ready.send(True)
    while not stop.poll():
        seen.add(frozenset(lake.pin().tables.items()))
        pins += 1
    answer.send((pins, seen))


@pytest.mark.slow
def test_a_reader_sees_a_publish_of_100_tables_whole_or_not_at_all(place: Place) -> None:
    lake = place.open()
    names = [f"marts.t{number:03}" for number in range(100)]
    states = {frozenset[tuple[str, str]]()}
    spawn = multiprocessing.get_context("spawn")
    (is_ready, ready), (stopped, stop), (result, answer) = (spawn.Pipe(False) for _ in range(3))
    reader = spawn.Process(target=observe, args=(place, ready, stopped, answer))
    reader.start()
    try:
        assert is_ready.poll(60)
        for round_ in range(3):
            branch = lake.begin(f"batch/{round_}", f"{round_}", at())
            touch(lake.catalog(branch), *names)
            states.add(frozenset(lake.pin(branch.name).tables.items()))
            lake.publish(branch, one(), reads=frozenset(), at=at())
        time.sleep(0.2)
        stop.send(True)
        assert result.poll(60)
        pins, seen = result.recv()
    finally:
        reader.terminate()
        reader.join(30)
    assert len(states) == 4
    assert seen <= states
    assert len(seen) >= 2, f"the reader was too slow to mean anything: {pins} pins"


def test_the_version_rises_by_one_and_changes_are_told(lake: Lake) -> None:
    first = publish(lake, "1", "raw.a", "raw.b")
    a, b = (lake.pin().tables[name] for name in ("raw.a", "raw.b"))
    second = publish(lake, "2", "raw.b", "raw.c")
    assert first.tables == {"raw.a": TableChange(None, a), "raw.b": TableChange(None, b)}
    assert second.tables == {
        "raw.b": TableChange(b, lake.pin().tables["raw.b"]),
        "raw.c": TableChange(None, lake.pin().tables["raw.c"]),
    }
    third = publish(lake, "3")
    assert third.tables == {}
    assert [first.version + 1, second.version + 1] == [second.version, third.version]


def test_versions_of_pins_differ_between_publishes(lake: Lake) -> None:
    seen = [lake.pin().version]
    for run in "123":
        publish(lake, run, "raw.a")
        seen.append(lake.pin().version)
    assert len(set(seen)) == 4


def test_the_branch_is_gone_after_its_publish(lake: Lake) -> None:
    publish(lake, "1", "raw.a")
    assert list(lake.branches()) == []
    with pytest.raises(BranchUnknown):
        lake.pin("batch/1")


def assert_refused(lake: Lake, branch: Branch, reads: AbstractSet[str], *tables: str) -> None:
    """BaseMoved names just these tables, and nothing at all has changed."""
    main, staged, log = lake.pin(), lake.pin(branch.name), lake.publications()
    with pytest.raises(BaseMoved) as caught:
        lake.publish(branch, one(), reads=reads, at=at())
    assert set(caught.value.tables) == set(tables)
    assert lake.pin() == main
    assert lake.pin(branch.name) == staged
    assert list(lake.publications()) == list(log)
    assert lake.outcome(branch.run) is None


def test_refused_when_a_written_table_moved(lake: Lake) -> None:
    publish(lake, "1", "raw.a", "raw.b")
    branch = lake.begin("batch/2", "2", at())
    touch(lake.catalog(branch), "raw.a", "raw.b", "raw.c")
    publish(lake, "3", "raw.a")
    assert_refused(lake, branch, frozenset(), "raw.a")


def test_refused_when_a_read_table_moved(lake: Lake) -> None:
    publish(lake, "1", "raw.a", "raw.read")
    branch = lake.begin("batch/2", "2", at())
    touch(lake.catalog(branch), "raw.a")
    publish(lake, "3", "raw.read")
    assert_refused(lake, branch, {"raw.read", "raw.a"}, "raw.read")


def test_refused_when_a_table_read_as_absent_has_appeared(lake: Lake) -> None:
    branch = lake.begin("batch/1", "1", at())
    touch(lake.catalog(branch), "raw.a")
    publish(lake, "2", "raw.later")
    assert_refused(lake, branch, {"raw.later"}, "raw.later")


def test_refused_when_a_read_or_written_table_was_dropped(lake: Lake) -> None:
    publish(lake, "1", "raw.read", "raw.written")
    branch = lake.begin("batch/2", "2", at())
    touch(lake.catalog(branch), "raw.written")
    dropping = lake.begin("batch/3", "3", at())
    lake.catalog(dropping).drop_table("raw.read")
    lake.catalog(dropping).drop_table("raw.written")
    lake.publish(dropping, one(), reads=frozenset(), at=at())
    assert_refused(lake, branch, {"raw.read"}, "raw.read", "raw.written")


def test_refused_when_a_dropped_table_moved(lake: Lake) -> None:
    publish(lake, "1", "raw.a")
    branch = lake.begin("batch/2", "2", at())
    lake.catalog(branch).drop_table("raw.a")
    publish(lake, "3", "raw.a")
    assert_refused(lake, branch, frozenset(), "raw.a")


def test_a_read_table_that_stayed_absent_or_in_place_is_fine(lake: Lake) -> None:
    publish(lake, "1", "raw.read")
    assert publish(lake, "2", "raw.a", reads={"raw.read", "raw.never"}).tables.keys() == {"raw.a"}


def test_of_a_new_table_on_two_branches_one_wins(lake: Lake) -> None:
    left, right = lake.begin("batch/l", "l", at()), lake.begin("batch/r", "r", at())
    for branch in (left, right):
        touch(lake.catalog(branch), "raw.new")
    won = lake.publish(right, one(), reads=frozenset(), at=at())
    assert_refused(lake, left, frozenset(), "raw.new")
    assert lake.pin().tables == {"raw.new": won.tables["raw.new"].after}


def test_branches_that_touch_different_tables_both_publish(lake: Lake) -> None:
    publish(lake, "1", "raw.a", "raw.b")
    left, right = lake.begin("batch/l", "l", at()), lake.begin("batch/r", "r", at())
    touch(lake.catalog(left), "raw.a", "left.new")
    touch(lake.catalog(right), "raw.b", "right.new")
    expected = lake.pin(left.name).tables["raw.a"], lake.pin(right.name).tables["raw.b"]
    lake.publish(left, one(), reads={"raw.a"}, at=at())
    lake.publish(right, one(), reads={"raw.b"}, at=at())
    tables = lake.pin().tables
    assert (tables["raw.a"], tables["raw.b"]) == expected
    assert tables.keys() == {"raw.a", "raw.b", "left.new", "right.new"}


def test_a_dropped_table_is_dropped_by_the_publish_and_stays_readable(lake: Lake) -> None:
    branch = lake.begin("batch/1", "1", at())
    catalog = lake.catalog(branch)
    catalog.create_namespace("raw")
    catalog.create_table("raw.a", SCHEMA).append(rows(5))
    lake.publish(branch, one(), reads=frozenset(), at=at())
    before = lake.pin()
    branch = lake.begin("batch/2", "2", at())
    lake.catalog(branch).drop_table("raw.a")
    assert lake.pin() == before
    dropped = lake.publish(branch, one(), reads=frozenset(), at=at())
    assert lake.pin().tables == {}
    assert dropped.tables == {"raw.a": TableChange(before.tables["raw.a"], None)}
    assert numbers(lake.load(before, "raw.a")) == [5]
    publish(lake, "3", "raw.a")  # and may come again
    assert lake.pin().tables.keys() == {"raw.a"}


def test_a_publish_needs_a_contribution_and_not_one_batch_twice(lake: Lake) -> None:
    branch = lake.begin("batch/1", "1", at())
    for wrong in ([], one() + one()):
        with pytest.raises(ValueError):
            lake.publish(branch, wrong, reads=frozenset(), at=at())
    assert lake.outcome("1") is None


# --- namespaces -----------------------------------------------------------------------------------


def test_namespaces_come_with_the_publish(lake: Lake) -> None:
    branch = lake.begin("batch/1", "1", at())
    lake.catalog(branch).create_namespace("marts", {"owner": "ann"})
    other = lake.begin("batch/2", "2", at())
    assert not lake.catalog(other).namespace_exists("marts")
    lake.publish(branch, one(), reads=frozenset(), at=at())
    seen = lake.catalog(lake.begin("batch/3", "3", at()))
    assert seen.load_namespace_properties("marts")["owner"] == "ann"


def test_two_branches_may_make_the_same_namespace(lake: Lake) -> None:
    left, right = lake.begin("batch/l", "l", at()), lake.begin("batch/r", "r", at())
    touch(lake.catalog(left), "raw.a")
    touch(lake.catalog(right), "raw.b")
    lake.publish(left, one(), reads=frozenset(), at=at())
    lake.publish(right, one(), reads=frozenset(), at=at())
    assert lake.pin().tables.keys() == {"raw.a", "raw.b"}


def test_a_namespace_is_dropped_by_the_publish_unless_somebody_uses_it(lake: Lake) -> None:
    branch = lake.begin("batch/1", "1", at())
    for name in ("empty", "used"):
        lake.catalog(branch).create_namespace(name, {"owner": "ann"})
    lake.publish(branch, one(), reads=frozenset(), at=at())

    branch = lake.begin("batch/2", "2", at())
    for name in ("empty", "used"):
        lake.catalog(branch).drop_namespace(name)
    publish(lake, "3", "used.table")
    lake.publish(branch, one(), reads=frozenset(), at=at())

    seen = lake.catalog(lake.begin("batch/4", "4", at()))
    assert not seen.namespace_exists("empty")
    assert seen.load_namespace_properties("used")["owner"] == "ann"
    with pytest.raises(NamespaceAlreadyExistsError):
        seen.create_namespace("used")


# --- runs: outcome, take-over, lost answers -------------------------------------------------------


class LosesAnswers:
    """A connection that breaks after the catalog has committed, before we hear of it."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake

    def publish(self, branch: Branch) -> Publication:
        self.lake.publish(branch, one(), reads=frozenset(), at=at())
        raise CatalogUnavailable("the connection was lost")


def test_a_lost_answer_is_found_again(place: Place) -> None:
    lake = place.open()
    branch = lake.begin("batch/1", "1", at())
    touch(lake.catalog(branch), "raw.a")
    with pytest.raises(CatalogUnavailable):
        LosesAnswers(place.open()).publish(branch)
    found = lake.outcome("1")
    assert isinstance(found, Publication)
    assert found.tables["raw.a"].after == lake.pin().tables["raw.a"]
    assert lake.publish(branch, one(), reads=frozenset(), at=at(9)) == found
    assert list(lake.publications()) == [found]


def test_a_second_publish_of_a_run_is_the_first(lake: Lake) -> None:
    first, second = lake.begin("batch/1a", "1", at()), lake.begin("batch/1b", "1", at())
    touch(lake.catalog(first), "raw.a")
    touch(lake.catalog(second), "raw.b")
    published = lake.publish(first, one(), reads=frozenset(), at=at())
    for branch in (first, second):
        assert lake.publish(branch, one(), reads=frozenset(), at=at(1)) == published
    assert lake.pin().tables.keys() == {"raw.a"}
    assert lake.take_over("1", by="successor", at=at()) == published
    assert lake.outcome("1") == published


def test_a_run_publishes_its_own_branches_only(lake: Lake) -> None:
    branch = lake.begin("batch/1", "1", at())
    touch(lake.catalog(branch), "raw.a")
    with pytest.raises(BranchUnknown):
        lake.publish(replace(branch, run="2"), one(), reads=frozenset(), at=at())
    assert lake.pin().tables == {}
    assert lake.outcome("2") is None


def test_begin_is_refused_once_a_run_has_an_outcome(lake: Lake) -> None:
    publish(lake, "published", "raw.a")
    lake.take_over("dead", by="successor", at=at())
    for run in ("published", "dead"):
        with pytest.raises(RunFenced):
            lake.begin(f"batch/{run}/again", run, at())
    assert list(lake.branches()) == []


def test_a_run_that_was_taken_over_can_never_publish(lake: Lake) -> None:
    publish(lake, "0", "raw.a")
    first, restaged = lake.begin("batch/1a", "1", at()), lake.begin("batch/1b", "1", at())
    catalogs = [lake.catalog(branch) for branch in (first, restaged)]
    for catalog in catalogs:
        touch(catalog, "raw.a")
    main = lake.pin()

    tombstone = lake.take_over("1", by="successor", at=at(5))
    assert tombstone == TakenOver("1", "successor", at(5)) == lake.outcome("1")
    assert list(lake.branches()) == []
    assert lake.take_over("1", by="another", at=at(6)) == tombstone

    for branch, catalog in zip((first, restaged), catalogs, strict=True):
        with suppress(Exception):  # a paused run wakes up: whatever happens to it, main stays
            touch(catalog, "raw.a", "raw.ghost")
        with pytest.raises(RunFenced):
            lake.publish(branch, one(), reads=frozenset(), at=at(7))
    with pytest.raises(RunFenced):
        lake.begin("batch/1c", "1", at(8))
    assert lake.pin() == main
    assert lake.outcome("1") == tombstone
    publish(lake, "2", "raw.a")  # the successor


def test_of_a_publish_and_a_take_over_that_race_exactly_one_wins(place: Place) -> None:
    lake = place.open()
    runner, successor = place.open(), place.open()
    publish(lake, "start", "raw.a")
    won: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        for number in range(50):
            run = f"race-{number}"
            branch = lake.begin(f"batch/{run}", run, at())
            touch(lake.catalog(branch), "raw.a")
            main, staged = lake.pin(), lake.pin(branch.name)
            start = Barrier(2)

            def do_publish(
                branch: Branch = branch, start: Barrier = start
            ) -> Publication | RunFenced:
                start.wait()
                try:
                    return runner.publish(branch, one(), reads={"raw.a"}, at=at())
                except RunFenced as fenced:
                    return fenced

            def do_take_over(
                run: str = run, start: Barrier = start, late: float = number % 5 / 1000
            ) -> Publication | TakenOver:
                start.wait()
                time.sleep(late)
                return successor.take_over(run, by="successor", at=at())

            published, taken = pool.submit(do_publish), pool.submit(do_take_over)
            if isinstance(published.result(), Publication):
                assert published.result() == taken.result() == lake.outcome(run)
                assert lake.pin().tables == staged.tables
                won.append("publish")
            else:
                assert taken.result() == TakenOver(run, "successor", at()) == lake.outcome(run)
                assert lake.pin() == main
                won.append("take-over")
            with pytest.raises(RunFenced):
                lake.begin(f"batch/{run}/again", run, at())
    assert len(won) == 50
    assert len(lake.publications()) == won.count("publish") + 1


def test_publishes_that_race_lose_no_update(place: Place) -> None:
    """Four runners add to one counter, staging again whenever main moved."""
    publish(place.open(), "start", "raw.counter", "raw.config")

    def add(who: int) -> list[Publication]:
        lake = place.open()
        done = []
        for number in range(4):
            for attempt in range(200):
                run = f"{who}-{number}"
                branch = lake.begin(f"batch/{run}/{attempt}", run, at())
                touch(lake.catalog(branch), "raw.counter", f"raw.own{who}")
                try:
                    done.append(lake.publish(branch, one(), reads={"raw.config"}, at=at()))
                    break
                except BaseMoved:
                    lake.discard(branch.name)
        return done

    with ThreadPoolExecutor(4) as pool:
        published = [each for of_one in pool.map(add, range(4)) for each in of_one]
    lake = place.open()
    assert sorted(each.version for each in published) == list(
        range(min(each.version for each in published), lake.publications()[0].version + 1)
    )
    assert len(published) == 16
    assert lake.load(lake.pin(), "raw.counter").properties["touched"] == "17"
    # Each started where the one before it ended.
    log = [each.tables["raw.counter"] for each in reversed(lake.publications())]
    assert [change.before for change in log[1:]] == [change.after for change in log[:-1]]


# --- history --------------------------------------------------------------------------------------


def test_pin_at_is_main_as_it_was(lake: Lake) -> None:
    publish(lake, "1", "raw.a", "raw.b", "raw.gone")
    states = {1: lake.pin().tables}
    branch = lake.begin("batch/2", "2", at())
    lake.catalog(branch).drop_table("raw.gone")
    touch(lake.catalog(branch), "raw.b", "raw.c")
    versions = {1: lake.publications()[0].version}
    versions[2] = lake.publish(branch, one(), reads={"raw.a"}, at=at()).version
    states[2] = lake.pin().tables
    versions[3] = publish(lake, "3", "raw.a", "raw.gone").version
    states[3] = lake.pin().tables
    versions[4] = publish(lake, "4", reads={"raw.b"}).version
    states[4] = states[3]
    for number, version in versions.items():
        assert lake.pin_at(version).tables == states[number]
    assert lake.pin_at(versions[2]).ref == MAIN
    for unknown in (min(versions.values()) - 1, versions[4] + 1):
        with pytest.raises(VersionUnknown):
            lake.pin_at(unknown)


def test_publications_are_told_newest_first_and_filtered(lake: Lake) -> None:
    override = Override("unique_flights", "known duplicate", "ann")
    told = [
        Contribution("flights", "2013-01-01", "h1", {"in": 3, "loaded": 2, "quarantined": 1}),
        Contribution("flights", "2013-01-02", "h2", {}, override),
        Contribution("reference", "2013-01", "h3", {}),
    ]
    tokyo = timezone(timedelta(hours=9))
    branch = lake.begin("batch/1", "1", at())
    touch(lake.catalog(branch), "raw.a")
    first = lake.publish(branch, told, reads=frozenset(), at=datetime(2013, 1, 3, 6, tzinfo=tokyo))
    again = publish(lake, "2", "raw.a", contributions=one("2013-01-01"), second=9)
    change = Contribution(None, None, "h4", {}, summary="table apply raw.a")
    applied = publish(lake, "3", "raw.a", contributions=[change])

    assert first.contribution == told[0]
    everything = lake.publications()
    assert [each.contribution for each in everything] == [
        change,
        again.contribution,
        *reversed(told),
    ]
    assert [each.run for each in everything] == ["3", "2", "1", "1", "1"]
    assert everything[0] == applied
    assert everything[1] == again
    assert {each.version for each in everything[2:]} == {first.version}
    assert all(each.tables == first.tables for each in everything[2:])
    assert all(each.at == first.at for each in everything[2:])

    of_flights = lake.publications("flights")
    assert [each.contribution.batch for each in of_flights] == [
        "2013-01-01",
        "2013-01-02",
        "2013-01-01",
    ]
    of_batch = lake.publications("flights", "2013-01-01")
    assert [each.run for each in of_batch] == ["2", "1"]
    assert [each.run for each in lake.publications("reference", "2013-01")] == ["1"]
    assert list(lake.publications("flights", "2013-01-09")) == []
    assert lake.outcome("1") == first


# --- branches -------------------------------------------------------------------------------------


def test_branches_are_listed_oldest_first(lake: Lake) -> None:
    publish(lake, "0", "raw.a")
    begun = [lake.begin(f"batch/{name}", name, at(n)) for n, name in enumerate("cab")]
    assert list(lake.branches()) == begun
    lake.discard("batch/a")
    assert list(lake.branches()) == [begun[0], begun[2]]


def test_a_name_serves_once(lake: Lake) -> None:
    publish(lake, "published", "raw.a")
    lake.begin("batch/open", "open", at())
    lake.begin("batch/discarded", "discarded", at())
    lake.discard("batch/discarded")
    lake.begin("batch/dead", "dead", at())
    lake.take_over("dead", by="successor", at=at())
    for name in ("published", "open", "discarded", "dead"):
        with pytest.raises(BranchNameTaken):
            lake.begin(f"batch/{name}", "another", at())
    assert [branch.name for branch in lake.branches()] == ["batch/open"]


def test_of_two_that_begin_one_name_at_once_one_does(place: Place) -> None:
    clients = [place.open(), place.open()]
    publish(clients[0], "first", *(f"raw.t{number}" for number in range(10)))
    start = Barrier(2)

    def begin(client: Lake, name: str) -> bool:
        start.wait()
        try:
            client.begin(name, "1", at())
        except BranchNameTaken:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        for number in range(20):
            assert sorted(pool.map(begin, clients, [f"batch/{number}"] * 2)) == [False, True]
    assert len(clients[0].branches()) == 20


def test_main_is_no_name_for_a_branch(lake: Lake) -> None:
    from lakewarden.errors import WrongUsage

    for name in (MAIN, ""):
        with pytest.raises(WrongUsage):
            lake.begin(name, "1", at())


def test_a_discarded_branch_is_gone_and_cannot_touch_main(lake: Lake) -> None:
    publish(lake, "1", "raw.a")
    main = lake.pin()
    branch = lake.begin("batch/2", "2", at())
    catalog = lake.catalog(branch)
    touch(catalog, "raw.a")
    table = catalog.load_table("raw.a")
    lake.discard(branch.name)
    lake.discard(branch.name)
    lake.discard("batch/never-was")

    with pytest.raises(BranchUnknown):
        lake.pin(branch.name)
    with pytest.raises(BranchUnknown):
        lake.catalog(branch)
    with pytest.raises(BranchUnknown):
        lake.publish(branch, one(), reads=frozenset(), at=at())
    with pytest.raises(NoSuchTableError):
        catalog.load_table("raw.a")
    writes: list[Callable[[], object]] = [
        lambda: table.append(rows(1)),
        lambda: catalog.drop_table("raw.a"),
        lambda: touch(catalog, "raw.a", "raw.ghost"),
    ]
    for write in writes:
        with suppress(Exception):  # refused or lost, as the catalog likes
            write()
    assert lake.pin() == main
    assert lake.outcome("2") is None
    assert lake.begin("batch/2/again", "2", at()).base.tables == main.tables


def test_discarding_one_branch_leaves_the_others(lake: Lake) -> None:
    keep, drop = lake.begin("batch/1", "1", at()), lake.begin("batch/10", "1", at())
    touch(lake.catalog(keep), "raw.a")
    lake.discard(drop.name)
    assert lake.pin(keep.name).tables.keys() == {"raw.a"}


def test_clients_that_start_at_once_on_an_empty_catalog_all_get_on(place: Place) -> None:
    start = Barrier(6)

    def first_use(number: int) -> Branch:
        lake = place.open()
        start.wait()
        return lake.begin(f"batch/{number}", str(number), at(number))

    with ThreadPoolExecutor(6) as pool:
        begun = list(pool.map(first_use, range(6)))
    assert list(place.open().branches()) == begun


# --- everything together, against a model ---------------------------------------------------------

TABLES = ("raw.a", "raw.b", "marts.c")
some_tables = st.sets(st.sampled_from(TABLES), min_size=1, max_size=2)
no_or_some_tables = st.sets(st.sampled_from(TABLES), max_size=2)


@dataclass
class ModelBranch:
    branch: Branch
    catalog: Catalog
    base: Mapping[str, str]
    tables: dict[str, str]
    open: bool = True

    def write(self, table: str, *, drop: bool = False) -> None:
        if drop and table in self.tables:
            self.catalog.drop_table(table)
            del self.tables[table]
        else:
            touch(self.catalog, table)
            self.tables[table] = self.catalog.load_table(table).metadata_location


@dataclass
class Model:
    main: dict[str, str] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)
    outcomes: dict[str, Publication | TakenOver] = field(default_factory=dict)
    branches: list[ModelBranch] = field(default_factory=list)
    log: list[Publication] = field(default_factory=list)
    states: dict[int, Mapping[str, str]] = field(default_factory=dict)

    def moved(self, known: ModelBranch, reads: AbstractSet[str]) -> set[str]:
        wrote = {name for name in TABLES if known.base.get(name) != known.tables.get(name)}
        return {name for name in wrote | reads if known.base.get(name) != self.main.get(name)}


def machine(new_place: Callable[[], Place]) -> type[RuleBasedStateMachine]:
    class Lakes(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.lake = new_place().open()
            self.model = Model()
            self.clock = 0

        def now(self) -> datetime:
            self.clock += 1
            return at(self.clock)

        @rule(writes=some_tables)
        def begin(self, writes: set[str]) -> None:
            self.model.runs.append(f"run-{len(self.model.runs)}")
            self.begin_of(self.model.runs[-1], writes)

        @precondition(lambda self: self.model.runs)
        @rule(data=st.data(), writes=some_tables)
        def begin_again(self, data: st.DataObject, writes: set[str]) -> None:
            self.begin_of(data.draw(st.sampled_from(self.model.runs)), writes)

        def begin_of(self, run: str, writes: set[str]) -> None:
            when = self.now()
            name = f"batch/{run}/{self.clock}"
            if run in self.model.outcomes:
                with pytest.raises(RunFenced):
                    self.lake.begin(name, run, when)
                return
            branch = self.lake.begin(name, run, when)
            main = self.model.main
            assert branch == Branch(name, run, Pin(MAIN, branch.base.version, main), when)
            known = ModelBranch(branch, self.lake.catalog(branch), dict(main), dict(main))
            self.model.branches.append(known)
            for table in sorted(writes):
                known.write(table)

        @precondition(lambda self: self.model.branches)
        @rule(data=st.data())
        def begin_with_a_used_name(self, data: st.DataObject) -> None:
            known = data.draw(st.sampled_from(self.model.branches))
            with pytest.raises(BranchNameTaken):
                self.lake.begin(known.branch.name, "unused", self.now())

        @precondition(lambda self: self.model.branches)
        @rule(data=st.data(), table=st.sampled_from(TABLES), drop=st.booleans())
        def write(self, data: st.DataObject, table: str, drop: bool) -> None:
            known = data.draw(st.sampled_from(self.model.branches))
            if known.open:
                known.write(table, drop=drop)
            else:
                with suppress(Exception):  # what a dead branch answers is not promised
                    touch(known.catalog, table)

        @precondition(lambda self: any(known.open for known in self.model.branches))
        @rule(data=st.data(), reads=no_or_some_tables)
        def publish(self, data: st.DataObject, reads: set[str]) -> None:
            self.publish_of(
                data.draw(st.sampled_from([one for one in self.model.branches if one.open])), reads
            )

        @rule(reads=no_or_some_tables, latest_first=st.booleans())
        def publish_all(self, reads: set[str], latest_first: bool) -> None:
            still = [known for known in self.model.branches if known.open]
            for known in reversed(still) if latest_first else still:
                self.publish_of(known, reads)

        @precondition(lambda self: any(not known.open for known in self.model.branches))
        @rule(data=st.data(), reads=some_tables)
        def publish_what_is_gone(self, data: st.DataObject, reads: set[str]) -> None:
            self.publish_of(
                data.draw(st.sampled_from([one for one in self.model.branches if not one.open])),
                reads,
            )

        def publish_of(self, known: ModelBranch, reads: set[str]) -> None:
            moved = self.model.moved(known, reads)

            def attempt() -> Publication:
                return self.lake.publish(known.branch, one(), reads=reads, at=self.now())

            match self.model.outcomes.get(known.branch.run):
                case Publication() as before:
                    assert attempt() == before
                case TakenOver():
                    with pytest.raises(RunFenced):
                        attempt()
                case None if not known.open:
                    with pytest.raises(BranchUnknown):
                        attempt()
                case None if moved:
                    with pytest.raises(BaseMoved) as caught:
                        attempt()
                    assert set(caught.value.tables) == moved
                case None:
                    self.published(known, attempt())

        def published(self, known: ModelBranch, done: Publication) -> None:
            model = self.model
            wrote = {name for name in TABLES if known.base.get(name) != known.tables.get(name)}
            assert done.tables == {
                name: TableChange(known.base.get(name), known.tables.get(name)) for name in wrote
            }
            if model.log:
                assert done.version == model.log[-1].version + 1
            for name in wrote:
                model.main.pop(name, None)
                if name in known.tables:
                    model.main[name] = known.tables[name]
            known.open = False
            model.outcomes[known.branch.run] = done
            model.log.append(done)
            model.states[done.version] = dict(model.main)

        @precondition(lambda self: self.model.runs)
        @rule(data=st.data())
        def take_over(self, data: st.DataObject) -> None:
            run, when = data.draw(st.sampled_from(self.model.runs)), self.now()
            expected = self.model.outcomes.setdefault(run, TakenOver(run, "successor", when))
            assert self.lake.take_over(run, by="successor", at=when) == expected
            if isinstance(expected, TakenOver):
                for known in self.model.branches:
                    known.open = known.open and known.branch.run != run

        @precondition(lambda self: self.model.branches)
        @rule(data=st.data())
        def discard(self, data: st.DataObject) -> None:
            known = data.draw(st.sampled_from(self.model.branches))
            self.lake.discard(known.branch.name)
            known.open = False

        @invariant()
        def main_is_what_was_published(self) -> None:
            assert self.lake.pin().tables == self.model.main

        @invariant()
        def branches_are_their_own(self) -> None:
            still = [known for known in self.model.branches if known.open]
            assert list(self.lake.branches()) == [known.branch for known in still]
            for known in still:
                assert self.lake.pin(known.branch.name).tables == known.tables

        @invariant()
        def history_stays(self) -> None:
            assert list(self.lake.publications()) == self.model.log[::-1]
            for version, tables in self.model.states.items():
                assert self.lake.pin_at(version).tables == tables
            for run in self.model.runs:
                assert self.lake.outcome(run) == self.model.outcomes.get(run)

    return Lakes


@pytest.mark.slow
def test_any_order_of_things(new_place: Callable[[], Place]) -> None:
    run_state_machine_as_test(
        machine(new_place),
        settings=settings(
            max_examples=20,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
