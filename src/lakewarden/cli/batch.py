"""lakewarden batch: deliver, run, and see what happened."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from lakewarden.cli.options import (
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
from lakewarden.cli.output import console, plural, say, show_json, show_table, size, visible
from lakewarden.cli.run_report import Teller
from lakewarden.errors import LakewardenError, WrongUsage

if TYPE_CHECKING:
    from lakewarden.batch.delivery.deliver import Progress
    from lakewarden.batch.delivery.manifest import Manifest
    from lakewarden.batch.history import RunRecord
    from lakewarden.batch.receipts import Receipt
    from lakewarden.wiring import Asked, Project

app = typer.Typer(
    help="Deliver a batch, run it, see what happened.", no_args_is_help=True, rich_markup_mode=None
)


BatchNames = Annotated[
    str,
    typer.Argument(
        metavar="BATCH", help="A batch key, such as 2013-01-01 or 2013-01; or FIRST..LAST."
    ),
]
NoPublish = Annotated[
    bool, typer.Option("--no-publish", help="Stop before publishing; leave the branch.")
]
Accept = Annotated[
    str | None, typer.Option(metavar="TEST", help="Publish although this test fails.")
]
Reason = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Why; it is kept with the publication.")
]


class NeverPublished(WrongUsage):
    """A batch that changed nothing, since it was never published."""


class OneGroupOnly(WrongUsage):
    """What is left unpublished, or accepted, or is no set at all, is one group of batches."""


@app.command("run", epilog="Example: lakewarden batch run flights 2013-01-01")
def run(
    dataset: DatasetName,
    batch: BatchNames,
    select: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL", help="Load nothing; make this model and its descendants again."
        ),
    ] = None,
    group: Annotated[
        int | None,
        typer.Option(min=1, help="Of a set: so many batches are published together; 31 if unsaid."),
    ] = None,
    no_publish: NoPublish = False,
    accept: Accept = None,
    reason: Reason = None,
    take_over: TakeOver = False,
    project: ProjectDir = None,
    env: EnvName = None,
    as_json: AsJson = False,
) -> None:
    """Bring one batch, or a set of them, from delivery to main.

    Whole or not at all: receive, load, transform, audit, publish. A batch that is published as it
    would come out now is left alone. Wrong data are refused (exit code 3) and main stays as it is.

    FIRST..LAST runs all delivered batches from the first to the last. They are loaded one by one
    and published in groups; the models of a group are built once. A batch that is refused is left
    out, told at the end, and the others go on; tests that fail refuse their group and end the set.
    The same command again goes on with what is not published yet.

    With --select nothing is loaded: the model is built, tested and published with all that is made
    from it; where it is written by batch, for the batches that are named.
    """
    if group is not None and (select or ".." not in batch):
        raise OneGroupOnly(
            "only a set of batches that are loaded has groups",
            hint="Leave out --group, or name FIRST..LAST.",
        )
    opened = open_project(project, env, as_json=as_json)
    tell = Teller(as_json=as_json)
    asked = _asked(tell, accept, reason, publish=not no_publish, take_over=take_over)
    with console.status(Text(visible(f"{dataset} {batch}"))):
        if select:
            chosen = opened.keys(dataset, batch)
            tell.end(opened.rebuild(dataset, chosen, select, **asked))
        elif ".." in batch:
            _run_set(opened, dataset, batch, group, asked, tell)
        else:
            tell.end(opened.run(dataset, batch, **asked))
    tell.leave()


@app.command("unpublish", epilog="Example: lakewarden batch unpublish flights 2013-01-04")
def unpublish(
    dataset: DatasetName,
    batch: BatchNames,
    no_publish: NoPublish = False,
    accept: Accept = None,
    reason: Reason = None,
    take_over: TakeOver = False,
    project: ProjectDir = None,
    env: EnvName = None,
    as_json: AsJson = False,
) -> None:
    """Take a batch out of main again; later batches stay.

    The state is then as if it had never run: its rows go from the tables that are loaded, and the
    models are made again from what is left, all in one step. What was delivered stays, and `batch
    run` brings the batch back; a set (FIRST..LAST) leaves it out. Look first: --no-publish, then
    `batch diff`.
    """
    opened = open_project(project, env, as_json=as_json)
    tell = Teller(as_json=as_json)
    asked = _asked(tell, accept, reason, publish=not no_publish, take_over=take_over)
    with console.status(Text(visible(f"{dataset} {batch}"))):
        chosen = opened.published_keys(dataset, batch)
        tell.end(opened.unpublish(dataset, chosen, **asked))
    tell.leave()


def _asked(
    tell: Teller, accept: str | None, reason: str | None, *, publish: bool, take_over: bool
) -> "Asked":
    return {
        "publish": publish,
        "accept": accept,
        "reason": reason,
        "take_over": take_over,
        "tell": tell.stage,
    }


def _run_set(
    opened: "Project",
    dataset: str,
    batches: str,
    group: int | None,
    asked: "Asked",
    tell: "Teller",
) -> None:
    there = opened.delivered(dataset, batches)
    if asked["accept"] or not asked["publish"]:
        count = max(1, len(there.batches))
        if group is not None and group < count:
            raise OneGroupOnly(
                "--no-publish and --accept concern one group of batches",
                hint="Leave out --group, or name fewer batches.",
            )
        group = count
    sizes = {"group": group} if group else {}
    try:
        for outcome in opened.run_set(dataset, there.batches, **sizes, **asked):
            tell.end(outcome)
    except LakewardenError as error:
        tell.fail(error)
    tell.withdrawn(dataset, there.withdrawn)


@app.command(
    "deliver",
    epilog="Example: lakewarden batch deliver flights 2013-01-01 ./delivery, or one part:"
    " lakewarden batch deliver dpc 2024-04 ./y1 --part y1",
)
def deliver(
    dataset: DatasetName,
    batch: BatchName,
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="The files of the delivery; one subfolder a part, where the dataset has parts.",
        ),
    ],
    part: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Deliver this part alone: DIR holds its files."),
    ] = None,
    project: ProjectDir = None,
    env: EnvName = None,
    as_json: AsJson = False,
) -> None:
    """Upload a folder as one batch, or as one part of it.

    The files go first and the manifest last; what was delivered before is replaced. The folder's
    own manifest is delivered as it is; where it has none, one is made on the way.

    Where the dataset has `parts`, DIR has one subfolder for each of them, and all are replaced
    together. With --part, DIR holds the files of that part, and the others stay as they are.
    """
    from rich.progress import Progress as Bar

    opened = open_project(project, env, as_json=as_json)
    watched = console.is_terminal and not as_json
    with Bar(console=console, transient=True, disable=not watched) as bar:
        task = bar.add_task("uploading", total=None)
        sizes: list[int] = []

        def watch(one: "Progress") -> None:
            sizes.append(one.bytes)
            bar.update(task, total=one.total, completed=one.done)

        manifest = opened.deliver(dataset, batch, folder, part=part, progress=watch)
    if as_json:
        show_json(manifest_json(manifest))
        return
    which = f", part {part}" if part else ""
    files = plural(len(manifest.entries), "file")
    say(f"Delivered {dataset} {batch}{which}: {files}, {size(sum(sizes))}.")
    when = ", when every part is there" if part else ""
    say(f"Next{when}: lakewarden batch run {dataset} {batch}")


@app.command(
    "manifest", epilog="Example: lakewarden batch manifest s3://flights-dev/raw/flights/2013-01-01/"
)
def manifest(
    where: Annotated[
        str, typer.Argument(metavar="DIR|S3-PREFIX", help="A folder, or a landing prefix.")
    ],
    dataset: Annotated[str | None, typer.Option(help="For a folder: its dataset.")] = None,
    batch: Annotated[str | None, typer.Option(help="For a folder: its batch.")] = None,
    part: Annotated[
        str | None, typer.Option(help="For a folder: its part, where the dataset has parts.")
    ] = None,
    project: ProjectDir = None,
    env: EnvName = None,
    as_json: AsJson = False,
) -> None:
    """Write the manifest of a folder or of a landing prefix.

    For files that are delivered by other means: into the folder before they are uploaded, or into
    the landing prefix when all of them lie there. A part of a dataset has a manifest of its own.

    A manifest is {"version": 1, "dataset": "flights", "batch": "2013-01-01", "entries": [{"url":
    "flights.csv", "sha256": "…", "meta": {"content_length": 77000, "record_count": 842}}]}.
    """
    opened = open_project(project, env, as_json=as_json)
    if where.startswith("s3://"):
        written, place = opened.write_manifest_of_prefix(where)
    else:
        written, place = opened.write_manifest_of_folder(Path(where), dataset, batch, part)
    if as_json:
        show_json(manifest_json(written))
    else:
        say(f"Wrote {place}: {plural(len(written.entries), 'file')}.")


@app.command("list", epilog="Example: lakewarden batch list --dataset flights --expected")
def list_(
    dataset: Annotated[str | None, typer.Option(help="Only this dataset.")] = None,
    expected: Annotated[
        bool,
        typer.Option(
            "--expected",
            help="By batch: also what is expected, late or missing, or waits to be run.",
        ),
    ] = False,
    most: Most = None,
    project: ProjectDir = None,
    env: EnvName = None,
    as_json: AsJson = False,
) -> None:
    """Runs, newest first, and what each ended with.

    With --expected the batches, newest first: what became of each (what is published counts for
    more than a later run that was refused), and which are due, by `due` in lakewarden.toml.
    """
    opened = open_project(project, env, as_json=as_json)
    if expected:
        _list_batches(opened, dataset, most_of(most, as_json=as_json), as_json=as_json)
        return
    found = opened.runs(dataset, most=most_of(most, as_json=as_json))
    if dataset and not found:
        opened.dataset(dataset)  # a dataset that nobody knows is a mistake
    if as_json:
        show_json([dataclasses.asdict(one) for one in found])
    elif not found:
        say("No batch was run yet.")
        say(f"Next: lakewarden batch deliver {dataset or 'DATASET'} BATCH DIR")
    else:
        _show_runs(found)


def _list_batches(
    opened: "Project", dataset: str | None, most: int | None, *, as_json: bool
) -> None:
    names = [dataset] if dataset else list(opened.settings.dataset)
    sizes = {"most": most} if most else {}
    found = [(name, one) for name in names for one in reversed(opened.overview(name, **sizes))]
    if as_json:
        show_json([{"dataset": name, **dataclasses.asdict(one)} for name, one in found])
        return
    show_table(
        ["dataset", "batch", "state", "due (UTC)", "version", "rows", "last error"],
        [
            (
                name,
                one.batch,
                one.state,
                one.due,
                one.version and str(one.version),
                one.rows,
                one.error or "",
            )
            for name, one in found
        ],
        right=["version", "rows"],
        extra=["last error"],
    )
    if without := [name for name in names if opened.settings.dataset[name].due is None]:
        say(f"Nothing is expected of {', '.join(without)}: lakewarden.toml has no `due` for it.")


@app.command("diff", epilog="Example: lakewarden batch diff flights 2013-01-04")
def diff(
    dataset: DatasetName,
    batch: BatchName,
    branch: Annotated[
        str | None,
        typer.Option(metavar="BRANCH", help="What this branch would change, of any batch."),
    ] = None,
    project: ProjectDir = None,
    env: EnvName = None,
    as_json: AsJson = False,
) -> None:
    """What a batch changed, by table, as counts of rows.

    When it was last published. Of tables that are written by batch only the rows of this one are
    compared; models that are made whole are compared whole, with all that was published in the
    same step. A changed row has the same key (of a loaded table the delivered record, else `key`
    of the template) and other values; where no key is known it counts as one removed and one
    added.
    """
    opened = open_project(project, env, as_json=as_json)
    key = opened.key(dataset, batch)
    if branch is not None:
        title, found = f"branch {branch}", opened.diff_of_branch(branch)
    else:
        publication = next(iter(opened.lake.publications(dataset, key)), None)
        if publication is None:
            raise NeverPublished(
                f"{dataset} {key} was never published",
                hint="A branch that `--no-publish` left: --branch NAME (lakewarden lake branches).",
            )
        title, found = f"version {publication.version}", opened.diff(publication)
    with console.status("comparing"):
        tables = list(found)
    if as_json:
        show_json({"what": title, "tables": [dataclasses.asdict(one) for one in tables]})
        return
    say(f"{dataset} {key}, {title}")
    show_table(
        ["table", "rows before", "rows after", "added", "removed", "changed"],
        [dataclasses.astuple(one) for one in tables],
        right=["rows before", "rows after", "added", "removed", "changed"],
    )


def _show_runs(found: "Sequence[RunRecord]") -> None:
    show_table(
        ["dataset", "batch", "outcome", "version", "loaded", "quarantined", "why", "run"],
        [
            (
                one.dataset,
                one.batch,
                one.outcome,
                one.version and str(one.version),
                one.loaded,
                one.quarantined,
                one.error or _left_out(one),
                one.run,
            )
            for one in found
        ],
        right=["version", "loaded", "quarantined"],
        flex=["why"],
        extra=["run"],
    )


def _left_out(run: "RunRecord") -> str:
    batches = [one.batch for one in run.batches if one.error]
    return f"without {', '.join(batches)}" if batches else ""


@app.command("show", epilog="Example: lakewarden batch show flights 2013-01-01")
def show(
    dataset: DatasetName,
    which: Annotated[
        str, typer.Argument(metavar="BATCH|RUN", help="A batch (its last run), or a run.")
    ],
    project: ProjectDir = None,
    env: EnvName = None,
    as_json: AsJson = False,
) -> None:
    """One run, stage by stage."""
    from lakewarden.batch.history import find_run
    from lakewarden.batch.receipts import receipts_of

    opened = open_project(project, env, as_json=as_json)
    receipts = receipts_of(opened.objects, dataset, find_run(opened.objects, dataset, which))
    if as_json:
        show_json([receipt.body() for receipt in receipts])
        return
    last = receipts[-1]
    say(f"{dataset} {last.batch}, run {last.run}")
    show_table(
        ["stage", "outcome", "seconds", "records", "loaded", "quarantined", "at (UTC)"],
        [(one.stage, one.outcome, f"{one.seconds:.1f}", *_counts(one), one.at) for one in receipts],
        right=["seconds", "records", "loaded", "quarantined"],
    )
    for receipt in receipts:
        for test in receipt.tests:
            if test.status != "pass":
                say(f"test {test.name}: {test.status}, {plural(test.failures, 'row')}")
    for one in last.batches:
        if one.error and not last.error:
            say(f"left out {one.batch}: {one.error.message} ({one.error.code})")
    if last.error:
        say(f"{last.outcome}: {last.error.message} ({last.error.code})")
        if last.error.hint:
            say(f"Next: {last.error.hint}")
    if last.version and not last.tables:
        say(f"Nothing to do: version {last.version} holds this batch.")
    elif last.version:
        say(f"Published as version {last.version}: {', '.join(sorted(last.tables))}.")


def _counts(receipt: "Receipt") -> tuple[object, object, object]:
    counts = receipt.counts
    return (counts.records_in, counts.loaded, counts.quarantined) if counts else (None, None, None)


def manifest_json(manifest: "Manifest") -> object:
    """A manifest as it is written."""
    import json

    from lakewarden.batch.delivery.manifest import write

    return json.loads(write(manifest))
