"""A small lakehouse for tests of the transform stage: rows go to a branch without `load`."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from pyiceberg.expressions import EqualTo, Reference
from pyiceberg.expressions.literals import literal

from lakewarden.aws.s3 import S3Objects
from lakewarden.batch.duck import EXTENSIONS, DuckConfig, connect
from lakewarden.batch.model import Counts, Delivery, Loaded, LoadedBatch, Run, Transformed
from lakewarden.batch.models.project import DbtProject
from lakewarden.batch.parquet import upload, write_local
from lakewarden.batch.transform import transform
from lakewarden.lake.apply import apply
from lakewarden.lake.commit import stage
from lakewarden.lake.model import MAIN, Contribution, Lake
from lakewarden.lake.sql import SqlLake
from lakewarden.tables.plan import plan
from lakewarden.tables.template import Level, Template
from tests.stack import LocalStack

NOW = datetime(2013, 2, 1, tzinfo=UTC)


@dataclass
class Site:
    """`deliver` puts rows on a new branch, `transform` runs the models, `publish` moves main."""

    lake: Lake
    objects: S3Objects
    duck: DuckConfig
    templates: Mapping[str, Template]
    project: DbtProject | None
    scratch: Path
    runs: Iterator[int] = dataclasses.field(default_factory=lambda: count(1))

    def deliver(self, dataset: str, batch: str, rows: Mapping[str, str]) -> Loaded:
        """rows: SQL by table, with the table's own columns and `_batch`; `_batch` alone decides
        which rows of the table are replaced."""
        run = Run(f"run-{next(self.runs):03d}", dataset, (batch,))
        branch = self.lake.begin(f"batch/{dataset}/{run.id}", run.id, NOW)
        catalog = self.lake.catalog(branch)
        data_files = {}
        for name, select in rows.items():
            if not catalog.table_exists(name):
                apply(catalog, plan(self.templates[name], None))
            table = catalog.load_table(name)
            columns = ", ".join(f'"{c}"' for c in table.schema().column_names if c[:1] != "_")
            full = (
                f"SELECT {columns}, _batch, 'file' AS _file,"
                f" row_number() OVER () AS _line FROM ({select})"
            )
            with connect(self.duck) as connection:
                local = write_local(connection, full, table, self.scratch / "load", run.id)
            data_files[name] = upload(local, table, self.objects)
            mine = EqualTo(term=Reference("_batch"), value=literal(batch))
            stage(table, data_files[name], level=Level.OWNED, replacing=mine, properties={})
        delivery = Delivery(batch, [], "hash", "manifest")
        loaded = LoadedBatch(delivery, [], data_files, None, Counts(0, 0, 0))
        return Loaded(run, branch, frozenset(rows), [loaded])

    def transform(self, loaded: Loaded, *, duck: DuckConfig | None = None) -> Transformed:
        return transform(
            loaded,
            lake=self.lake,
            project=self.project,
            templates=self.templates,
            duck=duck or self.duck,
            objects=self.objects,
            scratch=self.scratch / loaded.run.id,
        )

    def publish(self, transformed: Transformed) -> None:
        run = transformed.loaded.run
        contribution = Contribution(run.dataset, run.span, "inputs", {})
        self.lake.publish(
            transformed.loaded.branch, [contribution], reads=transformed.reads, at=NOW
        )

    def run(self, dataset: str, batch: str, rows: Mapping[str, str]) -> Transformed:
        done = self.transform(self.deliver(dataset, batch, rows))
        self.publish(done)
        return done

    def rows(self, table: str, ref: str = MAIN) -> list[tuple[object, ...]]:
        """All rows of a table on main or on a branch, sorted."""
        location = self.lake.pin(ref).tables[table]
        with connect(self.duck, extensions=EXTENSIONS) as connection:
            found = connection.execute(f"FROM iceberg_scan('{location}') ORDER BY ALL")
            return found.fetchall()


def make_site(
    stack: LocalStack,
    folder: Path,
    templates: Mapping[str, Template],
    project: DbtProject | None,
) -> Site:
    """A new bucket and a new catalog."""
    connection, bucket = stack.connection, stack.bucket()
    file_io = {
        "s3.endpoint": connection.endpoint or "",
        "s3.region": connection.region,
        "s3.access-key-id": connection.access_key or "",
        "s3.secret-access-key": connection.secret_key or "",
    }
    duck = DuckConfig(
        temp=folder / "duckdb",
        endpoint=connection.endpoint,
        region=connection.region,
        access_key=connection.access_key,
        secret_key=connection.secret_key,
    )
    lake = SqlLake(f"sqlite:///{folder}/catalog.db", f"s3://{bucket}/tables", file_io)
    objects = S3Objects(connection, bucket)
    return Site(lake, objects, duck, templates, project, folder / "scratch")
