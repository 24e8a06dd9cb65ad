"""make bench: a batch of Lakewarden beside DuckDB alone and beside dlt, in turns, on this machine.

`make bench ARGS="event_stream drift"` for some parts only; README.md says what is measured and why.
"""

import argparse
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from benchmarks import dlt_beside, many_batches, many_tables
from benchmarks.dataset import LAYOUTS, Delivery, delivery
from benchmarks.duckdb_alone import FORMS
from benchmarks.machine import load_before, this_machine, versions
from benchmarks.report import (
    DLT,
    OURS,
    Contest,
    Spread,
    by_name,
    numbers,
    show_contest,
    show_figures,
    show_speeds,
    show_steps,
    small_figures,
    speed_of,
)
from benchmarks.site import MEMORY_LIMIT, THREADS, Site, cache_folder, site
from benchmarks.trial import Cost, Job, run

ROWS = 5_000_000
MANY_ROWS = 20_000_000
RESULTS = Path(__file__).parent / "results"
_TINY_ROWS = 1_000
_WIDTH = 130  # of what is not shown on a terminal
_QUICK_ROWS = 500_000
# What `batch run` is measured against: numbering records as it does, and not numbering them.
_AGAINST = ("numbered", "unnumbered")
_SPEEDS = ("download", "stream", "upload", "sha256", "decode", "count")
_CONTESTS = tuple(name for name in LAYOUTS if name != "tiny")


class _Bench:
    """One run of some parts, on one site."""

    def __init__(self, where: Site, rows: int, rounds: int, *, dlt: bool, console: Console) -> None:
        self._site, self._rows, self._rounds, self._console = where, rows, rounds, console
        self._dlt = dlt
        self._tiny = delivery(cache_folder(), _TINY_ROWS)
        run("deliver", self._job("tiny", self._tiny))

    def contest(self, table: str, forms: Sequence[str]) -> Mapping[str, object]:
        """Each contender in turn, round after round; the first round only warms up."""
        job = self._deliver(table, self._rows)
        rounds = []
        for number in range(self._rounds + 1):
            title = f"{table}, round {number}" if number else f"{table}, warm-up"
            rounds.append(self._round(job, forms, title, dlt=self._dlt and number > 0))
        self._compare(job, forms)
        contest = Contest(table, rounds[1:])
        show_contest(self._console, contest)
        return contest.kept()

    def _deliver(self, table: str, rows: int) -> Job:
        data = delivery(cache_folder(), rows, LAYOUTS[table].dataset)
        self._say(f"{table}: {rows:,} rows, {data.bytes / 1e6:,.0f} MB of CSV")
        job = self._job(table, data)
        run("deliver", job)
        return job

    def _round(
        self, job: Job, forms: Sequence[str], title: str, *, dlt: bool
    ) -> Mapping[str, Cost]:
        self._site.forget()
        costs = {OURS: run("batch", job)}
        for form in forms:
            costs[f"DuckDB, {form}"] = run("duckdb", job.of(form=form))
        if job.table == "sales":
            costs["DuckDB, local disk"] = run("floor", job.of(form="unnumbered"))
        if dlt:
            costs[DLT] = dlt_beside.cost_of(run("dlt", job))
        for name, cost in costs.items():
            self._say(f"{title}: {name}: {_told(cost)}")
        return costs

    def _compare(self, job: Job, forms: Sequence[str]) -> None:
        """All wrote the same rows, sorted and partitioned as they should be, or none of this means
        anything. Record numbers are compared where there are some."""
        ours = run("digest", job).detail
        assert ours["rows"] == ours["lines"] == job.rows, ours
        theirs = {form: run("duckdb-digest", job.of(form=form)).detail for form in forms}
        if self._dlt:
            theirs[DLT] = run("dlt-digest", job).detail
        for name, found in theirs.items():
            compared = ("rows", "digest", *(["lines"] if name == "numbered" else []))
            assert all(found[key] == ours[key] for key in compared), (name, found, ours)

    def large(self) -> Mapping[str, object]:
        """The peak of memory of four times as many rows; the data are removed again."""
        kept = {}
        for table in ("sales", "event_stream"):
            job = self._deliver(table, MANY_ROWS)
            self._site.forget()
            cost = run("batch", job)
            self._say(f"{table}, {MANY_ROWS:,} rows: {_told(cost)}")
            kept[table] = {"seconds": round(cost.seconds, 1), "peak_mib": round(cost.peak_mib)}
            shutil.rmtree(Path(job.csv).parent)
        return kept

    def small(self) -> Mapping[str, object]:
        return self._of_small("small", "a small batch (a day of flights) in a started process")

    def command(self) -> Mapping[str, object]:
        return self._of_small("command", "the same as a command, from its start to its end")

    def _of_small(self, name: str, title: str) -> Mapping[str, object]:
        found = {
            title: small_figures(run(name, self._job("tiny", self._tiny).of(models=models)))
            for title, models in (("without models", False), ("with models", True))
        }
        show_figures(self._console, f"{title}, seconds", found)
        return found

    def batches(self) -> Mapping[str, object]:
        found = numbers(run("batches", self._job("tiny", self._tiny)).detail)
        title = f"{many_batches.BATCHES} batches of {_TINY_ROWS:,} rows; one of them again"
        show_figures(self._console, title, {"": found})
        return found

    def catalogs(self) -> Mapping[str, object]:
        before = load_before()
        found = by_name(run("catalogs", self._job("tiny", self._tiny)).detail)
        show_figures(self._console, "catalogs, seconds (medians)", found)
        return {**found, **before}

    def pipeline(self) -> Mapping[str, object]:
        before = load_before()
        found = by_name(run("pipeline", self._job("tiny", self._tiny)).detail)
        for name, figures in found.items():
            show_figures(self._console, "a day of flights (medians of three)", {name: figures})
        return {**found, **before}

    def drift(self) -> Mapping[str, object]:
        found = numbers(run("drift", self._job("tiny", self._tiny)).detail)
        title = f"table drift over {many_tables.TABLES:,} tables, seconds"
        show_figures(self._console, title, {"": found})
        return found

    def speeds(self) -> Mapping[str, object]:
        job = self._deliver("sales", self._rows)
        costs = {name: [run(name, job) for _ in range(3)] for name in _SPEEDS}
        found: Mapping[str, Spread] = {name: speed_of(each) for name, each in costs.items()}
        show_speeds(self._console, found)
        return {name: vars(speed) for name, speed in found.items()}

    def steps(self) -> Mapping[str, object]:
        job = self._deliver("sales", self._rows)
        self._site.forget()
        cost = run("steps", job)
        show_steps(self._console, cost)
        return dict(cost.detail)

    def _job(self, table: str, data: Delivery) -> Job:
        return Job(str(self._site.root), str(data.path), data.rows, self._site.store, table)

    def _say(self, what: str) -> None:
        self._console.print(what, highlight=False)


def _told(cost: Cost) -> str:
    return (
        f"{cost.seconds:.2f} s, CPU {cost.cpu:.1f} + {cost.store_cpu:.1f} s"
        f" (others {cost.others_cpu:.1f} s), {cost.peak_mib:.0f} MiB"
    )


# In the order in which they run. What is not asked for by name is run where it is True.
_PARTS: Mapping[str, bool] = {
    "sales": True,
    "sales_sorted": True,
    "sales_hourly": False,
    "event_stream": True,
    "small": True,
    "command": True,
    "batches": True,
    "drift": True,
    "catalogs": False,  # needs Java and Maven
    "pipeline": False,  # needs ministack, Java and Maven
    "speeds": True,
    "steps": False,
    "large": False,
}


def main(given: Sequence[str] | None = None) -> None:
    asked = _arguments(given)
    console = Console(soft_wrap=True)
    if not console.is_terminal:
        console.width = _WIDTH
    rows = asked.rows or (_QUICK_ROWS if asked.quick else ROWS)
    parts = asked.parts or [name for name, usual in _PARTS.items() if usual]
    contests = any(name in _CONTESTS for name in parts)
    dlt = contests and not asked.without_dlt and _has_dlt(console)
    forms = list(FORMS) if asked.forms else _AGAINST
    with site() as where:
        rounds = 1 if asked.quick else asked.rounds
        bench = _Bench(where, rows, rounds, dlt=dlt, console=console)
        for name in (name for name in _PARTS if name in parts):
            measured = _measure(bench, name, forms)()
            if asked.save or (rows == ROWS and not asked.quick):
                console.print(f"kept in {_keep(name, measured)}")


def _measure(bench: _Bench, name: str, forms: Sequence[str]) -> Callable[[], Mapping[str, object]]:
    if name in _CONTESTS:
        return lambda: bench.contest(name, forms)
    found: Callable[[], Mapping[str, object]] = getattr(bench, name)
    return found


def _has_dlt(console: Console) -> bool:
    try:
        dlt_beside.environment()
    except dlt_beside.Unavailable as error:
        console.print(f"[yellow]without dlt: {error}")
        return False
    return True


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    usual = ", ".join(name for name, usual in _PARTS.items() if usual)
    parser.add_argument(
        "parts",
        nargs="*",
        choices=[*_PARTS, []],
        metavar="PART",
        help=f"one or more of {', '.join(_PARTS)} (default: {usual})",
    )
    parser.add_argument("--rows", type=int, help=f"rows of a delivery (default {ROWS:,})")
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds (default 3)")
    parser.add_argument(
        "--quick", action="store_true", help=f"{_QUICK_ROWS:,} rows, one counted round, not kept"
    )
    parser.add_argument("--without-dlt", action="store_true", help="DuckDB alone beside it only")
    parser.add_argument("--forms", action="store_true", help="every form of DuckDB alone")
    parser.add_argument("--save", action="store_true", help="keep the result of a small run too")
    return parser.parse_args(given)


def _keep(name: str, measured: Mapping[str, object]) -> Path:
    """Each part replaces what it found before on such a machine."""
    machine = this_machine()
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{machine.slug}.json"
    before: dict[str, object] = {}
    with suppress(FileNotFoundError):
        before = json.loads(path.read_text())
    kept = before.get("parts") if before.get("format") == 2 else None
    parts = dict(kept) if isinstance(kept, dict) else {}
    parts[name] = {"taken": f"{datetime.now(UTC):%Y-%m-%d}", **measured}
    result = {
        "format": 2,
        "machine": asdict(machine),
        "versions": versions(),
        "settings": {"memory_limit": MEMORY_LIMIT, "threads": THREADS},
        "parts": {each: parts[each] for each in _PARTS if each in parts},
    }
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


if __name__ == "__main__":
    main()
