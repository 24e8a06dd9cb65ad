"""The whole of `batch run`: receive, hash, count, parse, check, upload, commit, publish."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from pathlib import Path

from benchmarks import duckdb_alone
from benchmarks.dataset import BATCH, LAYOUTS
from benchmarks.site import flights_project
from benchmarks.steps import Stopwatch, watched
from benchmarks.trial import Detail, Job

_SMALL_BATCHES = 6


def deliver(job: Job) -> Callable[[], Detail]:
    """Hash, count and upload a folder, the manifest last."""
    import lakewarden

    project = lakewarden.open(job.root)

    def work() -> Detail:
        project.deliver(job.table, BATCH, Path(job.csv).parent)
        return {}

    return work


def batch(job: Job) -> Callable[[], Detail]:
    """One batch without models, in a process that has run a small one."""
    import lakewarden

    project = lakewarden.open(job.root)
    project.run("tiny", BATCH)

    def work() -> Detail:
        stages: dict[str, float] = {}
        outcome = project.run(
            job.table, BATCH, tell=lambda done: stages.update({done.stage: done.seconds})
        )
        assert outcome.status == "published", outcome.status
        assert outcome.counts is not None
        assert outcome.counts.loaded == job.rows, outcome.counts
        return stages

    return work


def steps(job: Job) -> Callable[[], Detail]:
    """The same with a stopwatch at each step within the load."""
    work = batch(job)

    def watched_work() -> Detail:
        stopwatch = Stopwatch()
        with watched(stopwatch):
            found = work()
        return {**found, **stopwatch.told()}

    return watched_work


def digest(job: Job) -> Callable[[], Detail]:
    """What is published, in two numbers, to be compared with what DuckDB alone wrote."""
    import lakewarden

    project = lakewarden.open(job.root)

    def work() -> Detail:
        pin = project.pin()
        tasks = project.lake.load(pin, f"raw.{job.table}").scan().plan_files()
        with project.session(pin) as connection:
            duckdb_alone.check_layout(
                connection, job.table, [task.file.file_path for task in tasks]
            )
            return duckdb_alone.content(connection, f"raw.{job.table}", LAYOUTS[job.table].dataset)

    return work


def small(job: Job) -> Callable[[], Detail]:
    """Days of the example, one after the other: what a batch costs before its size matters.

    The first pays for imports, tables and dbt's first parse."""
    import lakewarden

    folder, days = _delivered_days(job)
    project = lakewarden.open(folder)

    def run(day: str) -> None:
        outcome = project.run("flights", day)
        assert outcome.status == "published", outcome.status

    return lambda: {day: _seconds(run, day) for day in days}


def command(job: Job) -> Callable[[], Detail]:
    """The same days, each by a command of its own, from its start to its end."""
    folder, days = _delivered_days(job)
    program = Path(sys.executable).with_name("lakewarden")

    def run(day: str) -> None:
        command = [str(program), "batch", "run", "flights", day]
        subprocess.run(command, check=True, cwd=folder, capture_output=True)

    return lambda: {day: _seconds(run, day) for day in days}


def _delivered_days(job: Job) -> tuple[Path, Sequence[str]]:
    """The example's project, with days that wait to be run."""
    import lakewarden
    from lakewarden.cli.flights_data import write_delivery

    folder = flights_project(Path(job.root), models=job.models)
    project = lakewarden.open(folder)
    days = [date(2013, 1, 1) + timedelta(days=number) for number in range(_SMALL_BATCHES)]
    for day in days:
        delivery = folder / "delivery" / str(day)
        write_delivery(day, delivery)
        project.deliver("flights", str(day), delivery)
    return folder, [str(day) for day in days]


def _seconds(run: Callable[[str], None], day: str) -> float:
    begun = time.perf_counter()
    run(day)
    return time.perf_counter() - begun
