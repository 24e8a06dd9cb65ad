"""A catalog in SQLite and one in Nessie, side by side: a publish of many tables, small
batches, many of them in a row."""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.site import BUCKET, flights_project
from benchmarks.trial import Detail, Job

TABLES = 100
IN_A_ROW = 100
_SOME = 10
_ROUNDS = 5
_NOW = datetime(2013, 1, 1, tzinfo=UTC)
_PORTS = (23_917, 23_918)


def run(job: Job) -> Callable[[], Detail]:
    """In turns, so that what else the machine does meets both."""
    import lakewarden

    root = Path(job.root)

    def work() -> Detail:
        with _nessie(root) as uri:
            projects = {}
            for kind in ("sqlite", "nessie"):
                folder = flights_project(root, models=False)
                projects[kind] = lakewarden.open(_of_kind(folder, kind, uri))
            return _compared(projects)

    return work


def _compared(projects: Mapping[str, Any]) -> Detail:
    took: dict[str, dict[str, list[float]]] = {kind: {} for kind in projects}
    for round_ in range(_ROUNDS + 1):  # the first warms up
        for kind, project in projects.items():
            for what, seconds in {**_publish(project, round_), **_batch(project, round_)}.items():
                took[kind].setdefault(what, []).append(seconds)
    rows = _in_a_row(projects)
    medians = {
        kind: {**{what: median(all_of_it[1:]) for what, all_of_it in told.items()}, **rows[kind]}
        for kind, told in took.items()
    }
    ratios = {what: medians["nessie"][what] / medians["sqlite"][what] for what in medians["sqlite"]}
    return {**medians, "nessie : sqlite": ratios}


def _publish(project: Any, round_: int) -> Mapping[str, float]:
    """TABLES tables that moved on a branch, published; the moving is not counted."""
    from pyiceberg.schema import Schema
    from pyiceberg.types import LongType, NestedField

    from lakewarden.lake.model import Contribution

    lake, run_ = project.lake, f"bench-{round_}"
    branch = lake.begin(f"bench/{round_}", run_, _NOW)
    catalog = lake.catalog(branch)
    catalog.create_namespace_if_not_exists("bench")
    for number in range(TABLES):
        name = f"bench.t{number:03d}"
        if round_ == 0:
            catalog.create_table(name, Schema(NestedField(1, "n", LongType())))
        else:
            with catalog.load_table(name).transaction() as transaction:
                transaction.set_properties(round=str(round_))
    begun = time.perf_counter()
    change = [Contribution(None, None, "", {})]
    done = lake.publish(branch, change, reads=frozenset(), at=_NOW)
    published = time.perf_counter() - begun
    assert len(done.tables) == TABLES
    begun = time.perf_counter()
    assert len(project.pin().tables) >= TABLES
    pinned = time.perf_counter() - begun
    return {f"publish of {TABLES} tables": published, f"pin of {TABLES} tables": pinned}


def _batch(project: Any, round_: int) -> Mapping[str, float]:
    """A day of flights, without models."""
    from lakewarden.cli.flights_data import write_delivery

    day = date(2013, 1, 1) + timedelta(days=round_)
    folder = project.root / "deliveries" / str(day)
    write_delivery(day, folder)
    project.deliver("flights", str(day), folder)
    begun = time.perf_counter()
    outcome = project.run("flights", str(day))
    assert outcome.status == "published", outcome.status
    return {"a day of flights": time.perf_counter() - begun}


def _in_a_row(projects: Mapping[str, Any]) -> Mapping[str, Mapping[str, float]]:
    """So many days more, each on one catalog and then on the other: the first ten, the last."""
    took: dict[str, list[float]] = {kind: [] for kind in projects}
    for number in range(_ROUNDS + 1, _ROUNDS + 1 + IN_A_ROW):
        for kind, project in projects.items():
            took[kind].extend(_batch(project, number).values())
    return {
        kind: {
            f"first {_SOME} of {IN_A_ROW}": median(seconds[:_SOME]),
            f"last {_SOME} of {IN_A_ROW}": median(seconds[-_SOME:]),
        }
        for kind, seconds in took.items()
    }


def _of_kind(folder: Path, kind: str, uri: str) -> Path:
    """The project in a folder of its own, with its catalog."""
    own = folder.rename(folder.with_name(f"{folder.name}-{kind}"))
    if kind == "nessie":
        file = own / "lakewarden.toml"
        catalog = f'catalog = {{ type = "nessie", uri = "{uri}" }}'
        file.write_text(re.sub(r"(?m)^catalog = .*", catalog, file.read_text()))
    return own


@contextmanager
def _nessie(root: Path) -> Iterator[str]:
    """A Nessie on the site's store, until the end."""
    from lakewarden.local import nessie

    stack = json.loads((root / ".lakewarden" / "local" / "endpoint.json").read_text())
    folder = root / "nessie"
    folder.mkdir()
    store = nessie.Warehouse(
        f"s3://{BUCKET}/warehouse",
        stack["endpoint"],
        stack["region"],
        stack["access_key"],
        stack["secret_key"],
    )
    server = nessie.Server(*_PORTS, nessie.RocksDb(folder / "rocks"), store, folder)
    argv = nessie.command(
        nessie.find_java(), nessie.find_jar(nessie.cache(), dict(os.environ)), server
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            argv, cwd=folder, env=nessie.environment(server), stdout=log, stderr=log
        )
    try:
        while not nessie.is_ready(server.port):
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
            time.sleep(0.05)
        yield nessie.api(server.port)
    finally:
        process.kill()
        process.wait()
