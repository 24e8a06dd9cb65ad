"""One run: what a job puts on a branch is transformed, audited and published, or nothing is.

Main moves in the last stage, for all tables at once, or not at all. Whatever ends a run before
that (an error, Ctrl-C, kill -9) leaves main as it was; the next run finds the dead one by its
lease, fences it in the catalog, and starts again on a branch of its own.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from threading import Thread
from typing import Protocol, TypeVar

import structlog

from lakewarden.aws.objects import Objects
from lakewarden.batch.audit import audit
from lakewarden.batch.duck import DuckConfig
from lakewarden.batch.model import Audited, Counts, LeftOut, Loaded, Published, Run, Transformed
from lakewarden.batch.models.project import DbtProject, check_unchanged, project_digest
from lakewarden.batch.publish import publish
from lakewarden.batch.receipts import Result, Told, prefix_of, receipt_of
from lakewarden.batch.transform import transform
from lakewarden.batch.turns import Turns
from lakewarden.errors import LakewardenError, Refused, TryAgain, WrongUsage
from lakewarden.lake.model import (
    BaseMoved,
    Branch,
    CatalogUnavailable,
    Contribution,
    Lake,
    Override,
    Publication,
    RunFenced,
    TakenOver,
)
from lakewarden.lake.store import store_errors
from lakewarden.records.lease import LEASES, Holder, Keeper, LeaseHeld, acquire
from lakewarden.records.stream import Stream
from lakewarden.tables.template import Template

_log = structlog.get_logger(__name__)
_T = TypeVar("_T", bound=Result)

# Those that lost a base take turns, so each of the others can overtake a run once or twice.
_ATTEMPTS = 20
_INTERRUPTED_SECONDS = 2.0  # for a receipt, after Ctrl-C
# Leases are renewed one after the other, and one that is not renewed for a minute counts as dead.
_AT_ONCE = 400  # batches: a year of days


class TooManyAtOnce(WrongUsage):
    """More batches than one run can hold the leases of."""


class GaveUp(TryAgain):
    """Others published the same tables again and again while this run was under way."""


@dataclass(frozen=True)
class Workshop:
    """What a run works with. `scratch` holds one folder a run; `now` is the clock."""

    lake: Lake
    objects: Objects
    templates: Mapping[str, Template]
    dbt: DbtProject | None
    duck: DuckConfig
    scratch: Path
    part_bytes: int
    now: Callable[[], datetime]


@dataclass(frozen=True)
class Terms:
    """On which terms a run is made: `accept` publishes in spite of one failing test, on somebody's
    word. With `strict` whatever is wrong with one batch ends the run; else it goes on without."""

    publish: bool = True
    accept: Override | None = None
    take_over: bool = False
    strict: bool = True
    may_publish: Callable[[], None] = lambda: None  # asked just before; raises where it may not


@dataclass(frozen=True)
class StageDone:
    """Told after each stage that ended well."""

    stage: str
    seconds: float
    result: Result


@dataclass(frozen=True)
class Outcome:
    """What became of a run. `publication`: the new one, or for `unchanged` the one that holds.
    `branch`: what was left to look at. `loaded`: what it did before it published."""

    run: Run
    # published | unchanged | left; where nothing remained to be published: refused, or waiting for
    # deliveries or for other runs
    status: str
    publication: Publication | None = None
    branch: str | None = None
    loaded: Loaded | None = None
    left_out: Sequence[LeftOut] = ()

    @property
    def counts(self) -> Counts | None:
        """Of what was loaded."""
        return self.loaded.counts if self.loaded and self.loaded.batches else None


class Job(Protocol):
    """What a run is for: how a branch comes to hold what is to be published."""

    @property
    def stages(self) -> Sequence[str]:
        """What it does before the transform."""
        ...

    def prepare(self, work: "Work") -> bool:
        """Look, and change nothing; whether there is anything to do."""
        ...

    def put(self, work: "Work", branch: Branch) -> Loaded | None:
        """Put it on the branch; again on another one where main moved. None: somebody else did
        it meanwhile."""
        ...

    def contributions(self, loaded: Loaded, override: Override | None) -> Sequence[Contribution]:
        """What the publication tells of it."""
        ...

    def holding(self) -> Publication | None:
        """Where nothing is to be done: a publication that did it before."""
        ...


def conduct(
    job: Job,
    dataset: str,
    batches: Sequence[str],
    terms: Terms,
    workshop: Workshop,
    holder: Holder,
    *,
    tell: Callable[[StageDone], None],
    models: tuple[str, ...] = (),
) -> Outcome:
    """Do a job for these batches of a dataset; every error leaves main as it was. `models`: of a
    job that loads nothing.

    Raises Refused for wrong data, TryAgain where something outside was away or busy, and
    TooManyAtOnce."""
    if len(batches) > _AT_ONCE:
        raise TooManyAtOnce(
            f"{len(batches):,} batches at once; one run takes {_AT_ONCE} at the most",
            hint="Name a shorter range, or smaller groups (--group).",
        )
    with (
        structlog.contextvars.bound_contextvars(dataset=dataset, run=holder.run),
        _leases(dataset, batches, terms, workshop, holder) as held,
    ):
        if not held.batches:
            run = Run(holder.run, dataset, tuple(batches))
            return Outcome(run, _left(held.left_out), left_out=held.left_out)
        run = Run(holder.run, dataset, held.batches, models)
        work = Work(job, terms, workshop, holder, run, tell, held.keeper.leave, held.left_out)
        with structlog.contextvars.bound_contextvars(batch=run.span):
            try:
                return work.run()
            finally:
                shutil.rmtree(work.scratch, ignore_errors=True)


@dataclass
class Work:
    """One run under way. A job may take batches out of it (`leave_out`) as it goes."""

    job: Job
    terms: Terms
    workshop: Workshop
    holder: Holder
    current: Run
    tell: Callable[[StageDone], None]
    leave: Callable[[], None]  # the next run is to tidy up
    left_out: list[LeftOut]
    at: str = ""  # the stage that we are in, or on our way to
    entered: float = field(default_factory=time.perf_counter)

    @cached_property
    def receipts(self) -> Stream:
        return Stream(self.workshop.objects, self._prefix())

    @cached_property
    def project(self) -> str | None:
        """The digest of the dbt project, as it was when the run began."""
        return project_digest(self.workshop.dbt.folder) if self.workshop.dbt else None

    @property
    def scratch(self) -> Path:
        return self.workshop.scratch / self.current.id

    def run(self) -> Outcome:
        """All stages; a receipt tells of each, and of what ended it."""
        self.at = self._stages[0]
        try:
            with self._fence_explains(), store_errors():
                if not self.job.prepare(self):
                    return self._nothing()
                return self._to_publish()
        except BaseException as error:
            self._report(error)
            raise

    def stage(self, stage: str, work: Callable[[], _T]) -> _T:
        """Do a stage, and leave a receipt of its result."""
        self._enter(stage)
        result = work()
        seconds = time.perf_counter() - self.entered
        self._receipt(stage, result, seconds)
        self.tell(StageDone(stage, seconds, result))
        if stage != self._stages[-1]:
            self._enter(self._stages[self._stages.index(stage) + 1])
        return result

    def leave_out(self, batch: str, error: LakewardenError) -> None:
        """Go on without a batch, unless that is what nobody wants."""
        if self.terms.strict:
            raise error
        self.left_out.append(LeftOut(batch, error))

    @property
    def _stages(self) -> Sequence[str]:
        return (*self.job.stages, "transform", "audit", "publish")

    def _nothing(self) -> Outcome:
        holding, left_out = self.job.holding(), tuple(self.left_out)
        _log.info("nothing to do", version=holding and holding.version)
        if holding:
            self._receipt("publish", holding, 0.0)
        status = _left(left_out) if left_out else "unchanged"
        return Outcome(self.current, status, holding, left_out=left_out)

    def _to_publish(self) -> Outcome:
        """Stage, and stage again where main moved underneath, until it is published."""
        before: Transformed | None = None
        with Turns(self.workshop.objects, self.holder, now=self.workshop.now) as turns:
            for attempt in range(1, _ATTEMPTS + 1):
                turns.wait()
                with self._branch(attempt) as branch:
                    loaded = self.job.put(self, branch.branch)
                    if loaded is None:
                        return self._nothing()
                    before = self._transform(loaded, before)
                    try:
                        return self._attempt(before, branch, turns)
                    except BaseMoved as moved:
                        tables = list(moved.tables)
                        _log.info("main moved, staging again", tables=tables, attempt=attempt)
                        turns.take(moved.tables)
        raise GaveUp(
            f"{self.current.dataset} {self.current.span}: others published the same tables"
            f" {_ATTEMPTS} times meanwhile",
            hint="Give the same command again when they are done.",
        )

    def _attempt(self, transformed: Transformed, branch: "_KeptBranch", turns: Turns) -> Outcome:
        accept = self.terms.accept.test if self.terms.accept else None
        audited = self.stage("audit", lambda: audit(transformed, accept=accept))
        loaded, left_out = transformed.loaded, tuple(self.left_out)
        if not self.terms.publish:
            branch.keep = True
            name = branch.branch.name
            return Outcome(self.current, "left", None, name, loaded, left_out)
        turns.let_pass(transformed.asserted)
        done = self.stage("publish", lambda: self._publish(audited))
        return Outcome(self.current, "published", done.publication, None, loaded, left_out)

    def _transform(self, loaded: Loaded, before: Transformed | None) -> Transformed:
        shop = self.workshop

        def build() -> Transformed:
            transformed = transform(
                loaded,
                lake=shop.lake,
                project=shop.dbt,
                templates=shop.templates,
                duck=self.duck,
                objects=shop.objects,
                scratch=self.scratch,
                before=before,
            )
            if shop.dbt and self.project:  # the publication says what its models are made of
                check_unchanged(shop.dbt.folder, self.project)
            return transformed

        try:
            transformed = self.stage("transform", build)
        except Exception:  # and not where somebody waits for the end
            self._keep_artifacts()
            raise
        self._keep_artifacts()
        return transformed

    @property
    def duck(self) -> DuckConfig:
        """DuckDB, spilling to the run's own scratch."""
        return replace(self.workshop.duck, temp=self.scratch / "duckdb")

    def _publish(self, audited: Audited) -> Published:
        self.terms.may_publish()
        override = self.terms.accept if audited.accepted else None
        return publish(
            audited,
            lake=self.workshop.lake,
            contributions=[
                replace(one, project=self.project)
                for one in self.job.contributions(audited.transformed.loaded, override)
            ],
            at=self.workshop.now(),
        )

    def _enter(self, stage: str) -> None:
        self.at, self.entered = stage, time.perf_counter()

    def _report(self, error: BaseException) -> None:
        """The receipt of what ended the run, on its way into or through a stage."""
        told = (self.at, error, time.perf_counter() - self.entered)
        if not isinstance(error, KeyboardInterrupt):
            self._receipt(*told)
            return
        # Somebody waits for the end, and the store may be why.
        report = Thread(target=self._receipt, args=told, daemon=True)
        report.start()
        report.join(_INTERRUPTED_SECONDS)

    @contextmanager
    def _fence_explains(self) -> Iterator[None]:
        """A run that was taken over stumbles on what its successor tidied up (its branch, its
        scratch), whatever it was about to do: then that is what is told."""
        try:
            yield
        except (RunFenced, BaseMoved):
            raise
        except Exception as error:
            if fence := self._fence():
                raise RunFenced(
                    f"run {self.current.id} was taken over by {fence.by}",
                    hint="Look at what it published: lakewarden lake log",
                ) from error
            raise

    def _fence(self) -> TakenOver | None:
        try:
            outcome = self.workshop.lake.outcome(self.current.id)
        except CatalogUnavailable:
            return None  # the error that was met stands for itself
        return outcome if isinstance(outcome, TakenOver) else None

    def _receipt(self, stage: str, outcome: Told | BaseException, seconds: float) -> None:
        receipt = receipt_of(
            self.current,
            stage,
            outcome,
            at=self.workshop.now(),
            seconds=seconds,
            left_out=self.left_out,
        )
        try:
            self.receipts.append(stage, receipt.body())
        except LakewardenError as failure:
            if not isinstance(outcome, Published | Publication | BaseException):
                raise
            # A report: what was published is published, and the first error is what has to be told.
            _log.warning("no receipt could be written", stage=stage, why=failure.message)
        _log.info("stage", stage=stage, outcome=receipt.outcome, seconds=round(seconds, 3))

    def _keep_artifacts(self) -> None:
        """dbt's artifacts and log stay with the receipts, and are reports as these are."""
        folder = self.scratch / "dbt" / "artifacts"
        if not folder.is_dir():
            return
        try:
            for file in sorted(folder.iterdir()):
                self.workshop.objects.upload(f"{self._prefix()}dbt/{file.name}", file)
        except LakewardenError as failure:
            _log.warning("dbt's artifacts could not be kept", why=failure.message)

    def _prefix(self) -> str:
        return prefix_of(self.current.dataset, self.current.id)

    @contextmanager
    def _branch(self, attempt: int) -> "Iterator[_KeptBranch]":
        """A branch of its own for each attempt; it is discarded unless it is to be kept."""
        lake, current = self.workshop.lake, self.current
        suffix = f".{attempt}" if attempt > 1 else ""
        name = f"batch/{current.dataset}/{current.id}{suffix}"
        kept: _KeptBranch | None = None
        try:
            kept = _KeptBranch(lake.begin(name, current.id, self.workshop.now()))
            yield kept
        finally:
            # Also where it could not begin: without an answer it may have been made.
            if kept is None or not kept.keep:
                self._discard(name)

    def _discard(self, branch: str) -> None:
        """What was met before is what has to be told, whatever becomes of the branch; and a run
        that has published has none."""
        try:
            self.workshop.lake.discard(branch)
        except CatalogUnavailable as away:
            self.leave()
            _log.warning("the branch is left to the next run", branch=branch, why=away.message)


def _left(left_out: Sequence[LeftOut]) -> str:
    """The status of a run that nothing remained of."""
    return "refused" if any(isinstance(one.error, Refused) for one in left_out) else "waiting"


@dataclass
class _KeptBranch:
    branch: Branch
    keep: bool = False


@dataclass(frozen=True)
class _Held:
    keeper: Keeper
    batches: tuple[str, ...]
    left_out: list[LeftOut]


@contextmanager
def _leases(
    dataset: str, batches: Sequence[str], terms: Terms, workshop: Workshop, holder: Holder
) -> Iterator[_Held]:
    """Tell the others who is running; fence dead predecessors, and tidy up after them."""
    held: list[str] = []
    left_out: list[LeftOut] = []
    with Keeper(now=workshop.now) as keeper:
        for batch in batches:
            try:
                lease = acquire(
                    workshop.objects,
                    f"{LEASES}{dataset}/{batch}.json",
                    holder,
                    now=workshop.now(),
                    take_over=terms.take_over,
                )
            except LeaseHeld as error:
                if terms.strict:
                    raise
                left_out.append(LeftOut(batch, error))
                continue
            keeper.hold(lease)
            held.append(batch)
            for dead in lease.predecessors:
                _bury(dead, workshop, holder, keeper)
        yield _Held(keeper, tuple(held), left_out)


def _bury(dead: Holder, workshop: Workshop, holder: Holder, keeper: Keeper) -> None:
    try:
        workshop.lake.take_over(dead.run, by=holder.run, at=workshop.now())
    except BaseException:
        # The lease is what remembers the dead: the next run has to find them in it.
        keeper.leave()
        raise
    shutil.rmtree(workshop.scratch / Path(dead.run).name, ignore_errors=True)
    _log.warning("took over from a dead run", dead=dead.run)
