"""Tables of others: each is adopted at its level or refused by name, is read right by both engines,
drifts as it should, and takes batches, where it may, without a word lost of what was there."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from duckdb import DuckDBPyConnection
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table
from pyiceberg.types import StringType
from sqlalchemy import create_engine, insert

from lakewarden.adoption.catalogs import CatalogAddress, open_catalog
from lakewarden.adoption.model import Adopted, NotAdopted, Obstacle
from lakewarden.adoption.render import template_text
from lakewarden.adoption.tables import survey_table
from lakewarden.aws.clients import pyiceberg_properties
from lakewarden.aws.s3 import S3Objects
from lakewarden.batch.duck import EXTENSIONS, DuckConfig, connect
from lakewarden.batch.parquet import upload, write_local
from lakewarden.batch.query import QueryInvalid, ask, open_pin
from lakewarden.batch.scan import scan
from lakewarden.lake.apply import TableDrifted, TableNotRewritable, apply, table_for
from lakewarden.lake.commit import rows_of, stage
from lakewarden.lake.evolve import apply_tables, drift_of, plan_tables
from lakewarden.lake.model import Contribution
from lakewarden.lake.sql import SqlLake
from lakewarden.tables.changes import AddColumn, TablePlan
from lakewarden.tables.drift import FindingKind, drift
from lakewarden.tables.levels import LevelTooLow
from lakewarden.tables.plan import plan
from lakewarden.tables.template import FileFormat, Level, Source, Template
from lakewarden.tables.template_file import parse_template
from lakewarden.tables.yaml_file import read_document
from tests.contract.foreign import FOREIGN
from tests.stack import LocalStack

NOW = datetime(2024, 2, 1, tzinfo=UTC)
SPACE = "shop"
LOADABLE = [name for name, one in FOREIGN.items() if one.level is Level.LOADED]


@dataclass(frozen=True)
class Lakehouse:
    """Somebody's catalog, called prod, and what a survey of it found."""

    uri: str
    catalog: Catalog
    objects: S3Objects
    lake: SqlLake
    duck: DuckConfig
    session: DuckDBPyConnection
    found: Mapping[str, Adopted | NotAdopted]

    def rows(self, location: str) -> list[dict[str, Any]]:
        """By DuckDB."""
        result = self.session.execute(scan(self.session, location))
        names = [str(column[0]) for column in result.description or ()]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

    def location(self, name: str) -> str:
        return self.lake.pin().tables[f"{SPACE}.{name}"]

    def adopted(self, name: str) -> Adopted:
        found = self.found[name]
        assert isinstance(found, Adopted)
        return found


@pytest.fixture(scope="module")
def house(local_stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lakehouse]:
    folder = tmp_path_factory.mktemp("foreign")
    connection, bucket = local_stack.connection, local_stack.bucket()
    told = pyiceberg_properties(connection)
    uri = f"sqlite:///{folder}/catalog.db"
    warehouse = f"s3://{bucket}/wh"
    catalog = SqlCatalog("prod", **{**told, "uri": uri, "warehouse": warehouse})
    catalog.create_namespace(SPACE)
    for name, foreign in FOREIGN.items():
        foreign.make(catalog, f"{SPACE}.{name}")
    _make_view(uri)
    objects = S3Objects(connection, bucket)
    io = PyArrowFileIO(dict(told))
    with open_catalog(CatalogAddress(uri), io, told) as (_, listed):
        found = {one.name.partition(".")[2]: survey_table(one, io, bucket=bucket) for one in listed}
    duck = DuckConfig(
        temp=folder / "duckdb",
        endpoint=connection.endpoint,
        region=connection.region,
        access_key=connection.access_key,
        secret_key=connection.secret_key,
    )
    lake = SqlLake(uri, warehouse, told, objects=lambda: objects, main="prod")
    with connect(duck, extensions=EXTENSIONS) as session:
        yield Lakehouse(uri, catalog, objects, lake, duck, session, found)
    catalog.close()
    lake.close()


def _make_view(uri: str) -> None:
    engine = create_engine(uri)
    with engine.begin() as connection:
        connection.execute(
            insert(IcebergTables).values(
                catalog_name="prod",
                table_namespace=SPACE,
                table_name="a_view",
                metadata_location="s3://elsewhere/view.json",
                iceberg_type="VIEW",
            )
        )
    engine.dispose()


def as_text(rows: Collection[Mapping[str, Any]]) -> list[str]:
    """Comparable: DuckDB has maps as dicts and PyIceberg as pairs, and each its own UTC."""

    def plain(key: str, value: Any) -> Any:
        if isinstance(value, datetime):
            return value.isoformat()
        return dict(value) if key == "counts" and value else value

    return sorted(str({key: plain(key, value) for key, value in row.items()}) for row in rows)


@pytest.mark.parametrize("name", FOREIGN)
def test_each_is_adopted_at_its_level_or_refused_by_name(house: Lakehouse, name: str) -> None:
    expected, found = FOREIGN[name], house.found[name]
    assert {reason.obstacle for reason in found.reasons} == expected.reasons
    assert (found.level if isinstance(found, Adopted) else None) == expected.level


def test_a_view_is_told_and_left_alone(house: Lakehouse) -> None:
    found = house.found["a_view"]
    assert isinstance(found, NotAdopted)
    assert [reason.obstacle for reason in found.reasons] == [Obstacle.VIEW]
    assert f"{SPACE}.a_view" not in house.lake.pin().tables


@pytest.mark.parametrize("name", [n for n, one in FOREIGN.items() if one.level])
def test_a_template_says_what_the_table_is(house: Lakehouse, name: str, tmp_path: Path) -> None:
    file = tmp_path / "table.yaml"
    file.write_text(template_text(house.adopted(name).template), "utf-8")
    template = parse_template(read_document(file))
    assert template == house.adopted(name).template
    assert not drift(template, house.lake.load(house.lake.pin(), template.identifier))


@pytest.mark.parametrize("name", [n for n, one in FOREIGN.items() if one.read_by_both])
def test_both_engines_read_the_same(house: Lakehouse, name: str) -> None:
    table = house.catalog.load_table(f"{SPACE}.{name}")
    by_pyiceberg = table.scan().to_arrow().to_pylist()
    assert as_text(house.rows(house.location(name))) == as_text(by_pyiceberg)
    assert by_pyiceberg or name == "empty"


def test_duckdb_alone_reads_equality_deletes_and_twins(house: Lakehouse) -> None:
    ids = {row["id"] for row in house.rows(house.location("equality_deletes"))}
    assert ids == set(range(1, 16)) - {2, 12}
    assert house.rows(house.location("twins")) == [{"id": 1, "ID_1": 2}]


def test_a_query_reads_tables_whose_neighbours_nobody_can_read(house: Lakehouse) -> None:
    with open_pin(house.duck, house.lake.pin()) as session:
        assert ask(session, "SELECT count(*) FROM shop.plain")[1].__next__() == (15,)
        for name in ("metadata_gone", "unknown_type"):
            with pytest.raises(QueryInvalid, match=f"shop.{name} cannot be read"):
                list(ask(session, f"SELECT * FROM shop.{name}")[1])


def test_reading_leaves_the_catalog_as_it_was(house: Lakehouse, tmp_path: Path) -> None:
    """One in which nobody has published anything."""
    uri = f"sqlite:///{tmp_path}/catalog.db"
    catalog = SqlCatalog("prod", **{**house.catalog.properties, "uri": uri})
    catalog.create_namespace(SPACE)
    FOREIGN["plain"].make(catalog, f"{SPACE}.plain")
    catalog.close()
    before = _schema_of(uri)
    lake = SqlLake(uri, "s3://unused", {}, main="prod")
    assert lake.publications() == ()
    assert lake.branches() == ()
    assert (lake.pin().version, set(lake.pin().tables)) == ("0", {f"{SPACE}.plain"})
    lake.close()
    assert _schema_of(uri) == before


def _schema_of(uri: str) -> Sequence[str]:
    engine = create_engine(uri)
    with engine.connect() as connection:
        found: Sequence[str] = (
            connection.exec_driver_sql("SELECT sql FROM sqlite_master").scalars().all()
        )
    engine.dispose()
    return found


# What follows writes to copies of its own.


def copy_of(house: Lakehouse, name: str, copy: str) -> tuple[Table, Template]:
    """A table made anew, and its template raised as far as it may."""
    table = FOREIGN[name].make(house.catalog, f"{SPACE}.{copy}")
    template = dataclasses.replace(
        house.adopted(name).template,
        name=copy,
        level=Level.LOADED,
        load_dataset="shop",
        source=Source(FileFormat.CSV),
    )
    return table, template


def raise_level(house: Lakehouse, template: Template, run: str) -> None:
    plans = plan_tables(house.lake, house.lake.pin(), {template.identifier: template})
    assert [[type(change) for change in one.changes] for one in plans] == [[AddColumn] * 3]
    assert apply_tables(house.lake, plans, run=run, at=NOW)


def put(house: Lakehouse, template: Template, run: str, batch: str, ids: Sequence[int]) -> None:
    """A batch of orders, by the roads that loading takes; none replaces it by nothing."""
    branch = house.lake.begin(f"batch/shop/{run}", run, NOW)
    table = table_for(house.lake.catalog(branch), template, needs=Level.LOADED)
    names = [column.name for column in template.columns]
    values = {
        "id": "n",
        "customer": "'c' || n",
        "buyer": "'c' || n",
        "amount": "CAST(n AS DECIMAL(9, 2))",
        "at": "TIMESTAMPTZ '2024-01-01 00:00:00Z'",
    }
    columns = ", ".join(f"{values[name]} AS {name}" for name in names)
    select = (
        f"SELECT {columns}, '{batch}' AS _batch, 'f.csv' AS _file, n AS _line"
        f" FROM unnest({list(ids) or '[]::BIGINT[]'}) t(n)"
    )
    local = write_local(house.session, select, table, house.duck.temp.parent / run, run)
    files = upload(local, table, house.objects)
    stage(table, files, level=template.level, replacing=rows_of([batch]), properties={})
    contribution = Contribution("shop", batch, run, {})
    house.lake.publish(branch, [contribution], reads=frozenset(), at=NOW)


def split(house: Lakehouse, template: Template) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Rows without a batch as they were, and how many there are of each batch, the same by both
    engines."""
    rows = house.rows(house.lake.pin().tables[template.identifier])
    table = house.catalog.load_table(template.identifier)
    assert as_text(rows) == as_text(table.scan().to_arrow().to_pylist())
    theirs: list[dict[str, Any]] = []
    ours: dict[str, int] = {}
    for row in rows:
        batch, _, _ = row.pop("_batch"), row.pop("_file"), row.pop("_line")
        if batch is None:
            theirs.append(row)
        else:
            ours[batch] = ours.get(batch, 0) + 1
    return theirs, ours


@pytest.mark.parametrize("name", LOADABLE)
def test_batches_go_into_a_loaded_table_and_out_again(house: Lakehouse, name: str) -> None:
    table, template = copy_of(house, name, f"{name}_loaded")
    properties, spec = dict(table.properties), table.spec()
    before = as_text(house.rows(house.lake.pin().tables[template.identifier]))
    with pytest.raises(TableDrifted):  # it does not have the columns yet
        put(house, template, f"{name}-0", "2024-01-01", [1])
    raise_level(house, template, f"{name}-1")
    put(house, template, f"{name}-2", "2024-01-01", range(100, 110))
    put(house, template, f"{name}-3", "2024-01-02", range(200, 203))
    put(house, template, f"{name}-4", "2024-01-01", range(100, 104))  # a correction
    theirs, ours = split(house, template)
    assert as_text(theirs) == before
    assert ours == {"2024-01-01": 4, "2024-01-02": 3}
    # Their owner compacts: rows of batches and rows of old lie in the same files now.
    theirs_now = house.catalog.load_table(template.identifier)
    theirs_now.overwrite(theirs_now.scan().to_arrow())
    put(house, template, f"{name}-5", "2024-01-02", [])
    theirs, ours = split(house, template)
    assert as_text(theirs) == before
    assert ours == {"2024-01-01": 4}
    after = house.catalog.load_table(template.identifier)
    assert after.spec() == spec
    changed = dict(after.properties).items() ^ properties.items()
    assert {key for key, _ in changed} <= {"schema.name-mapping.default"}
    assert not drift(template, after)


def test_what_drifts_is_told_and_what_is_theirs_is_not(house: Lakehouse) -> None:
    table, raised = copy_of(house, "plain", "drifting")
    template = dataclasses.replace(raised, level=Level.OBSERVED)
    with table.transaction() as transaction:
        transaction.set_properties({"write.parquet.row-limit": "1", "comment": "theirs"})
    with table.update_schema() as update:
        update.update_column("customer", doc="described anew")
    assert not drift_of(house.lake, house.lake.pin(), {template.identifier: template})
    with table.update_schema() as update:
        update.add_column("more", StringType())
        update.rename_column("amount", "total")
        update.delete_column("customer")
    with table.update_schema() as update:
        update.add_column("customer", StringType())
    (found,) = drift_of(house.lake, house.lake.pin(), {template.identifier: template}).values()
    assert {(one.kind, one.subject) for one in found} == {
        (FindingKind.FIELD_ID, "customer"),
        (FindingKind.MISSING_COLUMN, "amount"),
        (FindingKind.EXTRA_COLUMN, "total"),
        (FindingKind.EXTRA_COLUMN, "more"),
    }
    assert not plan(template, table)


def test_every_way_of_writing_refuses_below_its_level(house: Lakehouse) -> None:
    table, loaded = copy_of(house, "plain", "guarded")
    observed = dataclasses.replace(loaded, level=Level.OBSERVED)
    owned = dataclasses.replace(loaded, level=Level.OWNED, load_dataset=None, source=None)
    location = table.metadata_location
    with pytest.raises(LevelTooLow):
        table_for(house.catalog, observed, needs=Level.LOADED)
    for template in (observed, loaded):
        with pytest.raises(LevelTooLow):
            table_for(house.catalog, template)
    for level, replacing in (
        (Level.OBSERVED, None),
        (Level.OBSERVED, rows_of(["2024-01-01"])),
        (Level.LOADED, AlwaysTrue()),
    ):
        with pytest.raises(LevelTooLow):
            stage(table, [], level=level, replacing=replacing, properties={})
    wanted = plan(owned, table)
    assert wanted
    for level in (Level.OBSERVED, Level.LOADED):
        with pytest.raises(LevelTooLow):
            apply(house.catalog, dataclasses.replace(wanted, level=level))
    created = plan(dataclasses.replace(owned, name="never"), None)
    with pytest.raises(LevelTooLow):
        apply(house.catalog, dataclasses.replace(created, level=Level.LOADED))
    gained = plan(loaded, table)
    with pytest.raises(LevelTooLow):
        apply(house.catalog, dataclasses.replace(gained, level=Level.OBSERVED))
    assert house.catalog.load_table(observed.identifier).metadata_location == location
    assert not house.catalog.table_exists(f"{SPACE}.never")


def test_a_table_that_is_not_ours_is_never_made(house: Lakehouse) -> None:
    _, template = copy_of(house, "plain", "gone")
    house.catalog.drop_table(template.identifier)
    assert plan(template, None) == TablePlan(template.identifier, None, (), Level.LOADED)
    with pytest.raises(TableDrifted, match="missing-table"):
        table_for(house.catalog, template, needs=Level.LOADED)
    assert not house.catalog.table_exists(template.identifier)


def test_equality_deletes_that_come_later_stop_loading_by_name(house: Lakehouse) -> None:
    table = FOREIGN["equality_deletes"].make(house.catalog, f"{SPACE}.upserted")
    template = dataclasses.replace(
        house.adopted("plain").template, name="upserted", level=Level.LOADED, load_dataset="shop"
    )
    apply(house.catalog, plan(template, table))
    with pytest.raises(TableNotRewritable, match="equality deletes"):
        table_for(house.catalog, template, needs=Level.LOADED)
