"""A batch from delivery to publish: receive → load → transform → audit → publish.

Main moves in the last stage, for all tables at once, or not at all. Whatever ends a run before
that (an error, Ctrl-C, kill -9) leaves main as it was; the next run finds the dead one by its
lease, fences it in the catalog, and starts again on a branch of its own.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from threading import Thread
from typing import TypeVar

import structlog

from lakewarden.aws.objects import Objects
from lakewarden.batch.audit import audit
from lakewarden.batch.delivery.keys import parse_key
from lakewarden.batch.duck import DuckConfig
from lakewarden.batch.intake import IntakeConfig
from lakewarden.batch.load import TooManyMisfits, load, stage_again
from lakewarden.batch.model import Audited, Counts, Dataset, Loaded, Published, Received, Run
from lakewarden.batch.models.project import DbtProject, project_digest
from lakewarden.batch.publish import publish
from lakewarden.batch.receipts import PREFIX, STAGES, Result, Told, receipt_of
from lakewarden.batch.receive import receive
from lakewarden.batch.transform import transform
from lakewarden.errors import LakewardenError, TryAgain
from lakewarden.lake.model import (
    BaseMoved,
    Branch,
    CatalogUnavailable,
    Lake,
    Override,
    Publication,
    RunFenced,
    TakenOver,
)
from lakewarden.lake.store import store_errors
from lakewarden.records.lease import Holder, Keeper, acquire
from lakewarden.records.stream import Stream
from lakewarden.tables.template import Template

_log = structlog.get_logger(__name__)
_T = TypeVar("_T", bound=Result)

LEASES = "ops/leases/"
# A base that moves this often is a sign that runs should not be side by side.
_ATTEMPTS = 5
_INTERRUPTED_SECONDS = 2.0  # for a receipt, after Ctrl-C


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
class Request:
    """What is asked for: `accept` publishes in spite of one failing test, on somebody's word."""

    dataset: Dataset
    batch: str
    publish: bool = True
    accept: Override | None = None
    take_over: bool = False


@dataclass(frozen=True)
class StageDone:
    """Told after each stage that ended well."""

    stage: str
    seconds: float
    result: Result


@dataclass(frozen=True)
class Outcome:
    """What became of a run. `publication`: the new one, or for `unchanged` the one that holds.
    `branch`: what --no-publish left to look at."""

    run: Run
    status: str  # published | unchanged | left
    counts: Counts | None
    publication: Publication | None
    branch: str | None
    result: Published | Audited | None


def run_batch(
    request: Request,
    workshop: Workshop,
    holder: Holder,
    *,
    tell: Callable[[StageDone], None] = lambda done: None,
) -> Outcome:
    """Bring one batch to main, or say why not; every error leaves main as it was.

    Raises Refused for wrong data, TryAgain where something outside was away or busy."""
    batch = str(parse_key(request.dataset.key_form, request.batch))
    run = Run(holder.run, request.dataset.name, batch)
    with (
        structlog.contextvars.bound_contextvars(dataset=run.dataset, batch=batch, run=run.id),
        _lease(request, workshop, run, holder) as keeper,
    ):
        work = _Work(request, workshop, run, tell, leave=keeper.leave)
        try:
            return work.run()
        finally:
            shutil.rmtree(work.scratch, ignore_errors=True)


def inputs_hash(
    received: Received,
    dataset: Dataset,
    templates: Mapping[str, Template],
    dbt: DbtProject | None,
) -> str:
    """Equal where a batch would come out equal: its delivery, its tables, the dbt project."""
    tables = {name: [glob, templates[name].digest] for name, glob in dataset.tables.items()}
    project = project_digest(dbt.folder) if dbt else None
    text = json.dumps([1, received.delivery_hash, tables, project], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class _Work:
    """One run under way."""

    request: Request
    workshop: Workshop
    current: Run
    tell: Callable[[StageDone], None]
    leave: Callable[[], None]  # the next run is to tidy up
    stage: str = STAGES[0]  # that we are in, or on our way to
    entered: float = field(default_factory=time.perf_counter)

    @cached_property
    def receipts(self) -> Stream:
        return Stream(self.workshop.objects, self._prefix())

    @property
    def scratch(self) -> Path:
        return self.workshop.scratch / self.current.id

    def run(self) -> Outcome:
        try:
            with self._fence_explains(), store_errors():
                return self._run()
        except BaseException as error:
            self._report(error)
            raise

    def _run(self) -> Outcome:
        received = self._stage(
            "receive", lambda: receive(self.workshop.objects, self.request.dataset, self.current)
        )
        wanted = inputs_hash(
            received, self.request.dataset, self.workshop.templates, self.workshop.dbt
        )
        if same := self._holding(wanted):
            return self._unchanged(same)
        return self._to_publish(received, wanted)

    def _holding(self, wanted: str) -> Publication | None:
        """The publication that holds the batch, where it was made of the same inputs."""
        published = self.workshop.lake.publications(self.current.dataset, self.current.batch)
        newest = next(iter(published), None)
        return newest if newest and newest.contribution.inputs_hash == wanted else None

    def _replaces(self) -> bool:
        """Whether one of our tables may hold rows of such a batch; another dataset may have
        brought them there."""
        tables = self.request.dataset.tables.keys()
        published = self.workshop.lake.publications(batch=self.current.batch)
        return any(tables & one.tables.keys() for one in published)

    def _unchanged(self, publication: Publication) -> Outcome:
        _log.info("nothing to do", version=publication.version)
        self._receipt("publish", publication, 0.0)
        return Outcome(self.current, "unchanged", None, publication, None, None)

    def _to_publish(self, received: Received, wanted: str) -> Outcome:
        """Stage, and stage again where main moved underneath, until it is published."""
        loaded: Loaded | None = None
        for attempt in range(1, _ATTEMPTS + 1):
            with self._branch(attempt) as branch:
                # Asked when the branch is there, since its rows are what has to be replaced: a
                # lease keeps nobody from publishing this batch meanwhile.
                if same := self._holding(wanted):
                    return self._unchanged(same)
                loaded = self._load(received, loaded, branch, replaces=self._replaces())
                try:
                    return self._attempt(loaded, branch, wanted)
                except BaseMoved as moved:
                    _log.info("main moved, staging again", tables=moved.tables, attempt=attempt)
        raise GaveUp(
            f"{self.current.dataset} {self.current.batch}: others published the same tables"
            f" {_ATTEMPTS} times meanwhile",
            hint="Give the same command again when they are done.",
        )

    def _attempt(self, loaded: Loaded, branch: "_KeptBranch", wanted: str) -> Outcome:
        audited = self._audit(loaded)
        if not self.request.publish:
            branch.keep = True
            name = branch.branch.name
            return Outcome(self.current, "left", loaded.counts, None, name, audited)
        done = self._stage("publish", lambda: self._publish(audited, wanted))
        return Outcome(self.current, "published", loaded.counts, done.publication, None, done)

    def _load(
        self, received: Received, before: Loaded | None, branch: "_KeptBranch", *, replaces: bool
    ) -> Loaded:
        shop = self.workshop
        if before is not None:
            return stage_again(
                before,
                branch.branch,
                lake=shop.lake,
                templates=shop.templates,
                replaces=replaces,
            )
        duck = replace(shop.duck, temp=self.scratch / "duckdb")
        return self._stage(
            "load",
            lambda: load(
                received,
                self.request.dataset,
                branch.branch,
                lake=shop.lake,
                objects=shop.objects,
                templates=shop.templates,
                replaces=replaces,
                config=IntakeConfig(duck, self.scratch / "load", shop.part_bytes),
            ),
        )

    def _audit(self, loaded: Loaded) -> Audited:
        shop, accept = self.workshop, self.request.accept
        duck = replace(shop.duck, temp=self.scratch / "duckdb")
        try:
            transformed = self._stage(
                "transform",
                lambda: transform(
                    loaded,
                    lake=shop.lake,
                    project=shop.dbt,
                    templates=shop.templates,
                    duck=duck,
                    objects=shop.objects,
                    scratch=self.scratch,
                ),
            )
        except Exception:  # and not where somebody waits for the end
            self._keep_artifacts()
            raise
        self._keep_artifacts()
        return self._stage(
            "audit", lambda: audit(transformed, accept=accept.test if accept else None)
        )

    def _publish(self, audited: Audited, wanted: str) -> Published:
        return publish(
            audited,
            lake=self.workshop.lake,
            inputs_hash=wanted,
            accept=self.request.accept,
            at=self.workshop.now(),
        )

    def _stage(self, stage: str, work: Callable[[], _T]) -> _T:
        """Do a stage, and leave a receipt of its result."""
        self._enter(stage)
        result = work()
        seconds = time.perf_counter() - self.entered
        self._receipt(stage, result, seconds)
        self.tell(StageDone(stage, seconds, result))
        if stage != STAGES[-1]:
            self._enter(STAGES[STAGES.index(stage) + 1])
        return result

    def _enter(self, stage: str) -> None:
        self.stage, self.entered = stage, time.perf_counter()

    def _report(self, error: BaseException) -> None:
        """The receipt of what ended the run, on its way into or through a stage."""
        told = (self.stage, error, time.perf_counter() - self.entered)
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
        counts = quarantine = None
        if isinstance(outcome, TooManyMisfits):
            counts, quarantine = outcome.counts, outcome.quarantine
        receipt = receipt_of(
            self.current,
            stage,
            outcome,
            at=self.workshop.now(),
            seconds=seconds,
            counts=counts,
            quarantine=quarantine,
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
        return f"{PREFIX}{self.current.dataset}/{self.current.id}/"

    @contextmanager
    def _branch(self, attempt: int) -> "Iterator[_KeptBranch]":
        """A branch of its own for each attempt; it is discarded unless it is to be kept."""
        lake, current = self.workshop.lake, self.current
        suffix = f".{attempt}" if attempt > 1 else ""
        name = f"batch/{current.dataset}/{current.id}{suffix}"
        kept = _KeptBranch(lake.begin(name, current.id, self.workshop.now()))
        try:
            yield kept
        finally:
            if not kept.keep:
                self._discard(name)

    def _discard(self, branch: str) -> None:
        """What was met before is what has to be told, whatever becomes of the branch; and a run
        that has published has none."""
        try:
            self.workshop.lake.discard(branch)
        except CatalogUnavailable as away:
            self.leave()
            _log.warning("the branch is left to the next run", branch=branch, why=away.message)


@dataclass
class _KeptBranch:
    branch: Branch
    keep: bool = False


@contextmanager
def _lease(request: Request, workshop: Workshop, run: Run, holder: Holder) -> Iterator[Keeper]:
    """Fence and tidy up after dead predecessors, then tell the others who is running."""
    lease = acquire(
        workshop.objects,
        f"{LEASES}{run.dataset}/{run.batch}.json",
        holder,
        now=workshop.now(),
        take_over=request.take_over,
    )
    try:
        for dead in lease.predecessors:
            workshop.lake.take_over(dead.run, by=holder.run, at=workshop.now())
            shutil.rmtree(workshop.scratch / Path(dead.run).name, ignore_errors=True)
            _log.warning("took over from a dead run", dead=dead.run)
    except BaseException:
        # The lease is what remembers the dead: the next run has to find them in it.
        lease.leave()
        raise
    with Keeper(lease, now=workshop.now) as keeper:
        yield keeper
