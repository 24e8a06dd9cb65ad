"""The generator of the example events: the same seed, the same bytes; each day by itself; and what
it promises to plant is there."""

import csv
import importlib.util
import json
from collections import Counter
from datetime import date, timedelta
from pathlib import Path
from types import ModuleType

import pytest

import lakewarden

SCRIPT = Path(lakewarden.__file__).parent / "examples" / "events" / "generate.py"
OPENS = date(2024, 3, 1)


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_the_same_seed_gives_the_same_bytes_whatever_days_are_asked_for(
    generate: ModuleType, tmp_path: Path
) -> None:
    size = ["--events", "100", "--customers", "30"]
    generate.main([str(tmp_path / "all"), "--days", "5", *size])
    for back in range(5):  # one by one, the last first
        day = str(OPENS + timedelta(days=4 - back))
        generate.main([str(tmp_path / "each"), "--first", day, "--days", "1", *size])
    assert content(tmp_path / "all") == content(tmp_path / "each")
    generate.main([str(tmp_path / "other"), "--days", "5", "--seed", "2", *size])
    other, same = content(tmp_path / "other"), content(tmp_path / "all")
    assert other.keys() == same.keys()
    # A day on which no customer changes is a header, whatever the seed.
    full = [name for name, body in same.items() if body.count(b"\n") > 1]
    assert all(other[name] != same[name] for name in full)
    assert len(full) > 10


def test_events_are_late_and_doubled_and_belong_to_their_delivery(
    generate: ModuleType, tmp_path: Path
) -> None:
    generate.main([str(tmp_path), "--days", "6", "--events", "400"])
    copies = []
    for folder in sorted((tmp_path / "events").iterdir()):
        arrived = [
            json.loads(line)
            for file in sorted(folder.iterdir())
            for line in file.read_text().splitlines()
        ]
        assert {one["ingested_at"][:10] for one in arrived} == {folder.name}
        copies += [(folder.name, one) for one in arrived]
    days = [(batch, one["event_timestamp"][:10]) for batch, one in copies]
    assert all(day <= batch for batch, day in days)
    lateness = {(date.fromisoformat(batch) - date.fromisoformat(day)).days for batch, day in days}
    assert lateness == {0, 1, 2, 3}
    batches: dict[str, list[str]] = {}
    for batch, one in copies:
        batches.setdefault(one["event_id"], []).append(batch)
    twice = [found for found in batches.values() if len(found) == 2]
    assert max(map(len, batches.values())) == 2
    assert {len(set(found)) for found in twice} == {1, 2}  # in one delivery, and in two
    # Once everything has arrived, each day has as many events as were asked for.
    happened = Counter({one["event_id"]: one["event_timestamp"][:10] for _, one in copies}.values())
    assert happened[str(OPENS)] == happened[str(OPENS + timedelta(days=1))] == 400
    assert any(one["user_id"].startswith("g") for _, one in copies)
    stamps = [one["event_timestamp"] for _, one in copies]
    assert stamps != sorted(stamps)


def test_customers_change_repeat_themselves_leave_and_come_back(
    generate: ModuleType, tmp_path: Path
) -> None:
    generate.main([str(tmp_path), "--days", "90", "--events", "0", "--customers", "60"])
    last: dict[str, dict[str, str]] = {}
    seen: Counter[str] = Counter()
    for file in sorted((tmp_path / "customers").glob("*/customers.csv")):
        day = file.parent.name
        with file.open(encoding="utf-8", newline="") as text:
            rows = list(csv.DictReader(text))
        for row in rows:
            before = last.get(row["customer_id"])
            assert row["changed_at"].startswith(day)
            if before:
                assert row["changed_at"] > before["changed_at"]
                told = {key for key, value in row.items() if value != before[key]}
                seen["twice in a day"] += before["changed_at"].startswith(day)
                seen["back"] += before["operation"] == "delete"
                seen["nothing new"] += told <= {"changed_at", "source_system"}
            else:
                assert row["operation"] == "put"
            seen[row["operation"]] += 1
            last[row["customer_id"]] = row
    assert len(last) == 60
    assert all(seen[kind] for kind in ("put", "delete", "back", "twice in a day", "nothing new")), (
        seen
    )


def test_before_the_shop_opens_there_is_nothing(generate: ModuleType, tmp_path: Path) -> None:
    before = OPENS - timedelta(days=1)
    with pytest.raises(generate.ShopClosed):
        generate.write_events(generate.Shop(), before, tmp_path)
    with pytest.raises(generate.ShopClosed):
        generate.write_customers(generate.Shop(), before, tmp_path)
    assert content(tmp_path) == {}
