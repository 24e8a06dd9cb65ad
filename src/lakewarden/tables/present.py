"""What a table is now, in the template's words. Reads only the metadata that was loaded."""

from collections.abc import Mapping, Sequence

from pyiceberg.partitioning import PartitionField
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform, VoidTransform

from lakewarden.tables.iceberg import DIRECTIONS, NULL_ORDERS
from lakewarden.tables.template import PartitionColumn, SortColumn

_DIRECTIONS = {theirs: ours for ours, theirs in DIRECTIONS.items()}
_NULL_ORDERS = {theirs: ours for ours, theirs in NULL_ORDERS.items()}


def field_ids(table: Table) -> Mapping[str, int]:
    """The top-level columns' field ids by name, in the table's order."""
    return {field.name: field.field_id for field in table.schema().fields}


def partition_fields(table: Table) -> Sequence[PartitionField]:
    """The spec's fields without the void ones, which a table of format 1 keeps for removed ones."""
    return [f for f in table.spec().fields if not isinstance(f.transform, VoidTransform)]


def partitioning(table: Table, renamed: Mapping[str, str]) -> Sequence[PartitionColumn]:
    """The partition columns; `renamed` maps names of now to names to be."""
    return [
        PartitionColumn(_name(table, field.source_id, renamed), str(field.transform))
        for field in partition_fields(table)
    ]


def sorting(table: Table, renamed: Mapping[str, str]) -> Sequence[SortColumn]:
    """The sort columns; one that is sorted by a transform has it before its name, as in
    "day(at)", which no template's column can equal."""
    return [
        SortColumn(
            _name(table, field.source_id, renamed)
            if isinstance(field.transform, IdentityTransform)
            else f"{field.transform}({_name(table, field.source_id, renamed)})",
            _DIRECTIONS[field.direction],
            _NULL_ORDERS[field.null_order],
        )
        for field in table.sort_order().fields
    ]


def is_empty(table: Table) -> bool:
    """Whether the table has no data file now; False where its snapshot does not say."""
    snapshot = table.current_snapshot()
    if snapshot is None:
        return True
    return snapshot.summary is not None and snapshot.summary["total-data-files"] == "0"


def _name(table: Table, field_id: int, renamed: Mapping[str, str]) -> str:
    name = table.schema().find_column_name(field_id) or f"field {field_id}, which is gone"
    return renamed.get(name, name)
