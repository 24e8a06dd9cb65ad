"""lakewarden local: the stack of this project on this machine."""

import dataclasses
import shlex
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from lakewarden.cli.options import AsJson, EnvName, ProjectDir, open_project
from lakewarden.cli.output import console, say, show_json, show_table
from lakewarden.errors import WrongUsage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from lakewarden.aws.clients import Connection
    from lakewarden.local.config import CloudConfig
    from lakewarden.local.containers.images import Image
    from lakewarden.local.health import Part
    from lakewarden.local.stack import StackConfig
    from lakewarden.wiring import Project

LOCAL = "local"

app = typer.Typer(
    help="The stack of this project on this machine.", no_args_is_help=True, rich_markup_mode=None
)


class CatalogKind(StrEnum):
    SQL = "sql"
    NESSIE = "nessie"


class LogPart(StrEnum):
    S3 = "s3"
    CONTROL = "control"
    AGENT = "agent"
    NESSIE = "nessie"
    DAGSTER = "dagster"
    RUNNER = "runner"


class NotLocal(WrongUsage):
    """The environment is a real account."""


@app.command("up", epilog="Example: lakewarden local up --cloud --catalog nessie")
def up(
    cloud: Annotated[
        bool, typer.Option("--cloud", help="Also the control plane and ECS, in place of AWS's.")
    ] = False,
    catalog: Annotated[
        CatalogKind | None,
        typer.Option(help="nessie: with a Nessie, as a service of ECS (implies --cloud)."),
    ] = None,
    dynamodb: Annotated[
        bool,
        typer.Option(
            "--dynamodb",
            help="Nessie keeps its data in the control plane's DynamoDB, not in a folder"
            " (implies --catalog nessie; chosen at its first start).",
        ),
    ] = False,
    dagster: Annotated[
        bool, typer.Option("--dagster", help="Also Dagster, as a service of ECS.")
    ] = False,
    project: ProjectDir = None,
    env: EnvName = None,
    as_json: AsJson = False,
) -> None:
    """Start what is down of the stack, and wait until all of it answers.

    Without an option it is S3 alone; or all that runs already, where that is more."""
    from lakewarden.local import config, stack
    from lakewarden.local.layout import Layout

    opened = _open(project, env, as_json=as_json)
    asked = stack_of(opened)
    nessie = dynamodb or catalog == CatalogKind.NESSIE
    if cloud or dagster or nessie or config.read(Layout(asked.root)) is not None:
        wanted = cloud_of(opened, nessie=nessie, dagster=dagster)
        if dynamodb:
            wanted = dataclasses.replace(wanted, nessie_store=config.NessieStore.DYNAMODB)
        _up_with_cloud(opened, wanted, as_json=as_json)
        return
    with console.status("starting the local stack"):
        info = stack.up(asked)
    if as_json:
        show_json(
            {"endpoint": info.connection.endpoint, "bucket": info.bucket, "started": info.started}
        )
    else:
        state = "Started" if info.started else "Already up"
        say(f"{state}: S3 answers at {info.connection.endpoint}, bucket {info.bucket}.")
        if info.started:
            say("Next: lakewarden batch deliver DATASET BATCH DIR")


def _up_with_cloud(opened: "Project", wanted: "CloudConfig", *, as_json: bool) -> None:
    from lakewarden.cli.local_pipeline import local_pipeline
    from lakewarden.local import cloud
    from lakewarden.local.cloud import Machine
    from lakewarden.settings import cache_folder, java_home, variables

    machine = Machine(cache_folder(), dict(variables()), java_home(), _dagster(opened))
    tell = (lambda _: None) if as_json else say
    pipeline = local_pipeline(opened, wanted.landings)
    info = cloud.up(stack_of(opened), wanted, machine, pipeline=pipeline, tell=tell)
    if as_json:
        told = {"endpoint": info.connection.endpoint, "control": info.connection.control}
        beside = {"nessie": info.nessie, "dagster": info.dagster}
        show_json({**told, **beside, "bucket": opened.env.bucket})
        return
    held = sum(cloud.memory(stack_of(opened)).values())
    say(f"Up: {max(info.seconds.values()):.0f} s, {held >> 20} MiB of memory in all.")
    say("Next: lakewarden local status")


def _dagster(opened: "Project") -> "Callable[[int], Image]":
    """What runs Dagster at a port; it raises DagsterMissing where that is not installed."""
    from lakewarden.dagster_defs.process import dev_command
    from lakewarden.local.containers.images import Image

    def image(port: int) -> Image:
        command = dev_command(opened.root, opened.env_name, port=port)
        home = {"HOME": str(opened.root), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
        return Image(command.argv, opened.root, {**home, **command.environment}, single=True)

    return image


@app.command("down", epilog="Example: lakewarden local down")
def down(project: ProjectDir = None, env: EnvName = None, as_json: AsJson = False) -> None:
    """End everything that `local up` started; the data stay."""
    from lakewarden.local import cloud

    was_up = cloud.down(_config(project, env, as_json=as_json))
    if as_json:
        show_json({"stopped": was_up})
    else:
        say("Stopped; the data stay." if was_up else "Nothing was running.")


@app.command("status", epilog="Example: lakewarden local status (exit code 75: it is down)")
def status(project: ProjectDir = None, env: EnvName = None, as_json: AsJson = False) -> None:
    """What each part of the stack answers right now."""
    from lakewarden.local import cloud

    found = cloud.status(_config(project, env, as_json=as_json))
    if as_json:
        parts = [dataclasses.asdict(part) for part in found.parts]
        show_json({"up": found.up, "pid": found.pid, "parts": parts})
    elif found.parts:
        show_table(
            ["part", "state", "address", "told"],
            [(part.name, _state(part), part.url, part.detail) for part in found.parts],
        )
    if not found.up:
        from lakewarden.settings import LocalStackDown

        raise LocalStackDown("the local stack does not answer", hint="lakewarden local up")


def _state(part: "Part") -> str:
    if not part.wanted:
        return "-"
    return "up" if part.up else "down"


@app.command("logs", epilog="Example: lakewarden local logs nessie -n 50")
def logs(
    part: Annotated[LogPart, typer.Argument(help="Whose.")] = LogPart.S3,
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, help="So many, the newest.")] = 100,
    project: ProjectDir = None,
    env: EnvName = None,
    as_json: AsJson = False,
) -> None:
    """The last lines of a part's log: of tasks, of the newest one."""
    from lakewarden.local import cloud

    found = cloud.logs(_config(project, env, as_json=as_json), part.value, lines)
    if as_json:
        show_json(found)
    elif found:
        say("\n".join(found))
    else:
        say("There is no log yet. Next: lakewarden local up")


@app.command("env", epilog='Example: lakewarden local env (eval "$(lakewarden local env)")')
def env_(
    project: ProjectDir = None,
    env: EnvName = None,
    as_json: AsJson = False,
) -> None:
    """What leads the AWS CLI here, for a shell: addresses and keys."""
    connection = _open(project, env, as_json=as_json).connection
    if as_json:
        show_json(variables_of(connection))
        return
    for name, value in variables_of(connection).items():
        say(f"export {name}={shlex.quote(value)}")
    say(f"unset {' '.join(_IN_THE_WAY)}")


# A user's own, which would lead elsewhere, or be sent along with the stack's keys.
_IN_THE_WAY = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")


def variables_of(connection: "Connection") -> "Mapping[str, str]":
    """What the AWS CLI, and every SDK, reads to reach a stack."""
    told = {
        "AWS_ENDPOINT_URL": connection.control or connection.endpoint,
        "AWS_ENDPOINT_URL_S3": connection.endpoint,
        "AWS_REGION": connection.region,
        "AWS_DEFAULT_REGION": connection.region,
        "AWS_ACCESS_KEY_ID": connection.access_key,
        "AWS_SECRET_ACCESS_KEY": connection.secret_key,
    }
    return {name: value for name, value in told.items() if value}


def _config(project: "Path | None", env: str | None, *, as_json: bool) -> "StackConfig":
    return stack_of(_open(project, env, as_json=as_json))


def _open(project: "Path | None", env: str | None, *, as_json: bool) -> "Project":
    opened = open_project(project, env, as_json=as_json)
    if opened.env.account != LOCAL:
        raise NotLocal(
            f"[env.{opened.env_name}] is the account {opened.env.account}, not the local stack",
            hint='Choose an environment with account = "local": --env NAME',
        )
    return opened


def stack_of(opened: "Project") -> "StackConfig":
    """What is asked of the stack of a project."""
    from lakewarden.local.stack import StackConfig

    return StackConfig(opened.root, opened.env.bucket, opened.env.region)


def cloud_of(opened: "Project", *, nessie: bool, dagster: bool) -> "CloudConfig":
    """The same, of all that is beside S3."""
    from lakewarden.local.config import CloudConfig

    datasets = opened.settings.dataset
    return CloudConfig(
        project=opened.settings.project,
        env=opened.env_name,
        region=opened.env.region,
        bucket=opened.env.bucket,
        warehouse=opened.env.warehouse,
        names=opened.settings.names,
        datasets=tuple(datasets),
        landings=tuple(sorted({each.landing.partition("{")[0] for each in datasets.values()})),
        nessie=nessie,
        dagster=dagster,
    )
