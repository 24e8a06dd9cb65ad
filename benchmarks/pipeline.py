"""A day of flights with its models, three ways in turns: in a started process, as a command, as an
execution of the state machine, whose parts are timed by its own history. Each way publishes the
same day on a catalog in SQLite and on one in Nessie."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.trial import Detail, Job

_ROUNDS = 3
_FIRST = date(2013, 1, 1)
_CATALOGS = ("sqlite", "nessie")
_WAYS = ("started process", "command", "execution")

Way = Callable[[str], Mapping[str, float]]


def run(job: Job) -> Callable[[], Detail]:
    """On two whole stacks of its own, one for each catalog."""

    def work() -> Detail:
        from lakewarden.cli.demo_folder import make_project
        from lakewarden.cli.demo_pipeline import ByExecutions
        from lakewarden.cli.demo_stack import whole_stack
        from lakewarden.cli.output import speak

        speak(as_json=True)  # it is silent
        with ExitStack() as stacks:
            projects = {}
            for catalog in _CATALOGS:
                root = Path(job.root) / f"pipeline-{catalog}"
                make_project(root, nessie=catalog == "nessie")
                project, made = stacks.enter_context(whole_stack(root))
                projects[catalog] = (project, ByExecutions(project, made))
            return _compared(projects)

    return work


def _compared(projects: Mapping[str, tuple[Any, Any]]) -> Detail:
    """Medians of all rounds but the first, which warms up. Who is first changes from round to
    round, so that no way has the larger days."""
    took: dict[str, dict[str, list[float]]] = {catalog: {} for catalog in projects}
    for round_ in range(_ROUNDS + 1):
        for number, way in enumerate([*_WAYS[round_ % 3 :], *_WAYS[: round_ % 3]]):
            day = str(_FIRST + timedelta(days=3 * round_ + number))
            for catalog, (project, executions) in projects.items():
                seconds = _timed(way, project, executions, day)
                for what, value in seconds.items() if round_ else ():
                    took[catalog].setdefault(what, []).append(value)
    found = {
        catalog: {what: median(values) for what, values in each.items()}
        for catalog, each in took.items()
    }
    sqlite, nessie = (found[catalog] for catalog in _CATALOGS)
    return {
        **{f"seconds on {catalog}": each for catalog, each in found.items()},
        "nessie : sqlite": {what: nessie[what] / sqlite[what] for what in _WAYS},
        "execution : command": {
            catalog: each["execution"] / each["command"] for catalog, each in found.items()
        },
    }


def _timed(way: str, project: Any, executions: Any, day: str) -> Mapping[str, float]:
    """Seconds of one way to publish a day, and of its parts where it tells them."""
    ways: Mapping[str, Way] = {
        "started process": lambda day: _in_process(project, day),
        "command": lambda day: _command(project.root, day),
        "execution": lambda day: _execution(project, executions, day),
    }
    _deliver(project, day)
    begun = time.perf_counter()
    parts = ways[way](day)
    return {way: time.perf_counter() - begun, **parts}


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
