"""lakewarden demo: the main job on real data, and bad deliveries being refused."""

import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lakewarden.cli.demo_folder import make_project, record
from lakewarden.cli.demo_stack import check_programs, small_stack, whole_stack
from lakewarden.cli.demo_story import Story, troubles
from lakewarden.cli.demo_ways import InProcess
from lakewarden.cli.options import AsJson
from lakewarden.cli.output import begin, say, show_json

_FOLDER = Path("lakewarden-demo")
_CLOUD_FOLDER = Path("lakewarden-demo-cloud")


def demo(
    cloud: Annotated[
        bool,
        typer.Option("--cloud", help="The same through Step Functions and Nessie: two minutes."),
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--dir",
            metavar="DIR",
            help=f"Where its project is made; by default {_FOLDER}, or {_CLOUD_FOLDER}.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Watch it: real flights are published whole, bad deliveries are refused, and rows that did
    not fit are mended. Under a minute.

    With --cloud each delivery is run by an execution of the state machine, on a local stack of
    AWS's parts, with Nessie as the catalog; it needs Java 21 and Maven.

    Example: lakewarden demo
    """
    begin(as_json=as_json, quiet=True)
    began = time.perf_counter()
    place = folder or (_CLOUD_FOLDER if cloud else _FOLDER)
    told = (_through_the_pipeline if cloud else _in_this_process)(place, silent=as_json)
    seconds = time.perf_counter() - began
    if as_json:
        show_json({**told, "seconds": round(seconds, 1)})
    else:
        _farewell(place, seconds, _next_on_the_pipeline(place, told) if cloud else _next(place))
        if not cloud:
            say("The same through Step Functions and Nessie, from here: lakewarden demo --cloud")


def _in_this_process(folder: Path, *, silent: bool) -> Mapping[str, object]:
    with _made(folder), small_stack(folder) as project:
        return _tell(Story(project, InProcess(project), folder, silent=silent))


def _through_the_pipeline(folder: Path, *, silent: bool) -> Mapping[str, object]:
    from lakewarden.cli.demo_pipeline import ByExecutions

    check_programs()
    with _made(folder, nessie=True), whole_stack(folder) as (project, made):
        way = ByExecutions(project, made)
        told = _tell(Story(project, way, folder, silent=silent))
        return {**told, "pipeline": made.pipeline, "executions": [*map(asdict, way.executions)]}


@contextmanager
def _made(folder: Path, *, nessie: bool = False) -> Iterator[None]:
    """The project's folder; of a demonstration that was stopped, too, its files are no one
    else's."""
    make_project(folder, nessie=nessie)
    try:
        yield
    finally:
        record(folder)


def _tell(story: Story) -> Mapping[str, object]:
    """All of it, in order."""
    story.publish_good_days()
    for trouble in troubles():
        story.refuse(trouble)
    story.mend(troubles()[2])
    story.show_marts()
    return story.result()


def _farewell(folder: Path, seconds: float, lines: Sequence[str]) -> None:
    say()
    say(f"Done in {seconds:.0f} s; nothing is left running. The project stays in {folder}. Next:")
    for line in (*to_have_the_command(), *lines):
        say(f"  {line}")


def _next(folder: Path) -> Sequence[str]:
    return (
        f"cd {shlex.quote(str(folder))} && lakewarden local up",
        "lakewarden status",
        "lakewarden batch diff flights 2013-01-04",
        'lakewarden query "SELECT * FROM marts.route_performance LIMIT 10"',
        "lakewarden batch unpublish flights 2013-01-04",
        "lakewarden init ../my-lake       (your own; its README.md says how)",
        "lakewarden local down",
    )


def _next_on_the_pipeline(folder: Path, told: Mapping[str, object]) -> Sequence[str]:
    """The runbook's own lines among them."""
    from lakewarden.cli.demo_pipeline import PAYLOAD
    from lakewarden.wiring import open_project

    names = open_project(folder).names
    service = f"--cluster {names.cluster} --service {names.nessie_service}"
    return (
        f"cd {shlex.quote(str(folder))} && lakewarden local up --cloud --catalog nessie",
        'eval "$(lakewarden local env)"   (it leads the AWS CLI to this stack)',
        f"aws stepfunctions start-execution --state-machine-arn {told['pipeline']}"
        f" --input file://{PAYLOAD}",
        f"aws logs tail {names.runner_log_group} --since 1h",
        f"aws ecs update-service {service} --desired-count 0",
        "lakewarden local status",
        "lakewarden local down",
    )


def to_have_the_command() -> Sequence[str]:
    """What to type first where the shell does not find `lakewarden`."""
    if shutil.which("lakewarden"):
        return []
    programs, here = Path(sys.executable).parent, Path.cwd()
    activate = programs / "activate"
    if not activate.is_file():
        return [f'PATH={shlex.quote(str(programs))}{os.pathsep}"$PATH"']
    near = activate.relative_to(here) if activate.is_relative_to(here) else activate
    return [f". {shlex.quote(str(near))}"]
