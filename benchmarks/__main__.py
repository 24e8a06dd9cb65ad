"""make bench: a batch of Lakewarden beside DuckDB alone, in turns, on this machine.

`make bench ARGS="--sorted --hourly --steps"` for more; README.md says what is measured and why.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from benchmarks.dataset import COLUMNS, Delivery, delivery
from benchmarks.duckdb_alone import FORMS
from benchmarks.machine import this_machine, versions
from benchmarks.report import (
    OURS,
    Contest,
    Spread,
    show_contest,
    show_small,
    show_speeds,
    show_steps,
    small_figures,
    speed_of,
)
from benchmarks.site import MEMORY_LIMIT, THREADS, Site, cache_folder, site
from benchmarks.trial import Cost, Job, run

ROWS = 5_000_000
RESULTS = Path(__file__).parent / "results"
_TINY_ROWS = 1_000
_WIDTH = 130  # of what is not shown on a terminal
_QUICK_ROWS = 500_000
# What `batch run` is measured against: numbering records as it does, and not numbering them.
_AGAINST = ("numbered", "unnumbered")
_PARTS = ("download", "stream", "upload", "sha256", "decode", "count")


class _Bench:
    """One run of it all, on one site."""

    def __init__(self, where: Site, data: Delivery, rounds: int, console: Console) -> None:
        self._site, self._data, self._rounds, self._console = where, data, rounds, console

    def deliver(self, tables: Sequence[str]) -> None:
        tiny = delivery(cache_folder(), _TINY_ROWS)
        run("deliver", self._job(csv=str(tiny.path), table="tiny"))
        for table in tables:
            cost = run("deliver", self._job(table=table))
            self._say(f"delivered for {table}", cost)

    def contest(self, table: str, forms: Sequence[str]) -> Contest:
        """Each contender in turn, round after round; the first round only warms up."""
        rounds = []
        for number in range(self._rounds + 1):
            title = f"{table}, round {number}" if number else f"{table}, warm-up"
            rounds.append(self._round(table, forms, title))
        self._compare(table, forms)
        return Contest(table, rounds[1:])

    def _round(self, table: str, forms: Sequence[str], title: str) -> Mapping[str, Cost]:
        self._site.forget()
        costs = {OURS: run("batch", self._job(table=table))}
        for form in forms:
            costs[f"DuckDB, {form}"] = run("duckdb", self._job(table=table, form=form))
        if table == "sales":
            costs["DuckDB, local disk"] = run("floor", self._job(form="unnumbered"))
        for name, cost in costs.items():
            self._say(f"{title}: {name}", cost)
        return costs

    def _compare(self, table: str, forms: Sequence[str]) -> None:
        """All wrote the same rows, or none of this means anything."""
        ours = run("digest", self._job(table=table)).detail
        assert ours["rows"] == ours["lines"] == self._data.rows, ours
        for form in forms:
            theirs = run("duckdb-digest", self._job(table=table, form=form)).detail
            assert theirs == ours, f"{form} wrote {theirs}, we wrote {ours}"

    def speeds(self) -> Mapping[str, Spread]:
        costs = {name: [run(name, self._job()) for _ in range(3)] for name in _PARTS}
        return {name: speed_of(each) for name, each in costs.items()}

    def small(self) -> Mapping[str, Mapping[str, float]]:
        return {
            "without models": small_figures(run("small", self._job(models=False))),
            "with models": small_figures(run("small", self._job(models=True))),
        }

    def steps(self) -> Cost:
        self._site.forget()
        return run("steps", self._job())

    def _job(
        self, *, csv: str = "", table: str = "sales", form: str = "", models: bool = False
    ) -> Job:
        return Job(
            root=str(self._site.root),
            csv=csv or str(self._data.path),
            rows=self._data.rows,
            store=self._site.store,
            table=table,
            form=form,
            models=models,
        )

    def _say(self, what: str, cost: Cost) -> None:
        self._console.print(
            f"{what}: {cost.seconds:.2f} s, CPU {cost.cpu:.1f} + {cost.store_cpu:.1f} s"
            f" (others {cost.others_cpu:.1f} s), {cost.peak_mib:.0f} MiB",
            highlight=False,
        )


def main(given: Sequence[str] | None = None) -> None:
    asked = _arguments(given)
    console = Console(soft_wrap=True)
    if not console.is_terminal:
        console.width = _WIDTH
    rows = asked.rows or (_QUICK_ROWS if asked.quick else ROWS)
    data = delivery(cache_folder(), rows)
    console.print(f"{rows:,} rows x {len(COLUMNS)} columns, {data.bytes / 1e6:,.0f} MB of CSV")
    tables = ["sales", *(["sorted"] if asked.sorted else []), *(["hourly"] if asked.hourly else [])]
    with site() as where:
        bench = _Bench(where, data, 1 if asked.quick else asked.rounds, console)
        bench.deliver(tables)
        contests = [
            bench.contest(table, list(FORMS) if asked.forms and table == "sales" else _AGAINST)
            for table in tables
        ]
        speeds = bench.speeds()
        small = bench.small()
        steps = bench.steps() if asked.steps else None
    for contest in contests:
        show_contest(console, contest)
    if steps:
        show_steps(console, steps)
    show_small(console, small)
    show_speeds(console, speeds)
    if asked.save or (rows == ROWS and not asked.quick):
        console.print(f"kept in {_keep(data, contests, speeds, small, steps)}")


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", type=int, help=f"rows of the delivery (default {ROWS:,})")
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds (default 3)")
    parser.add_argument(
        "--quick", action="store_true", help=f"{_QUICK_ROWS:,} rows, one counted round"
    )
    parser.add_argument("--sorted", action="store_true", help="a sorted table too")
    parser.add_argument("--hourly", action="store_true", help="a table partitioned by hour too")
    parser.add_argument("--forms", action="store_true", help="every form of DuckDB alone")
    parser.add_argument("--steps", action="store_true", help="a stopwatch within the load")
    parser.add_argument("--save", action="store_true", help="keep the result of a small run too")
    return parser.parse_args(given)


def _keep(
    data: Delivery,
    contests: Sequence[Contest],
    speeds: Mapping[str, Spread],
    small: Mapping[str, Mapping[str, float]],
    steps: Cost | None,
) -> Path:
    machine = this_machine()
    result = {
        "format": 1,
        "taken": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": asdict(machine),
        "versions": versions(),
        "data": {"rows": data.rows, "bytes": data.bytes, "sha256": data.sha256},
        "settings": {"memory_limit": MEMORY_LIMIT, "threads": THREADS},
        "tables": {contest.table: contest.kept() for contest in contests},
        "steps": steps.detail if steps else None,
        "small_batch_seconds": small,
        "parts_mb_per_second": {name: vars(speed) for name, speed in speeds.items()},
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{machine.slug}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


if __name__ == "__main__":
    main()
