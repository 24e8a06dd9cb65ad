"""The command: one module a noun. Heavy libraries are imported by the command that needs them."""

import os
import signal
import sys
from types import FrameType

import typer

from lakewarden.cli import batch, demo, init, lake, local, quarantine, query, table
from lakewarden.cli.output import complain
from lakewarden.errors import LakewardenError

app = typer.Typer(
    name="lakewarden",
    help="A lakehouse that runs its own runbook: a daily batch is published whole, or not at all.",
    no_args_is_help=True,
    rich_markup_mode=None,  # half of the start-up time
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Try it first: lakewarden demo",
)
app.command("init")(init.init)
app.command("demo")(demo.demo)
app.add_typer(local.app, name="local")
app.add_typer(table.app, name="table")
app.add_typer(batch.app, name="batch")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(lake.app, name="lake")
app.command("query")(query.query)


@app.callback(invoke_without_command=True)
def _version(
    version: bool = typer.Option(False, "--version", help="Print the version and leave."),
) -> None:
    if version:
        from importlib.metadata import version as version_of

        print(version_of("lakewarden"))
        raise typer.Exit


class Terminated(KeyboardInterrupt):
    """SIGTERM: everything is put in order as for Ctrl-C, and the exit code says which it was."""


def main() -> None:
    """The entry point: errors become one or two calm lines, and an exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except LakewardenError as error:
        complain(error)
        sys.exit(error.exit_code)
    except Terminated:
        sys.exit(128 + signal.SIGTERM)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        # The reader (head, less) has seen enough; Python must not complain at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise Terminated
