"""Options that every command has, and the project that they choose."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lakewarden.cli.output import begin

if TYPE_CHECKING:
    from lakewarden.wiring import Project

ProjectDir = Annotated[
    Path | None,
    typer.Option(
        "--project", help="The project's folder; by default the nearest one with lakewarden.toml."
    ),
]
EnvName = Annotated[
    str | None, typer.Option("--env", help="An [env.NAME] of lakewarden.toml.", metavar="NAME")
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document, for programs; errors too.")
]
Most = Annotated[
    int | None,
    typer.Option("-n", "--most", min=1, help="At most so many; by default 20, with --json all."),
]
MOST = 20
DatasetName = Annotated[
    str, typer.Argument(metavar="DATASET", help="A [dataset.NAME] of lakewarden.toml.")
]
BatchName = Annotated[
    str, typer.Argument(metavar="BATCH", help="A batch key, such as 2013-01-01 or 2013-01.")
]

TakeOver = Annotated[bool, typer.Option("--take-over", help="Fence the run that holds this batch.")]


def most_of(most: int | None, *, as_json: bool) -> int | None:
    """How many to show: what was asked for; else a screenful for people, all for programs."""
    return most or (None if as_json else MOST)


def open_project(project: Path | None, env: str | None, *, as_json: bool = False) -> "Project":
    """The project that a command works on."""
    from lakewarden import wiring

    begin(as_json=as_json)
    return wiring.open_project(project, env)
