"""The example events: whatever the order in which its days are run, the tables come out the same,
and every event counts once."""

import importlib.util
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from types import ModuleType

import pytest

import lakewarden
from lakewarden.batch.audit import TestsFailed
from lakewarden.batch.receipts import receipts_of
from lakewarden.cli.init import write_example
from lakewarden.wiring import Project
from tests.local.shop import connect_project
from tests.stack import LocalStack

EXAMPLES = Path(lakewarden.__file__).parent / "examples"
DAYS = tuple(date(2024, 3, 1) + timedelta(days=n) for n in range(4))
KNOWN_WARNINGS = {"relationships_events_user_id__natural_key__ref_scd_type2_"}
Rows = Sequence[tuple[object, ...]]


def load_generator() -> ModuleType:
    """The script, as an owner of the project would import it: by its path."""
    spec = importlib.util.spec_from_file_location("generate", EXAMPLES / "events" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Lakehouse:
    """The example as `init` writes it, on a stack, with deliveries of a small shop."""

    root: Path
    deliveries: Path

    @cached_property
    def project(self) -> Project:
        return lakewarden.open(self.root)

    def deliver(self, dataset: str, day: date, folder: Path | None = None) -> None:
        folder = folder or self.deliveries / dataset / str(day)
        self.project.deliver(dataset, str(day), folder)

    def run(self, dataset: str, day: date, folder: Path | None = None) -> str:
        self.deliver(dataset, day, folder)
        return self.project.run(dataset, str(day)).status

    def run_set(self, dataset: str, days: Sequence[date]) -> None:
        for day in days:
            self.deliver(dataset, day)
        outcomes = list(self.project.run_set(dataset, [str(day) for day in days]))
        assert [one.status for one in outcomes] == ["published"]

    def tables(self) -> Mapping[str, Rows]:
        pin = self.project.pin()
        with self.project.session(pin) as duck:
            return {
                table: duck.execute(f"SELECT * FROM {table} ORDER BY ALL").fetchall()
                for table in sorted(pin.tables)
            }

    def ask(self, select: str) -> Rows:
        with self.project.session(self.project.pin()) as duck:
            return duck.execute(select).fetchall()


def make_lakehouse(stack: LocalStack, root: Path, deliveries: Path) -> Lakehouse:
    write_example("events", root)
    macros = root / "transform" / "macros"
    if not macros.exists():
        shutil.copytree(EXAMPLES / "macros", macros)
    connect_project(root, stack.connection, stack.bucket())
    return Lakehouse(root, deliveries)


@pytest.fixture(scope="module")
def deliveries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generate = load_generator()
    folder = tmp_path_factory.mktemp("deliveries")
    generate.main([str(folder), "--events", "80", "--customers", "40"])
    return folder


@pytest.fixture(scope="module")
def in_order(
    local_stack: LocalStack, deliveries: Path, tmp_path_factory: pytest.TempPathFactory
) -> Lakehouse:
    """Four days of both datasets, each dataset in one go. No test changes it."""
    made = make_lakehouse(local_stack, tmp_path_factory.mktemp("in order") / "lake", deliveries)
    made.run_set("customers", DAYS)
    made.run_set("events", DAYS)
    return made


def delivered(folder: Path) -> list[dict[str, object]]:
    files = sorted(folder.glob("events/*/*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def moment(text: object) -> datetime:
    return datetime.fromisoformat(str(text).replace("Z", "+00:00"))


@pytest.mark.slow
def test_any_order_of_days_gives_the_same_tables(
    local_stack: LocalStack, deliveries: Path, in_order: Lakehouse, tmp_path: Path
) -> None:
    other = make_lakehouse(local_stack, tmp_path / "lake", deliveries)
    # First another day's content, which the delivery proper replaces at the end.
    generate = load_generator()
    generate.write_events(generate.Shop(seed=2, events=50), DAYS[1], tmp_path / "wrong")
    other.run("events", DAYS[1], tmp_path / "wrong")
    other.run("events", DAYS[3])
    other.run_set("customers", DAYS[2:])
    other.run_set("events", (DAYS[0], DAYS[2]))
    other.run_set("customers", DAYS[:2])
    assert other.run("events", DAYS[1]) == "published"
    expected, found = in_order.tables(), other.tables()
    assert found.keys() == expected.keys()
    for table, rows in expected.items():
        assert rows, f"{table} has no rows"
        assert found[table] == rows, f"{table} depends on the order"


@pytest.mark.slow
def test_every_event_counts_once_in_the_hour_when_it_happened(
    in_order: Lakehouse, deliveries: Path
) -> None:
    copies = delivered(deliveries)
    events = {str(one["event_id"]): one for one in copies}
    times = Counter(str(one["event_id"]) for one in copies)
    assert max(times.values()) > 1
    first = {
        key: min(moment(one["ingested_at"]) for one in copies if one["event_id"] == key)
        for key in events
    }
    found = in_order.ask(
        "SELECT event_id, event_timestamp, payload, ingested_at, first_batch, copies,"
        " user_agent FROM marts.events"
    )
    assert {str(row[0]) for row in found} == events.keys()
    assert len(found) == len(events)
    for key, at, payload, arrived, batch, count, agent in found:
        one = events[str(key)]
        assert utc(at) == moment(one["event_timestamp"])
        assert json.loads(str(payload)) == one["payload"]
        assert (utc(arrived), batch) == (first[str(key)], str(first[str(key)].date()))
        assert count == times[str(key)]
        assert agent == one["user_agent"]
    late = [row for row in found if utc(row[1]).date() < utc(row[3]).date()]
    assert late  # some events did arrive on another day


@pytest.mark.slow
def test_features_are_of_the_time_that_they_are_for(in_order: Lakehouse, deliveries: Path) -> None:
    events = {str(one["event_id"]): one for one in delivered(deliveries)}.values()
    active = Counter((one["user_id"], moment(one["event_timestamp"]).date()) for one in events)
    history = in_order.ask(
        "SELECT natural_key, category, effective_from, effective_to FROM marts.scd_type2"
    )
    found = in_order.ask(
        "SELECT entity_id, feature_timestamp, feature_a, feature_b, feature_c FROM"
        " marts.feature_table"
    )
    assert {(user, utc(at).date() - timedelta(days=1)): n for user, at, n, *_ in found} == active
    for user, known_at, _, spent, category in found:
        at = utc(known_at)
        assert spent == pytest.approx(cents_in_week(events, user, at) / 100)
        then = [
            kind
            for key, kind, begin, end in history
            if key == user and utc(begin) < at and (end is None or utc(end) >= at)
        ]
        assert [category] == (then or [None])
    assert any(spent for *_, spent, _ in found)


def cents_in_week(events: Iterable[Mapping[str, object]], user: object, at: datetime) -> int:
    cents = 0
    for one in events:
        happened = moment(one["event_timestamp"])
        if one["user_id"] == user and at - timedelta(days=7) <= happened < at:
            payload = one["payload"]
            assert isinstance(payload, dict)
            cents += payload.get("cents", 0)
    return cents


def utc(value: object) -> datetime:
    assert isinstance(value, datetime)
    return value.astimezone(UTC)


@pytest.mark.slow
def test_each_kind_of_trouble_breaks_its_test(
    local_stack: LocalStack, deliveries: Path, tmp_path: Path
) -> None:
    lake = make_lakehouse(local_stack, tmp_path / "lake", deliveries)
    source = deliveries / "events" / str(DAYS[0]) / "events-web.jsonl"
    lines = [json.loads(line) for line in source.read_text().splitlines()]
    unknown, early, unread, other, copy, late = (dict(line) for line in lines[:6])
    unknown["event_type"] = "dream"
    early["event_timestamp"] = "2024-03-01T23:59:59Z"
    early["ingested_at"] = "2024-03-01T01:00:00Z"
    unread["payload"] = [1]
    copy["event_id"] = other["event_id"]
    late["event_timestamp"] = "2024-02-20T12:00:00Z"
    broken = [unknown, early, unread, other, copy, late, *lines[6:]]
    (tmp_path / "broken").mkdir()
    text = "".join(f"{json.dumps(one)}\n" for one in broken)
    (tmp_path / "broken" / "events-web.jsonl").write_text(text)
    lake.deliver("events", DAYS[0], tmp_path / "broken")
    with pytest.raises(TestsFailed):
        lake.project.run("events", str(DAYS[0]))
    told = {
        test.name: test.status
        for run in lake.project.runs("events")
        for receipt in receipts_of(lake.project.objects, run.dataset, run.run)
        for test in receipt.tests
    }
    assert {name for name, status in told.items() if status == "fail"} == {
        "accepted_values_events_event_type__page_view__search__add_to_cart__purchase__sign_in",
        "copies_agree",
        "events_happen_before_they_arrive",
        "payloads_can_be_read",
    }
    warned = {name for name, status in told.items() if status == "warn"}
    assert warned == {*KNOWN_WARNINGS, "events_are_not_too_late"}
    assert lake.tables() == {}
