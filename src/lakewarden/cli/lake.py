"""lakewarden lake: what is published, and the branches of runs that did not publish."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from lakewarden.cli.options import (
    AsJson,
    EnvName,
    Most,
    ProjectDir,
    most_of,
    open_project,
)
from lakewarden.cli.output import cell, plural, say, show_json, show_table

if TYPE_CHECKING:
    from lakewarden.lake.model import Branch, Publication, TableChange

_SHORT = 12  # characters of a version that is a hash

app = typer.Typer(
    help="What is published, by which batch, when; branches left behind.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("log", epilog="Example: lakewarden lake log --dataset flights -n 5")
def log(
    dataset: Annotated[str | None, typer.Option(help="Only this dataset.")] = None,
    batch: Annotated[str | None, typer.Option(help="Only this batch.")] = None,
    most: Most = None,
    project: ProjectDir = None,
    env: EnvName = None,
    as_json: AsJson = False,
) -> None:
    """Publications, newest first."""
    opened = open_project(project, env, as_json=as_json)
    found = opened.lake.publications(dataset, batch)[: most_of(most, as_json=as_json)]
    if dataset and not found:
        opened.dataset(dataset)  # a dataset that nobody knows is a mistake
    if as_json:
        show_json([publication_json(publication) for publication in found])
    elif not found:
        say("Nothing is published yet.")
        say(f"Next: lakewarden batch run {dataset or 'DATASET'} {batch or 'BATCH'}")
    else:
        show_table(
            ["version", "at (UTC)", "dataset", "batch", "loaded", "tables", "note", "run"],
            [
                (
                    str(one.version),
                    one.at,
                    one.contribution.dataset,
                    one.contribution.batch,
                    one.contribution.counts.get("loaded"),
                    len(one.tables),
                    _note(one),
                    one.run,
                )
                for one in found
            ],
            right=["version", "loaded", "tables"],
            flex=["note"],
            extra=["run"],
        )


@app.command("branches", epilog="Example: lakewarden lake branches")
def branches(project: ProjectDir = None, env: EnvName = None, as_json: AsJson = False) -> None:
    """Branches: of runs under way, left to look at, or dead."""
    opened = open_project(project, env, as_json=as_json)
    found = opened.lake.branches()
    if as_json:
        show_json([branch_json(branch) for branch in found])
    elif not found:
        say("No branches.")
    else:
        show_table(
            ["branch", "base", "since (UTC)", "run"],
            [(one.name, one.base.version[:_SHORT], one.created_at, one.run) for one in found],
            right=["base"],
            extra=["run"],
        )
        say("Next: lakewarden lake show BRANCH, or: lakewarden lake discard BRANCH")


@app.command("show", epilog="Example: lakewarden lake show 3")
def show(
    what: Annotated[str, typer.Argument(metavar="VERSION|BRANCH", help="What to look at.")],
    project: ProjectDir = None,
    env: EnvName = None,
    as_json: AsJson = False,
) -> None:
    """The tables of one version, or what a branch would change."""
    opened = open_project(project, env, as_json=as_json)
    pin = opened.pin(at=int(what)) if what.isdecimal() else opened.pin(branch=what)
    published = [one for one in opened.lake.publications() if str(one.version) == what]
    if as_json:
        told = {"ref": pin.ref, "version": pin.version, "tables": dict(pin.tables)}
        show_json({**told, "publications": [publication_json(one) for one in published]})
        return
    for one in published:
        _tell_publication(one)
    changes = {name: change for one in published for name, change in one.tables.items()}
    main = opened.pin().tables
    show_table(
        ["table", "in this version" if published else "against main", "metadata"],
        [
            (
                name,
                _in_version(changes.get(name)) if published else _against(main.get(name), location),
                location.rpartition("/")[2],
            )
            for name, location in sorted(pin.tables.items())
        ],
        extra=["metadata"],
    )


@app.command(
    "discard", epilog="Example: lakewarden lake discard batch/flights/20130101T060000-1a2b"
)
def discard(
    branch: Annotated[str, typer.Argument(metavar="BRANCH|RUN", help="What to remove.")],
    project: ProjectDir = None,
    env: EnvName = None,
    as_json: AsJson = False,
) -> None:
    """Remove a branch; main stays as it is.

    The branch's files are left to maintenance.
    """
    opened = open_project(project, env, as_json=as_json)
    names = [one.name for one in opened.lake.branches() if branch in (one.name, one.run)]
    if not names:
        from lakewarden.lake.model import BranchUnknown

        raise BranchUnknown(f"there is no branch {branch!r}", hint="lakewarden lake branches")
    for name in names:
        opened.lake.discard(name)
    if as_json:
        show_json({"discarded": names})
    else:
        say("\n".join(f"Discarded {name}." for name in names))


def publication_json(publication: "Publication") -> Mapping[str, object]:
    """A publication for programs."""
    made, override = publication.contribution, publication.contribution.override
    return {
        "version": publication.version,
        "at": publication.at,
        "run": publication.run,
        "dataset": made.dataset,
        "batch": made.batch,
        "inputs_hash": made.inputs_hash,
        "counts": dict(made.counts),
        "summary": made.summary,
        "override": override
        and {"test": override.test, "reason": override.reason, "by": override.by},
        "tables": {
            name: {"before": change.before, "after": change.after}
            for name, change in publication.tables.items()
        },
    }


def branch_json(branch: "Branch") -> Mapping[str, object]:
    """A branch for programs."""
    return {
        "branch": branch.name,
        "run": branch.run,
        "base": branch.base.version,
        "created_at": branch.created_at,
    }


def _tell_publication(publication: "Publication") -> None:
    made = publication.contribution
    what = f"{made.dataset} {made.batch}" if made.dataset else made.summary
    loaded = f", {plural(made.counts['loaded'], 'row')}" if "loaded" in made.counts else ""
    say(f"Version {publication.version}, {cell(publication.at)} UTC: {what}{loaded}")
    say(f"by run {publication.run}{_in_spite(publication)}")


def _in_spite(publication: "Publication") -> str:
    override = publication.contribution.override
    if not override:
        return ""
    return f", in spite of the test {override.test}: {override.reason} ({override.by})"


def _note(publication: "Publication") -> str:
    override = publication.contribution.override
    if override:
        return f"in spite of {override.test}: {override.reason} ({override.by})"
    summary = publication.contribution.summary
    if publication.contribution.withdrawn:
        return f"unpublished: {summary}" if summary else "unpublished"
    return summary


def _in_version(change: "TableChange | None") -> str:
    if change is None:
        return "as before"
    return "changed" if change.before else "new"


def _against(main: str | None, here: str) -> str:
    if main is None:
        return "new"
    return "same" if main == here else "changed"
