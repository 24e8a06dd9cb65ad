"""lakewarden quarantine: records that did not fit, and why."""

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from lakewarden.cli.options import AsJson, DatasetName, EnvName, ProjectDir, open_project
from lakewarden.cli.output import plural, say, show_json, show_table, size
from lakewarden.errors import WrongUsage

if TYPE_CHECKING:
    from lakewarden.wiring import Project

app = typer.Typer(
    help="Records that did not fit their table, kept as they were delivered.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class NothingQuarantined(WrongUsage):
    """No run of this batch put anything into quarantine."""


@app.command("list", epilog="Example: lakewarden quarantine list --dataset flights")
def list_(
    dataset: Annotated[str | None, typer.Option(help="Only this dataset.")] = None,
    project: ProjectDir = None,
    env: EnvName = None,
    as_json: AsJson = False,
) -> None:
    """Which runs quarantined records. Never prints what is in them."""
    from lakewarden.batch.quarantine import list_quarantines

    opened = open_project(project, env, as_json=as_json)
    found = list_quarantines(opened.objects, dataset)
    if as_json:
        show_json(
            [
                {"dataset": one.dataset, "run": one.run, "key": one.key, "at": one.at}
                for one in found
            ]
        )
    elif not found:
        say("Nothing is in quarantine.")
    else:
        show_table(
            ["dataset", "run", "kept", "since (UTC)"],
            [(one.dataset, one.run, size(one.bytes), one.at) for one in found],
            right=["kept"],
        )


@app.command("show", epilog="Example: lakewarden quarantine show flights 2013-01-04")
def show(
    dataset: DatasetName,
    which: Annotated[
        str, typer.Argument(metavar="BATCH|RUN", help="A batch (its last run), or a run.")
    ],
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Print the records too. They may be personal data.")
    ] = False,
    most: Annotated[int, typer.Option("-n", "--most", min=1, help="At most so many.")] = 20,
    project: ProjectDir = None,
    env: EnvName = None,
    as_json: AsJson = False,
) -> None:
    """Why records did not fit: file, record number, column, reason."""
    from lakewarden.batch import quarantine

    opened = open_project(project, env, as_json=as_json)
    key = _key(opened, dataset, which)
    found = list(islice(quarantine.read(opened.objects, key), most + 1))
    rows = [
        {
            "file": one.file,
            "line": one.line,
            "column": one.column,
            "reason": one.reason,
            "message": one.message,
        }
        | ({"raw": one.raw.decode("utf-8", "backslashreplace")} if reveal else {})
        for one in found[:most]
    ]
    if as_json:
        show_json(rows)
        return
    columns = ["file", "line", "column", "reason", "message", *(["raw"] if reveal else [])]
    show_table(columns, [[row[name] for name in columns] for row in rows], right=["line"])
    if len(found) > most:
        say(f"(the first {plural(most, 'record')}; -n shows more)")
    if not reveal:
        say("The records themselves are shown with --reveal.")


def _key(opened: "Project", dataset: str, which: str) -> str:
    """The quarantine of a run, or of the last run of a batch that has one."""
    from lakewarden.batch.history import runs_of
    from lakewarden.batch.model import Run
    from lakewarden.batch.quarantine import key_of, list_quarantines

    kept = {one.run for one in list_quarantines(opened.objects, dataset)}
    for run in (which, *runs_of(opened.objects, dataset, which)):
        if run in kept:
            return key_of(Run(run, dataset, which))
    raise NothingQuarantined(
        f"no run of {dataset} {which} quarantined anything", hint="lakewarden quarantine list"
    )
