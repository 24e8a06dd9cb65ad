"""lakewarden adopt as a user gives it, under keys that cannot write, and the project that comes of
it: looked at, then raised, table by table, until batches are loaded."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from pyiceberg.catalog.sql import SqlCatalog

from lakewarden.aws.clients import Connection, pyiceberg_properties, s3_client
from lakewarden.lake.apply import TableDrifted
from lakewarden.local.layout import Layout, write_private
from lakewarden.local.overlay import ADMIN_ACTIONS
from lakewarden.local.stack import StackConfig, up
from lakewarden.tables.levels import LevelTooLow
from lakewarden.wiring import Project, open_project
from tests.contract import foreign
from tests.fakes.rest_catalog import RestCatalogServer
from tests.stack import throw_away

LAKEWARDEN = Path(sys.executable).with_name("lakewarden")
BUCKET = "somebodys-lake"
READER = Connection(
    "local", "us-east-1", access_key="LOCALREADER", secret_key="only-to-be-read-by-tests"
)
CSV = "id,customer,amount,at\n{0},c{0},1.50,2024-03-01T00:00:00Z\n"


@dataclass(frozen=True)
class Lakehouse:
    """What somebody had before, with the keys of its owner (`admin`) and of a reader."""

    root: Path
    admin: Connection
    catalog: SqlCatalog
    uri: str

    @property
    def reader(self) -> Mapping[str, str]:
        """The environment of who may read."""
        assert READER.access_key and READER.secret_key
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "LAKEWARDEN_"))}
        keys = {"AWS_ACCESS_KEY_ID": READER.access_key, "AWS_SECRET_ACCESS_KEY": READER.secret_key}
        return {**kept, **keys}

    def run(self, *argv: str, env: Mapping[str, str] | None = None) -> Any:
        """The JSON that a command prints; its error too."""
        done = subprocess.run(
            [LAKEWARDEN, *argv, "--json"], capture_output=True, text=True, env=env, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        return json.loads(done.stdout)

    def adopt(self, into: Path, *more: str) -> Any:
        assert self.admin.endpoint
        return self.run(
            "adopt", "--catalog", self.uri, "--endpoint", self.admin.endpoint,
            "--landing", f"s3://{BUCKET}/raw/", "--into", str(into), *more, env=self.reader,
        )  # fmt: skip

    def state(self) -> Mapping[str, object]:
        """Every version of every object, and every byte of the catalog's folder."""
        client = s3_client(self.admin)
        found = client.list_object_versions(Bucket=BUCKET)
        assert not found["IsTruncated"]
        objects = {(one["Key"], one["VersionId"], one["ETag"]) for one in found["Versions"]}
        folder = self.root / "catalog"
        files = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}
        return {"objects": objects, "markers": found.get("DeleteMarkers", []), "files": files}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lakehouse]:
    root = tmp_path_factory.mktemp("theirs")
    config = StackConfig(root, BUCKET, "us-east-1")
    layout = Layout(root)
    layout.make()
    write_private(layout.identities, {"identities": [*identities()]})
    try:
        admin = up(config).connection
        (root / "catalog").mkdir()
        uri = f"sqlite:///{root}/catalog/their catalog.db"
        told = {**pyiceberg_properties(admin), "uri": uri, "warehouse": f"s3://{BUCKET}/wh"}
        catalog = SqlCatalog("prod", **told)
        furnish(catalog, admin)
        yield Lakehouse(root, admin, catalog, uri)
        catalog.close()
    finally:
        throw_away(config)


def identities() -> Iterator[dict[str, Any]]:
    for name, key, secret, actions in (
        ("owner", "LOCALOWNER", "only-for-the-owner-in-tests", list(ADMIN_ACTIONS)),
        ("reader", READER.access_key, READER.secret_key, [f"Read:{BUCKET}", f"List:{BUCKET}"]),
    ):
        credential = {"accessKey": key, "secretKey": secret}
        yield {"name": name, "credentials": [credential], "actions": actions}


def furnish(catalog: SqlCatalog, admin: Connection) -> None:
    catalog.create_namespace("shop")
    foreign.bucketed(catalog, "shop.orders")
    foreign.equality_deletes(catalog, "shop.customers")
    foreign.nested(catalog, "shop.places")
    foreign.version_3(catalog, "shop.future")
    client = s3_client(admin)
    for day in ("2024-03-01", "2024-03-02"):
        folder = f"raw/orders/dt={day}"
        client.put_object(Bucket=BUCKET, Key=f"{folder}/orders_{day}.csv", Body=CSV.format(day[-1]))
        client.put_object(Bucket=BUCKET, Key=f"{folder}/_SUCCESS")
    client.put_object(Bucket=BUCKET, Key="raw/customers/2024/03/01/customers.csv", Body="x")
    client.put_object(Bucket=BUCKET, Key="raw/notes.txt", Body="x")


@pytest.fixture(scope="module")
def adopted(house: Lakehouse, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an adoption; it reads the store with its owner's keys from now on."""
    folder = tmp_path_factory.mktemp("ours") / "adopted"
    before = house.state()
    told = house.adopt(folder)
    assert house.state() == before
    assert "error" not in told, told
    (folder / ".lakewarden" / "local").mkdir(parents=True)
    endpoint = Path(".lakewarden") / "local" / "endpoint.json"
    shutil.copy(house.root / endpoint, folder / endpoint)
    return folder


def test_the_keys_of_the_test_cannot_write(house: Lakehouse) -> None:
    client = s3_client(replace(READER, endpoint=house.admin.endpoint))
    with pytest.raises(ClientError, match="AccessDenied"):
        client.put_object(Bucket=BUCKET, Key="raw/orders/mine", Body=b"x")
    with pytest.raises(ClientError, match="AccessDenied"):
        client.delete_object(Bucket=BUCKET, Key="raw/notes.txt")


def test_a_dry_run_tells_all_and_writes_nothing(house: Lakehouse, tmp_path: Path) -> None:
    before = house.state()
    told = house.adopt(tmp_path / "never", "--dry-run")
    assert house.state() == before
    assert not [*tmp_path.iterdir()]
    levels = {one["table"]: one["level"] for one in told["tables"]}
    assert levels == {
        "shop.orders": "loaded",
        "shop.customers": "observed",
        "shop.places": "observed",
        "shop.future": None,
    }
    (future,) = [one for one in told["tables"] if one["table"] == "shop.future"]
    assert [reason["code"] for reason in future["reasons"]] == ["format-version"]
    (landing,) = told["landings"]
    by_layout = {one["layout"]: one for one in landing["layouts"]}
    orders = by_layout["raw/orders/dt={batch}/"]
    assert (orders["dataset"], orders["tables"]) == ("orders", {"shop.orders": "orders_*.csv"})
    assert "3 folders" in by_layout["raw/customers/YYYY/MM/DD/"]["fault"]
    assert landing["strange"] == {"count": 1, "such_as": ["raw/notes.txt"]}


def test_a_folder_that_is_there_stays_as_it_is(house: Lakehouse, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert house.adopt(tmp_path / "mine")["error"]["code"] == "folder-taken"
    assert not [*(tmp_path / "mine").iterdir()]


def rows(project: Project, sql: str) -> list[tuple[object, ...]]:
    with project.session(project.pin()) as session:
        return session.execute(sql).fetchall()


def test_what_was_adopted_is_a_project_that_only_looks(house: Lakehouse, adopted: Path) -> None:
    assert sorted(p.name for p in adopted.rglob("*.yaml")) == [
        "shop.customers.yaml",
        "shop.orders.yaml",
        "shop.places.yaml",
    ]
    report = (adopted / "REPORT.md").read_text("utf-8")
    assert "3 of 4 tables can be adopted" in report
    assert "`format-version`" in report
    project = open_project(adopted)
    before = house.state()
    assert not project.drift()
    assert not any(project.plan_tables())
    assert rows(project, "SELECT count(*) FROM shop.customers") == [(13,)]
    assert project.lake.publications() == ()
    assert house.state()["objects"] == before["objects"]
    with pytest.raises(LevelTooLow) as caught:
        project.run("orders", "2024-03-01")
    assert "level: loaded" in str(caught.value.hint)
    assert project.apply_tables() is None
    assert warehouse(house.state()) == warehouse(before)


def warehouse(state: Mapping[str, Any]) -> set[tuple[str, ...]]:
    """What belongs to the tables; the rest are our records."""
    return {one for one in state["objects"] if one[0].startswith("wh/")}


def test_a_table_is_raised_and_takes_batches(adopted: Path) -> None:
    looking = open_project(adopted)
    old = rows(looking, "FROM shop.orders ORDER BY id")
    template = adopted / "tables" / "shop.orders.yaml"
    template.write_text(template.read_text("utf-8").replace("level: observed", "level: loaded"))
    project = open_project(adopted)
    with pytest.raises(TableDrifted, match="missing-column of _batch"):
        project.run("orders", "2024-03-01")
    changes = {one.identifier: [c.describe() for c in one.changes] for one in project.plan_tables()}
    assert changes == {
        "shop.customers": [],
        "shop.orders": [
            "add optional _batch string",
            "add optional _file string",
            "add optional _line long",
        ],
        "shop.places": [],
    }
    applied = project.apply_tables()
    assert applied and applied.tables.keys() == {"shop.orders"}
    for day in ("2024-03-01", "2024-03-02"):
        assert project.run("orders", day).status == "published"
    theirs = "SELECT * EXCLUDE (_batch, _file, _line) FROM shop.orders WHERE _batch IS NULL"
    assert rows(project, f"{theirs} ORDER BY id") == old
    loaded = rows(project, "SELECT _batch FROM shop.orders WHERE _line = 2 ORDER BY 1")
    assert loaded == [("2024-03-01",), ("2024-03-02",)]
    assert project.unpublish("orders", ["2024-03-01"], reason="why").status == "published"
    assert rows(project, "SELECT count(*), count(_batch) FROM shop.orders") == [(16, 1)]
    assert rows(project, f"{theirs} ORDER BY id") == old
    assert not project.drift()
    template.write_text(template.read_text("utf-8").replace("level: loaded", "level: observed"))
    lowered = open_project(adopted)
    assert not lowered.drift()
    with pytest.raises(LevelTooLow):
        lowered.unpublish("orders", ["2024-03-02"], reason="why")


def test_what_took_batches_is_adopted_as_such(
    house: Lakehouse, adopted: Path, tmp_path: Path
) -> None:
    del adopted  # it has loaded into orders by now
    told = house.adopt(tmp_path / "again")
    (orders,) = [one for one in told["tables"] if one["table"] == "shop.orders"]
    assert (orders["level"], orders["notes"]) == ("loaded", ["batches were added to it before"])
    text = (tmp_path / "again" / "tables" / "shop.orders.yaml").read_text("utf-8")
    assert "_batch" not in text


def test_the_dbt_project_is_read_and_not_run(house: Lakehouse, tmp_path: Path) -> None:
    dbt = tmp_path / "dbt"
    (dbt / "models").mkdir(parents=True)
    (dbt / "snapshots").mkdir()
    (dbt / "dbt_project.yml").write_text("name: shop\nprofile: shop\n")
    (dbt / "profiles.yml").write_text(
        "shop: {target: prod, outputs: {prod: {type: redshift, password: geheim}}}\n"
    )
    (dbt / "models" / "sources.yml").write_text(
        "sources: [{name: shop, tables: [{name: orders}, {name: refunds}]}]\n"
    )
    (dbt / "models" / "customers.sql").write_text("{{ config(materialized='incremental') }} x")
    (dbt / "snapshots" / "old.sql").write_text("x")
    told = house.adopt(tmp_path / "new", "--dbt", str(dbt), "--dry-run")
    found = told["dbt"]
    assert found["adapter"] == "redshift"
    assert found["sources"] == {"shop.orders": "shop.orders", "shop.refunds": None}
    assert found["models"] == [
        {"name": "customers", "materialized": "incremental", "table": "shop.customers"}
    ]
    changes = "\n".join(found["changes"])
    for word in ("redshift", "shop.refunds", "customers", "1 dbt snapshots"):
        assert word in changes
    assert "geheim" not in json.dumps(told)
    assert not (dbt / "target").exists()


def test_a_rest_catalog_is_asked_by_get_alone(house: Lakehouse, tmp_path: Path) -> None:
    names = ["shop.orders", "shop.places"]
    tables = {name: house.catalog.load_table(name) for name in names}
    with RestCatalogServer(tables, views=["shop.summary"], token="geheim") as server:
        uri = f"{server.url}/iceberg/main"
        assert house.admin.endpoint
        argv = ["adopt", "--catalog", uri, "--endpoint", house.admin.endpoint, "--dry-run"]
        refused = house.run(*argv, env=house.reader)
        assert refused["error"]["code"] == "catalog-unreadable"
        told = house.run(*argv, env={**house.reader, "LAKEWARDEN_ADOPT_TOKEN": "geheim"})
    assert server.methods == {"GET"}
    assert {one["table"]: one["level"] for one in told["tables"]} == {
        "shop.orders": "loaded",
        "shop.places": "observed",
        "shop.summary": None,
    }
    assert "geheim" not in json.dumps(told)
