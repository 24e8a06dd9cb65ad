"""A shop's lakehouse, small enough to be killed often: one dataset that fills two tables.

Every row of a delivery says which generation it is of, so that a reader can tell rows of two
deliveries apart. `write_delivery` is a pure function of its arguments.
"""

import hashlib
import json
import re
import shutil
import sqlite3
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import cached_property
from pathlib import Path

import duckdb

import lakewarden
from lakewarden.aws.clients import Connection
from lakewarden.batch.duck import EXTENSIONS, connect
from lakewarden.batch.receipts import list_runs, receipts_of
from lakewarden.lake.model import Pin, Publication
from lakewarden.wiring import Project
from tests.stack import LocalStack

DATASET = "sales"
DAY = "2024-03-01"
TABLES = ("raw.lines", "raw.orders")
MARTS = ("marts.daily", "marts.items")
Rows = tuple[tuple[object, ...], ...]
MISFITS = 2  # in a delivery that is damaged

_SETTINGS = """
project = "shop"

[env.dev]
account = "local"
region = "us-east-1"
bucket = "shop-dev"
catalog = { type = "sql", uri = "sqlite:///.lakewarden/catalog.db" }

[dataset.sales]
batch = "date"
landing = "raw/sales/{batch}/"
tables = { orders = "orders*.csv", lines = "lines*.csv" }
quarantine = { max_share = 0.5 }
"""

_TABLES = {
    "orders": """
        name: orders
        namespace: raw
        load: {dataset: sales}
        source: {format: csv}
        columns:
          - {name: id, type: long, required: true}
          - {name: generation, type: int, required: true}
          - {name: placed, type: date}
          - {name: amount, type: "decimal(9,2)"}
        partition_spec:
          - {column: placed, transform: month}
        sort_order:
          - {column: id, direction: asc, null_order: nulls_last}
        """,
    "lines": """
        name: lines
        namespace: raw
        load: {dataset: sales}
        source: {format: csv}
        columns:
          - {name: order_id, type: long, required: true}
          - {name: generation, type: int, required: true}
          - {name: item, type: string}
        """,
    "daily": """
        name: daily
        namespace: marts
        columns:
          - {name: _batch, type: string, required: true}
          - {name: orders, type: long, required: true}
          - {name: amount, type: "decimal(12,2)"}
        """,
    "items": """
        name: items
        namespace: marts
        columns:
          - {name: item, type: string, required: true}
          - {name: days, type: long, required: true}
          - {name: lines, type: long, required: true}
        """,
}

_MODELS = {
    "dbt_project.yml": """
        name: shop
        version: "1.0"
        models: {shop: {+materialized: table}}
        """,
    "models/models.yml": """
        sources:
          - name: raw
            tables: [{name: orders}, {name: lines}]
        models:
          - name: daily
            config: {meta: {lake: {table: marts.daily, write: batch}}}
            columns: [{name: amount, data_tests: [not_null]}]
          - name: items
            config: {meta: {lake: {table: marts.items, write: all}}}
            columns: [{name: item, data_tests: [not_null, unique]}]
        """,
    "models/daily.sql": """
        select _batch, count(*) as orders, sum(amount) as amount
        from {{ source('raw', 'orders') }}
        where _batch in ({% for b in var('batches') %}'{{ b }}'{% if not loop.last %}, {% endif %}
            {% endfor %})
        group by _batch
        """,
    "models/items.sql": """
        select item, count(distinct _batch) as days, count(*) as lines
        from {{ source('raw', 'lines') }} group by item
        """,
    "tests/no_free_orders.sql": """
        select id from {{ source('raw', 'orders') }} where amount = 0
        """,
}


def make_shop(root: Path, connection: Connection, bucket: str, *, models: bool = False) -> Path:
    """A project in a new folder, on a stack that runs."""
    tables = _TABLES if models else {name: _TABLES[name] for name in ("orders", "lines")}
    files = {
        "lakewarden.toml": _SETTINGS,
        **{f"tables/{name}.yaml": text for name, text in tables.items()},
        **({f"transform/{name}": text for name, text in _MODELS.items()} if models else {}),
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip())
    connect_project(root, connection, bucket)
    return root


def connect_project(root: Path, connection: Connection, bucket: str) -> None:
    """Let a project use a stack that runs already, and one of its buckets."""
    settings = root / "lakewarden.toml"
    settings.write_text(
        re.sub(r'(?m)^bucket = "[^"]*"', f'bucket = "{bucket}"', settings.read_text())
    )
    endpoint = root / ".lakewarden" / "local" / "endpoint.json"
    endpoint.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "format": 1,
        "endpoint": connection.endpoint,
        "region": connection.region,
        "bucket": bucket,
        "access_key": connection.access_key,
        "secret_key": connection.secret_key,
    }
    endpoint.write_text(json.dumps(content))


def write_delivery(
    folder: Path, generation: int, *, orders: int = 12, files: int = 1, damaged: bool = False
) -> Path:
    """`files` files of orders and one of lines. A damaged one has MISFITS orders whose amount is
    no number; with 0 orders there are headers only."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows = [f"{n},{generation},2024-{n % 2 + 2:02d}-01,{n + 1}.50\n" for n in range(orders)]
    if damaged:
        rows += [f"{1000 + n},{generation},2024-03-01,much\n" for n in range(MISFITS)]
    for file in range(files):
        text = "id,generation,placed,amount\n" + "".join(rows[file::files])
        (folder / f"orders-{file}.csv").write_text(text)
    lines = [f"{n},{generation},item {n % 3}\n" for n in range(orders) for _ in range(2)]
    (folder / "lines.csv").write_text("order_id,generation,item\n" + "".join(lines))
    return folder


def rows_of(generation: int, batch: str, *, orders: int, files: int = 1) -> Mapping[str, Rows]:
    """The tables' rows of a delivery that is not damaged, sorted."""
    return {
        "raw.lines": tuple(
            (n // 2, generation, f"item {n // 2 % 3}", batch, "lines.csv", n + 2)
            for n in range(2 * orders)
        ),
        "raw.orders": tuple(
            (
                n,
                generation,
                date(2024, n % 2 + 2, 1),
                Decimal(f"{n + 1}.50"),
                batch,
                f"orders-{n % files}.csv",
                n // files + 2,
            )
            for n in range(orders)
        ),
    }


@dataclass
class Shop:
    """A project as tests see it: from outside, through the public door and through plain SQL."""

    root: Path
    _rows: dict[str, Rows] = field(default_factory=dict)  # by metadata location: they never change

    @cached_property
    def project(self) -> Project:
        return lakewarden.open(self.root)

    def deliver(
        self,
        generation: int,
        batch: str = DAY,
        *,
        orders: int = 12,
        files: int = 1,
        damaged: bool = False,
    ) -> None:
        folder = self.root / "delivery"
        write_delivery(folder, generation, orders=orders, files=files, damaged=damaged)
        self.project.deliver(DATASET, batch, folder)

    def rows(self, pin: Pin | None = None) -> Mapping[str, Rows]:
        """All rows of all tables, sorted, in one pin (None: main as it is now)."""
        pinned = pin or self.project.pin()
        return {table: self._read(location) for table, location in sorted(pinned.tables.items())}

    def _read(self, location: str) -> Rows:
        if location not in self._rows:
            select = f"FROM iceberg_scan('{location}') ORDER BY ALL"
            self._rows[location] = tuple(self._duck.execute(select).fetchall())
        return self._rows[location]

    @cached_property
    def _duck(self) -> duckdb.DuckDBPyConnection:
        return connect(self.project.duck, extensions=EXTENSIONS)

    def publications(self, batch: str = DAY) -> tuple[Publication, ...]:
        return tuple(self.project.lake.publications(DATASET, batch))

    def leftovers(self) -> Mapping[str, object]:
        """What runs left behind: empty when everything is tidy."""
        project = self.project
        scratch = project.scratch.iterdir() if project.scratch.is_dir() else iter(())
        found = {
            "branches": [branch.name for branch in project.lake.branches()],
            "catalog rows": self._foreign_rows(),
            "leases": [one.key for one in project.objects.list("ops/leases/")],
            # Where queries of the project's own may spill.
            "scratch": [path.name for path in scratch if path.name != "duckdb"],
        }
        return {what: left for what, left in found.items() if left}

    def _foreign_rows(self) -> list[str]:
        """Rows of PyIceberg's tables that are not main's, by what the database itself says."""
        select = """
            SELECT catalog_name || ': ' || table_name FROM iceberg_tables
            WHERE catalog_name != 'main'
            UNION ALL SELECT catalog_name || ': ' || namespace FROM iceberg_namespace_properties
            WHERE catalog_name != 'main'
        """
        file = self.root / ".lakewarden" / "catalog.db"
        if not file.exists():  # the catalog is another one
            return []
        database = sqlite3.connect(file)
        try:
            return [row[0] for row in database.execute(select)]
        finally:
            database.close()

    def check_receipts(self) -> int:
        """Reads every receipt of every run, checks what they say; returns how many runs there are.

        Raises what the reading of a broken one raises."""
        project = self.project
        runs = list_runs(project.objects, DATASET)
        for run in runs:
            for receipt in receipts_of(project.objects, DATASET, run.run):
                assert receipt.run == run.run
                if receipt.counts is not None:
                    counts = receipt.counts
                    assert counts.records_in == counts.loaded + counts.quarantined
        return len(runs)


def new_shop(stack: LocalStack, root: Path, *, models: bool = False) -> Shop:
    """A shop with a bucket and a catalog of its own."""
    return Shop(make_shop(root, stack.connection, stack.bucket(), models=models))


def digest(rows: Mapping[str, Rows]) -> Mapping[str, str]:
    """One hash a table, over all of its rows."""
    return {
        table: hashlib.sha256(repr(list(found)).encode()).hexdigest()
        for table, found in rows.items()
    }
