"""The transform stage on a real lake: what it builds, writes, tests, refuses and leaves behind."""

import json
import logging
import os
import signal
import socket
import textwrap
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lakewarden.aws.objects import StorageUnavailable
from lakewarden.batch.duck import EXTENSIONS, connect
from lakewarden.batch.limits import ScratchFull
from lakewarden.batch.model import Delivery
from lakewarden.batch.models.project import DbtProject, DbtProjectMissing
from lakewarden.batch.models.runner import DbtProjectInvalid, invoke
from lakewarden.batch.models.write_back import ModelColumnsDiffer, ModelMisfit
from lakewarden.batch.transform import ModelFailed
from lakewarden.lake.apply import TableDrifted
from lakewarden.tables.template import Column, Template
from tests import needs
from tests.local.transform_site import Site, make_site
from tests.stack import LocalStack


def _template(name: str, columns: Mapping[str, str], load: str | None = None) -> Template:
    """A column whose type ends in * is required."""
    namespace, _, table = name.partition(".")
    return Template(
        namespace=namespace,
        name=table,
        columns=tuple(
            Column(column, kind.removesuffix("*"), required=kind.endswith("*"))
            for column, kind in columns.items()
        ),
        partition_spec=(),
        sort_order=(),
        properties={},
        tags={},
        description="",
        source=None,
        load_dataset=load,
    )


TEMPLATES = {
    "raw.orders": _template(
        "raw.orders", {"id": "long*", "customer": "string", "amount": "decimal(9,2)"}, "orders"
    ),
    "raw.customers": _template("raw.customers", {"customer": "string*"}, "customers"),
    "marts.sales": _template("marts.sales", {"customer": "string*", "total": "decimal(9,2)"}),
    "marts.daily": _template("marts.daily", {"_batch": "string*", "orders": "int*"}),
    "marts.customers": _template("marts.customers", {"customer": "string*"}),
}

PROJECT = {
    "dbt_project.yml": """
        name: shop
        version: "1.0"
        models: {shop: {+materialized: table}}
    """,
    "models/sources.yml": """
        sources:
          - name: raw
            tables: [{name: orders}, {name: customers}]
    """,
    "models/stg_orders.sql": """
        {{ config(materialized='view') }} select * from {{ source('raw', 'orders') }}
    """,
    "models/sales.sql": """
        {{ config(meta={'lake': {'table': 'marts.sales', 'write': 'all'}}) }}
        select customer, round(sum(amount)::double, 2) as total
        from {{ ref('stg_orders') }} join {{ ref('customers') }} using (customer)
        group by customer
    """,
    "models/daily.sql": """
        {{ config(meta={'lake': {'table': 'marts.daily', 'write': 'batch'}}) }}
        select _batch, count(*) as orders from {{ ref('stg_orders') }}
        where list_contains({{ var('batches') }}, _batch) group by _batch
    """,
    "models/customers.sql": """
        {{ config(meta={'lake': {'table': 'marts.customers', 'write': 'all'}}) }}
        select distinct customer from {{ source('raw', 'customers') }}
    """,
    "models/schema.yml": """
        models:
          - name: stg_orders
            columns: [{name: id, data_tests: [unique]}]
          - name: sales
            columns: [{name: total, data_tests: [not_null]}]
          - name: customers
            columns: [{name: customer, data_tests: [unique]}]
    """,
    "tests/total_is_as_the_lake_has_it.sql": """
        select typeof(total) from {{ ref('sales') }} where typeof(total) <> 'DECIMAL(9,2)'
    """,
    "tests/every_day_has_orders.sql": """
        {{ config(severity='warn') }} select * from {{ ref('daily') }} where orders < 2
    """,
}
MARTS = ("marts.customers", "marts.daily", "marts.sales")


def order(id: int, customer: str, amount: str, batch: str) -> str:
    return f"SELECT {id} AS id, '{customer}' AS customer, {amount} AS amount, '{batch}' AS _batch"


def orders(batch: str, *rows: tuple[int, str, str]) -> dict[str, str]:
    selects = [order(id, customer, amount, batch) for id, customer, amount in rows]
    return {"raw.orders": " UNION ALL ".join(selects)}


def customers(batch: str, *names: str) -> dict[str, str]:
    values = ", ".join(f"('{name}')" for name in names)
    select = f"SELECT customer, '{batch}' AS _batch FROM (VALUES {values}) AS v(customer)"
    return {"raw.customers": select}


Write = Callable[[Mapping[str, str | None]], None]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Change files of the dbt project; None removes one."""

    def change(files: Mapping[str, str | None]) -> None:
        for name, text in files.items():
            path = tmp_path / "project" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                path.unlink()
            else:
                path.write_text(textwrap.dedent(text).strip() + "\n")

    return change


@pytest.fixture
def site(local_stack: LocalStack, tmp_path: Path, write: Write) -> Site:
    write(PROJECT)
    project = DbtProject(tmp_path / "project", tmp_path / "cache")
    return make_site(local_stack, tmp_path, TEMPLATES, project)


def failing(tests: object) -> set[str]:
    assert isinstance(tests, tuple)
    return {test.name for test in tests if test.status in ("fail", "error")}


def test_marked_models_are_written_to_the_branch_and_tested_as_written(site: Site) -> None:
    site.run("customers", "2013-01", customers("2013-01", "ada", "bob"))
    loaded = site.deliver("orders", "2013-01-01", orders("2013-01-01", (1, "ada", "1.50")))
    main = site.lake.pin()
    done = site.transform(loaded)

    assert set(done.models) == {"stg_orders", "sales", "daily"}
    # `total` is a double in the model: the test passes only on what was written.
    assert {test.name: test.status for test in done.tests} == {
        "every_day_has_orders": "warn",
        "not_null_sales_total": "pass",
        "total_is_as_the_lake_has_it": "pass",
        "unique_stg_orders_id": "pass",
    }
    assert site.rows("marts.sales", loaded.branch.name) == [("ada", Decimal("1.50"))]
    assert done.reads == {"raw.orders", "marts.customers"}
    assert site.lake.pin() == main
    site.publish(done)
    assert site.rows("marts.daily") == [("2013-01-01", 1)]


def test_a_marked_ancestor_is_read_from_the_pin_and_not_made_again(site: Site) -> None:
    site.run("customers", "2013-01", customers("2013-01", "ada"))
    before = site.lake.pin().tables["marts.customers"]
    site.run("orders", "2013-01-01", orders("2013-01-01", (1, "ada", "1"), (2, "eve", "2")))
    assert site.lake.pin().tables["marts.customers"] == before
    assert site.rows("marts.sales") == [("ada", Decimal(1))]


def test_a_marked_ancestor_that_the_lake_lacks_is_made_empty(site: Site) -> None:
    done = site.run("orders", "2013-01-01", orders("2013-01-01", (1, "ada", "1")))
    assert "unique_customers_customer" in {test.name for test in done.tests}
    assert [site.rows(table) for table in MARTS] == [[], [("2013-01-01", 1)], []]


def test_an_empty_model_stays_empty(site: Site) -> None:
    site.run("orders", "2013-01-01", orders("2013-01-01", (1, "ada", "1")))
    nothing = f"SELECT * FROM ({order(1, 'x', '1', '2013-01-01')}) WHERE false"
    site.run("orders", "2013-01-01", {"raw.orders": nothing})
    assert [site.rows(table) for table in MARTS] == [[], [], []]


def test_write_batch_replaces_the_rows_of_its_batches_alone(site: Site) -> None:
    for batch, ids in {"2013-01-01": (1, 2), "2013-01-02": (3,)}.items():
        site.run("orders", batch, orders(batch, *((id, "ada", "1") for id in ids)))
    site.run("orders", "2013-01-01", orders("2013-01-01", (1, "ada", "1")))
    assert site.rows("marts.daily") == [("2013-01-01", 1), ("2013-01-02", 1)]


def test_a_batch_that_is_written_again_leaves_the_files_of_others_alone(
    site: Site, write: Write
) -> None:
    """A file with rows of several batches would be rewritten by PyIceberg, by whose bounds DuckDB
    does not see NaN any more."""
    columns = {"_batch": "string*", "orders": "int*", "mean": "double"}
    site.templates = {**TEMPLATES, "marts.daily": _template("marts.daily", columns)}
    nan = "1 as orders, (case when customer = 'eve' then 'nan' else '1' end)::double as mean"
    changed = edited("models/daily.sql", "count(*) as orders", nan)["models/daily.sql"]
    write({"models/daily.sql": changed.replace("group by _batch", "")})
    site.run("orders", "1", orders("1", (1, "ada", "1")))
    second = site.deliver("orders", "2", orders("2", (2, "ada", "1"), (3, "eve", "1")))
    first = replace(second.batches[0], delivery=Delivery("1", [], "hash", "manifest"))
    done = site.transform(replace(second, batches=[first, *second.batches]))
    site.publish(done)
    (daily,) = (one for one in done.outputs if one.table == "marts.daily")
    assert [file.record_count for file in daily.data_files] == [1, 2]

    site.run("orders", "1", orders("1", (1, "ada", "1"), (4, "ada", "1")))
    assert [row[0] for row in site.rows("marts.daily")] == ["1", "1", "2", "2"]
    location = site.lake.pin().tables["marts.daily"]
    with connect(site.duck, extensions=EXTENSIONS) as connection:
        found = connection.execute(f"SELECT _batch FROM iceberg_scan('{location}') WHERE mean > 5")
        assert found.fetchall() == [("2",)]


TOTAL = {
    "models/total.sql": """
        {{ config(meta={'lake': {'table': 'marts.total', 'write': 'all'}}) }}
        select count(*) as days, sum(orders)::bigint as orders from {{ ref('days') }}
    """,
    "models/days.sql": """
        {{ config(materialized='ephemeral') }} select * from {{ ref('daily') }}
    """,
}


@pytest.mark.parametrize("materialized", ["table", "view"])
def test_what_is_made_from_a_model_by_batch_sees_all_of_its_batches(
    site: Site, write: Write, materialized: str
) -> None:
    total = _template("marts.total", {"days": "long*", "orders": "long*"})
    site.templates = {**TEMPLATES, "marts.total": total}
    write({**TOTAL, **edited("dbt_project.yml", "table", materialized)})
    for batch, ids in {"2013-01-01": (1, 2), "2013-01-02": (3,)}.items():
        site.run("orders", batch, orders(batch, *((id, "ada", "1") for id in ids)))
    assert site.rows("marts.total") == [(2, 3)]
    again = orders("2013-01-01", (1, "ada", "1"), (2, "ada", "1"), (4, "ada", "1"))
    done = site.run("orders", "2013-01-01", again)
    assert site.rows("marts.daily") == [("2013-01-01", 3), ("2013-01-02", 1)]
    assert site.rows("marts.total") == [(2, 4)]
    assert done.artifacts is not None
    told = json.loads((done.artifacts / "run_results.json").read_bytes())["results"]
    assert [one["unique_id"].rpartition(".")[2] for one in told][-1] == "total"
    assert {one["unique_id"].rpartition(".")[2] for one in told} == set(done.models)


def test_a_failing_test_is_a_result(site: Site) -> None:
    twice = orders("2013-01-01", (1, "ada", "1"), (1, "ada", "1"), (1, "ada", "1"))
    done = site.transform(site.deliver("orders", "2013-01-01", twice))
    assert failing(done.tests) == {"unique_stg_orders_id"}
    (result,) = (test for test in done.tests if test.status == "fail")
    assert result.failures == 1
    assert done.artifacts is not None
    kept = {path.name for path in done.artifacts.iterdir()}
    assert kept == {"manifest.json", "run_results.json", "test_results.json", "dbt.log"}


def test_a_test_that_cannot_run_is_an_error(site: Site, write: Write) -> None:
    write({"tests/broken.sql": "select no_such_column from {{ ref('sales') }}"})
    loaded = site.deliver("orders", "2013-01-01", orders("2013-01-01", (1, "ada", "1")))
    assert failing(site.transform(loaded).tests) == {"broken"}


def test_a_test_that_fails_on_a_value_is_told_without_it(site: Site, write: Write) -> None:
    write({"tests/broken.sql": "select 1 from {{ ref('stg_orders') }} where customer::int > 0"})
    loaded = site.deliver("orders", "2013-01-01", orders("2013-01-01", (1, "secret", "1")))
    (broken,) = (test for test in site.transform(loaded).tests if test.name == "broken")
    assert broken.status == "error"
    assert "Conversion Error" in broken.message
    assert "secret" not in broken.message


def test_a_value_that_reads_like_an_outage_is_none(site: Site, write: Write) -> None:
    write(edited("models/daily.sql", "count(*)", "max(customer::int)"))
    rows = orders("2013-01-01", (1, "timed out: HTTP 503, No space left on device", "1"))
    with pytest.raises(ModelFailed):
        site.transform(site.deliver("orders", "2013-01-01", rows))


def test_nothing_downstream_or_no_project_runs_nothing(site: Site) -> None:
    site.templates = {**TEMPLATES, "raw.other": _template("raw.other", {"x": "long"}, "other")}
    loaded = site.deliver("other", "1", {"raw.other": "SELECT 1 AS x, '1' AS _batch"})
    for project in (site.project, None):
        site.project = project
        done = site.transform(loaded)
        assert not (done.models or done.tests or done.reads or done.artifacts)


def edited(name: str, old: str, new: str) -> dict[str, str]:
    """One file of the project with something else in it."""
    assert old in PROJECT[name]
    return {name: PROJECT[name].replace(old, new)}


@pytest.mark.parametrize("materialized", ["table", "view"])
def test_a_model_that_fails_is_told_without_its_data(
    site: Site, write: Write, materialized: str
) -> None:
    write(edited("models/daily.sql", "count(*)", "max(strptime(customer, '%Y'))::date"))
    write(edited("dbt_project.yml", "table", materialized))
    loaded = site.deliver("orders", "2013-01-01", orders("2013-01-01", (1, "secret", "1")))
    with pytest.raises(ModelFailed, match=r"model daily failed.*Invalid Input Error") as error:
        site.transform(loaded)
    assert "secret" not in f"{error.value} {error.value.hint}"
    folder = site.scratch / loaded.run.id / "dbt"
    assert [path.name for path in folder.iterdir()] == ["artifacts"]
    for file in (folder / "artifacts").iterdir():
        assert "secret" not in file.read_text(), file.name
    log = (folder / "artifacts" / "dbt.log").read_text()
    computed = materialized == "table"  # a view is not computed by dbt
    assert ("withheld" in log) == computed
    kept = f"ops/batches/orders/{loaded.run.id}/dbt/dbt.log in the bucket"
    assert (kept in (error.value.hint or "")) == computed


def test_a_python_model_that_fails_is_told_without_its_data(site: Site, write: Write) -> None:
    """What it raises is its author's own words, and may be made of rows."""
    model = """
        def model(dbt, session):
            orders = dbt.ref("stg_orders")
            for row in orders.fetchall():
                raise ValueError(f"could not convert to a number: {row}")
            return orders
        """
    write({"models/loud.py": textwrap.dedent(model)})
    loaded = site.deliver("orders", "2013-01-01", orders("2013-01-01", (1, "secret", "1")))
    with pytest.raises(ModelFailed, match=r"model loud failed") as error:
        site.transform(loaded)
    assert "secret" not in f"{error.value} {error.value.hint}"
    artifacts = site.scratch / loaded.run.id / "dbt" / "artifacts"
    for file in artifacts.iterdir():
        assert "secret" not in file.read_text(), file.name
    assert "withheld" in (artifacts / "dbt.log").read_text()


@pytest.mark.parametrize(
    ("total", "told"),
    [
        ("12345678.9::double", r"total \(DOUBLE\) .* in 1 rows"),
        ("1.239::double", r"total \(DOUBLE\) .*exactly"),
        ("'many'", r"total \(VARCHAR\)"),
        ("date '2013-01-01'", r"total \(DATE\)"),
    ],
)
def test_a_value_that_does_not_fit_is_told(site: Site, write: Write, total: str, told: str) -> None:
    write(edited("models/sales.sql", "round(sum(amount)::double, 2)", total))
    write(edited("models/customers.sql", "source('raw', 'customers')", "ref('stg_orders')"))
    loaded = site.deliver("orders", "2013-01-01", orders("2013-01-01", (1, "ada", "1")))
    with pytest.raises(ModelMisfit, match=f"model sales .*{told}"):
        site.transform(loaded)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("select _batch,", "select null::varchar as _batch,", "_batch .*required"),
        ("select _batch,", "select '2012-12-31' as _batch,", "1 rows are of other batches"),
        ("count(*)", "3000000000", "orders .*BIGINT"),
    ],
)
def test_rows_that_may_not_be_written_are_told(
    site: Site, write: Write, old: str, new: str, told: str
) -> None:
    write(edited("models/daily.sql", old, new))
    loaded = site.deliver("orders", "2013-01-01", orders("2013-01-01", (1, "ada", "1")))
    with pytest.raises(ModelMisfit, match=f"model daily .*{told}"):
        site.transform(loaded)


def test_columns_that_differ_from_the_template_are_told(site: Site, write: Write) -> None:
    write(edited("models/daily.sql", "as orders", "as many, 1 as more"))
    loaded = site.deliver("orders", "2013-01-01", orders("2013-01-01", (1, "ada", "1")))
    told = "model daily .* no column orders; .*column many.*column more"
    with pytest.raises(ModelColumnsDiffer, match=told):
        site.transform(loaded)


def test_a_mart_that_drifted_from_its_template_is_not_written(site: Site) -> None:
    site.run("orders", "2013-01-01", orders("2013-01-01", (1, "ada", "1")))
    wider = {"customer": "string*", "total": "decimal(12,2)"}
    site.templates = {**TEMPLATES, "marts.sales": _template("marts.sales", wider)}
    loaded = site.deliver("orders", "2013-01-02", orders("2013-01-02", (2, "ada", "1")))
    with pytest.raises(TableDrifted, match=r"marts\.sales"):
        site.transform(loaded)


@pytest.mark.parametrize(
    "files",
    [
        {"models/sales.sql": "select {{ no_such_macro( }}"},
        {"models/schema.yml": "models: [{name: sales, columns: 3"},
        {"models/sales.sql": "select * from {{ ref('no_such_model') }}"},
        {"dbt_project.yml": "name: [1]"},
    ],
)
def test_a_project_that_dbt_refuses_is_told(
    site: Site, write: Write, files: dict[str, str | None]
) -> None:
    loaded = site.deliver("orders", "2013-01-01", orders("2013-01-01", (1, "ada", "1")))
    write(files)
    with pytest.raises(DbtProjectInvalid):
        site.transform(loaded)


def test_a_folder_without_a_project_is_told(site: Site, tmp_path: Path) -> None:
    site.project = DbtProject(tmp_path, tmp_path / "cache")
    loaded = site.deliver("orders", "2013-01-01", orders("2013-01-01", (1, "ada", "1")))
    with pytest.raises(DbtProjectMissing):
        site.transform(loaded)


def test_a_silent_store_is_worth_another_try(site: Site) -> None:
    loaded = site.deliver("orders", "2013-01-01", orders("2013-01-01", (1, "ada", "1")))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        away = replace(site.duck, endpoint=f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(StorageUnavailable):
            site.transform(loaded, duck=away)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_process_and_the_project_stay_as_they_were(
    site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    assert site.project is not None
    loaded = site.deliver("orders", "2013-01-01", orders("2013-01-01", (1, "ada", "1")))
    before = contents(site.project.folder)
    environment, root = dict(os.environ), logging.getLogger()
    cwd, handlers, level = Path.cwd(), list(root.handlers), root.level
    capfd.readouterr()
    site.transform(loaded)
    printed = capfd.readouterr()
    assert [
        line for line in (printed.out + printed.err).splitlines() if "model written" not in line
    ] == []
    assert contents(site.project.folder) == before
    assert dict(os.environ) == environment
    assert (Path.cwd(), list(root.handlers), root.level) == (cwd, handlers, level)
    assert [thread.name for thread in threading.enumerate() if "dbt" in thread.name.lower()] == []


def test_no_secret_is_written_to_disk(site: Site) -> None:
    loaded = site.deliver("orders", "2013-01-01", orders("2013-01-01", (1, "ada", "1")))
    site.transform(loaded)
    secret = (site.duck.secret_key or "").encode()
    files = contents(site.scratch)
    assert secret and files
    assert [path for path, content in files.items() if secret in content] == []


def test_the_parsed_project_is_kept_until_it_changes(site: Site, write: Write) -> None:
    assert site.project is not None
    site.run("orders", "2013-01-01", orders("2013-01-01", (1, "ada", "1")))
    (first,) = site.project.cache.iterdir()
    kept = first.stat().st_mtime_ns
    site.run("orders", "2013-01-02", orders("2013-01-02", (2, "ada", "1"), (3, "ada", "1")))
    assert site.rows("marts.daily") == [("2013-01-01", 1), ("2013-01-02", 2)]
    assert [(path, path.stat().st_mtime_ns) for path in site.project.cache.iterdir()] == [
        (first, kept)
    ]
    write(edited("models/daily.sql", "count(*)", "count(*) + 10"))
    site.run("orders", "2013-01-02", orders("2013-01-02", (2, "ada", "1")))
    assert site.rows("marts.daily") == [("2013-01-01", 1), ("2013-01-02", 11)]


@pytest.mark.parametrize("damage", [b"", b"not a manifest", None])
def test_a_damaged_cache_is_made_again(site: Site, damage: bytes | None) -> None:
    assert site.project is not None
    site.run("orders", "2013-01-01", orders("2013-01-01", (1, "ada", "1")))
    (file,) = site.project.cache.iterdir()
    good = file.read_bytes()
    file.write_bytes(good[:-1000] if damage is None else damage)
    site.run("orders", "2013-01-02", orders("2013-01-02", (2, "ada", "1")))
    assert site.rows("marts.daily") == [("2013-01-01", 1), ("2013-01-02", 1)]
    (file,) = site.project.cache.iterdir()
    assert len(file.read_bytes()) > 1000


def test_a_project_that_changes_while_it_is_parsed_is_not_remembered(
    site: Site, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be what the files before the change stand for."""

    def parse_and_change(*args: Any, **kwargs: Any) -> Any:
        parsed = invoke(*args, **kwargs)
        write(edited("models/daily.sql", "count(*)", "count(*) + 10"))
        return parsed

    monkeypatch.setattr("lakewarden.batch.models.project.invoke", parse_and_change)
    site.run("orders", "2013-01-01", orders("2013-01-01", (1, "ada", "1")))
    assert site.project is not None
    assert not site.project.cache.exists()


def test_two_at_once_take_turns(site: Site) -> None:
    batches = ("2013-01-01", "2013-01-02")
    loaded = [site.deliver("orders", b, orders(b, (1, "ada", "1"))) for b in batches]
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(site.transform, loaded))
    for batch, one in zip(batches, done, strict=True):
        assert site.rows("marts.daily", one.loaded.branch.name) == [(batch, 1)]


def test_ctrl_c_ends_a_model(site: Site, write: Write) -> None:
    endless = "(select max(a.range * b.range) from range(1000000) a, range(1000000) b)"
    write(edited("models/daily.sql", "count(*)", endless))
    loaded = site.deliver("orders", "2013-01-01", orders("2013-01-01", (1, "ada", "1")))
    log = site.scratch / loaded.run.id / "dbt" / "artifacts" / "dbt.log"
    watcher = threading.Thread(target=_press_ctrl_c_when, args=(log, "range(1000000) a"))
    watcher.start()
    with pytest.raises(KeyboardInterrupt):
        site.transform(loaded)
    watcher.join()
    assert not log.parent.with_name("models.duckdb").exists()


def _press_ctrl_c_when(log: Path, text: str) -> None:
    """Once dbt has sent the statement; or after a minute, so that the test ends."""
    end = time.monotonic() + 60
    while time.monotonic() < end and not (log.exists() and text in log.read_text()):
        time.sleep(0.1)
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    "size", ["4k", "200k", "700k"], ids=["the site", "dbt parses", "dbt tests"]
)
def test_a_full_disk_is_worth_another_try(
    site: Site, size: str, capfd: pytest.CaptureFixture[str]
) -> None:
    loaded = site.deliver("orders", "2013-01-01", orders("2013-01-01", (1, "ada", "1")))
    scratch = site.scratch / loaded.run.id
    with needs.tmpfs(scratch, size=size), pytest.raises(ScratchFull):
        site.transform(loaded)
    assert "Logging error" not in capfd.readouterr().err
    site.publish(site.transform(loaded))


def test_a_cache_without_room_fails_no_run(site: Site) -> None:
    assert site.project is not None
    with needs.tmpfs(site.project.cache, size="4k") as cache:
        site.run("orders", "2013-01-01", orders("2013-01-01", (1, "ada", "1")))
        assert list(cache.iterdir()) == []
    assert site.rows("marts.daily") == [("2013-01-01", 1)]
