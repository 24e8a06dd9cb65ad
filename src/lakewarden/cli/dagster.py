"""lakewarden dagster: Dagster as a front end of this project."""

import os
from typing import Annotated

import typer

from lakewarden.cli.options import AsJson, EnvName, ProjectDir, open_project
from lakewarden.cli.output import say, show_json

app = typer.Typer(
    help="Dagster as a front end of this project.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def _noun() -> None:
    """One command alone would take the noun's place."""


@app.command("dev", epilog="Example: lakewarden dagster dev --port 3001")
def dev(
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Where its web page answers, on 127.0.0.1.")
    ] = 3000,
    project: ProjectDir = None,
    env: EnvName = None,
    as_json: AsJson = False,
) -> None:
    """Start Dagster with this project's assets, and its storage under .lakewarden/dagster.

    It runs until Ctrl-C. With --json nothing is started: the command line and the environment that
    it needs are printed, for whoever starts it otherwise.
    """
    from lakewarden.dagster_defs.process import dev_command
    from lakewarden.settings import variables

    opened = open_project(project, env, as_json=as_json)
    command = dev_command(opened.root, opened.env_name, port=port)
    if as_json:
        show_json(
            {
                "url": command.url,
                "argv": list(command.argv),
                "environment": dict(command.environment),
            }
        )
        return
    say(f"Dagster answers at {command.url} in a moment; Ctrl-C ends it.")
    # It takes our place, so that what ends us ends it.
    os.execve(command.argv[0], command.argv, {**variables(), **command.environment})  # noqa: S606 - no shell
