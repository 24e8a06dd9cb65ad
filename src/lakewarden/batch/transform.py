"""Transform: dbt builds what the batch touched, marked models go back to the branch, dbt tests.

The tests read what was written: between building and testing, the relation of each marked model
becomes a view over the branch's new table. So what is tested is what is published. Of a model that
is written by batch that happens before anything is built from it, which so sees all batches.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from lakewarden.aws.objects import Objects, StorageUnavailable
from lakewarden.batch.duck import EXTENSIONS, DuckConfig, connect, identifier
from lakewarden.batch.limits import MemoryLimitTooLow, ScratchFull, local_trouble
from lakewarden.batch.model import Loaded, ModelOutput, TestResult, Transformed
from lakewarden.batch.models.project import DbtProject, graph_of, read_manifest
from lakewarden.batch.models.runner import (
    DbtSite,
    brief,
    clear_site,
    invoke,
    is_of_data,
    prepare_site,
)
from lakewarden.batch.models.selection import (
    Graph,
    Kind,
    Node,
    Selection,
    View,
    Wave,
    check_marks,
    select,
    settled,
)
from lakewarden.batch.models.write_back import Output, put, write_back
from lakewarden.batch.receipts import prefix_of
from lakewarden.batch.scan import scan
from lakewarden.batch.sql_types import duckdb_type
from lakewarden.errors import Failed, LakewardenError, Refused
from lakewarden.lake.apply import table_for
from lakewarden.lake.model import Lake, Pin
from lakewarden.tables.template import Level, Template
from lakewarden.tables.types import iceberg_type

if TYPE_CHECKING:
    from dbt.artifacts.schemas.results import NodeResult
    from dbt.contracts.graph.manifest import Manifest
    from duckdb import DuckDBPyConnection

_log = structlog.get_logger(__name__)

_BUILD = "lakewarden-build"
_TEST = "lakewarden-test"
_JUDGED = ("pass", "warn", "fail")
# How DuckDB says, through dbt, that the store did not answer. An answer of 4xx is not among them.
_OUTAGE = re.compile(
    r"HTTP 5\d\d|HTTP 429|Could not (connect|establish|resolve)|Connection (error|refused|reset)"
    r"|Timeout was reached|timed out|Failed to (connect|read from connection)",
    re.IGNORECASE,
)
_FULL = re.compile(r"No space left on device|Disk quota exceeded", re.IGNORECASE)
_MEMORY = re.compile(r"Out of Memory Error")
_MAKE_ROOM = "Make room, then give the same command again."


class ModelFailed(Failed):
    """A model could not be built."""


class TableGone(Refused):
    """A table of somebody else, which models read, is not there."""


@dataclass(frozen=True)
class _Stage:
    """What the steps of one transform share."""

    loaded: Loaded
    lake: Lake
    templates: Mapping[str, Template]
    duck: DuckConfig
    objects: Objects
    site: DbtSite

    @property
    def variables(self) -> Mapping[str, object]:
        """What models read as var('batches') and var('dataset')."""
        return {"batches": self.loaded.keys, "dataset": self.loaded.run.dataset}


def transform(
    loaded: Loaded,
    *,
    lake: Lake,
    project: DbtProject | None,
    templates: Mapping[str, Template],
    duck: DuckConfig,
    objects: Objects,
    scratch: Path,
    before: Transformed | None = None,
) -> Transformed:
    """Build and test, on the run's branch, the models downstream of the tables it touched.

    templates: by "namespace.name". scratch: a folder of this run; dbt's artifacts and log stay in
    `scratch/dbt/artifacts`, everything else is removed. Without a project, or with nothing
    downstream, nothing runs. Failing tests are results, not errors. before: what the same run did
    on a branch whose base has moved since; what the move does not concern is taken from there.

    Raises ModelFailed, ModelUnknown, ModelColumnsDiffer, ModelMisfit, TableDrifted; WrongUsage
    where the dbt project is wrong; StorageUnavailable, CatalogUnavailable, ScratchFull,
    MemoryLimitTooLow.
    """
    if project is None:
        return Transformed(loaded, (), (), frozenset(), None)
    with local_trouble(scratch):
        site = prepare_site(project.folder, scratch / "dbt", duck)
        try:
            return _transform(_Stage(loaded, lake, templates, duck, objects, site), project, before)
        finally:
            clear_site(site)


def _transform(stage: _Stage, project: DbtProject, before: Transformed | None) -> Transformed:
    manifest = read_manifest(project, stage.site, variables=stage.variables)
    graph = graph_of(manifest)
    check_marks(graph, stage.templates)
    kept = _keep(stage, graph, before) if before else _Kept()
    pin = stage.lake.pin(stage.loaded.branch.name)
    selection = select(
        graph,
        touched=stage.loaded.touched,
        present=pin.tables.keys(),
        described=stage.templates.keys(),
        models=stage.loaded.run.models,
        settled=kept.nodes,
    )
    if not selection.build and not selection.tests:
        return kept.and_of(Transformed(stage.loaded, (), (), frozenset(), None))
    return kept.and_of(_run(stage, manifest, pin, selection))


@dataclass(frozen=True)
class _Kept:
    """What holds of an earlier attempt of the same run."""

    nodes: frozenset[str] = frozenset()
    models: Sequence[str] = ()
    tests: Sequence[TestResult] = ()
    reads: frozenset[str] = frozenset()
    outputs: Sequence[ModelOutput] = ()

    def and_of(self, done: Transformed) -> Transformed:
        """The two together; what was done again counts."""
        again = {test.name for test in done.tests}
        tests = [*(test for test in self.tests if test.name not in again), *done.tests]
        return replace(
            done,
            models=tuple(dict.fromkeys((*self.models, *done.models))),
            tests=tuple(sorted(tests, key=lambda test: test.name)),
            reads=self.reads | done.reads,
            outputs=(*self.outputs, *done.outputs),
        )


def _keep(stage: _Stage, graph: Graph, before: Transformed) -> _Kept:
    """Put the outputs that the move of main does not concern on the new branch, as they are."""
    if before.loaded.keys != stage.loaded.keys:  # rows of a batch that is no longer ours
        return _Kept()
    old, new = before.loaded.branch.base.tables, stage.loaded.branch.base.tables
    moved = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
    nodes = settled(graph, moved)
    outputs = [one for one in before.outputs if one.node in nodes]
    catalog = stage.lake.catalog(stage.loaded.branch)
    for one in outputs:
        node = graph[one.node]
        if node.mark is None:
            continue
        template = stage.templates[one.table]
        output = Output(node, one.table, node.mark.write, stage.loaded.keys, template.level)
        table = table_for(catalog, template, what=f"to write model {node.name} to it")
        put(output, table, one.data_files, run=stage.loaded.run.id)
    return _Kept(nodes, before.models, before.tests, before.reads, outputs)


def _run(stage: _Stage, manifest: "Manifest", pin: Pin, selection: Selection) -> Transformed:
    # dbt opens the same file, and so shares this database: its extensions, secret and limits.
    with connect(stage.duck, str(stage.site.database), extensions=EXTENSIONS) as connection:
        for view in selection.views:
            with _reading(view.schema, view.relation):
                select = _source(connection, view, pin, stage)
                _create_view(connection, view.schema, view.relation, select)
        outputs: list[ModelOutput] = []
        for number, wave in enumerate(selection.waves, start=1):
            _build(stage, manifest, wave, number)
            outputs += _write(stage, connection, wave)
        tests = _test(stage, manifest, selection.tests) if selection.tests else ()
    models = tuple(n.name for n in selection.build if n.kind is Kind.MODEL and not n.inlined)
    artifacts = stage.site.artifacts
    return Transformed(stage.loaded, models, tests, selection.reads, artifacts, outputs)


def _source(connection: "DuckDBPyConnection", view: View, pin: Pin, stage: _Stage) -> str:
    """SQL for a lake table as pinned; without rows where it does not exist yet."""
    if view.table in pin.tables:
        return scan(connection, pin.tables[view.table])
    if stage.templates[view.table].level is not Level.OWNED:
        raise TableGone(
            f"{view.table} is not in the catalog, and models read it",
            hint="It is not ours to make: ask who writes it; lakewarden table drift",
        )
    columns = ", ".join(
        f"CAST(NULL AS {duckdb_type(iceberg_type(column.type))}) AS {identifier(column.name)}"
        for column in stage.templates[view.table].all_columns
    )
    return f"SELECT {columns} WHERE false"


def _create_view(connection: "DuckDBPyConnection", schema: str, relation: str, select: str) -> None:
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {identifier(schema)}")
    connection.execute(f"CREATE VIEW {identifier(schema)}.{identifier(relation)} AS {select}")


@contextmanager
def _reading(schema: str, relation: str) -> Iterator[None]:
    import duckdb

    try:
        yield
    except (duckdb.HTTPException, duckdb.IOException) as error:
        raise _trouble(f"{schema}.{relation} could not be read", str(error)) or error from error


def _build(stage: _Stage, manifest: "Manifest", wave: Wave, number: int) -> None:
    tag = f"{_BUILD}-{number}"
    for node in wave.build:
        manifest.nodes[node.id].tags.append(tag)
    kinds = ("--resource-type", "model", "--resource-type", "seed")
    # `build` rather than `run`: seeds are made along, in the order of the graph.
    results = _dbt(stage, "build", manifest, [*kinds, "--select", f"tag:{tag}"])
    failed = [result for result in results if str(result.status) not in ("success", "skipped")]
    if not failed:
        return
    first = failed[0]
    others = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    message = f"model {first.node.name} failed{others}: {brief(first.message or '')}"
    troubles = (_trouble(f"model {r.node.name} failed", r.message or "") for r in failed)
    run = stage.loaded.run
    log = f"{prefix_of(run.dataset, run.id)}dbt/dbt.log"
    hint = f"{log} in the bucket has more of it, but no value of the data."
    raise next(filter(None, troubles), None) or ModelFailed(message, hint=hint)


def _write(stage: _Stage, connection: "DuckDBPyConnection", wave: Wave) -> Sequence[ModelOutput]:
    """Marked models → tables of the branch → views over them, in the place of the models."""
    branch, run = stage.loaded.branch, stage.loaded.run
    catalog = stage.lake.catalog(branch)
    outputs = []
    for node, mark in wave.writes:
        template = stage.templates[mark.table]
        table = table_for(catalog, template, what=f"to write model {node.name} to it")
        output = Output(node, mark.table, mark.write, stage.loaded.keys, template.level)
        with _computing(node):
            files = write_back(
                connection,
                output,
                table,
                stage.objects,
                scratch=stage.site.folder / "files",
                stem=re.sub(r"[^\w.-]+", "-", f"{branch.name}-{node.name}"),
                run=run.id,
            )
        location = catalog.load_table(mark.table).metadata_location
        _drop(connection, node)
        with _reading(node.schema, node.relation):
            _create_view(connection, node.schema, node.relation, scan(connection, location))
        outputs.append(ModelOutput(node.id, mark.table, files))
        _log.info("model written", model=node.name, table=mark.table)
    return outputs


@contextmanager
def _computing(node: Node) -> Iterator[None]:
    """A model that is a view is computed where it is written, out of dbt's sight."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        what = f"model {node.name} failed"
        raise _trouble(what, str(error)) or ModelFailed(
            f"{what}: {brief(str(error))}",
            hint="Make it a table, by `materialized`: then dbt.log has more of it.",
        ) from error


def _drop(connection: "DuckDBPyConnection", node: Node) -> None:
    row = connection.execute(
        "SELECT table_type FROM information_schema.tables"
        " WHERE table_schema = ? AND table_name = ?",
        [node.schema, node.relation],
    ).fetchone()
    kind = "VIEW" if row and row[0] == "VIEW" else "TABLE"
    connection.execute(f"DROP {kind} {identifier(node.schema)}.{identifier(node.relation)}")


def _test(stage: _Stage, manifest: "Manifest", nodes: Sequence[Node]) -> Sequence[TestResult]:
    for node in nodes:
        manifest.nodes[node.id].tags.append(_TEST)
    # Empty: these tests, and not those of every model that they touch.
    only = ["--select", f"tag:{_TEST}", "--indirect-selection", "empty"]
    results = [(_result(one), one.message or "") for one in _dbt(stage, "test", manifest, only)]
    for result, message in results:
        if result.status == "error" and (
            trouble := _trouble(f"test {result.name} could not run", message)
        ):
            raise trouble
    return tuple(sorted((result for result, _ in results), key=lambda result: result.name))


def _result(result: "NodeResult") -> TestResult:
    status = str(result.status)
    if status not in _JUDGED:
        return TestResult(result.node.name, "error", 0, brief(result.message or ""))
    # Of a test that ran, the message is dbt's own: how many rows it found.
    return TestResult(result.node.name, status, result.failures or 0, result.message or "")


def _dbt(
    stage: _Stage, command: str, manifest: "Manifest", arguments: Sequence[str]
) -> Sequence["NodeResult"]:
    outcome = invoke(stage.site, command, arguments, variables=stage.variables, manifest=manifest)
    results: Sequence[NodeResult] = outcome.result.results  # type: ignore[union-attr] # build, test
    return results


def _trouble(what: str, message: str) -> LakewardenError | None:
    """The error for a message that tells of the machine or the store, and not of the project."""
    if is_of_data(message):  # a value may say anything
        return None
    if _FULL.search(message):
        return ScratchFull(f"{what}: no space left for scratch", hint=_MAKE_ROOM)
    if _MEMORY.search(message):
        return MemoryLimitTooLow(
            f"{what}: DuckDB needs more memory than its limit",
            hint="Raise memory_limit in lakewarden.toml.",
        )
    if _OUTAGE.search(message):
        return StorageUnavailable(
            f"{what}: the object store did not answer", hint="Give the same command again later."
        )
    return None
