"""Applying plans through a real catalog: what is applied is what the template says, always."""

import datetime
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from itertools import count
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import DecimalType, IcebergType, NestedField, UUIDType

from lakewarden.lake.apply import PlanOutdated, apply
from lakewarden.tables.changes import RecordFieldIds
from lakewarden.tables.consistency import contradictions
from lakewarden.tables.drift import FindingKind, drift
from lakewarden.tables.plan import plan
from lakewarden.tables.properties import FIELD_IDS
from lakewarden.tables.refusals import ChangeRefused, RefusalKind
from lakewarden.tables.template import (
    Column,
    Direction,
    FileFormat,
    NullOrder,
    PartitionColumn,
    SortColumn,
    Source,
    Template,
)
from lakewarden.tables.types import TIME_TRANSFORMS, iceberg_type, transform_of

Draw = Callable[..., Any]  # draws a value from a strategy of it

# A rising number, so that no name is ever used again within one catalog.
_numbers = count(1)

SAMPLES: Mapping[str, object] = {
    "boolean": True,
    "int": 7,
    "long": 1 << 40,
    "float": 1.5,
    "double": 2.25,
    "date": datetime.date(2013, 1, 31),
    "time": datetime.time(12, 30),
    "timestamp": datetime.datetime(2013, 1, 31, 12, 30),
    "timestamptz": datetime.datetime(2013, 1, 31, 12, 30, tzinfo=datetime.UTC),
    "string": "０１ zero",
    "uuid": uuid.UUID(int=5).bytes,
    "binary": b"\x00\x01",
    "decimal(9,2)": Decimal("1234567.89"),
    "decimal(4,0)": Decimal("1234"),
}
WIDER = {
    "int": "long",
    "float": "double",
    "decimal(9,2)": "decimal(38,2)",
    "decimal(4,0)": "decimal(5,0)",
}
NARROWER = {
    "long": "int",
    "double": "float",
    "decimal(9,2)": "decimal(8,2)",
    "decimal(38,2)": "decimal(38,3)",
    "decimal(4,0)": "decimal(9,2)",
    "string": "binary",
    "date": "timestamp",
    "timestamp": "timestamptz",
    "int": "string",
    "boolean": "int",
}
TRANSFORMS = ("identity", *TIME_TRANSFORMS, "bucket[4]", "bucket[7]", "truncate[3]")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    folder = tmp_path_factory.mktemp("lake")
    opened = SqlCatalog(
        "main", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}/warehouse"
    )
    yield opened
    opened.close()


def columns() -> st.SearchStrategy[Column]:
    return st.builds(
        lambda kind, required, doc: Column(f"c{next(_numbers)}", kind, required, doc),
        st.sampled_from(sorted(SAMPLES)),
        st.booleans(),
        st.sampled_from(["", "what it is", "été"]),
    )


@st.composite
def partition_specs(draw: st.DrawFn, template: Template) -> tuple[PartitionColumn, ...]:
    fits = [
        PartitionColumn(column.name, transform)
        for column in template.all_columns
        for transform in TRANSFORMS
        if transform_of(transform).can_transform(iceberg_type(column.type))
    ]
    drawn = draw(st.lists(st.sampled_from(fits), max_size=3, unique=True))
    kinds = {column.name: iceberg_type(column.type) for column in template.all_columns}
    chosen: list[PartitionColumn] = []
    for part in drawn:
        timed = {p.column for p in chosen if p.transform in TIME_TRANSFORMS}
        if part.transform in TIME_TRANSFORMS and part.column in timed:
            continue
        if is_fixed(part, kinds) and any(is_fixed(other, kinds) for other in chosen):
            continue
        chosen.append(part)
    return tuple(chosen)


def is_fixed(part: PartitionColumn, kinds: Mapping[str, IcebergType]) -> bool:
    """Of a kind that a spec can hold one of; two that differ may be widened to the same."""
    result = transform_of(part.transform).result_type(kinds[part.column])
    return isinstance(result, DecimalType | UUIDType)


@st.composite
def sort_orders(draw: st.DrawFn, template: Template) -> tuple[SortColumn, ...]:
    names = [column.name for column in template.all_columns]
    chosen = draw(st.lists(st.sampled_from(names), max_size=3, unique=True))
    return tuple(
        SortColumn(name, draw(st.sampled_from(Direction)), draw(st.sampled_from(NullOrder)))
        for name in chosen
    )


PROPERTIES = st.dictionaries(
    st.sampled_from(
        [
            "history.expire.max-snapshot-age-ms",
            "commit.retry.num-retries",
            "write.summary.partition-limit",
            "owner.team",
        ]
    ),
    st.integers(1, 9).map(str),
)


@st.composite
def templates(draw: st.DrawFn) -> Template:
    loaded = draw(st.booleans())
    bare = Template(
        namespace="raw",
        name=f"t{next(_numbers)}",
        columns=tuple(draw(st.lists(columns(), min_size=1, max_size=6))),
        partition_spec=(),
        sort_order=(),
        properties=draw(PROPERTIES),
        tags={},
        description=draw(st.sampled_from(["", "a table"])),
        source=Source(FileFormat.CSV) if loaded else None,
        load_dataset="flights" if loaded else None,
    )
    template = replace(
        bare, partition_spec=draw(partition_specs(bare)), sort_order=draw(sort_orders(bare))
    )
    return checked(template)


def checked(template: Template) -> Template:
    """The generators make nothing that a file could not say."""
    assert not contradictions(template, written=template.properties, csv_options=False)
    return template


def with_column(template: Template, index: int, column: Column) -> Template:
    kept = template.columns
    return replace(template, columns=(*kept[:index], column, *kept[index + 1 :]))


@st.composite
def legal_steps(draw: st.DrawFn, template: Template) -> Template:
    """One or more changes at once that Iceberg can make to a table with rows."""
    template = replace(template, columns=tuple(replace(c, was=None) for c in template.columns))
    steps = st.sampled_from(
        [add, widen, rename, loosen, describe, repartition, resort, reset, move]
    )
    for step in draw(st.lists(steps, min_size=1, max_size=5)):
        event(step.__name__)
        template = step(draw, template)
    return checked(template)


def add(draw: Draw, template: Template) -> Template:
    column = replace(draw(columns()), required=False)
    at = draw(st.integers(0, len(template.columns)))
    kept = template.columns
    return replace(template, columns=(*kept[:at], column, *kept[at:]))


def move(draw: Draw, template: Template) -> Template:
    return replace(template, columns=tuple(draw(st.permutations(template.columns))))


def widen(draw: Draw, template: Template) -> Template:
    index, column = picked(draw, template)
    wider = replace(column, type=WIDER.get(column.type, column.type))
    return with_column(template, index, wider)


def rename(draw: Draw, template: Template) -> Template:
    index, column = picked(draw, template)
    if column.was is not None:
        return template
    new = f"c{next(_numbers)}"
    renamed = with_column(template, index, replace(column, name=new, was=column.name))
    return replace(
        renamed,
        partition_spec=tuple(
            replace(part, column=new) if part.column == column.name else part
            for part in template.partition_spec
        ),
        sort_order=tuple(
            replace(part, column=new) if part.column == column.name else part
            for part in template.sort_order
        ),
    )


def loosen(draw: Draw, template: Template) -> Template:
    index, column = picked(draw, template)
    return with_column(template, index, replace(column, required=False))


def describe(draw: Draw, template: Template) -> Template:
    index, column = picked(draw, template)
    doc = draw(st.sampled_from(["", "said better"]))
    return replace(with_column(template, index, replace(column, description=doc)), description=doc)


def repartition(draw: Draw, template: Template) -> Template:
    return replace(template, partition_spec=draw(partition_specs(template)))


def resort(draw: Draw, template: Template) -> Template:
    return replace(template, sort_order=draw(sort_orders(template)))


def reset(draw: Draw, template: Template) -> Template:
    return replace(template, properties=draw(PROPERTIES))


def picked(draw: Draw, template: Template) -> tuple[int, Column]:
    index = draw(st.integers(0, len(template.columns) - 1))
    return index, template.columns[index]


def brought(catalog: Catalog, template: Template) -> Table:
    """The table, created or changed by one plan."""
    exists = catalog.table_exists(template.identifier)
    apply(catalog, plan(template, catalog.load_table(template.identifier) if exists else None))
    return catalog.load_table(template.identifier)


def fill(table: Table) -> Mapping[int, object]:
    """Append one row; its values by field id. Unpartitioned: PyIceberg's own writer has not every
    transform for every type."""
    fields = table.schema().fields
    values = [SAMPLES[str(field.field_type).replace(", ", ",")] for field in fields]
    schema = table.schema().as_arrow()
    table.append(
        pa.table(
            [pa.array([v], f.type) for v, f in zip(values, schema, strict=True)], schema=schema
        )
    )
    return {
        field.field_id: value for field, value in zip(fields, read(table).values(), strict=True)
    }


def read(table: Table) -> Mapping[str, object]:
    (row,) = table.scan().to_arrow().to_pylist()
    return row  # type: ignore[no-any-return]  # pyarrow ships no types


LAKE = settings(
    max_examples=60,
    deadline=None,  # a commit writes files
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@LAKE
@given(data=st.data(), template=templates(), filled=st.booleans())
def test_an_applied_template_leaves_no_plan_and_no_drift(
    catalog: Catalog, data: st.DataObject, template: Template, filled: bool
) -> None:
    if filled:
        template = replace(template, partition_spec=())  # see fill
    table = brought(catalog, template)
    assert_agrees(template, table)
    written = fill(table) if filled else {}
    for _ in range(data.draw(st.integers(1, 3))):
        template = data.draw(legal_steps(template))
        table = brought(catalog, template)
        assert_agrees(template, table)
    if filled:
        found = read(table)
        names = {field_id: table.schema().find_column_name(field_id) for field_id in written}
        assert {n: found[str(n)] for n in names.values()} == {
            names[field_id]: value for field_id, value in written.items()
        }


def assert_agrees(template: Template, table: Table) -> None:
    assert drift(template, table) == []
    assert not plan(template, table)
    assert table.schema().column_names == [column.name for column in template.all_columns]


def drop_a_column(draw: Draw, template: Template) -> Template:
    index, column = picked(draw, template)
    assume(len(template.columns) > 1)
    used = [p.column for p in template.partition_spec] + [s.column for s in template.sort_order]
    assume(column.name not in used)
    kept = template.columns
    return replace(template, columns=kept[:index] + kept[index + 1 :])


def narrow(draw: Draw, template: Template) -> Template:
    index, column = picked(draw, template)
    assume(column.type in NARROWER)
    return with_column(template, index, replace(column, type=NARROWER[column.type]))


def tighten(draw: Draw, template: Template) -> Template:
    index, column = picked(draw, template)
    assume(not column.required)
    return with_column(template, index, replace(column, required=True))


def add_required(draw: Draw, template: Template) -> Template:
    return replace(template, columns=(*template.columns, replace(draw(columns()), required=True)))


@LAKE
@given(data=st.data(), template=templates())
@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (drop_a_column, RefusalKind.DROPPED_COLUMN),
        (narrow, RefusalKind.NARROWING),
        (tighten, RefusalKind.MADE_REQUIRED),
        (add_required, RefusalKind.NEW_REQUIRED_COLUMN),
    ],
)
def test_a_step_that_iceberg_cannot_make_is_refused(
    catalog: Catalog,
    data: st.DataObject,
    template: Template,
    step: Callable[[Draw, Template], Template],
    kind: RefusalKind,
) -> None:
    template = replace(template, partition_spec=())  # see fill
    wrong = checked(step(data.draw, template))
    table = brought(catalog, template)
    fill(table)
    before = catalog.load_table(template.identifier).metadata_location
    with pytest.raises(ChangeRefused) as refused:
        brought(catalog, wrong)
    assert [refusal.kind for refusal in refused.value.refusals] == [kind]
    assert refused.value.exit_code == 3
    assert catalog.load_table(template.identifier).metadata_location == before


def small(**changes: object) -> Template:
    template = Template(
        namespace="raw",
        name=f"t{next(_numbers)}",
        columns=(Column("id", "int", required=True), Column("at", "timestamp")),
        partition_spec=(PartitionColumn("at", "day"),),
        sort_order=(),
        properties={},
        tags={},
        description="",
        source=None,
        load_dataset=None,
    )
    return replace(template, **changes)  # type: ignore[arg-type]  # any field of a template


def test_an_outdated_plan_is_not_carried_out(catalog: Catalog) -> None:
    template = small()
    wider = with_column(template, 0, Column("id", "long", required=True))
    outdated = plan(wider, brought(catalog, template))
    moved = brought(catalog, replace(template, description="by somebody else"))
    with pytest.raises(PlanOutdated) as error:
        apply(catalog, outdated)
    assert error.value.exit_code == 75
    assert catalog.load_table(template.identifier).metadata_location == moved.metadata_location


def test_a_table_that_somebody_created_meanwhile_is_left_alone(catalog: Catalog) -> None:
    template = small()
    creation = plan(template, None)
    theirs = brought(catalog, template)
    with pytest.raises(PlanOutdated):
        apply(catalog, creation)
    assert catalog.load_table(template.identifier).metadata_location == theirs.metadata_location


def test_an_empty_plan_writes_nothing(catalog: Catalog) -> None:
    template = small()
    before = brought(catalog, template).metadata_location
    assert brought(catalog, template).metadata_location == before


def test_a_table_that_others_made_is_adopted_as_it_is(catalog: Catalog) -> None:
    template = small(partition_spec=())
    catalog.create_namespace_if_not_exists("raw")
    schema = Schema(
        NestedField(7, "id", iceberg_type("int"), required=True),
        NestedField(9, "at", iceberg_type("timestamp"), required=False, doc="theirs"),
    )
    table = catalog.create_table(template.identifier, schema, properties={"owner": "them"})
    assert drift(template, table)
    adopted = brought(catalog, template)
    assert_agrees(template, adopted)
    assert adopted.properties["owner"] == "them"


def test_a_required_column_joins_a_table_without_rows(catalog: Catalog) -> None:
    template = small()
    brought(catalog, template)
    more = replace(template, columns=(*template.columns, Column("kind", "string", required=True)))
    table = brought(catalog, more)
    assert_agrees(more, table)
    assert table.schema().find_field("kind").required


def test_a_column_made_again_by_somebody_is_seen_and_refused(catalog: Catalog) -> None:
    template = small(partition_spec=())
    table = brought(catalog, template)
    for change in ("delete", "add"):
        with table.update_schema() as update:
            if change == "delete":
                update.delete_column("at")
            else:
                update.add_column("at", iceberg_type("timestamp"))
    assert [(f.kind, f.subject) for f in drift(template, table)] == [(FindingKind.FIELD_ID, "at")]
    with pytest.raises(ChangeRefused) as refused:
        brought(catalog, template)
    assert refused.value.refusals[0].kind is RefusalKind.REPLACED_COLUMN
    # The hint's way out: without the record, what is there is accepted.
    with table.transaction() as transaction:
        transaction.remove_properties(FIELD_IDS)
    assert plan(template, table).changes == (RecordFieldIds(),)
    assert_agrees(template, brought(catalog, template))


def test_a_name_may_return_for_another_column(catalog: Catalog) -> None:
    """The partition field at_day is still that of the renamed column."""
    first = small()
    brought(catalog, first)
    renamed = replace(
        first,
        columns=(Column("id", "int", required=True), Column("was_at", "timestamp", was="at")),
        partition_spec=(PartitionColumn("was_at", "day"),),
    )
    assert_agrees(renamed, brought(catalog, renamed))
    again = replace(
        renamed,
        columns=(*(replace(c, was=None) for c in renamed.columns), Column("at", "timestamp")),
        partition_spec=(PartitionColumn("at", "day"), PartitionColumn("was_at", "day")),
    )
    table = brought(catalog, again)
    assert_agrees(again, table)
    assert [field.name for field in table.spec().fields] == ["at_day_2", "at_day"]
    assert_agrees(first := replace(again, partition_spec=()), brought(catalog, first))
    table = brought(catalog, again)
    assert_agrees(again, table)
    assert [field.name for field in table.spec().fields] == ["at_day_2", "at_day"]


def test_what_a_plan_says_is_one_line_a_change(catalog: Catalog) -> None:
    template = small()
    table = brought(catalog, template)
    wanted = replace(
        template,
        columns=(Column("n", "long", was="id"), Column("at", "timestamp", description="when")),
        partition_spec=(PartitionColumn("n", "bucket[4]"),),
        sort_order=(SortColumn("at", Direction.DESC, NullOrder.NULLS_LAST),),
        properties={"commit.retry.num-retries": "9"},
    )
    lines = [change.describe() for change in plan(wanted, table).changes]
    assert lines[:6] == [
        "rename the column id to n",
        "widen n from int to long",
        "make n optional",
        "describe at",
        "partition new data by bucket[4](n)",
        "sort new data by at desc nulls_last",
    ]
    assert "set commit.retry.num-retries = 9" in lines
    assert not any("\n" in line for line in lines)
