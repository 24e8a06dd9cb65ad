"""The command: one module a noun. Heavy libraries are imported by the command that needs them."""

import io
import os
import signal
import sys
from types import FrameType
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from lakewarden.cli import (
    adopt,
    batch,
    dagster,
    demo,
    doctor,
    export,
    init,
    lake,
    local,
    quarantine,
    query,
    status,
    table,
)
from lakewarden.cli.output import complain, speak
from lakewarden.errors import Failed, LakewardenError, WrongUsage

# What Typer raises for any wrong command line. Some releases have it from Click and others from a
# copy of Click, so it is reached from its child, which all of them export and which is like it.
_Misused: type[typer.BadParameter] = typer.BadParameter.__mro__[1]


class CommandLineInvalid(WrongUsage):
    """No such command, or its arguments are wrong."""


class Unexpected(Failed):
    """A mistake of ours."""


class Interrupted(LakewardenError):
    """Ctrl-C."""

    exit_code = 128 + signal.SIGINT


class Terminated(KeyboardInterrupt):
    """SIGTERM: everything is put in order as for Ctrl-C, and the exit code says which it was."""


class EndedBySignal(LakewardenError):
    """SIGTERM."""

    exit_code = 128 + signal.SIGTERM


class _Root(TyperGroup):
    """Typer has answers of its own to Ctrl-C and to a reader that went away; these are ours."""

    def invoke(self, ctx: Any) -> Any:  # a Context of Click, or of Typer's copy of it
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _stopped(error) from None
        except RuntimeError as error:
            # What DuckDB makes of a signal that comes while it is busy.
            if isinstance(error.__cause__, KeyboardInterrupt):
                raise _stopped(error.__cause__) from None
            raise
        except BrokenPipeError:
            # The reader (head, less) has seen enough; Python must not complain at exit either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(128 + signal.SIGPIPE) from None


def _stopped(error: KeyboardInterrupt) -> LakewardenError:
    if isinstance(error, Terminated):
        return EndedBySignal("ended by SIGTERM", hint="Give the same command again.")
    return Interrupted("interrupted", hint="Give the same command again.")


app = typer.Typer(
    name="lakewarden",
    cls=_Root,
    help="A lakehouse that runs its own runbook: a daily batch is published whole, or not at all.",
    no_args_is_help=True,
    rich_markup_mode=None,  # half of the start-up time
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Try it first: lakewarden demo",
)
app.command("init")(init.init)
app.command("adopt", short_help="Survey a lakehouse that others made.")(adopt.adopt)
app.command("demo", short_help="Watch days published, and bad deliveries refused.")(demo.demo)
app.add_typer(local.app, name="local")
app.add_typer(table.app, name="table")
app.add_typer(batch.app, name="batch")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(lake.app, name="lake")
app.add_typer(dagster.app, name="dagster")
app.command("query")(query.query)
app.command("doctor", short_help="What answers, as whom, and what is missing.")(doctor.doctor)
app.command(
    "export",
    short_help="Write what is published as Parquet for others.",
    epilog="Example: lakewarden export",
)(export.export)
app.command("status", short_help="What is published, late, refused or waiting.")(status.status)


@app.callback(invoke_without_command=True)
def _version(
    version: bool = typer.Option(False, "--version", help="Print the version and leave."),
) -> None:
    if version:
        from importlib.metadata import version as version_of

        print(f"lakewarden {version_of('lakewarden')}")
        raise typer.Exit


def main() -> None:
    """The entry point: errors become one or two calm lines, or JSON, and an exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what it cannot encode is spelled out
            stream.reconfigure(errors="backslashreplace")
    # A command line that cannot be read is told as it asks for all the same.
    speak(as_json="--json" in sys.argv)
    try:
        sys.exit(app(standalone_mode=False))
    except LakewardenError as error:
        complain(error)
        if isinstance(error, Interrupted | EndedBySignal):
            _leave(error.exit_code)
        sys.exit(error.exit_code)
    except _Misused as error:
        sys.exit(_tell_misuse(error))
    except Exception as error:
        if "--json" in sys.argv:
            complain(_unexpected(error))
        raise  # with the traceback, on standard error


def _leave(code: int) -> NoReturn:
    """At once: Python would wait for threads, and those may wait for a store that is silent."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _tell_misuse(error: typer.BadParameter) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        path = error.ctx.command_path if error.ctx else "lakewarden"
        complain(CommandLineInvalid(error.format_message(), hint=f"{path} --help"))
    return CommandLineInvalid.exit_code


def _unexpected(error: Exception) -> Unexpected:
    """Its class only: the message of a library's error may quote a cell, or an address."""
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    return Unexpected(
        f"an error that Lakewarden does not know: {name}",
        hint="Please report it, with what standard error says.",
    )


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise Terminated
