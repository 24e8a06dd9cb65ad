"""lakewarden query: SQL over one pinned version of all tables."""

from typing import TYPE_CHECKING, Annotated

import typer

from lakewarden.cli.options import AsJson, EnvName, ProjectDir, open_project
from lakewarden.cli.output import plural, say, show_json, show_table
from lakewarden.errors import WrongUsage

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


class QueryInvalid(WrongUsage):
    """The SQL cannot be run."""


def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="A query; - reads standard input.")],
    branch: Annotated[str | None, typer.Option(help="Read this branch, not main.")] = None,
    at: Annotated[int | None, typer.Option(help="Read main as of this version.", min=0)] = None,
    most: Annotated[
        int, typer.Option("-n", "--most", min=1, help="Show at most so many rows.")
    ] = 100,
    project: ProjectDir = None,
    env: EnvName = None,
    as_json: AsJson = False,
) -> None:
    """Run SQL over one version of all tables; two tables never come from two versions.

    Example: lakewarden query "SELECT carrier, count(*) FROM raw.flights GROUP BY 1"
    """
    opened = open_project(project, env, as_json=as_json)
    text = typer.get_text_stream("stdin").read() if sql == "-" else sql
    with opened.session(opened.pin(branch=branch, at=at)) as session:
        columns, rows = _ask(session, text, most + 1)
    if as_json:
        show_json([dict(zip(columns, row, strict=True)) for row in rows[:most]])
        return
    numbers = [
        name
        for name, value in zip(columns, rows[0] if rows else (), strict=False)
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    show_table(columns, rows[:most], right=numbers)
    if len(rows) > most:
        say(f"(the first {plural(most, 'row')}; -n shows more)")


def _ask(
    session: "DuckDBPyConnection", sql: str, most: int
) -> tuple[list[str], list[tuple[object, ...]]]:
    import duckdb

    try:
        result = session.execute(sql)
    except (duckdb.ProgrammingError, duckdb.DataError, duckdb.NotSupportedError) as error:
        raise QueryInvalid(
            str(error).strip(), hint="tables are namespace.table: lakewarden table list"
        ) from None
    columns = [str(column[0]) for column in result.description or ()]
    return columns, result.fetchmany(most)
