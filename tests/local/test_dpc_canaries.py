"""No key of a patient leaves the places that rows may be in: whatever goes well or wrong, none is
printed, logged or kept in a receipt."""

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import pytest
import structlog

from lakewarden.cli import main
from lakewarden.errors import LakewardenError
from lakewarden.stepfunctions.notices import Event, failure
from lakewarden.stepfunctions.task import run as run_task
from lakewarden.stepfunctions.words import told
from tests.local.hospitals import (
    CRITICAL,
    DATASET,
    WARNINGS,
    Hospitals,
    load_generator,
    new_hospitals,
)
from tests.stack import LocalStack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

generator = load_generator()
MONTH = "2024-05"
# Patients' numbers and common ids get these at their front.
CANARY = re.compile(rb"ZQ\d{8}|QZQZ")
ROWS_MAY_LIE_IN = ("raw/", "warehouse/", "ops/quarantine/", "ops/mends/")
ON_THIS_MACHINE = ("deliveries",)


@dataclass
class Listener:
    """Gives commands and keeps every byte that comes out of them."""

    hospitals: Hospitals
    capture: pytest.CaptureFixture[bytes]
    heard: dict[str, bytes] = field(default_factory=dict)

    def command(self, *args: str) -> int:
        """The exit code; what was printed is kept, under the command."""
        before, handler = Path.cwd(), signal.getsignal(signal.SIGTERM)
        os.chdir(self.hospitals.root)
        try:
            with (
                patch.object(sys, "argv", ["lakewarden", *args]),
                pytest.raises(SystemExit) as ended,
            ):
                main()
        finally:
            os.chdir(before)
            signal.signal(signal.SIGTERM, handler)
            printed = self.capture.readouterr()
        self.heard[f"{len(self.heard)} {' '.join(args)}"] = printed.out + printed.err
        return int(ended.value.code or 0)

    def month(self, folder: Path, *options: str) -> int:
        """Deliver a folder and run it."""
        if code := self.command("batch", "deliver", DATASET, MONTH, str(folder), *options):
            return code
        return self.command("batch", "run", DATASET, MONTH, *options)


@pytest.fixture
def listener(
    local_stack: LocalStack, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> Iterator[Listener]:
    yield Listener(new_hospitals(local_stack, tmp_path / "dpc"), capfdbinary)
    structlog.reset_defaults()  # the command logs to what pytest closes now


def delivery(listener: Listener, name: str, *defects: str) -> Path:
    """A month whose patients can be recognised anywhere; without manifests, which would be of
    other bytes."""
    plants = [generator.Plant(defect, 1 + n % 3, MONTH) for n, defect in enumerate(defects)]
    folder: Path = listener.hospitals.root / "deliveries" / name
    list(generator.generate(folder, generator.Plan(3, (MONTH,), 4), plants))
    for path in sorted(folder.rglob("*")):
        if path.name.endswith("_manifest.json"):
            path.unlink()
        elif path.is_file() and path.parent.name != "y3":
            delimiter = b"," if path.parent.name == "k" else b"\t"
            body = path.read_bytes()
            body = re.sub(
                delimiter + rb"00(\d{8})" + delimiter + rb"(?=\d{8})",
                delimiter + rb"ZQ\1" + delimiter,
                body,
            )
            path.write_bytes(re.sub(rb",\w{4}(\w{60}),", rb",QZQZ\1,", body))
    return folder / MONTH


def _first(folder: Path, part: str) -> Path:
    return sorted((folder / part).iterdir())[0]


def _edit(part: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Changes the first record of a part's first file."""

    def damage(folder: Path) -> None:
        path = _first(folder, part)
        record, end, others = path.read_bytes().partition(b"\r\n")
        path.write_bytes(change(record) + end + others)

    return damage


def _wrong_manifest(folder: Path) -> None:
    path = _first(folder, "k")
    path.with_name(f"{path.stem}_manifest.json").write_text(
        '{"yyyymm": "2024-05", "file_type": "k", "facility_cd": "0", "records": 1,'
        f' "hash": {{"algorithm": "MD5", "value": "{"0" * 32}"}}}}'
    )
    for other in sorted((folder / "k").glob("*_k_001.csv"))[1:]:
        other.unlink()


DAMAGE: Mapping[str, Callable[[Path], None]] = {
    "a field less": _edit("y1", lambda record: record.rpartition(b"\t")[0]),
    "a field more": _edit("ef_in", lambda record: record + b"\tmore"),
    "a key that is empty": _edit("d", lambda record: re.sub(rb"^\d{9}", b"", record)),
    "a byte that is no character": _edit("h", lambda record: record[:-1] + b"\xff"),
    "a NUL": _edit("y1", lambda record: record[:-1] + b"\0"),
    "an open quote": _edit("k", lambda record: b'"' + record),
    "text after a quote": _edit("k", lambda record: b'"0"' + record),
    "a line end of another kind": _edit("k", lambda record: record + b"\n" + record),
    "a manifest of other bytes": _wrong_manifest,
    "no such day": _edit("k", lambda record: re.sub(rb"2024\d{4}", b"20249999", record)),
}
LISTINGS = (
    "status",
    "batch list",
    "batch list --expected",
    f"batch diff {DATASET} {MONTH}",
    "lake log",
    "lake branches",
    "lake show 1",
    "quarantine list",
    f"quarantine list {DATASET}",
    f"quarantine show {DATASET} {MONTH}",
    f"batch show {DATASET} {MONTH}",
    "table list",
    "table drift",
)


def kept(hospitals: Hospitals) -> Iterator[tuple[str, bytes]]:
    """Everything in the bucket and on this machine that is not made to hold rows."""
    objects = hospitals.project.objects
    for one in objects.list(""):
        if not one.key.startswith(ROWS_MAY_LIE_IN):
            yield one.key, objects.get(one.key).body
    for path in hospitals.root.rglob("*"):
        name = path.relative_to(hospitals.root).as_posix()
        if path.is_file() and not name.startswith(ON_THIS_MACHINE):
            yield name, path.read_bytes()


def task(listener: Listener, execution: str, **order: str) -> int:
    """What ECS runs of the month, in this process; nobody waits for its answer."""
    orders = {"dataset": DATASET, "batch": MONTH, "execution": execution, **order}
    variables = {
        "LAKEWARDEN_PROJECT": str(listener.hospitals.root),
        "LAKEWARDEN_TASK": json.dumps(orders),
    }
    with patch.dict(os.environ, variables):
        code = run_task()
    printed = listener.capture.readouterr()
    listener.heard[f"{len(listener.heard)} task {order}"] = printed.out + printed.err
    return code


def exported_bytes(hospitals: Hospitals) -> bytes:
    """Columns that are pii or restricted stay at home by default."""
    objects = hospitals.project.objects
    files = [one.key for one in objects.list("processed/") if one.key.endswith(".parquet")]
    assert files
    with hospitals.project.session(hospitals.project.pin()) as connection:
        return b"".join(
            repr(
                connection.execute("FROM read_parquet(?)", [_url(hospitals, key)]).fetchall()
            ).encode()
            for key in files
        )


def _url(hospitals: Hospitals, key: str) -> str:
    return f"s3://{hospitals.project.env.bucket}/{key}"


def mended(listener: Listener) -> None:
    """A record that does not fit is mended, and the month run again with it."""
    folder = delivery(listener, "to mend")
    DAMAGE["a key that is empty"](folder)
    assert listener.month(folder) == 3
    hospital = f"facility_cd={generator.facility_code(1)}"
    record = ("--file", f"d/{_first(folder, 'd').name}", "--record", "1")
    mend = ("quarantine", "mend", DATASET, MONTH, *record, "--set", hospital)
    assert listener.command(*mend) == 0
    assert listener.command("quarantine", "replay", DATASET, MONTH) == 0


def test_no_patient_is_named_outside_of_tables_and_quarantine(listener: Listener) -> None:
    assert CANARY.search(_first(delivery(listener, "good"), "k").read_bytes())
    assert listener.month(delivery(listener, "good")) == 0
    assert listener.month(delivery(listener, "warned", *WARNINGS), "--json") == 0
    assert listener.month(delivery(listener, "refused", *CRITICAL), "--json") == 3
    for number, (name, damage) in enumerate(DAMAGE.items()):
        folder = delivery(listener, name)
        damage(folder)
        assert listener.month(folder, *["--json"] * (number % 2)) == 3, name
        if number < 3:
            for options in ((), ("--json",)):
                listener.command("quarantine", "show", DATASET, MONTH, *options)
    last = CRITICAL[-1].lower()
    assert listener.month(delivery(listener, "alone", CRITICAL[-1])) == 3
    taken = ("--accept", last, "--reason", "known")
    assert listener.command("batch", "run", DATASET, MONTH, *taken) == 0
    mended(listener)
    for listing in LISTINGS:
        for options in ((), ("--json",)):
            listener.command(*listing.split(), *options)
    assert listener.command("batch", "run", DATASET, MONTH, "--select", "readmissions") == 0
    assert listener.command("batch", "unpublish", DATASET, MONTH, "--no-publish") == 0
    # The patients are in the tables, and it was listened to where they could have been heard.
    there = listener.hospitals.rows("SELECT min(data_id), max(common_id) FROM raw.k")
    assert CANARY.search(repr(there).encode())
    found = {**listener.heard, **dict(kept(listener.hospitals))}
    assert sum(text.count(b"refused") for text in listener.heard.values()) > len(DAMAGE)
    assert any(name.endswith("dbt.log") and b"select" in body for name, body in found.items())
    assert [name for name, text in found.items() if CANARY.search(text)] == []


def test_no_patient_is_named_by_the_pipeline(listener: Listener) -> None:
    """Damaged, critical and good months by the task, what it exports, and what people are told."""
    folder = delivery(listener, "task damaged")
    DAMAGE["no such day"](folder)
    assert listener.command("batch", "deliver", DATASET, MONTH, str(folder)) == 0
    assert task(listener, "damaged", action="run") == 3
    folder = delivery(listener, "task critical", *CRITICAL)
    assert listener.command("batch", "deliver", DATASET, MONTH, str(folder)) == 0
    try:
        listener.hospitals.project.run(DATASET, MONTH)
    except LakewardenError as error:
        step = {"step": "RunDbtTransformations", "told": told(error)}
        event = {"kind": "failure", "execution": "x", "payload": {"dataset": DATASET}}
        notice = failure(Event.model_validate({**event, "failed": step}), "dpc-pipeline", "dev")
        assert "TestsFailed" in notice.message
        listener.heard["notice"] = repr(notice).encode()
    assert "notice" in listener.heard
    folder = delivery(listener, "task good")
    assert listener.command("batch", "deliver", DATASET, MONTH, str(folder)) == 0
    assert task(listener, "good", action="run") == 0
    assert task(listener, "good", action="export") == 0
    found = {**listener.heard, **dict(kept(listener.hospitals))}
    found["exported"] = exported_bytes(listener.hospitals)
    there = listener.hospitals.rows("SELECT min(data_id), max(common_id) FROM raw.k")
    assert CANARY.search(repr(there).encode())
    assert [name for name, text in found.items() if CANARY.search(text)] == []
