"""How a run is told: stage by stage, what came of it, and what to do next."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from lakewarden.cli.output import console, error_json, plural, say, show_json, size
from lakewarden.errors import Failed, LakewardenError, Refused, TryAgain, WrongUsage

if TYPE_CHECKING:
    from lakewarden.batch.conductor import Outcome, StageDone
    from lakewarden.batch.model import Counts, Received


# The one that a set leaves with, of those of the batches that it left out.
_CODES = (Refused.exit_code, TryAgain.exit_code, WrongUsage.exit_code, Failed.exit_code)


class Teller:
    """Tells how runs go, one after the other, and what to leave with."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._outcomes: list[Outcome] = []
        self._withdrawn: Sequence[str] | None = None  # of a set only
        self._failed: LakewardenError | None = None

    def stage(self, done: "StageDone") -> None:
        if not self._as_json:
            tell_stage(done)

    def end(self, outcome: "Outcome") -> None:
        self._outcomes.append(outcome)
        if not self._as_json:
            tell_outcome(outcome)

    def withdrawn(self, dataset: str, batches: "Sequence[str]") -> None:
        """Batches of a set that were taken out of main, and so stay out."""
        self._withdrawn = batches
        if batches and not self._as_json:
            say(f"Unpublished before, and left out: {', '.join(batches)}.")
            say(f"Next, to bring one back: lakewarden batch run {dataset} {batches[0]}")

    def fail(self, error: LakewardenError) -> None:
        """What ended a set: the groups before it are published all the same, and are told."""
        self._failed = error

    def leave(self) -> None:
        """JSON where it is asked for; and a set that left batches out says so by its exit code.
        Raises what ended it."""
        left_out = [one for outcome in self._outcomes for one in outcome.left_out]
        if self._as_json:
            told = [outcome_json(outcome) for outcome in self._outcomes]
            of_set: dict[str, object] = {"groups": told, "withdrawn": self._withdrawn}
            if self._failed:
                of_set["error"] = error_json(self._failed)
            show_json(told[0] if self._withdrawn is None else of_set)
        if self._failed:
            raise self._failed
        if left_out:
            codes = {one.error.exit_code for one in left_out}
            raise SystemExit(next(code for code in _CODES if code in codes))


def tell_stage(done: "StageDone") -> None:
    """One line a stage."""
    summary = f" {done.stage:<10} {stage_summary(done):<56} "
    seconds = f"{done.seconds:5.1f} s"
    console.print(Text.assemble(("✓", "green"), summary, (seconds, "dim")), soft_wrap=True)


def stage_summary(done: "StageDone") -> str:
    """What a stage did, in a few words."""
    from lakewarden.batch.model import Audited, Loaded, Published, Received, Transformed

    match done.result:
        case Received():
            return _received(done.result)
        case Loaded(withdrawn=withdrawn) if withdrawn:
            return f"{plural(len(withdrawn), 'batch', 'batches')} taken out, on a branch"
        case Loaded(counts=counts):
            kept = (
                f", {plural(counts.quarantined, 'row')} quarantined" if counts.quarantined else ""
            )
            return f"{plural(counts.loaded, 'row')} on a branch{kept}"
        case Transformed(models=models, tests=tests):
            return f"{plural(len(models), 'model')} built, {plural(len(tests), 'test')} run"
        case Audited(warnings=warnings, accepted=accepted):
            told = f", accepted: {accepted.name}" if accepted else ""
            warned = f", {plural(len(warnings), 'warning')}" if warnings else ""
            return f"every record accounted for{warned}{told}"
        case Published(publication=publication):
            tables = len(publication.tables)
            return f"version {publication.version}: {plural(tables, 'table')} in one step"


_COMPLETE = {
    "manifest": "complete by its manifest",
    "marker": "complete by its marker",
    "settled": "settled, completeness unproven",
}


def _received(received: "Received") -> str:
    deliveries = received.deliveries
    files = [file for delivery in deliveries for file in delivery.files]
    told = f"{plural(len(files), 'file')}, {size(sum(file.version.size for file in files))}"
    if len(received.run.batches) == 1:
        return f"{told}, {_COMPLETE[deliveries[0].completeness]}"
    same = f", {len(received.same)} of them published already" if received.same else ""
    return f"{received.run.span}: {plural(len(deliveries), 'batch', 'batches')}{same}, {told}"


def tell_outcome(outcome: "Outcome") -> None:
    """What to know at the end, and what to do next where there is something."""
    run = outcome.run
    if outcome.status == "unchanged" and outcome.publication:
        version = outcome.publication.version
        if len(run.batches) > 1:
            say(f"Nothing to do for {run.dataset} {run.span}: main is so already.")
            return
        held = outcome.publication.contribution
        state = "was unpublished by" if held.withdrawn else "is published as"
        say(f"Nothing to do: {run.dataset} {run.span} {state} version {version}.")
    elif outcome.status == "left":
        say(f"Not published. Look at it: lakewarden query --branch {outcome.branch} 'SELECT …'")
        say(f"Then run it without --no-publish, or: lakewarden lake discard {outcome.branch}")
    elif outcome.counts and outcome.counts.quarantined:
        rows = plural(outcome.counts.quarantined, "row")
        say(f"Published without {rows} that did not fit.")
        say(f"Next: lakewarden quarantine show {run.dataset} {_first_quarantined(outcome)}")
    for one in outcome.left_out:
        say(f"left out  {one.batch}: {one.error.message}")
        if one.error.hint:
            say(f"next      {one.error.hint}")


def _first_quarantined(outcome: "Outcome") -> str:
    batches = outcome.loaded.batches if outcome.loaded else ()
    return next(one.delivery.batch for one in batches if one.quarantine)


def outcome_json(outcome: "Outcome") -> Mapping[str, object]:
    """A run's outcome for programs."""
    run, publication = outcome.run, outcome.publication
    return {
        "dataset": run.dataset,
        "batch": run.span,
        "batches": run.batches,
        "run": run.id,
        "status": outcome.status,
        "version": publication.version if publication else None,
        "branch": outcome.branch,
        "counts": counts_json(outcome.counts) if outcome.counts else None,
        "left_out": [
            {"batch": one.batch, "code": one.error.code, "message": one.error.message}
            for one in outcome.left_out
        ],
    }


def counts_json(counts: "Counts") -> Mapping[str, int]:
    return {
        "in": counts.records_in,
        "loaded": counts.loaded,
        "quarantined": counts.quarantined,
    }
