"""The stacks that the demonstration starts; nothing of them is left running."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lakewarden.cli.local import cloud_of, stack_of
from lakewarden.cli.local_pipeline import local_pipeline
from lakewarden.cli.output import console, say

if TYPE_CHECKING:
    from lakewarden.aws.clients import Connection
    from lakewarden.local.provision import Made, Pipeline
    from lakewarden.wiring import Project


@contextmanager
def small_stack(folder: Path) -> "Iterator[Project]":
    """The project with an S3."""
    from lakewarden.local.stack import down, up
    from lakewarden.wiring import open_project

    project = open_project(folder)
    asked = stack_of(project)
    with console.status("starting the local stack"):
        info = up(asked)
    try:
        say(f"The local stack is up: a real S3 at {info.connection.endpoint}, in {folder}.")
        yield project
    finally:
        down(asked)


@contextmanager
def whole_stack(folder: Path) -> "Iterator[tuple[Project, Made]]":
    """The project with all that the pipeline needs, but for the rules that would start it by
    themselves: here the executions are started one by one. With a Nessie where that is its
    catalog."""
    from lakewarden.local import cloud
    from lakewarden.settings import cache_folder, java_home, variables
    from lakewarden.wiring import open_project

    project = open_project(folder)
    nessie = project.env.catalog.type == "nessie"
    asked, wanted = stack_of(project), cloud_of(project, nessie=nessie, dagster=False)
    pipeline = local_pipeline(project, wanted.landings)

    def without_rules(connection: "Connection") -> "Pipeline":
        return replace(pipeline(connection), rules=())

    machine = cloud.Machine(cache_folder(), dict(variables()), java_home())
    try:
        info = cloud.up(asked, wanted, machine, pipeline=without_rules, tell=say)
        say(f"The whole stack is up, in {folder}.")
        yield project, info.made
    finally:
        with console.status("ending the local stack"):
            cloud.down(asked)


def check_programs() -> None:
    """Java, Nessie and ministack; the latter two are fetched where they are missing.

    Raises JavaMissing, NessieMissing and ControlPlaneNotInstalled."""
    from lakewarden.local import nessie
    from lakewarden.local.control import installed
    from lakewarden.settings import cache_folder, java_home, variables

    try:
        with console.status("looking for Java, Nessie and ministack"):
            nessie.find_java(java_home())
            nessie.find_jar(cache_folder(), dict(variables()))
            installed.installed(cache_folder(), dict(variables()))
    except (nessie.JavaMissing, nessie.NessieMissing, installed.ControlPlaneNotInstalled) as error:
        hint = f"{error.hint}\n`lakewarden demo` without --cloud needs none of it."
        raise type(error)(error.message, hint=hint) from None
