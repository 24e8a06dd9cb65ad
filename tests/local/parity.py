"""The same deliveries, good and bad, told as a story that any front end can be made to live
through, and what has to come out equal of it."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Protocol

from pydantic import JsonValue

import lakewarden
from lakewarden.cli import flights_damage as damage
from lakewarden.cli.flights_data import write_delivery, write_reference
from lakewarden.wiring import Project
from tests.local.hospitals import load_generator

EXAMPLES = ("flights", "dpc")


@dataclass(frozen=True)
class Told:
    """What became of a batch: published, unchanged, refused, failed or waiting; and why."""

    status: str
    code: str | None = None
    message: str | None = None


class FrontEnd(Protocol):
    """A way to have a batch run that was delivered."""

    def run(self, dataset: str, batch: str) -> Told: ...


@dataclass(frozen=True)
class Delivery:
    """`write` puts it into an empty folder; `spoil` then damages it, beside a manifest of what it
    was."""

    title: str
    dataset: str
    batch: str
    write: Callable[[Path], object]
    spoil: Callable[[Path], None] | None = None


def story_of(example: str) -> Sequence[Delivery]:
    return {"flights": _flights, "dpc": _hospitals}[example]()


def _flights() -> Sequence[Delivery]:
    first, second = date(2013, 1, 1), date(2013, 1, 2)

    def day(title: str, which: date, spoil: Callable[[Path], None] | None = None) -> Delivery:
        return Delivery(
            title, "flights", str(which), lambda folder: write_delivery(which, folder), spoil
        )

    return [
        Delivery("lists", "reference", "2013-01", lambda at: write_reference("2013-01", at)),
        day("a day", first),
        day("the same day again", first),
        day("cut off on its way", second, damage.cut_off),
        day("a record less than promised", second, damage.lose_a_record),
        day("values that do not fit", second, damage.misspell),
        day("breaks a test", second, damage.mix_days),
        day("corrected", second),
    ]


def _hospitals() -> Sequence[Delivery]:
    generator = load_generator()
    month = "2024-04"
    plan = generator.Plan(2, (month,), 6, seed=4)

    def made(*plants: object) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            made = folder.with_name(f"{folder.name}.made")
            shutil.rmtree(made, ignore_errors=True)
            list(generator.generate(made, plan, plants))
            shutil.copytree(made / month, folder, dirs_exist_ok=True)

        return write

    discharged_early = generator.Plant("DATE_INCONSISTENCY", 1, month)
    return [
        Delivery("breaks a rule", "dpc", month, made(discharged_early)),
        Delivery("a month", "dpc", month, made()),
        Delivery("the same month again", "dpc", month, made()),
    ]


@dataclass(frozen=True)
class Record:
    """What came of a story: what was told of each delivery, each run's receipts, and the rows of
    each published table by hash."""

    told: Mapping[str, Told]
    receipts: Mapping[str, Sequence[JsonValue]]
    tables: Mapping[str, str]


def live(root: Path, example: str, front_end: Callable[[Project], FrontEnd]) -> Record:
    """Deliver and run the whole story in a project that is set up."""
    project = lakewarden.open(root)
    way = front_end(project)
    told: dict[str, Told] = {}
    receipts: dict[str, Sequence[JsonValue]] = {}
    seen: set[str] = set()
    for one in story_of(example):
        folder = root / "deliveries" / one.title.replace(" ", "-")
        folder.mkdir(parents=True)
        one.write(folder)
        if one.spoil is not None:
            project.write_manifest_of_folder(folder, one.dataset, one.batch)
            one.spoil(folder)
        project.deliver(one.dataset, one.batch, folder)
        told[one.title] = _without_places(way.run(one.dataset, one.batch), project)
        runs = {run.run for run in project.runs(one.dataset)} - seen
        seen |= runs
        receipts[one.title] = [
            receipt for run in sorted(runs) for receipt in _receipts(project, one.dataset, run)
        ]
    return Record(told, receipts, _tables(project))


def _without_places(told: Told, project: Project) -> Told:
    message = told.message and told.message.replace(project.env.bucket, "BUCKET")
    return Told(told.status, told.code, message)


def _receipts(project: Project, dataset: str, run: str) -> Sequence[JsonValue]:
    """A run's receipts, in order, without ids, times and places."""
    keys = sorted(
        one.key
        for one in project.objects.list(f"ops/batches/{dataset}/{run}/")
        if re.search(r"/\d{4}-[a-z]+\.json$", one.key)
    )
    return [
        _settled(json.loads(project.objects.get(key).body), project.env.bucket, run) for key in keys
    ]


_DIFFERENT = {"run", "at", "seconds", "version_id", "version", "branch", "previous"}


def _settled(told: JsonValue, bucket: str, run: str) -> JsonValue:
    match told:
        case dict():
            return {
                name: bool(value) if name in ("before", "after") else _settled(value, bucket, run)
                for name, value in told.items()
                if name not in _DIFFERENT
            }
        case list():
            return [_settled(one, bucket, run) for one in told]
        case str():
            return told.replace(run, "RUN").replace(bucket, "BUCKET")
    return told


def _tables(project: Project) -> Mapping[str, str]:
    """A hash of all rows of each table, in an order of their own."""
    pin = project.pin()
    with project.session(pin) as session:
        return {
            name: hashlib.sha256(
                repr(session.execute(f"SELECT * FROM {name} ORDER BY ALL").fetchall()).encode()
            ).hexdigest()
            for name in sorted(pin.tables)
        }
