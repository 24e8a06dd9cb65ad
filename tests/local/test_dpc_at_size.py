"""Fifty hospitals and twelve months: millions of services. Asked for by its mark:

make test ARGS="-m at_size -n 0 -s"

`DPC_AT_SIZE=10x3` makes it smaller.
"""

import os
import re
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lakewarden.batch.audit import TestsFailed
from tests.local.hospitals import (
    CRITICAL,
    PARTS,
    WARNINGS,
    Hospitals,
    load_generator,
    new_hospitals,
    readmissions,
    records,
)
from tests.stack import LocalStack

SIZE = os.environ.get("DPC_AT_SIZE", "50x12")

pytestmark = [pytest.mark.at_size, pytest.mark.timeout(3600)]

generator = load_generator()


def test_hospitals_at_size(local_stack: LocalStack, tmp_path: Path) -> None:
    facilities, count = map(int, SIZE.split("x"))
    months = generator.months_between("2023-04", "2026-03")[:count]
    plan = generator.Plan(facilities, months, 40)
    # Each warning in three months, in another hospital each time.
    plants = [
        generator.Plant(rule, 1 + (7 * n + 11 * m) % facilities, month)
        for n, rule in enumerate(WARNINGS)
        for m, month in enumerate(months[:3])
    ]
    hospitals = new_hospitals(local_stack, tmp_path / "dpc")
    deliveries = hospitals.root / "deliveries"
    with told("generated"):
        made = list(generator.generate(deliveries, plan, plants))
    size, services = sum(m.bytes for m in made), sum(m.records["ef_in"] for m in made)
    say(f"{size / 1e6:,.0f} MB, {services:,} services")
    for month in months:
        with told(f"{month} delivered"):
            hospitals.deliver(month, deliveries / month)
        with told(f"{month} run"):
            assert hospitals.run(month) == "published"
        here = {plant.defect.lower() for plant in plants if plant.month == month}
        assert hospitals.judged().keys() == here
    counted = hospitals.rows("SELECT rule, facility_cd, _batch, findings FROM marts.dq_findings")
    assert sorted(counted) == sorted(
        (p.defect, generator.facility_code(p.facility), p.month, 1) for p in plants
    )
    with told("compared"):
        check_rows(hospitals, deliveries, months)
        check_readmissions(hospitals, deliveries)
    for number, defect in enumerate(CRITICAL):
        with told(f"{defect} refused"):
            folder = hospitals.root / "damaged" / defect
            refuse(
                hospitals,
                folder,
                plan,
                generator.Plant(defect, 1 + number % facilities, months[-1]),
            )
            assert hospitals.judged() == {defect.lower(): 1}


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


class told:  # noqa: N801 # read as a verb
    """Prints how long its block took, and the most memory that this process ever had."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        self.since = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        say(f"{self.what}: {time.perf_counter() - self.since:.1f} s, peak {peak:,.0f} MiB")


def refuse(hospitals: Hospitals, folder: Path, plan: Any, plant: Any) -> None:
    """The last month with one defect, of all hospitals."""
    stays = generator.all_stays(plan)
    for facility in range(1, plan.facilities + 1):
        found = generator.records_of(stays, facility, plant.month)
        if facility == plant.facility:
            generator.DEFECTS[plant.defect](found)
        for part in PARTS:
            generator.write_file(folder / part, facility, plant.month, part, found[part])
    hospitals.deliver(plant.month, folder)
    with pytest.raises(TestsFailed, match=re.escape(f" {plant.defect.lower()} (1 row)")):
        hospitals.run(plant.month)


def check_rows(hospitals: Hospitals, deliveries: Path, months: list[str]) -> None:
    """Every field of every record is in its table as it was delivered."""
    for part in PARTS:
        expected = records(deliveries, part)
        found = stream(hospitals, f"SELECT * FROM raw.{part} ORDER BY _batch, _file, _line")
        for record, row in zip(expected, found, strict=True):
            assert row == (*record.fields, record.month, record.file, record.number)


def stream(hospitals: Hospitals, select: str) -> Iterator[tuple[Any, ...]]:
    with hospitals.project.session(hospitals.project.pin()) as connection:
        connection.execute(select)
        while rows := connection.fetchmany(20_000):
            yield from rows


def check_readmissions(hospitals: Hospitals, deliveries: Path) -> None:
    found = hospitals.rows(
        "SELECT facility_cd, data_id, admission_date, from_facility_cd, from_data_id,"
        " from_admission_date, discharge_date, days FROM marts.readmissions ORDER BY ALL"
    )
    say(f"{len(found):,} readmissions")
    assert found == sorted(
        (
            *(stay.facility, stay.data_id, stay.admitted),
            *(before.facility, before.data_id, before.admitted, before.discharged),
            (stay.admitted - before.discharged).days,
        )
        for stay, before in readmissions(deliveries)
    )
