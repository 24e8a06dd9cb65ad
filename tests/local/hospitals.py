"""The example of hospitals as tests see it: a project on a stack, its generator, and a reader of
the files that knows nothing of DuckDB or dbt."""

import importlib.util
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import lakewarden
from lakewarden.cli.init import write_example
from lakewarden.wiring import Project
from tests.local.shop import connect_project
from tests.stack import LocalStack

EXAMPLE = Path(lakewarden.__file__).parent / "examples" / "dpc"
DATASET = "dpc"
PARTS = ("y1", "y3", "ef_in", "d", "h", "k")
CRITICAL = (
    "PK_DUPLICATE_Y1",
    "PK_DUPLICATE_EF",
    "PK_DUPLICATE_D",
    "DATE_INCONSISTENCY",
    "CASE_K_COUNT_MISMATCH",
    "VALUE_UNREADABLE",
)
WARNINGS = ("YEN_POINT_FLAG_MISMATCH", "SERVICE_CODE_NOT_FOUND", "ZERO_COST_CASE")


def load_generator() -> ModuleType:
    """generate.py of the example, which is a script and no part of the package."""
    name = "dpc_generate"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, EXAMPLE / "generate.py")
        assert spec and spec.loader
        sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look there
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@dataclass(frozen=True)
class Hospitals:
    root: Path

    @cached_property
    def project(self) -> Project:
        return lakewarden.open(self.root)

    def deliver(self, month: str, folder: Path) -> None:
        self.project.deliver(DATASET, month, folder)

    def run(self, month: str) -> str:
        """Its status; raises what refuses it."""
        return str(self.project.run(DATASET, month).status)

    def rows(self, select: str) -> list[tuple[Any, ...]]:
        with self.project.session(self.project.pin()) as connection:
            return connection.execute(select).fetchall()

    def judged(self) -> Mapping[str, int]:
        """Tests that the newest run broke or warned of, and how often."""
        run = self.project.runs(DATASET, most=1)[0].run
        keys = [one.key for one in self.project.objects.list(f"ops/batches/{DATASET}/{run}/")]
        key = next(key for key in keys if key.endswith("-transform.json"))
        tests = json.loads(self.project.objects.get(key).body)["tests"]
        return {test["name"]: test["failures"] for test in tests if test["status"] != "pass"}


def new_hospitals(stack: LocalStack, root: Path) -> Hospitals:
    """The example in a new folder, with a bucket and a catalog of its own."""
    write_example("dpc", root)
    connect_project(root, stack.connection, stack.bucket())
    return Hospitals(root)


@dataclass(frozen=True)
class Record:
    """One record of a delivered file; an empty field is None."""

    month: str
    file: str  # within the month
    number: int
    fields: tuple[str | None, ...]


def records(deliveries: Path, part: str) -> Iterator[Record]:
    """Every record of one part in the folders of all months, without headers."""
    encoding, delimiter = ("utf-8", ",") if part == "y3" else ("cp932", "\t")
    for path in sorted(deliveries.glob(f"*/{part}/*_{part}_001.*")):
        lines = path.read_bytes().decode(encoding).removesuffix("\r\n").split("\r\n")
        for number, line in enumerate(lines, start=1):
            if part == "y3" and number == 1:
                continue
            fields = line.split("," if part == "k" else delimiter)
            month = path.parents[1].name
            name = f"{part}/{path.name}"
            yield Record(month, name, number, tuple(field or None for field in fields))


@dataclass(frozen=True, order=True)
class KnownStay:
    """What the files know of a stay in the end; ordered as one patient's stays follow."""

    admitted: date
    discharged: date  # date.max: not yet
    facility: str
    data_id: str
    common_id: str


def readmissions(deliveries: Path) -> set[tuple[KnownStay, KnownStay]]:
    """Each readmission and the stay that it follows, out of the files. Dates are Form 1's; who the
    patient is, is K's."""
    ends: dict[tuple[str, str, str], str] = {}
    for record in records(deliveries, "y1"):  # months in order: the newest word stays
        facility, data_id, admitted, _, summary, code, *rest = map(str, record.fields)
        if summary == "0" and code == "A000030":
            ends[facility, data_id, admitted] = rest[2]
    stays: dict[tuple[str, str, str], KnownStay] = {}
    for record in records(deliveries, "k"):
        facility, data_id, admitted = map(str, record.fields[:3])
        key = facility, data_id, admitted
        if common_id := record.fields[6]:
            stays[key] = KnownStay(_day(admitted), _day(ends[key]), facility, data_id, common_id)
        else:
            stays.pop(key, None)
    return set(following(stays.values()))


def following(stays: Iterable[KnownStay]) -> Iterator[tuple[KnownStay, KnownStay]]:
    """Each readmission and the stay that it follows, by looking at a patient's stays in turn."""
    patients: dict[str, list[KnownStay]] = {}
    for stay in sorted(stays):
        patients.setdefault(stay.common_id, []).append(stay)
    for known in patients.values():
        for number, stay in enumerate(known):
            before = [
                one for one in known[:number] if 0 <= (stay.admitted - one.discharged).days <= 30
            ]
            if before:
                latest = max(one.discharged for one in before)
                last = [one for one in before if one.discharged == latest]
                newest = max(one.admitted for one in last)
                yield stay, min(one for one in last if one.admitted == newest)


def _day(text: str) -> date:
    return date.max if text == "00000000" else date.fromisoformat(text)
