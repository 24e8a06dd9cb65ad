"""Sets, unpublish, diff, mends, expected deliveries and status, from the command line."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.local.test_cli import Answer, Shop, folder_with, lakewarden

SETTINGS = """
project = "shop"

[env.dev]
account = "local"
bucket = "shop-dev"
catalog = { type = "sql", uri = "sqlite:///.lakewarden/catalog.db" }

[dataset.orders]
batch = "date"
landing = "raw/orders/{batch}/"
tables = { orders = "orders*.csv" }
due = { at = "00:00", grace = "24h", first = FIRST }

[dataset.marked]
batch = "date"
landing = "raw/marked/{batch}/"
complete = "marker:_SUCCESS"
tables = { marked = "*.csv" }
"""
TABLE = """
name: {0}
namespace: raw
load: {{dataset: {0}}}
source: {{format: csv}}
key: [id]
columns:
  - {{name: id, type: int, required: true}}
  - {{name: price, type: "decimal(9,2)"}}
"""
SECRET = "1,000 Geheim"
TODAY = datetime.now(UTC).date()
DAYS = [str(TODAY - timedelta(days=back)) for back in (5, 4, 3, 2, 1)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Of five days one is bad, one was never delivered, and yesterday is not late for ever."""
    root = tmp_path_factory.mktemp("sets") / "shop"
    files = {f"tables/{name}.yaml": TABLE.format(name) for name in ("orders", "marked")}
    folder_with(root, {"lakewarden.toml": SETTINGS.replace("FIRST", DAYS[0]), **files})
    assert lakewarden("local", "up", at=root).code == 0
    try:
        yield Shop(root, "", "")
    finally:
        assert lakewarden("local", "down", at=root).code == 0


def deliver(shop: Shop, day: str, text: str, dataset: str = "orders") -> None:
    folder = folder_with(shop.root / "deliveries" / day, {"orders.csv": f"id,price\n{text}"})
    assert shop.run("batch", "deliver", dataset, day, folder).code == 0


def states(shop: Shop) -> dict[str, str]:
    listed = shop.json("batch", "list", "--expected", "--dataset", "orders")
    return {one["batch"]: one["state"] for one in listed}


def test_five_days_of_a_shop(shop: Shop) -> None:
    """One after the other: each step stands on the one before."""
    assert shop.run("status").code == 0
    assert states(shop)[DAYS[0]] == "missing"

    deliver(shop, DAYS[0], "1,1.50\n2,2.50\n")
    deliver(shop, DAYS[1], f'1,1.00\n2,"{SECRET}"\n')
    deliver(shop, DAYS[3], "7,7.00\n")
    assert states(shop)[DAYS[0]] == "waiting"

    span = f"{DAYS[0]}..{DAYS[-1]}"
    seen = shop.run("batch", "run", "orders", span, "--json")
    assert seen.code == 3
    (group,) = seen.json["groups"]
    assert (group["status"], group["version"]) == ("published", 1)
    assert [(one["batch"], one["code"]) for one in group["left_out"]] == [
        (DAYS[1], "too-many-misfits")
    ]
    found = states(shop)
    assert [found[day] for day in DAYS] == [
        "published",
        "refused",
        "missing",
        "published",
        "late",
    ]
    assert found[str(TODAY)] == "expected"

    told = shop.run("status")
    assert told.code == 0
    assert "█" in told.out
    for state in ("missing", "refused", "late", "expected"):
        assert state in told.out
    assert set(shop.json("status")["datasets"]) == {"orders", "marked"}

    mend(shop)
    correct_and_take_out(shop, span)


def mend(shop: Shop) -> None:
    day = DAYS[1]
    assert shop.run("quarantine", "replay", "orders", day).code == 2
    wrong = shop.run(
        "quarantine", "mend", "orders", day, "--record", 3, "--set", f"price={SECRET}x"
    )
    assert (wrong.code, SECRET in wrong.err) == (3, False)
    for args in (["--record", "3"], ["--record", "3", "--set", "price"], ["--set", "price=1"]):
        assert shop.run("quarantine", "mend", "orders", day, *args).code == 2
    shown = shop.json("quarantine", "show", "orders", day, "--reveal")
    assert [one["mended"] for one in shown] == [False]
    shown[0]["raw"] = shown[0]["raw"].replace(f'"{SECRET}"', "1000")
    args = ["quarantine", "mend", "orders", day, "--from", "-"]
    made = shop.run(*args, stdin=json.dumps(shown))
    assert made.code == 0
    assert SECRET not in made.out
    assert "Nothing to do" in shop.run(*args, stdin=json.dumps(shown)).out
    assert shop.run(*args, stdin="nonsense").code == 2
    assert [one["mended"] for one in shop.json("quarantine", "show", "orders", day)] == [True]
    assert shop.json("quarantine", "replay", "orders", day)["counts"]["loaded"] == 2
    rows = shop.json("query", f"SELECT id, price FROM raw.orders WHERE _batch = '{day}' ORDER BY 1")
    assert rows == [{"id": 1, "price": "1.00"}, {"id": 2, "price": "1000.00"}]


def correct_and_take_out(shop: Shop, span: str) -> None:
    deliver(shop, DAYS[0], "1,9.50\n3,2.50\n")
    assert shop.run("batch", "run", "orders", DAYS[0]).code == 0
    (table,) = shop.json("batch", "diff", "orders", DAYS[0])["tables"]
    assert (table["added"], table["removed"], table["changed"]) == (1, 1, 1)
    assert shop.run("batch", "diff", "orders", DAYS[2]).code == 2

    out = shop.json("batch", "unpublish", "orders", DAYS[0], "--reason", "wrong prices")
    assert out["status"] == "published"
    assert "wrong prices" in shop.run("lake", "log").out
    assert shop.json("batch", "unpublish", "orders", DAYS[0])["status"] == "unchanged"
    assert shop.run("batch", "unpublish", "orders", DAYS[2]).code == 2
    again = shop.json("batch", "run", "orders", span)
    assert again["withdrawn"] == [DAYS[0]]
    assert [group["status"] for group in again["groups"]] == ["unchanged"]
    assert states(shop)[DAYS[0]] == "unpublished"
    refuse_a_correction(shop)


def refuse_a_correction(shop: Shop) -> None:
    """Readers keep what they had, and whoever looks after it is told."""
    day = DAYS[3]
    line = f"refused   {day}  too-many-misfits (version 1 stays)"
    assert line not in shop.run("status").out
    deliver(shop, day, "7,seven\n")
    assert shop.run("batch", "run", "orders", day).code == 3
    assert states(shop)[day] == "published"
    assert line in shop.run("status").out
    told = shop.json("status")
    (since,) = [one["since"] for one in told["datasets"]["orders"] if one["batch"] == day]
    assert since == "refused"
    assert told["last_published"]["orders"] == {"batch": day, "version": 1, "rows": 1}
    assert told["last_published"]["marked"] is None

    deliver(shop, day, "7,8.00\n")
    left = shop.json("batch", "run", "orders", day, "--no-publish")
    assert left["branch"] in shop.run("status").out
    assert shop.run("lake", "discard", left["branch"]).code == 0
    assert day not in shop.run("status").out.partition("last")[2].partition("\n")[2]
    deliver(shop, day, "7,7.00\n")
    assert shop.run("batch", "run", "orders", day).code == 0
    assert line not in shop.run("status").out


REFUSED = [
    (["batch", "run", "orders", f"{DAYS[1]}..{DAYS[0]}"], "range-backwards"),
    (["batch", "run", "orders", "2001-01-01..2001-01-31"], "batch-unknown"),
    (["batch", "run", "orders", "2001-01-01..x"], "batch-key-invalid"),
    (["batch", "run", "orders", DAYS[0], "--select", "x"], "no-models"),
    (["batch", "run", "orders", DAYS[0], "--group", "2"], "one-group-only"),
    (["batch", "list", "--expected", "--dataset", "nope"], "dataset-unknown"),
]


@pytest.mark.parametrize(("args", "code"), REFUSED)
def test_what_cannot_be_meant_is_wrong_usage(shop: Shop, args: list[str], code: str) -> None:
    answer: Answer = shop.run(*args, "--json")
    assert (answer.code, answer.json["error"]["code"]) == (2, code)


def test_a_delivery_by_hand_waits_for_its_marker(shop: Shop, tmp_path: Path) -> None:
    import lakewarden as package

    objects = package.open(shop.root).objects
    objects.put(f"raw/marked/{DAYS[0]}/a.csv", b"id,price\n1,2.00\n")
    args = ["batch", "run", "marked", DAYS[0]]
    waits = shop.run(*args, "--json")
    assert (waits.code, waits.json["error"]["code"]) == (75, "marker-missing")
    objects.put(f"raw/marked/{DAYS[0]}/_SUCCESS", b"")
    assert shop.json(*args)["counts"]["loaded"] == 1
    # `batch deliver` writes the marker itself, last, and takes the old one away first.
    folder = folder_with(tmp_path / "more", {"b.csv": "id,price\n1,2.00\n2,3.00\n"})
    assert shop.run("batch", "deliver", "marked", DAYS[0], folder).code == 0
    assert shop.json(*args)["counts"]["loaded"] == 2
