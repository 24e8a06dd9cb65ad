"""One multi-asset a dataset: its step runs batches as `lakewarden batch run` does."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import dagster as dg

from lakewarden.batch.conductor import Outcome, StageDone
from lakewarden.batch.model import LeftOut, Transformed
from lakewarden.dagster_defs import checks
from lakewarden.dagster_defs.failures import failure, failure_of_some
from lakewarden.dagster_defs.lineage import Asset, Check, Lineage
from lakewarden.dagster_defs.naming import Naming
from lakewarden.dagster_defs.reports import BatchReport, chart, metadata, reports, total
from lakewarden.errors import WrongUsage
from lakewarden.wiring import Project

# A minute, two, four and eight: an outage of a quarter of an hour is waited for.
RETRY = dg.RetryPolicy(max_retries=4, delay=60, backoff=dg.Backoff.EXPONENTIAL)

_Event = dg.MaterializeResult[None] | dg.AssetMaterialization | dg.AssetCheckResult


class BatchWithdrawn(WrongUsage):
    """A batch of a range that somebody took out of main."""


@dataclass(frozen=True)
class DatasetRun:
    """What the step of one dataset works with."""

    project: Project
    dataset: str
    drawn: Lineage
    naming: Naming

    @property
    def assets(self) -> Sequence[Asset]:
        return self.drawn.of(self.dataset)

    @property
    def checks(self) -> Sequence[Check]:
        return self.drawn.checks_of(self.dataset)


def dataset_assets(
    run: DatasetRun,
    partitions: dg.PartitionsDefinition[str],
    freshness: dg.FreshnessPolicy | None,
    retry: dg.RetryPolicy,
) -> dg.AssetsDefinition:
    """All assets of a dataset: whole or not at all, so no part of them can be chosen."""
    naming, dataset = run.naming, run.dataset

    @dg.multi_asset(
        name=naming.op(dataset),
        specs=[asset_spec(asset, run.drawn, naming, freshness) for asset in run.assets],
        check_specs=[checks.spec(check, naming) for check in run.checks],
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        retry_policy=retry,
        group_name=naming.group(dataset),
    )
    def batches(context: dg.AssetExecutionContext) -> Iterator[_Event]:
        yield from _run(run, sorted(context.partition_keys), context)

    return batches


def asset_spec(
    asset: Asset, drawn: Lineage, naming: Naming, freshness: dg.FreshnessPolicy | None = None
) -> dg.AssetSpec:
    """Without a dataset: what no run of ours makes, and others read."""
    kinds = {"dbt"} if asset.model else set()
    return dg.AssetSpec(
        naming.key(asset.key),
        deps=[_dep(drawn.by_key[key], asset, naming) for key in asset.deps],
        description=_about(asset),
        kinds=kinds | ({"iceberg"} if asset.table else set()),
        freshness_policy=freshness,
    )


def _dep(upstream: Asset, asset: Asset, naming: Naming) -> dg.AssetDep:
    key = naming.key(upstream.key)
    if upstream.dataset in (None, asset.dataset):
        return dg.AssetDep(key)
    # What another dataset has published is read as it is, whichever of its batches are there.
    return dg.AssetDep(key, partition_mapping=dg.AllPartitionMapping())


def _about(asset: Asset) -> str:
    if asset.is_loaded:
        return f"The table {asset.table}, loaded from deliveries of {asset.dataset}."
    if asset.model is None:
        return f"The table {asset.table or asset.key[-1]}, which others fill."
    if asset.table is None:
        return f"The dbt model {asset.model}, made in each run and kept by none."
    return f"The table {asset.table}, written by the dbt model {asset.model}."


@dataclass
class _Watch:
    """Hears of each stage as it ends, and remembers the models and tests of the last group."""

    say: Callable[[str], None]
    transformed: Transformed | None = None

    def __call__(self, done: StageDone) -> None:
        self.say(f"{done.stage}: done in {done.seconds:.1f} s")
        if isinstance(done.result, Transformed):
            self.transformed = done.result

    @property
    def tests(self) -> Mapping[str, str]:
        return {one.name: one.status for one in self.transformed.tests} if self.transformed else {}


@dataclass
class _Done:
    """What was done so far of the batches that were asked for."""

    reports: list[BatchReport] = field(default_factory=list)
    tests: list[Mapping[str, str]] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    chart: str = ""


def _run(
    run: DatasetRun, keys: Sequence[str], context: dg.AssetExecutionContext
) -> Iterator[_Event]:
    watch, done = _Watch(context.log.info), _Done()
    trouble: dg.Failure | None = None
    # Anew for each run: a process of Dagster's may outlive a role's keys, or a local stack.
    project = replace(run.project)
    try:
        for outcome in _outcomes(project, run.dataset, keys, watch, done):
            _note(project, outcome, watch, done)
    except Exception as error:
        trouble = failure(error, run.dataset, keys)
    if trouble is None and done.left_out:
        trouble = failure_of_some(done.left_out, run.dataset, len(keys))
    # Raised here, where the error that was met is no context of it (failures.py).
    if trouble is not None:
        yield from _published(run, done)
        yield from _failing(run, watch)
        raise trouble
    yield from _all(run, done, context)


def _outcomes(
    project: Project, dataset: str, keys: Sequence[str], watch: _Watch, done: _Done
) -> Iterator[Outcome]:
    if len(keys) == 1:
        yield project.run(dataset, keys[0], tell=watch)
        return
    withdrawn = [key for key in keys if project.is_withdrawn(dataset, key)]
    done.left_out += [LeftOut(key, _withdrawn(dataset, key)) for key in withdrawn]
    yield from project.run_set(dataset, [key for key in keys if key not in withdrawn], tell=watch)


def _withdrawn(dataset: str, batch: str) -> BatchWithdrawn:
    return BatchWithdrawn(
        f"batch {batch} of {dataset} was taken out of main",
        hint="Materialize it alone to bring it back.",
    )


def _note(project: Project, outcome: Outcome, watch: _Watch, done: _Done) -> None:
    publications = project.lake.publications(outcome.run.dataset)
    found = reports(outcome, watch.transformed, publications)
    done.chart = chart(publications)
    done.reports += found
    done.left_out += outcome.left_out
    if any(one.is_new for one in found):
        done.tests.append(watch.tests)
    else:
        done.tests += [project.tests_of(one.publication) for one in found]
    watch.transformed = None


def _all(run: DatasetRun, done: _Done, context: dg.AssetExecutionContext) -> Iterator[_Event]:
    """Everything that was asked for is in main."""
    for asset in run.assets:
        key = run.naming.key(asset.key)
        for report in done.reports:
            told = metadata(asset, report, done.chart)
            context.add_asset_metadata(told, key, report.batch)
        yield dg.MaterializeResult(asset_key=key, data_version=_data_version(asset, done.reports))
    yield from _elsewhere(run, done)
    tests = checks.worst(done.tests)
    for check in run.checks:
        if check.test is None:
            table = run.drawn.by_key[check.key].table
            counts = total(one.counts(table) for one in done.reports)
            yield checks.conservation(check, run.naming, counts)
        else:
            yield checks.result(check, run.naming, tests.get(check.test))


def _published(run: DatasetRun, done: _Done) -> Iterator[_Event]:
    """What is in main although not all is that was asked for."""
    for asset in run.assets:
        for report in done.reports:
            told = metadata(asset, report, done.chart)
            yield dg.AssetMaterialization(
                run.naming.key(asset.key), partition=report.batch, metadata=told
            )
    yield from _elsewhere(run, done)


def _elsewhere(run: DatasetRun, done: _Done) -> Iterator[_Event]:
    """Models that belong to other datasets, and were made again with ours."""
    for asset in run.drawn.assets:
        made = [one for one in done.reports if asset.model and asset.model in one.models]
        if made and asset.dataset != run.dataset:
            told = metadata(asset, made[-1], done.chart)
            yield dg.AssetMaterialization(run.naming.key(asset.key), metadata=told)


def _failing(run: DatasetRun, watch: _Watch) -> Iterator[_Event]:
    """The tests of what was not published."""
    for check in run.checks:
        if check.test is not None and check.test in watch.tests:
            yield checks.result(check, run.naming, watch.tests[check.test])


def _data_version(asset: Asset, made: Sequence[BatchReport]) -> dg.DataVersion | None:
    """Where the table is; another one is another content."""
    newest = max((one.publication for one in made), key=lambda one: one.version, default=None)
    if newest is None:
        return None
    change = newest.tables.get(asset.table or "")
    return dg.DataVersion((change and change.after) or str(newest.version))
