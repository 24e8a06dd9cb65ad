"""Deliveries for the example project `events`: what customers of a shop do, and who they are.

    python generate.py deliveries --days 4

writes deliveries/events/<day>/ and deliveries/customers/<day>/, a folder for each delivery. All of
it is made up. The same seed gives the same bytes, and each day is written by itself: a day does not
depend on which others are asked for.

Events are as they come in practice. They are delivered on the day on which they arrive, in the
order of arrival: most within seconds, some up to three days late. Some arrive twice, in one
delivery or in two. Some users are guests, of whom no customer is known. Customers change, change
twice in a day, are told again without a change, leave, and come back.
"""

import argparse
import csv
import json
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import takewhile
from pathlib import Path
from random import Random  # noqa: TID251 – always from a seed, which the caller gives

LATEST = timedelta(days=3)  # after which an event that has not arrived never does

_DAY = timedelta(days=1)
_LATE = 0.03
_TWICE = 0.02
_GUESTS = 0.03
_COLLECTORS = ("app", "web")
_TYPES = {"page_view": 60, "search": 18, "add_to_cart": 12, "purchase": 6, "sign_in": 4}
_ITEMS = 400
_WORDS = ("lamp", "café au lait", "teapot", "Überwurf", "日傘", 'a "good" book', "comma, and more")
_AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/123.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_3) AppleWebKit/605.1.15 Safari/605.1.15",
    "ShopApp/4.2 (Android 14; ja-JP)",
)
_NAMES = (
    "Ada",
    "Bjørn",
    "Chiyo",
    "Désirée",
    "Emeka",
    "Fátima",
    "Grzegorz",
    "Hanna",
    "Ítalo",
    "Júlia",
)
_FAMILIES = (
    "Abe",
    "Brontë",
    "Çelik",
    "Dvořák",
    "Eriksson",
    "Fu, Jr.",
    "Gómez",
    "Høeg",
    "Ito",
    "Jones",
)
_CATEGORIES = ("bronze", "silver", "gold")
_STATUSES = ("active", "active", "active", "paused", "blocked")
_SYSTEMS = ("crm", "shop")


@dataclass(frozen=True)
class Shop:
    """What is made up. Nothing happens before the day on which it `opens`."""

    seed: int = 1
    opens: date = date(2024, 3, 1)
    events: int = 2000  # a day
    customers: int = 200


@dataclass(frozen=True)
class Customer:
    """A customer as they are from `changed_at` on; or, as they last were, that they are gone."""

    customer_id: str
    operation: str  # put | delete
    changed_at: datetime
    name: str
    email: str
    category: str
    status: str
    source_system: str


Event = Mapping[str, object]


class ShopClosed(ValueError):
    """A day before the shop opens."""


# ── deliveries ──────────────────────────────────────────────────────────────────────────────────


def write_events(shop: Shop, day: date, folder: Path) -> Sequence[Path]:
    """Write what arrived on a day, one file for each collector of events, and return the paths.

    One JSON object a line. Makes the folder where it is missing. Raises ShopClosed.
    """
    _check_open(shop, day)
    lines: dict[str, list[tuple[str, str]]] = {name: [] for name in _COLLECTORS}
    for back in range(LATEST.days + 1):
        for collector, event in _happened(shop, day - back * _DAY):
            arrived = str(event["ingested_at"])
            if arrived[:10] == str(day):
                text = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
                lines[collector].append((arrived, text))
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for collector, arrivals in lines.items():
        path = folder / f"events-{collector}.jsonl"
        path.write_bytes("".join(f"{text}\n" for _, text in sorted(arrivals)).encode())
        paths.append(path)
    return paths


def write_customers(shop: Shop, day: date, folder: Path) -> Path:
    """Write the changes of a day as customers.csv and return its path; on the day on which the
    shop opens these are most of its customers.

    Makes the folder where it is missing. Raises ShopClosed.
    """
    _check_open(shop, day)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "customers.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(Customer.__dataclass_fields__)
        for number in range(shop.customers):
            for change in _changes_to(shop, number, day):
                if change.changed_at.date() == day:
                    out.writerow([*_cells(change)])
    return path


def _cells(change: Customer) -> Iterator[str]:
    for value in vars(change).values():
        yield _text(value) if isinstance(value, datetime) else value


def _check_open(shop: Shop, day: date) -> None:
    if day < shop.opens:
        raise ShopClosed(f"nothing happens on {day}: the shop opens on {shop.opens}")


def _seeded(seed: str) -> Random:
    return Random(seed)  # noqa: S311 – made-up data, and no secrets


def _text(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# ── events ──────────────────────────────────────────────────────────────────────────────────────


def _happened(shop: Shop, day: date) -> Iterator[tuple[str, Event]]:
    """Every copy of what happened on a day, whenever it arrives, with the collector it comes by."""
    if day < shop.opens:
        return
    rng = _seeded(f"{shop.seed} events {day}")
    midnight = datetime.combine(day, time(), tzinfo=UTC)
    for _ in range(shop.events):
        # Few at night, most in the evening; to the millisecond, as it is written.
        at = midnight + timedelta(milliseconds=int(rng.triangular(0, 86_399_999, 72_000_000)))
        event = _event(shop, rng, at)
        arrived = at + _delay(rng)
        yield rng.choice(_COLLECTORS), {**event, "ingested_at": _text(arrived)}
        if rng.random() < _TWICE:
            again = min(arrived + timedelta(seconds=rng.randrange(1, 100_000)), at + LATEST)
            yield rng.choice(_COLLECTORS), {**event, "ingested_at": _text(again)}


def _delay(rng: Random) -> timedelta:
    if rng.random() < _LATE:
        return timedelta(seconds=rng.randrange(3600, int(LATEST.total_seconds())))
    return timedelta(milliseconds=rng.randrange(50, 90_000))


def _event(shop: Shop, rng: Random, at: datetime) -> dict[str, object]:
    kind = rng.choices([*_TYPES], [*_TYPES.values()])[0]
    guest = rng.random() < _GUESTS
    # Some customers do much more than others.
    number = int(shop.customers * rng.random() ** 2)
    user = f"g{rng.randrange(10**6):06d}" if guest else _customer_id(number)
    return {
        "event_id": str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        "event_type": kind,
        "event_timestamp": _text(at),
        "user_id": user,
        "session_id": f"{user}-{at:%Y%m%d%H}",
        # Addresses that are kept for documentation (RFC 5737, RFC 3849).
        "ip_address": rng.choice(("192.0.2.{}", "203.0.113.{}", "2001:db8::{}")).format(
            rng.randrange(1, 255)
        ),
        "user_agent": rng.choice(_AGENTS) if rng.random() < 0.98 else None,
        "payload": _payload(kind, rng),
    }


def _payload(kind: str, rng: Random) -> Mapping[str, object]:
    item = rng.randrange(1, _ITEMS)
    match kind:
        case "page_view":
            return {"path": f"/items/{item}"}
        case "search":
            return {"query": rng.choice(_WORDS), "hits": rng.randrange(_ITEMS)}
        case "add_to_cart":
            return {"item": item, "quantity": rng.randrange(1, 5)}
        case "purchase":
            return {"item": item, "cents": rng.randrange(99, 50_000), "currency": "EUR"}
        case _:
            return {}


# ── customers ───────────────────────────────────────────────────────────────────────────────────


def _customer_id(number: int) -> str:
    return f"c{number:06d}"


def _changes_to(shop: Shop, number: int, day: date) -> Iterator[Customer]:
    """What became of one customer from the beginning to the end of a day, in order."""
    rng = _seeded(f"{shop.seed} customer {number}")
    begins = datetime.combine(shop.opens, time(), tzinfo=UTC)
    end = datetime.combine(day + _DAY, time(), tzinfo=UTC)
    return takewhile(lambda change: change.changed_at < end, _changes(rng, number, begins))


def _changes(rng: Random, number: int, begins: datetime) -> Iterator[Customer]:
    """Without end."""
    # Seven in ten are there when the shop opens, the others come in its first month.
    later = rng.randrange(30 * 86_400) if rng.random() < 0.3 else rng.randrange(3600)
    at = begins + timedelta(seconds=later)
    now = _new_customer(rng, number, at)
    yield now
    while True:
        at += timedelta(seconds=rng.randrange(1, 15 * 86_400))
        if rng.random() < 0.05:
            yield replace(now, operation="delete", changed_at=at)
            at += timedelta(days=rng.randrange(1, 60))
            now = replace(now, changed_at=at, status="active")
        else:
            now = _changed(rng, now, at)
        yield now
        if rng.random() < 0.15:  # and again, soon after
            at += timedelta(seconds=rng.randrange(1, 3600))
            now = _changed(rng, now, at)
            yield now


def _new_customer(rng: Random, number: int, at: datetime) -> Customer:
    name = f"{rng.choice(_NAMES)} {rng.choice(_FAMILIES)}"
    email = f"c{number}@example.com" if rng.random() < 0.9 else ""
    return Customer(
        _customer_id(number), "put", at, name, email, "bronze", "active", rng.choice(_SYSTEMS)
    )


def _changed(rng: Random, now: Customer, at: datetime) -> Customer:
    """The customer with one thing changed, or none: a row that only repeats what is known."""
    values = {**vars(now), "changed_at": at, "source_system": rng.choice(_SYSTEMS)}
    match rng.choice(("category", "category", "status", "email", "nothing")):
        case "category":
            values["category"] = rng.choice(_CATEGORIES)
        case "status":
            values["status"] = rng.choice(_STATUSES)
        case "email":
            values["email"] = f"{now.customer_id}.{rng.randrange(100)}@example.org"
    return Customer(**values)


# ── as a command ────────────────────────────────────────────────────────────────────────────────


def main(arguments: Sequence[str] | None = None) -> int:
    """Write some days of both datasets."""
    shop = Shop()
    parser = argparse.ArgumentParser(description="Made-up deliveries for the example events.")
    parser.add_argument("folder", type=Path, help="where events/ and customers/ are written")
    parser.add_argument("--days", type=int, default=4, help="how many (4)")
    parser.add_argument(
        "--opens",
        type=date.fromisoformat,
        default=shop.opens,
        metavar="DAY",
        help=f"the first day there is ({shop.opens})",
    )
    parser.add_argument(
        "--first", type=date.fromisoformat, metavar="DAY", help="the first to write (the first)"
    )
    parser.add_argument("--seed", type=int, default=shop.seed, help=f"({shop.seed})")
    parser.add_argument("--events", type=int, default=shop.events, help=f"a day ({shop.events})")
    parser.add_argument("--customers", type=int, default=shop.customers, help=f"({shop.customers})")
    given = parser.parse_args(arguments)
    shop = Shop(given.seed, given.opens, given.events, given.customers)
    for n in range(given.days):
        day = (given.first or given.opens) + n * _DAY
        write_events(shop, day, given.folder / "events" / str(day))
        write_customers(shop, day, given.folder / "customers" / str(day))
    return 0


if __name__ == "__main__":
    sys.exit(main())
