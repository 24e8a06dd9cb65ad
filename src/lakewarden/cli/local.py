"""lakewarden local: the stack of this project on this machine."""

from typing import TYPE_CHECKING, Annotated

import typer

from lakewarden.cli.options import AsJson, EnvName, ProjectDir, open_project
from lakewarden.cli.output import say, show_json, show_table
from lakewarden.errors import WrongUsage

if TYPE_CHECKING:
    from lakewarden.local.stack import StackConfig

app = typer.Typer(
    help="The stack of this project on this machine.", no_args_is_help=True, rich_markup_mode=None
)


class NotLocal(WrongUsage):
    """The environment is a real account."""
