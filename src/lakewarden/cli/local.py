"""lakewarden local: the stack of this project on this machine."""

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from lakewarden.cli.options import AsJson, EnvName, ProjectDir, open_project
from lakewarden.cli.output import console, say, show_json, show_table
from lakewarden.errors import WrongUsage

if TYPE_CHECKING:
    from pathlib import Path

    from lakewarden.local.stack import StackConfig

LOCAL = "local"

app = typer.Typer(
    help="The stack of this project on this machine.", no_args_is_help=True, rich_markup_mode=None
)


class NotLocal(WrongUsage):
    """The environment is a real account."""


@app.command("up", epilog="Example: lakewarden local up")
def up(project: ProjectDir = None, env: EnvName = None, as_json: AsJson = False) -> None:
    """Start the stack if it is down, and wait until it answers."""
    from lakewarden.local import stack

    config = _config(project, env, as_json=as_json)
    with console.status("starting the local stack"):
        info = stack.up(config)
    if as_json:
        show_json(
            {"endpoint": info.connection.endpoint, "bucket": info.bucket, "started": info.started}
        )
    else:
        state = "Started" if info.started else "Already up"
        say(f"{state}: S3 answers at {info.connection.endpoint}, bucket {info.bucket}.")
        if info.started:
            say("Next: lakewarden batch deliver DATASET BATCH DIR")


@app.command("down", epilog="Example: lakewarden local down")
def down(project: ProjectDir = None, env: EnvName = None, as_json: AsJson = False) -> None:
    """Stop the stack that `local up` started; its data stay."""
    from lakewarden.local import stack

    was_up = stack.down(_config(project, env, as_json=as_json))
    if as_json:
        show_json({"stopped": was_up})
    else:
        say("Stopped; the data stay." if was_up else "Nothing was running.")


@app.command("status", epilog="Example: lakewarden local status (exit code 75: it is down)")
def status(project: ProjectDir = None, env: EnvName = None, as_json: AsJson = False) -> None:
    """What each part of the stack answers right now."""
    from lakewarden.local import stack

    found = stack.status(_config(project, env, as_json=as_json))
    if as_json:
        parts = [dataclasses.asdict(part) for part in found.parts]
        show_json({"up": found.up, "pid": found.pid, "parts": parts})
    elif found.parts:
        show_table(
            ["part", "state", "address", "told"],
            [
                (part.name, "up" if part.up else "down", part.url, part.detail)
                for part in found.parts
            ],
        )
    if not found.up:
        from lakewarden.settings import LocalStackDown

        raise LocalStackDown("the local stack does not answer", hint="lakewarden local up")


@app.command("logs", epilog="Example: lakewarden local logs -n 50")
def logs(
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, help="So many, the newest.")] = 100,
    project: ProjectDir = None,
    env: EnvName = None,
    as_json: AsJson = False,
) -> None:
    """The last lines of the stack's log."""
    from lakewarden.local import stack

    found = stack.logs(_config(project, env, as_json=as_json), lines)
    if as_json:
        show_json(found)
    elif found:
        say("\n".join(found))
    else:
        say("There is no log yet. Next: lakewarden local up")


def _config(project: "Path | None", env: str | None, *, as_json: bool) -> "StackConfig":
    from lakewarden.local.stack import StackConfig

    opened = open_project(project, env, as_json=as_json)
    if opened.env.account != LOCAL:
        raise NotLocal(
            f"[env.{opened.env_name}] is the account {opened.env.account}, not the local stack",
            hint='Choose an environment with account = "local": --env NAME',
        )
    return StackConfig(opened.root, opened.env.bucket, opened.env.region)
