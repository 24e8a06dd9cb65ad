"""lakewarden query: SQL over one pinned version of all tables."""

import sys
from collections.abc import Sequence
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from lakewarden.cli.options import AsJson, EnvName, ProjectDir, open_project
from lakewarden.cli.output import console, plural, say, show_json_rows, show_table
from lakewarden.errors import WrongUsage

if TYPE_CHECKING:
    from lakewarden.batch.query import Row

_SHOWN = 100  # rows, unless asked for more
_CELL = 60  # characters of a cell that people are shown


class BothBranchAndVersion(WrongUsage):
    """A query reads one version of the tables."""


def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="A query; - reads standard input.")],
    branch: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="Read this branch, not main.")
    ] = None,
    at: Annotated[
        int | None, typer.Option(metavar="VERSION", help="Read main as of this version.", min=0)
    ] = None,
    most: Annotated[
        int | None,
        typer.Option(
            "-n", "--most", min=1, help="At most so many rows; by default 100, with --json all."
        ),
    ] = None,
    project: ProjectDir = None,
    env: EnvName = None,
    as_json: AsJson = False,
) -> None:
    """Run SQL over one version of all tables.

    Two tables never come from two versions. A table is namespace.name, or its bare name where
    that is unique. The query reads what belongs to these tables and nothing else: no other file,
    no other address; and it writes nothing. In JSON, decimals, dates and times are text, binary
    is hex.

    Example: lakewarden query "SELECT carrier, count(*) FROM raw.flights GROUP BY 1"
    """
    if branch is not None and at is not None:
        raise BothBranchAndVersion("--branch and --at exclude each other", hint="Leave out one.")
    opened = open_project(project, env, as_json=as_json)
    text = _read() if sql == "-" else sql
    pin = opened.pin(branch=branch, at=at)
    with opened.session(pin) as session:
        from lakewarden.batch.query import ask, read_only

        read_only(session, pin)
        columns, rows = ask(session, text)
        if as_json:
            taken = islice(rows, most)
            show_json_rows(dict(zip(columns, row, strict=True)) for row in taken)
        else:
            _show(columns, list(islice(rows, (most or _SHOWN) + 1)), most or _SHOWN)


def _read() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError:
        from lakewarden.batch.query import no_text

        raise no_text() from None


def _show(columns: "Sequence[str]", rows: "Sequence[Row]", most: int) -> None:
    if columns == ["explain_key", "explain_value"]:
        for row in rows:
            say(str(row[1]))
        return
    numbers = [
        name
        for number, name in enumerate(columns)
        if any(isinstance(row[number], int | float | Decimal) for row in rows)
    ]
    cells = [[_cell(value) for value in row] for row in rows[:most]]
    left_out = show_table(columns, cells, right=numbers, flex=columns[:1], extra=columns[1:])
    if not rows:
        say("(no rows)")
    if len(rows) > most:
        say(f"(the first {plural(most, 'row')}; -n shows more)")
    if left_out:
        say(f"({plural(len(left_out), 'more column')}: name fewer, or --json shows all)")


def _cell(value: object) -> str:
    """As SQL has it; numbers without separators, since they may be years."""
    match value:
        case None:
            return "NULL"
        case bool():
            return str(value).lower()
        case bytes():
            text = value.hex()
        case _:
            text = str(value)
    if console.is_terminal and len(text) > _CELL:
        return f"{text[: _CELL - 1]}…"
    return text
