"""Datasets that share a mart are run at the same time: each is published, and nobody starves.

`LAKEWARDEN_CONTENTION_SECONDS=600` makes it last.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.local.shop import Shop, connect_project
from tests.stack import LocalStack

SECONDS = float(os.environ.get("LAKEWARDEN_CONTENTION_SECONDS", "5"))
LEAST = 3  # batches of each
SHOPS = ("east", "north", "south", "west")
# Of one batch. All are built on two cores, and each waits for no more than all others' turns.
PATIENCE = 90.0

pytestmark = pytest.mark.timeout(int(SECONDS) + 400)

_SETTINGS = """
    project = "shops"

    [env.dev]
    account = "local"
    bucket = "shops-dev"
    catalog = { type = "sql", uri = "sqlite:///.lakewarden/catalog.db" }
    """
_DATASET = """
    [dataset.{0}]
    batch = "date"
    landing = "raw/{0}/{{batch}}/"
    tables = {{ {0} = "sales.csv" }}
    """
_RAW = """
    name: {0}
    namespace: raw
    load: {{dataset: {0}}}
    source: {{format: csv}}
    columns:
      - {{name: id, type: long, required: true}}
      - {{name: amount, type: long, required: true}}
    """
_MART = """
    name: {0}
    namespace: marts
    columns:
      - {{name: shop, type: string, required: true}}
      - {{name: sales, type: long, required: true}}
    """
_MARK = (
    "{{{{ config(materialized='table',"
    " meta={{'lake': {{'table': 'marts.{0}', 'write': 'all'}}}}) }}}}"
)


def make_shops(root: Path, stack: LocalStack) -> Shop:
    """Four datasets, each with a mart of its own, and one mart over all of them."""
    own = {
        f"models/own_{shop}.sql": f"{_MARK.format(f'own_{shop}')} select '{shop}' as shop,"
        f" count(*) as sales from {{{{ source('raw', '{shop}') }}}}"
        for shop in SHOPS
    }
    every = " union all ".join(
        f"select '{shop}' as shop, count(*) as sales from {{{{ source('raw', '{shop}') }}}}"
        for shop in SHOPS
    )
    sources = ", ".join(f"{{name: {shop}}}" for shop in SHOPS)
    files = {
        "lakewarden.toml": dedent(_SETTINGS) + "".join(dedent(_DATASET.format(s)) for s in SHOPS),
        **{f"tables/{shop}.yaml": dedent(_RAW.format(shop)) for shop in SHOPS},
        **{f"tables/own_{s}.yaml": dedent(_MART.format(f"own_{s}")) for s in SHOPS},
        "tables/every.yaml": dedent(_MART.format("every")),
        "transform/dbt_project.yml": 'name: shops\nversion: "1.0"\n',
        "transform/models/sources.yml": f"sources: [{{name: raw, tables: [{sources}]}}]\n",
        "transform/models/every.sql": f"{_MARK.format('every')} {every}",
        **{f"transform/{name}": text for name, text in own.items()},
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    connect_project(root, stack.connection, stack.bucket())
    return Shop(root)


def test_nobody_starves(local_stack: LocalStack, tmp_path: Path) -> None:
    shop = make_shops(tmp_path, local_stack)
    shop.project.pin()  # so that there is a catalog
    runs = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.local.contention"),
                *(str(tmp_path), name, str(SECONDS), str(LEAST)),
            ],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=(tmp_path / f"{name}.log").open("w"),
            text=True,
        )
        for name in SHOPS
    ]
    told = {
        name: [json.loads(line) for line in run.communicate()[0].splitlines()]
        for name, run in zip(SHOPS, runs, strict=True)
    }
    assert [run.returncode for run in runs] == [0] * len(SHOPS)
    every = [one for batches in told.values() for one in batches]
    assert {one["status"] for one in every} == {"published"}
    slowest = max(one["seconds"] for one in every)
    again = sum(one["staged"] > 1 for one in every)
    sys.stdout.write(f"{len(every)} batches, {again} staged again, slowest {slowest:.1f} s\n")
    assert again  # or there was nothing to see
    assert slowest < PATIENCE
    batches = {name: len(found) for name, found in told.items()}
    rows = shop.rows()
    assert rows["marts.every"] == tuple(sorted((name, 5 * batches[name]) for name in SHOPS))
    for name in SHOPS:
        assert rows[f"marts.own_{name}"] == ((name, 5 * batches[name]),)
    assert shop.leftovers() == {}
    assert list(shop.project.objects.list("ops/turns/")) == []
