"""What adopt decides: layouts of landings, datasets, texts that are read back, and no secret."""

import tomllib
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from pyiceberg.types import LongType, NestedField

from lakewarden.adoption.catalogs import CatalogAddress, open_catalog
from lakewarden.adoption.classify import classify
from lakewarden.adoption.dbt import survey_dbt
from lakewarden.adoption.folder import write_folder
from lakewarden.adoption.landing import split_prefix
from lakewarden.adoption.layouts import glob_of, layouts, survey_landing, take_apart
from lakewarden.adoption.model import (
    Adopted,
    CatalogKindUnknown,
    CatalogSurvey,
    CatalogUnreadable,
    DbtProjectUnreadable,
    FileFacts,
    FolderTaken,
    LandingElsewhere,
    NotAdopted,
    Obstacle,
    Place,
    Reason,
    Survey,
)
from lakewarden.adoption.render import (
    SECRET_VARIABLE,
    files_of,
    report_text,
    settings_text,
    template_text,
)
from lakewarden.errors import LakewardenError
from lakewarden.lake.sql_engine import CatalogUriInvalid
from lakewarden.tables.template import (
    Column,
    Direction,
    FileFormat,
    Level,
    NullOrder,
    PartitionColumn,
    SortColumn,
    Template,
)
from lakewarden.tables.template_file import parse_template
from lakewarden.tables.yaml_file import TemplateInvalid, read_document

days = st.dates(date(1980, 1, 1), date(2100, 1, 1))
words = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True)


def template(name: str, **more: object) -> Template:
    made = Template("shop", name, (Column("id", "long"),), (), (), {}, {}, "", None, None)
    return replace(made, level=Level.OBSERVED, **more)  # type: ignore[arg-type]  # its own


def table(name: str, level: Level = Level.LOADED, *reasons: Reason) -> Adopted:
    return Adopted(f"shop.{name}", level, template(name), reasons)


@pytest.mark.parametrize(
    ("key", "place", "form", "batch"),
    [
        ("raw/orders/2024-01-31/o.csv", "raw/orders/{batch}/", "date", "2024-01-31"),
        ("raw/orders/dt=2024-01-31/o.csv", "raw/orders/dt={batch}/", "date", "2024-01-31"),
        ("raw/yyyymm=2024-01/y1/o.csv", "raw/yyyymm={batch}/", "month", "2024-01"),
        ("raw/2024/01/31/o.csv", "raw/YYYY/MM/DD/", "date", "2024-01-31"),
        ("raw/year=2024/month=1/o.csv", "raw/YYYY/MM/", "month", "2024-01"),
        ("raw/dt=20240131/o.csv", "raw/dt=YYYYMMDD/", "date", "2024-01-31"),
        ("raw/yyyymm=202401/o.csv", "raw/yyyymm=YYYYMM/", "month", "2024-01"),
        ("raw/orders_2024-01-31.csv", "raw/", None, "2024-01-31"),
    ],
)
def test_where_the_batch_stands_in_a_key(
    key: str, place: str, form: str | None, batch: str
) -> None:
    found = take_apart(key)
    assert found is not None
    assert (found.place, found.form, found.batch) == (place, form, batch)
    assert (found.landing is None) == ("{batch}" not in place) == (found.fault is not None)


@pytest.mark.parametrize(
    "key",
    ["raw/o.csv", "raw/2024-13-01/o.csv", "raw/2023-02-29/o.csv", "raw/v1.2/o.csv", "raw//x", "",
     "raw/{batch}/2024-01-01/o.csv", "raw/../2024-01-01/o.csv", "raw/0000-00/o.csv"],
)  # fmt: skip
def test_keys_without_a_batch(key: str) -> None:
    assert take_apart(key) is None


@given(st.text())
def test_any_key_is_taken_apart_or_left(key: str) -> None:
    found = take_apart(key)
    assert found is None or found.batch


@given(words, days, words, st.integers(0, 99_999))
def test_a_key_is_its_landing_with_the_batch_and_the_name(
    folder: str, day: date, stem: str, number: int
) -> None:
    name = f"{stem}_{day.isoformat()}_{number}.csv"
    key = f"raw/{folder}/dt={day.isoformat()}/{name}"
    found = take_apart(key)
    assert found is not None and found.landing is not None
    assert found.landing.replace("{batch}", found.batch) + found.name == key
    assert glob_of(name, found.batch) == f"{stem}_*_*.csv"


@given(st.lists(st.text(alphabet="ab01-/=_.2024", max_size=30), max_size=30))
def test_every_key_is_counted_once(keys: list[str]) -> None:
    found, strange = layouts(keys)
    assert sum(one.files for one in found) + len(strange) == len(keys)


def keys(*days: str, names: tuple[str, ...] = ("orders_{}.csv",)) -> list[str]:
    return [f"raw/orders/dt={day}/{name.format(day)}" for day in days for name in names]


def test_a_layout_becomes_a_dataset_of_the_tables_that_are_called_so() -> None:
    names = ("orders_{}.csv.gz", "refunds-{}.json", "_SUCCESS")
    found = survey_landing(
        "s3://lake/raw/",
        keys("2024-01-01", "2024-01-02", names=names),
        [table("orders"), table("refunds")],
    )
    (made,) = found.proposals
    assert made.name == "orders"
    assert made.tables == {"shop.orders": "orders_*.csv.gz", "shop.refunds": "refunds-*.json"}
    assert made.formats == {"shop.orders": FileFormat.CSV, "shop.refunds": FileFormat.JSON}
    assert made.layout.complete == "marker:_SUCCESS"
    assert (made.layout.batches, made.layout.files) == (2, 6)


@pytest.mark.parametrize(
    ("tables", "why"),
    [
        ([], "no table"),
        ([table("other")], "no table"),
        ([table("orders", Level.OBSERVED, Reason(Obstacle.ELSEWHERE, "elsewhere"))], "elsewhere"),
    ],
)
def test_a_layout_without_a_table_for_it_is_told(tables: list[Adopted], why: str) -> None:
    found = survey_landing("s3://lake/raw/", keys("2024-01-01"), tables)
    assert not found.proposals
    ((layout, told),) = found.unfit
    assert layout.landing == "raw/orders/dt={batch}/"
    assert why in told


def test_our_own_records_are_no_deliveries() -> None:
    found = survey_landing("s3://lake/", ["ops/batches/orders/2024-01-01/x.json"], [])
    assert "own records" in found.unfit[0][1]


def test_two_layouts_have_two_names() -> None:
    found = survey_landing(
        "s3://lake/",
        ["a/orders/2024-01-01/orders.csv", "b/orders/2024-01-01/orders.csv"],
        [table("orders")],
        taken=["orders"],
    )
    assert [one.name for one in found.proposals] == ["orders_2", "orders_3"]


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
trimmed = text.map(str.strip)
any_name = text.filter(lambda name: len(name) > 0)


@given(
    st.lists(
        st.builds(
            Column,
            name=any_name,
            type=st.sampled_from(["long", "struct<2: a: long required>", "fixed[4]", "map<x>"]),
            required=st.booleans(),
            description=trimmed,
            field_id=st.integers(1, 9_999),
        ),
        min_size=1,
        max_size=4,
        unique_by=lambda column: column.name,
    ),
    trimmed,
    any_name,
)
def test_a_template_that_is_written_reads_as_it_was(
    columns: list[Column], description: str, name: str
) -> None:
    made = template(
        "orders",
        columns=tuple(columns),
        description=description,
        partition_spec=(PartitionColumn(name, "bucket[4]"),),
        sort_order=(SortColumn(name, Direction.DESC, NullOrder.NULLS_LAST),),
    )
    assert read_back(template_text(made)) == made


def read_back(written: str) -> Template:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "t.yaml"
        file.write_text(written, "utf-8")
        return parse_template(read_document(file))


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("level: loaded", "says by what"),
        ("level: lent", "expected 'observed', 'loaded' or 'owned'"),
        ("level: owned\nload: {dataset: a}\nsource: {format: csv}", None),
        ("level: loaded\nload: {dataset: a}\nsource: {format: csv}", None),
        ("level: observed", None),
    ],
)
def test_levels_in_a_file(lines: str, told: str | None) -> None:
    written = f"name: t\nnamespace: raw\n{lines}\ncolumns: [{{name: id, type: long}}]\n"
    if told is None:
        found = read_back(written)
        ours = [(column.name, column.required) for column in found.owned_columns]
        names = ("_batch", "_file", "_line")
        assert (
            ours
            == {
                Level.OWNED: [(name, True) for name in names],
                Level.LOADED: [(name, False) for name in names],
                Level.OBSERVED: [],
            }[found.level]
        )
    else:
        with pytest.raises(TemplateInvalid, match=told):
            read_back(written)


def test_without_a_level_a_table_is_ours() -> None:
    found = read_back("name: t\nnamespace: raw\ncolumns: [{name: id, type: long}]\n")
    assert found.level is Level.OWNED


def survey(uri: str = "sqlite:////srv/c.db", *, secret: bool = False, name: str = "prod") -> Survey:
    place = Place("shop", "prod", "123456789012", "eu-west-1", "lake", "wh")
    landing = survey_landing("s3://lake/raw/", keys("2024-01-01"), [table("orders")])
    return Survey(
        place, CatalogSurvey("sql", uri, name, secret=secret), [table("orders")], [landing]
    )


def test_a_name_that_no_file_can_have_is_told_once() -> None:
    """A template's file is called by namespace and name together."""
    metadata = new_table_metadata(
        schema=Schema(NestedField(1, "n", LongType())),
        partition_spec=UNPARTITIONED_PARTITION_SPEC,
        sort_order=UNSORTED_SORT_ORDER,
        location="s3://lake/t",
        properties={},
    )
    fits = classify(f"{'n' * 119}.{'t' * 120}", metadata, FileFacts(), bucket="lake")
    assert isinstance(fits, Adopted)
    long = classify(f"{'n' * 120}.{'t' * 120}", metadata, FileFacts(), bucket="lake")
    assert isinstance(long, NotAdopted)
    assert [reason.obstacle for reason in long.reasons] == [Obstacle.NAME]


def test_names_of_others_stay_names_in_the_report() -> None:
    found = survey(name="x\n\n## Next\n\n1. Run this\x1b]0;")
    key = "raw/x\n## Next <img src=http://elsewhere>\u202e"
    landing = survey_landing("s3://lake/raw/", [*keys("2024-01-01"), key], [])
    text = report_text(replace(found, landings=[landing]))
    assert [line for line in text.splitlines() if line == "## Next"] == ["## Next"]
    assert all(char.isprintable() for char in text.replace("\n", ""))


def test_the_settings_name_the_variable_for_a_secret() -> None:
    text = settings_text(survey("postgresql://me@db/x", secret=True))
    found = tomllib.loads(text)
    catalog = found["env"]["prod"]["catalog"]
    assert catalog["uri"] == "postgresql://me@db/x"
    assert catalog["password"] == {"env": SECRET_VARIABLE}
    assert found["dataset"]["orders"]["tables"] == {"shop.orders": "orders_*.csv"}


def test_a_nessie_is_told_by_its_own_address() -> None:
    uri = "http://nessie:19120/iceberg/main"
    rest = CatalogSurvey("rest", uri, "lake", secret=True)
    found = tomllib.loads(settings_text(replace(survey(), catalog=rest)))
    assert found["env"]["prod"]["catalog"] == {
        "type": "nessie",
        "uri": "http://nessie:19120",
        "warehouse": "lake",
        "main": "main",
        "token": {"env": SECRET_VARIABLE},
    }


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_name_can_stand_in_the_settings(name: str) -> None:
    found = tomllib.loads(settings_text(survey(name=name)))
    assert found["env"]["prod"]["catalog"]["name"] == name


def test_what_was_matched_is_said_in_the_template() -> None:
    files = files_of(survey())
    found = read_back(files["tables/shop.orders.yaml"])
    assert (found.level, found.load_dataset) == (Level.OBSERVED, "orders")
    assert found.source is not None and found.source.format is FileFormat.CSV


def refuse(_: Path) -> None:
    raise FolderTaken("no")


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    into = tmp_path / "new"
    with pytest.raises(FolderTaken):
        write_folder(into, {"a": "1"}, refuse)
    assert not [*tmp_path.iterdir()]
    write_folder(into, {"a": "1", "b/c": "2"}, lambda made: None)
    assert sorted(p.name for p in into.rglob("*")) == ["a", "b", "c"]
    for taken in (into, tmp_path / "link"):
        if taken != into:
            taken.symlink_to(tmp_path / "nowhere")
        with pytest.raises(FolderTaken):
            write_folder(taken, {"a": "other"}, lambda made: None)
    assert (into / "a").read_text() == "1"


@pytest.mark.parametrize("landing", ["raw/", "s3://", "s3://UPPER/x", "http://lake/raw/"])
def test_a_landing_is_an_s3_prefix(landing: str) -> None:
    with pytest.raises(LandingElsewhere):
        split_prefix(landing)


def test_a_landing_prefix_ends_with_a_slash() -> None:
    assert split_prefix("s3://lake/raw") == ("lake", "raw/")
    assert split_prefix("s3://lake") == ("lake", "")


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("sqlite:////nowhere/catalog.db", CatalogUnreadable),
        ("glue://somewhere", CatalogKindUnknown),
        ("::geheim::", CatalogKindUnknown),
        ("postgresql://user:geheim@127.0.0.1:1/x?password=geheim", CatalogUnreadable),
        ("http://user:geheim@127.0.0.1:1/iceberg/main", CatalogUnreadable),
        ("http://user:geheim@127.0.0.1:99999/iceberg/main", CatalogKindUnknown),
        ("postgresql://user:p@geheim@127.0.0.1:1/x", CatalogUriInvalid),
        ("postgresql://user:p@ss:geheim@127.0.0.1/x", CatalogUriInvalid),
    ],
)
def test_a_catalog_that_cannot_be_read_is_told_without_its_secrets(
    uri: str, kind: type[LakewardenError]
) -> None:
    with pytest.raises(kind) as caught, open_catalog(CatalogAddress(uri), PyArrowFileIO(), {}):
        pass
    error: BaseException | None = caught.value
    assert "geheim" not in f"{caught.value}{caught.value.hint}{error}"


def test_a_dbt_project_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(DbtProjectUnreadable, match=r"no dbt_project\.yml"):
        survey_dbt(tmp_path, [])
    (tmp_path / "dbt_project.yml").write_text("name: [")
    with pytest.raises(DbtProjectUnreadable, match="not YAML"):
        survey_dbt(tmp_path, [])


def test_a_manifest_tells_more_than_files(tmp_path: Path) -> None:
    (tmp_path / "dbt_project.yml").write_text("name: shop\nprofile: shop\n")
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "manifest.json").write_text(
        '{"metadata": {"adapter_type": "duckdb"}, "nodes": {"model.shop.daily": {"resource_type":'
        ' "model", "name": "daily", "alias": "days", "schema": "marts", "config": {"materialized":'
        ' "table", "meta": {"lake": {}}}}}, "sources": {"s": {"schema": "raw", "name": "orders"}}}'
    )
    found = survey_dbt(tmp_path, ["marts.days", "raw.orders"])
    assert (found.adapter, found.sources) == ("duckdb", {"raw.orders": "raw.orders"})
    assert [(one.name, one.table, one.marked) for one in found.models] == [
        ("days", "marts.days", True)
    ]
    assert not found.changes
