"""The example project on a Nessie, by the ordinary command line: the same as on SQLite."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import lakewarden
from lakewarden.batch.conductor import StageDone
from lakewarden.batch.model import Transformed
from lakewarden.cli.flights_data import write_delivery, write_reference
from lakewarden.lake.nessie import NessieLake
from tests.local.shop import connect_project
from tests.local.test_cli import lakewarden as command
from tests.local.test_turns import make_shops
from tests.nessie import Nessie, nessie
from tests.stack import LocalStack

__all__ = ["nessie"]  # pytest finds the fixture here

FIRST = ("receive", "load", "transform", "audit")
AGAIN = ("transform", "audit")
DAYS = ("2013-01-01", "2013-01-02")


@dataclass(frozen=True)
class Lakehouse:
    """One project, and what people would type in it."""

    root: Path

    def run(self, *args: object, code: int = 0) -> Any:
        """The command's answer as JSON."""
        answer = command(*args, "--json", at=self.root)
        assert answer.code == code, answer.err or answer.out
        return json.loads(answer.out)

    def rows(self, *, at: int) -> Mapping[str, object]:
        """A hash of every table's rows, of one version, and how many there are."""
        project = lakewarden.open(self.root)
        pin = project.pin(at=at)
        with project.session(pin) as duckdb:
            return {
                table: duckdb.sql(f"SELECT count(*), bit_xor(hash(t)) FROM {table} AS t").fetchone()
                for table in sorted(pin.tables)
            }

    @property
    def version(self) -> int:
        found: int = self.run("status")["version"]
        return found

    def story(self, deliveries: Path) -> list[object]:
        """What there is to do with a lakehouse, and what was said to it."""
        told: list[object] = [self.run("table", "plan")]
        self.run("batch", "deliver", "reference", "2013-01", deliveries / "reference")
        told.append(self.run("batch", "run", "reference", "2013-01"))
        for day in DAYS:
            self.run("batch", "deliver", "flights", day, deliveries / day)
        told.append(self.run("batch", "run", "flights", f"{DAYS[0]}..{DAYS[1]}"))
        told.append(self.run("batch", "run", "flights", DAYS[1]))  # again: nothing to do
        self.run("batch", "deliver", "flights", DAYS[0], deliveries / "corrected")
        told.append(self.run("batch", "run", "flights", DAYS[0]))  # its rows are replaced
        told.append(self.run("batch", "unpublish", "flights", DAYS[1], "--reason", "wrong day"))
        told.append(self.run("table", "plan"))
        told.append(self.run("table", "drift"))
        told.append(self.run("lake", "log"))
        told.append(self.run("lake", "branches"))
        told.append(self.run("status"))
        return told


@pytest.fixture(scope="module")
def deliveries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deliveries")
    for day in DAYS:
        write_delivery(date.fromisoformat(day), folder / day)
    write_reference("2013-01", folder / "reference")
    (corrected,) = write_delivery(
        date.fromisoformat(DAYS[0]), folder / "corrected"
    ).parent.iterdir()
    corrected.write_text("".join(corrected.read_text().splitlines(keepends=True)[:-1]))
    return folder


def lakehouse(root: Path, stack: LocalStack, nessie: Nessie | None) -> Lakehouse:
    assert command("init", root, "--example", "flights").code == 0
    connect_project(root, stack.connection, nessie.bucket if nessie else stack.bucket())
    if nessie:
        use_nessie(root, nessie)
    return Lakehouse(root)


def use_nessie(root: Path, nessie: Nessie) -> None:
    nessie.empty()
    on_local_nessie(root)
    endpoint = root / ".lakewarden/local/endpoint.json"
    told = json.loads(endpoint.read_text())
    endpoint.write_text(json.dumps({**told, "nessie": nessie.uri}))


def on_local_nessie(root: Path) -> None:
    """The project's catalog is the local stack's Nessie."""
    settings = root / "lakewarden.toml"
    text = re.sub(r"(?m)^catalog = .*", 'catalog = { type = "nessie" }', settings.read_text())
    settings.write_text(text)


def comparable(told: object) -> object:
    """Without ids, times, lengths of time, and where the metadata lie."""
    text = json.dumps(told, sort_keys=True)
    for wrong, right in (
        (r'"seconds": [0-9.e-]+', '"seconds": 0'),
        (r"\d{8}T\d{9}-[0-9a-f]{6}", "RUN"),
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)?", "TIME"),
        (r"s3://[^\"]+metadata\.json", "METADATA"),
    ):
        text = re.sub(wrong, right, text)
    return json.loads(text)


@pytest.mark.slow
@pytest.mark.timeout(400)  # eight runs with their models, and a server to start
def test_the_example_is_the_same_on_nessie_as_on_sqlite(
    tmp_path: Path, local_stack: LocalStack, nessie: Nessie, deliveries: Path
) -> None:
    on_sql = lakehouse(tmp_path / "sql", local_stack, None)
    on_nessie = lakehouse(tmp_path / "nessie", local_stack, nessie)
    assert isinstance(lakewarden.open(on_nessie.root).lake, NessieLake)
    sql, there = (one.story(deliveries) for one in (on_sql, on_nessie))
    for here, other in zip(sql, there, strict=True):
        assert comparable(other) == comparable(here)
    assert on_sql.version == 4
    for version in range(1, 5):
        assert on_nessie.rows(at=version) == on_sql.rows(at=version)


@pytest.mark.slow
def test_datasets_that_share_a_mart_are_both_published(
    tmp_path: Path, local_stack: LocalStack, nessie: Nessie
) -> None:
    """One publishes while the other is about to: of that only what conflicted is done again."""
    shop = make_shops(tmp_path, local_stack)
    connect_project(tmp_path, local_stack.connection, nessie.bucket)
    use_nessie(tmp_path, nessie)
    shop.project.apply_tables()
    folder = tmp_path / "delivery"
    folder.mkdir()
    (folder / "sales.csv").write_text("id,amount\n1,1\n")
    shop.project.deliver("east", "2024-02-01", folder)
    told: list[StageDone] = []

    def meanwhile(done: StageDone) -> None:
        told.append(done)
        if [one.stage for one in told].count("audit") == 1 and done.stage == "audit":
            contend(tmp_path, "north")

    outcome = shop.project.run("east", "2024-02-01", tell=meanwhile)
    assert outcome.status == "published"
    stages = [one.stage for one in told]
    assert stages == [*FIRST, *AGAIN, "publish"]
    rows = shop.rows()
    assert rows["marts.every"] == (("east", 1), ("north", 5), ("south", 0), ("west", 0))
    assert rows["marts.own_east"] == (("east", 1),)
    assert list(shop.project.lake.branches()) == []
    assert [one.version for one in shop.project.lake.publications()] == [3, 2, 1]
    first, again = (one.result for one in told if isinstance(one.result, Transformed))
    kept = {one.table for one in first.outputs} & {
        one.table for one in again.outputs if one in first.outputs
    }
    assert kept == {"marts.own_east"}


def contend(root: Path, dataset: str) -> None:
    """Another process that publishes a batch of a dataset."""
    argv = [*(sys.executable, "-m", "tests.local.contention"), str(root), dataset, "0", "1"]
    subprocess.run(argv, check=True, capture_output=True, timeout=150)
