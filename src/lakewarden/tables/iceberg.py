"""A template in Iceberg's words, for a table that does not exist yet.

An existing table has field ids of its own: take them from `table.schema()`, never from here.
"""

from collections.abc import Iterable, Mapping

from pyiceberg.partitioning import PARTITION_FIELD_ID_START, PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import sorting
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import NestedField

from lakewarden.tables.properties import FIELD_IDS, expected_properties, field_ids_record
from lakewarden.tables.template import Direction, NullOrder, PartitionColumn, SortColumn, Template
from lakewarden.tables.types import iceberg_type, transform_of

DIRECTIONS = {
    Direction.ASC: sorting.SortDirection.ASC,
    Direction.DESC: sorting.SortDirection.DESC,
}
NULL_ORDERS = {
    NullOrder.NULLS_FIRST: sorting.NullOrder.NULLS_FIRST,
    NullOrder.NULLS_LAST: sorting.NullOrder.NULLS_LAST,
}


def iceberg_schema(template: Template) -> Schema:
    """All columns, ours included, with fresh field ids from 1 in their order."""
    return Schema(
        *(
            NestedField(
                field_id=field_id,
                name=column.name,
                field_type=iceberg_type(column.type),
                required=column.required,
                doc=column.description or None,
            )
            for field_id, column in enumerate(template.all_columns, start=1)
        )
    )


def iceberg_partition_spec(template: Template, schema: Schema) -> PartitionSpec:
    """The partition spec over a schema that has the template's columns."""
    taken = set(schema.column_names)
    fields = []
    for number, part in enumerate(template.partition_spec, start=PARTITION_FIELD_ID_START):
        name = partition_name(part, taken)
        taken.add(name)
        source = schema.find_field(part.column).field_id
        fields.append(PartitionField(source, number, transform_of(part.transform), name))
    return PartitionSpec(*fields)


def partition_name(part: PartitionColumn, taken: Iterable[str]) -> str:
    """The name of a partition field as Iceberg's libraries would choose it, or that name with a
    number where a column or another field has it. An identity field bears its column's name."""
    transform, _, width = part.transform.removesuffix("]").partition("[")
    plain = {
        "identity": part.column,
        "bucket": f"{part.column}_bucket_{width}",
        "truncate": f"{part.column}_trunc_{width}",
    }.get(transform, f"{part.column}_{transform}")
    used = set(taken) - ({part.column} if transform == "identity" else set())
    name, number = plain, 2
    while name in used:
        name, number = f"{plain}_{number}", number + 1
    return name


def iceberg_sort_order(template: Template, schema: Schema) -> sorting.SortOrder:
    """The sort order over a schema that has the template's columns."""
    if not template.sort_order:
        return sorting.UNSORTED_SORT_ORDER
    return sorting.SortOrder(*(sort_field(part, schema) for part in template.sort_order))


def sort_field(part: SortColumn, schema: Schema) -> sorting.SortField:
    return sorting.SortField(
        source_id=schema.find_field(part.column).field_id,
        transform=IdentityTransform(),
        direction=DIRECTIONS[part.direction],
        null_order=NULL_ORDERS[part.null_order],
    )


def iceberg_properties(template: Template) -> Mapping[str, str]:
    """The properties of a new table, the record of its fresh field ids included."""
    ids = {column.name: n for n, column in enumerate(template.all_columns, start=1)}
    return {**expected_properties(template), FIELD_IDS: field_ids_record(ids)}
