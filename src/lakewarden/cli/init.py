"""lakewarden init: a new project from an example."""

import shlex
import shutil
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from lakewarden.cli.options import AsJson
from lakewarden.cli.output import begin, say, show_json
from lakewarden.errors import WrongUsage


class ExampleUnknown(WrongUsage):
    """No example of that name."""


class FolderNotEmpty(WrongUsage):
    """A project is only written into an empty folder."""


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    example: Annotated[
        str, typer.Option(help="Which example: flights, dpc or events.")
    ] = "flights",
    as_json: AsJson = False,
) -> None:
    """Make a new project from an example.

    Writes lakewarden.toml, tables/, transform/ (dbt) and a README into a new or empty folder.

    Example: lakewarden init my-lake --example flights
    """
    begin(as_json=as_json)
    write_example(example, folder)
    if as_json:
        show_json({"project": str(folder.resolve()), "example": example})
    else:
        say(f"Wrote the example {example} to {folder}; its README.md tells the rest.")
        say(f"Next: cd {shlex.quote(str(folder))} && lakewarden local up")


def write_example(example: str, folder: Path) -> None:
    """Copy an example into an empty folder, with the macros that all of them may use."""
    root = resources.files("lakewarden") / "examples"
    known = sorted(one.name for one in root.iterdir() if (one / "lakewarden.toml").is_file())
    if example not in known:
        raise ExampleUnknown(
            f"there is no example {example!r}", hint=f"Choose one of: {', '.join(known)}"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FolderNotEmpty(f"{folder} is not an empty folder", hint="Name a new one.")
    with resources.as_file(root / example) as source:
        shutil.copytree(
            source,
            folder,
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns("__pycache__", ".lakewarden", "target", "logs"),
        )
    with resources.as_file(root / "macros") as macros:
        shutil.copytree(macros, folder / "transform" / "macros", dirs_exist_ok=True)
