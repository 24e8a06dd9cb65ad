"""lakewarden quarantine: records that did not fit, and why."""

import base64
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from lakewarden.cli.options import (
    MOST,
    AsJson,
    DatasetName,
    EnvName,
    Most,
    ProjectDir,
    most_of,
    open_project,
)
from lakewarden.cli.output import plural, say, show_json, show_json_rows, show_table
from lakewarden.errors import WrongUsage

if TYPE_CHECKING:
    from lakewarden.batch.history import RunRecord
    from lakewarden.batch.model import Misfit
    from lakewarden.batch.quarantine import QuarantineFile
    from lakewarden.wiring import Project

app = typer.Typer(
    help="Records that did not fit their table, kept as delivered.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class NothingQuarantined(WrongUsage):
    """No run of this batch put anything into quarantine."""


@app.command("list", epilog="Example: lakewarden quarantine list --dataset flights")
def list_(
    dataset: Annotated[str | None, typer.Option(help="Only this dataset.")] = None,
    most: Most = None,
    project: ProjectDir = None,
    env: EnvName = None,
    as_json: AsJson = False,
) -> None:
    """Which runs quarantined records; never what is in them."""
    from lakewarden.batch.quarantine import list_quarantines

    opened = open_project(project, env, as_json=as_json)
    found = list_quarantines(opened.objects, dataset)[: most_of(most, as_json=as_json)]
    if dataset and not found:
        opened.dataset(dataset)  # a dataset that nobody knows is a mistake
    runs = opened.runs_named((one.dataset, one.run) for one in found)
    told = [_told(one, runs.get((one.dataset, one.run))) for one in found]
    if as_json:
        show_json(told)
    elif not found:
        say("Nothing is in quarantine.")
    else:
        columns = ["dataset", "batch", "quarantined", "outcome", "at", "run"]
        show_table(
            [*columns[:4], "since (UTC)", "run"],
            [[row[name] for name in columns] for row in told],
            right=["quarantined"],
            extra=["run"],
        )
        say("Next: lakewarden quarantine show DATASET BATCH")


def _told(kept: "QuarantineFile", run: "RunRecord | None") -> dict[str, object]:
    batch = kept.batch or (run.batch if run else None)
    counted = [one.quarantined for one in run.batches if one.batch == batch] if run else []
    return {
        "dataset": kept.dataset,
        "batch": batch,
        "quarantined": counted[0] if counted else None,
        "outcome": run.outcome if run else None,
        "at": kept.at,
        "run": kept.run,
        "key": kept.key,
    }


@app.command("show", epilog="Example: lakewarden quarantine show flights 2013-01-04")
def show(
    dataset: DatasetName,
    which: Annotated[
        str, typer.Argument(metavar="BATCH|RUN", help="A batch (its last run), or a run.")
    ],
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Print the records too. They may be personal data.")
    ] = False,
    most: Most = None,
    project: ProjectDir = None,
    env: EnvName = None,
    as_json: AsJson = False,
) -> None:
    """Why records did not fit: file, record, column, reason.

    `record` is its number in the file, a header being 1 (`line` in JSON). With --reveal, JSON has
    the record as text (`raw`) and, byte for byte, in base64 (`raw_base64`).
    """
    from lakewarden.batch import quarantine

    opened = open_project(project, env, as_json=as_json)
    encodings = _Encodings(opened, dataset)
    kept = quarantine.read(opened.objects, _key(opened, dataset, which))
    if as_json:
        show_json_rows(_row(one, encodings, reveal=reveal) for one in islice(kept, most))
        return
    found = list(islice(kept, (most or MOST) + 1))
    shown = found[: most or MOST]
    if reveal:
        _reveal(shown, encodings)
    else:
        _show_reasons(shown)
    if len(found) > len(shown):
        say(f"(the first {plural(len(shown), 'record')}; -n shows more)")
    if not reveal:
        say("The records themselves are shown with --reveal.")
    say(f"Next, when it is mended: lakewarden batch deliver {dataset} BATCH DIR")


def _show_reasons(found: "Sequence[Misfit]") -> None:
    # `line` is the record's number; the message has the physical line.
    show_table(
        ["file", "record", "column", "reason", "message"],
        [(one.file, one.line, one.column, one.reason, one.message) for one in found],
        right=["record"],
        flex=["message", "file"],
        extra=["reason"],
    )


def _reveal(found: "Iterable[Misfit]", encodings: "_Encodings") -> None:
    for one in found:
        column = f", column {one.column}" if one.column else ""
        say(f"{one.file}, record {one.line}{column}: {one.message}")
        say(f"  {encodings.text(one).rstrip()}")


def _row(one: "Misfit", encodings: "_Encodings", *, reveal: bool) -> dict[str, object]:
    told: dict[str, object] = {
        "file": one.file,
        "line": one.line,
        "column": one.column,
        "reason": one.reason,
        "message": one.message,
    }
    if reveal:
        told["raw"] = encodings.text(one)
        told["raw_base64"] = base64.b64encode(one.raw).decode()
    return told


class _Encodings:
    """How the files of a dataset are encoded, as far as its templates say so today."""

    def __init__(self, opened: "Project", dataset: str) -> None:
        self._tables = opened.dataset(dataset).tables
        self._templates = opened.templates

    def text(self, one: "Misfit") -> str:
        """A record as text; bytes that are none are spelled out."""
        return one.raw.decode(self._encoding(one.file), "backslashreplace")

    def _encoding(self, file: str) -> str:
        for table, glob in self._tables.items():
            source = self._templates[table].source
            if source and fnmatchcase(file, glob):
                return source.csv_options.encoding
        return "utf-8"


def _key(opened: "Project", dataset: str, which: str) -> str:
    """The quarantine of a run, or of the last run of a batch that has one."""
    from lakewarden.batch.quarantine import list_quarantines

    for one in list_quarantines(opened.objects, dataset):
        if which in (one.batch, one.run):
            return one.key
    raise NothingQuarantined(
        f"no run of {dataset} {which} quarantined anything", hint="lakewarden quarantine list"
    )
