"""What every catalog refuses, in the same words."""

from collections.abc import Sequence

from lakewarden.errors import WrongUsage
from lakewarden.lake.model import (
    BaseMoved,
    Branch,
    BranchNameTaken,
    BranchUnknown,
    Contribution,
    Publication,
    RunFenced,
    TakenOver,
    VersionUnknown,
)


def refuse_moved(branch: Branch, moved: Sequence[str]) -> None:
    if moved:
        raise BaseMoved(
            f"{', '.join(moved)} moved since branch {branch.name} began; nothing was published",
            tables=moved,
            hint="Stage the batch again on main as it is now.",
        )


def fenced(run: str, outcome: Publication | TakenOver) -> RunFenced:
    match outcome:
        case Publication():
            what = f"has published version {outcome.version}"
        case TakenOver():
            what = f"was taken over by {outcome.by} at {outcome.at.isoformat()}"
    return RunFenced(f"run {run} {what}", hint="Start a new run.")


def name_taken(name: str) -> BranchNameTaken:
    return BranchNameTaken(
        f"branch {name} exists or existed", hint="Give the new branch a new name."
    )


def no_branch(name: str) -> BranchUnknown:
    return BranchUnknown(
        f"no branch {name}", hint="`lakewarden lake branches` lists those that exist."
    )


def no_version(version: int) -> VersionUnknown:
    return VersionUnknown(
        f"no publication has version {version}", hint="`lakewarden lake log` lists the versions."
    )


def wrong_name(name: str, rule: str) -> WrongUsage:
    return WrongUsage(f"{name!r} cannot be a branch's name: {rule}")


def check_contributions(contributions: Sequence[Contribution]) -> None:
    if not contributions:
        raise ValueError("a publish without a contribution")
    batches = [(one.dataset, one.batch) for one in contributions]
    if len(set(batches)) < len(batches):
        raise ValueError("two contributions of one batch")
