"""What commands print: a view for people, or JSON for programs; errors on standard error."""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lakewarden.errors import LakewardenError, Refused, TryAgain


@dataclass
class _Mode:
    """How this process was asked to speak."""

    as_json: bool = False


_mode = _Mode()
console = Console(highlight=False)
_errors = Console(stderr=True, highlight=False)

_KINDS = {1: "failed", 2: "usage", 3: "refused", 75: "try again"}


def begin(*, as_json: bool, quiet: bool = False) -> None:
    """Choose the way of speaking, and of logging, for this process."""
    _mode.as_json = as_json
    console.quiet = as_json
    _begin_logging(quiet=quiet)


def show_json(value: object) -> None:
    """One JSON document on standard output."""
    json.dump(value, sys.stdout, indent=2, default=_plain, ensure_ascii=False)
    sys.stdout.write("\n")


def show_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()
) -> None:
    """A plain table; numbers in `right` stand at the right."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell(value)) for value in row))
    console.print(table)


def say(text: str = "") -> None:
    """A line for people; brackets in it are text, not markup."""
    console.print(escape(text))


def complain(error: LakewardenError) -> None:
    """What happened, to what, and what to do next."""
    if _mode.as_json:
        told = {"code": error.code, "message": error.message, "hint": error.hint}
        show_json({"error": {**told, "exit_code": error.exit_code}})
        return
    colour = "yellow" if isinstance(error, Refused | TryAgain) else "red"
    kind = _KINDS[error.exit_code]
    _errors.print(f"[{colour} bold]{kind}[/]  {escape(error.message)}")
    if error.hint:
        _errors.print(f"[dim]next[/]     {escape(error.hint)}")


def cell(value: object) -> str:
    """A value as people read it."""
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M:%S}"
        case _:
            return str(value)


def size(count: int) -> str:
    """Bytes as people read them."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError("the loop returns")


def plural(count: int, one: str, many: str | None = None) -> str:
    """1 file, 2 files."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)


def _begin_logging(*, quiet: bool) -> None:
    """JSON lines where nobody watches; on a terminal, or quiet, only what is worth a look."""
    import logging

    import structlog

    watched = sys.stderr.isatty()
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[
            *processors,
            structlog.dev.ConsoleRenderer() if watched else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.WARNING if watched or quiet else logging.INFO
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
