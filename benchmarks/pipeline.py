"""A day of flights with its models, three ways in turns: in a started process, as a command, as an
execution of the state machine, whose parts are timed by its own history."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.trial import Detail, Job

_ROUNDS = 3
_FIRST = date(2013, 1, 1)


def run(job: Job) -> Callable[[], Detail]:
    """On a whole stack of its own, with the catalog in SQLite."""
    root = Path(job.root) / "pipeline"

    def work() -> Detail:
        from lakewarden.cli.demo_pipeline import ByExecutions
        from lakewarden.cli.demo_stack import whole_stack
        from lakewarden.cli.init import write_example
        from lakewarden.cli.output import speak

        speak(as_json=True)  # it is silent
        write_example("flights", root)
        with whole_stack(root) as (project, made):
            return _compared(project, ByExecutions(project, made))

    return work


def _compared(project: Any, executions: Any) -> Detail:
    """Medians of all rounds but the first, which warms up. Who is first changes from round to
    round, so that no way has the larger days."""
    ways: list[tuple[str, Callable[[str], Mapping[str, float]]]] = [
        ("started process", lambda day: _in_process(project, day)),
        ("command", lambda day: _command(project.root, day)),
        ("execution", lambda day: _execution(project, executions, day)),
    ]
    took: dict[str, list[float]] = {}
    for round_ in range(_ROUNDS + 1):
        for number, (name, way) in enumerate([*ways[round_ % 3 :], *ways[: round_ % 3]]):
            day = str(_FIRST + timedelta(days=3 * round_ + number))
            _deliver(project, day)
            begun = time.perf_counter()
            parts = way(day)
            seconds = {name: time.perf_counter() - begun, **parts}
            for what, value in seconds.items() if round_ else ():
                took.setdefault(what, []).append(value)
    found = {what: median(values) for what, values in took.items()}
    whole = {name: found.pop(name) for name, _ in ways}
    return {
        "seconds": whole,
        "execution :": {name: whole["execution"] / whole[name] for name in list(whole)[:2]},
        "seconds in": found,
    }


def _deliver(project: Any, day: str) -> None:
    from lakewarden.cli.flights_data import write_delivery

    folder = project.root / "deliveries" / day
    write_delivery(date.fromisoformat(day), folder)
    project.deliver("flights", day, folder)


def _in_process(project: Any, day: str) -> Mapping[str, float]:
    assert project.run("flights", day).status == "published"
    return {}


def _command(folder: Path, day: str) -> Mapping[str, float]:
    program = str(Path(sys.executable).with_name("lakewarden"))
    argv = [program, "batch", "run", "flights", day]
    subprocess.run(argv, check=True, cwd=folder, capture_output=True)
    return {}


def _execution(project: Any, executions: Any, day: str) -> Mapping[str, float]:
    ended = executions.run("flights", day, lambda _: None)
    assert ended.publication.contribution.batch == day
    arn = executions.executions[-1].arn
    pages = project.client("stepfunctions").get_paginator("get_execution_history")
    events = [one for page in pages.paginate(executionArn=arn) for one in page["events"]]
    return _of_states(events)


def _of_states(events: Iterable[Mapping[str, Any]]) -> Mapping[str, float]:
    """Seconds from each state's entry to the next one's."""
    told = [(one["timestamp"], one) for one in events if one["type"].endswith("StateEntered")]
    found: dict[str, float] = {}
    for (at, one), (after, _) in pairwise(told):
        name = one["stateEnteredEventDetails"]["name"]
        if one["type"] == "TaskStateEntered":
            found[name] = (after - at).total_seconds()
    return found
