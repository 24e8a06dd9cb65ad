"""lakewarden quarantine: records that did not fit, and why."""

import base64
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from lakewarden.cli.options import (
    MOST,
    AsJson,
    BatchName,
    DatasetName,
    EnvName,
    Most,
    ProjectDir,
    TakeOver,
    most_of,
    open_project,
)
from lakewarden.cli.output import (
    console,
    plural,
    say,
    show_json,
    show_json_rows,
    show_table,
    visible,
)
from lakewarden.cli.run_report import Teller
from lakewarden.errors import WrongUsage

if TYPE_CHECKING:
    from lakewarden.batch.history import RunRecord
    from lakewarden.batch.mending import Correction
    from lakewarden.batch.model import Dataset, Misfit
    from lakewarden.batch.quarantine import QuarantineFile
    from lakewarden.wiring import Project

app = typer.Typer(
    help="Records that did not fit their table, kept as delivered.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class CorrectionsInvalid(WrongUsage):
    """What is to be mended, and how, is not said, or cannot be read."""


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
    from lakewarden.batch.mends import overlay, read_mends

    opened = open_project(project, env, as_json=as_json)
    known = opened.dataset(dataset)
    file = quarantine.newest_quarantine(opened.objects, dataset, which)
    encodings = _Encodings(opened, known, file)
    kept = quarantine.read(opened.objects, file.key)
    mended = overlay(read_mends(opened.objects, dataset, file.batch)) if file.batch else {}

    def is_mended(one: "Misfit") -> bool:
        return one.line in mended.get((one.file, one.file_sha256), {})

    if as_json:
        show_json_rows(
            {**_row(one, encodings, reveal=reveal), "mended": is_mended(one)}
            for one in islice(kept, most)
        )
        return
    found = list(islice(kept, (most or MOST) + 1))
    shown = found[: most or MOST]
    if reveal:
        _reveal(shown, encodings)
    else:
        _show_reasons(shown, [is_mended(one) for one in shown])
    if len(found) > len(shown):
        say(f"(the first {plural(len(shown), 'record')}; -n shows more)")
    if not reveal:
        say("The records themselves are shown with --reveal.")
    mends = [one for words in mended.values() for one in words.values()]
    since = max(one.at for one in mends) if any(map(is_mended, shown)) else None
    _say_next(opened, dataset, file.batch or "BATCH", since)


def _say_next(opened: "Project", dataset: str, batch: str, mended: datetime | None) -> None:
    """`mended`: when it was last, if what is shown was."""
    from lakewarden.batch.published import newest

    if mended is None:
        say(f"Next: lakewarden quarantine mend {dataset} {batch} --record N --set COLUMN=VALUE")
        say(f"Or deliver it mended: lakewarden batch deliver {dataset} {batch} DIR")
        return
    last = newest(opened.lake, dataset, batch)
    if last and last.at > mended and not last.contribution.withdrawn:
        say("The batch was published with its mends.")
    else:
        say(f"Next: lakewarden quarantine replay {dataset} {batch}")


def _show_reasons(found: "Sequence[Misfit]", mended: Sequence[bool]) -> None:
    # `line` is the record's number; the message has the physical line.
    columns = ["file", "record", "column", "reason", "message"]
    rows = [[one.file, one.line, one.column, one.reason, one.message] for one in found]
    if any(mended):
        columns.append("mended")
        rows = [[*row, is_so] for row, is_so in zip(rows, mended, strict=True)]
    show_table(columns, rows, right=["record"], flex=["message", "file"], extra=["reason"])


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
    """How the files that a run met are encoded, as far as the dataset's templates say so today."""

    def __init__(self, opened: "Project", dataset: "Dataset", kept: "QuarantineFile") -> None:
        self._dataset = dataset
        self._templates = opened.templates
        self._objects = opened.objects
        self._kept = kept
        self._known: dict[str, str] = {}

    def text(self, one: "Misfit") -> str:
        """A record as text; bytes that are none are spelled out."""
        if one.file not in self._known:
            self._known[one.file] = self._found(one.file)
        return one.raw.decode(self._known[one.file], "backslashreplace")

    def _found(self, file: str) -> str:
        from lakewarden.batch.mending import encoding_of

        told = self._told(file)
        batch, run = self._kept.batch, self._kept.run
        if batch is None:
            return told
        return encoding_of(self._dataset, batch, run, file, told, objects=self._objects)

    def _told(self, file: str) -> str:
        for table, glob in self._dataset.tables.items():
            source = self._templates[table].source
            if source and fnmatchcase(file, glob):
                return source.csv_options.encoding
        return "utf-8"


@app.command(
    "mend",
    epilog="Example: lakewarden quarantine mend flights 2013-01-04 --record 11 --set dep_delay=14",
)
def mend(
    dataset: DatasetName,
    batch: BatchName,
    record: Annotated[
        int | None, typer.Option(min=1, help="The record's number, as `show` tells it.")
    ] = None,
    file: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its file, where several have such a record.")
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="COLUMN=VALUE", help="A column's value; may be repeated."),
    ] = None,
    raw: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The whole record, as it should read.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Many at once: what `show --reveal --json` prints, with `raw` put right;"
            " - is standard input.",
        ),
    ] = None,
    project: ProjectDir = None,
    env: EnvName = None,
    as_json: AsJson = False,
) -> None:
    """Say how a quarantined record should have read.

    What was delivered stays as it is; a mend is kept beside it, with your name and the time, and
    whoever runs the batch reads the record so. It has to fit its table. The batch itself is run
    again by `quarantine replay`, whole.
    """
    opened = open_project(project, env, as_json=as_json)
    made = opened.mend(dataset, batch, _corrections(record, file, values, raw, source))
    if as_json:
        show_json({"mended": [{"file": one.file, "line": one.line} for one in made]})
    elif not made:
        say("Nothing to do: the records read so already.")
    else:
        say(f"Mended {plural(len(made), 'record')} of {dataset} {batch}.")
        say(f"Next: lakewarden quarantine replay {dataset} {batch}")


@app.command("replay", epilog="Example: lakewarden quarantine replay flights 2013-01-04")
def replay(
    dataset: DatasetName,
    batch: BatchName,
    take_over: TakeOver = False,
    project: ProjectDir = None,
    env: EnvName = None,
    as_json: AsJson = False,
) -> None:
    """Run a whole batch again, with its mends. As `batch run`, for a batch that has some."""
    opened = open_project(project, env, as_json=as_json)
    tell = Teller(as_json=as_json)
    with console.status(Text(visible(f"{dataset} {batch}"))):
        tell.end(opened.replay(dataset, batch, take_over=take_over, tell=tell.stage))
    tell.leave()


def _corrections(
    record: int | None,
    file: str | None,
    values: Sequence[str] | None,
    raw: str | None,
    source: str | None,
) -> "Sequence[Correction]":
    from lakewarden.batch.mending import Correction

    if source is not None:
        if record or file or values or raw is not None:
            raise CorrectionsInvalid("--from says all of it", hint="Leave out the other options.")
        return _read_corrections(source)
    if record is None or (raw is None) == (not values):
        raise CorrectionsInvalid(
            "what is to be mended is not said",
            hint="Say --record N with --set COLUMN=VALUE or --raw TEXT; or --from FILE.",
        )
    pairs = [value.partition("=") for value in values or ()]
    if any(not equals for _, equals, _ in pairs):
        raise CorrectionsInvalid("a column and its value are written --set COLUMN=VALUE")
    return [Correction(record, file, raw, {column: value for column, _, value in pairs})]


def _read_corrections(source: str) -> "Sequence[Correction]":
    """What `show --reveal --json` prints, put right by somebody."""

    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text("utf-8")
        return [_correction(one) for one in json.loads(text)]
    except OSError as error:
        raise CorrectionsInvalid(f"{source} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, RecursionError):  # whose text would quote a record
        raise CorrectionsInvalid(
            f"{source} is not what `quarantine show --reveal --json` prints",
            hint="It is a list of objects with file, line and raw.",
        ) from None


def _correction(one: object) -> "Correction":
    from lakewarden.batch.mending import Correction

    match one:
        case {"line": int(line), "file": str(file), "raw": str(raw)} if not isinstance(line, bool):
            return Correction(line, file, raw)
    raise ValueError("not a record in quarantine")
