"""What has to change so that a table is what its template says. Pure: nothing is changed here."""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform, VoidTransform
from pyiceberg.types import NestedField

from lakewarden.tables import refusals
from lakewarden.tables.changes import (
    AddColumn,
    Change,
    CreateTable,
    MakeOptional,
    OrderColumns,
    RecordFieldIds,
    RemoveProperty,
    RenameColumn,
    ReplacePartitionSpec,
    ReplaceSortOrder,
    SetDoc,
    SetProperty,
    TablePlan,
    WidenColumn,
)
from lakewarden.tables.iceberg import (
    iceberg_partition_spec,
    iceberg_properties,
    iceberg_schema,
    iceberg_sort_order,
    partition_name,
)
from lakewarden.tables.present import field_ids, is_empty, partitioning, sorting
from lakewarden.tables.properties import (
    PROPERTY_NAMES,
    applied_properties,
    expected_properties,
    recorded_field_ids,
)
from lakewarden.tables.refusals import ChangeRefused, Refusal
from lakewarden.tables.template import Column, Level, PartitionColumn, Template
from lakewarden.tables.types import iceberg_type, spell, widens


def plan(template: Template, table: Table | None) -> TablePlan:
    """The changes that bring a table to its template; creating it where there is none.

    Raises ChangeRefused, with every reason, where a change would lose data or break readers.
    The table is judged as it was loaded. Of a table that is not ours nothing is changed, except
    that one to which batches are added gains the columns that say which.
    """
    if template.level is not Level.OWNED:
        return TablePlan(
            template.identifier,
            table.metadata_location if table else None,
            tuple(_gained(template, table)) if table else (),
            template.level,
        )
    if table is None:
        return TablePlan(template.identifier, None, (_creation(template),))
    matched = _match(template, table)
    refused = [*_refusals(template, table, matched)]
    if refused:
        raise ChangeRefused(template.identifier, refused)
    changes: list[Change] = [
        *_column_changes(matched),
        *_order(table, matched),
        *_partition_changes(template, table, matched),
        *_sort_changes(template, table, matched),
        *_property_changes(template, table),
    ]
    if not changes and recorded_field_ids(table.properties) != field_ids(table):
        changes.append(RecordFieldIds())
    return TablePlan(template.identifier, table.metadata_location, tuple(changes))


def _gained(template: Template, table: Table) -> Iterator[Change]:
    present = field_ids(table)
    for column in template.owned_columns:
        if column.name not in present:
            yield AddColumn(column.name, column.type, column.required, column.description)


def _creation(template: Template) -> CreateTable:
    schema = iceberg_schema(template)
    return CreateTable(
        schema=schema,
        partition_spec=iceberg_partition_spec(template, schema),
        sort_order=iceberg_sort_order(template, schema),
        properties=iceberg_properties(template),
    )


@dataclass(frozen=True)
class _Matched:
    """Which of the table's fields each of the template's columns is; None: it has to be added."""

    pairs: Sequence[tuple[Column, NestedField | None]]
    extra: Sequence[NestedField]  # fields that no column claims

    @property
    def renamed(self) -> Mapping[str, str]:
        """New names by old ones."""
        return {f.name: c.name for c, f in self.pairs if f is not None and f.name != c.name}

    @property
    def ids(self) -> Mapping[str, int | None]:
        """Field ids by the names to be."""
        return {c.name: None if f is None else f.field_id for c, f in self.pairs}


def _match(template: Template, table: Table) -> _Matched:
    """By name; and by `was` where the name is not in the table, so that it counts only once."""
    fields = {field.name: field for field in table.schema().fields}
    pairs = [
        (c, fields[c.name] if c.name in fields else fields.get(c.was or ""))
        for c in template.all_columns
    ]
    claimed = {field.field_id for _, field in pairs if field is not None}
    return _Matched(pairs, [f for f in fields.values() if f.field_id not in claimed])


def _refusals(template: Template, table: Table, matched: _Matched) -> Iterator[Refusal]:
    recorded = recorded_field_ids(table.properties) or {}
    names = {field_id: name for name, field_id in recorded.items()}
    empty = is_empty(table)
    for column, field in matched.pairs:
        if field is None:
            if column.required and not empty:
                yield refusals.new_required(column.name)
            continue
        if recorded.get(field.name, field.field_id) != field.field_id:
            yield refusals.replaced(
                template.identifier, field.name, recorded[field.name], field.field_id
            )
        yield from _impossible(column, field)
    for field in matched.extra:
        yield refusals.dropped(field.name, field.field_id, names.get(field.field_id))
    for name in _taken_by_partitions(table, matched):
        yield refusals.name_taken(name)


def _impossible(column: Column, field: NestedField) -> Iterator[Refusal]:
    wanted = iceberg_type(column.type)
    if field.field_type != wanted and not widens(field.field_type, wanted):
        yield refusals.narrowing(column.name, spell(field.field_type), column.type)
    if column.required and field.optional:
        yield refusals.made_required(column.name)


def _taken_by_partitions(table: Table, matched: _Matched) -> Iterator[str]:
    """Names that PyIceberg refuses: a column may bear the name of a partition field, even of an
    older spec, only where the field holds that column's own values."""
    present = field_ids(table)
    for name, field_id in matched.ids.items():
        if field_id is not None and name in present:
            continue  # it has the name already, so it is too late to choose another
        for spec in table.specs().values():
            for part in spec.fields:
                same = part.source_id == field_id and isinstance(
                    part.transform, IdentityTransform | VoidTransform
                )
                if part.name == name and not same:
                    yield name


def _column_changes(matched: _Matched) -> Iterator[Change]:
    """Renames first: the other changes use the new names."""
    for old, new in matched.renamed.items():
        yield RenameColumn(old, new)
    for column, field in matched.pairs:
        if field is None:
            continue
        if field.field_type != iceberg_type(column.type):
            yield WidenColumn(column.name, spell(field.field_type), column.type)
        if field.required and not column.required:
            yield MakeOptional(column.name)
        if (field.doc or "") != column.description:
            yield SetDoc(column.name, column.description)
    for column, field in matched.pairs:
        if field is None:
            yield AddColumn(column.name, column.type, column.required, column.description)


def _order(table: Table, matched: _Matched) -> Iterator[Change]:
    """Columns are added at the end, and the template may have them elsewhere."""
    renamed = matched.renamed
    kept = [renamed.get(field.name, field.name) for field in table.schema().fields]
    added = [column.name for column, field in matched.pairs if field is None]
    wanted = [column.name for column, _ in matched.pairs]
    if kept + added != wanted:
        yield OrderColumns(tuple(wanted))


def _partition_changes(template: Template, table: Table, matched: _Matched) -> Iterator[Change]:
    if tuple(partitioning(table, matched.renamed)) == template.partition_spec:
        return
    fields: list[tuple[PartitionColumn, str]] = []
    taken = {column.name for column, _ in matched.pairs}
    for part in template.partition_spec:
        name = _partition_name(table, part, matched.ids[part.column], taken)
        taken.add(name)
        fields.append((part, name))
    yield ReplacePartitionSpec(tuple(fields))


def _partition_name(
    table: Table, part: PartitionColumn, source: int | None, taken: AbstractSet[str]
) -> str:
    """The name that the field had in an earlier spec, so that it keeps its id; else a free one."""
    past = [field for spec in table.specs().values() for field in spec.fields]
    same = {
        field.name
        for field in past
        if field.source_id == source and str(field.transform) == part.transform
    }
    others = {field.name for field in past} - same
    own = {part.column} if part.transform == "identity" else set()
    usable = sorted(same - (taken - own))
    return usable[0] if usable else partition_name(part, taken | others)


def _sort_changes(template: Template, table: Table, matched: _Matched) -> Iterator[Change]:
    if tuple(sorting(table, matched.renamed)) != template.sort_order:
        yield ReplaceSortOrder(template.sort_order)


def _property_changes(template: Template, table: Table) -> Iterator[Change]:
    wanted = expected_properties(template)
    for name, value in wanted.items():
        if table.properties.get(name) != value:
            yield SetProperty(name, value)
    ours = applied_properties(table.properties) | set(PROPERTY_NAMES.values())
    for name in sorted(ours - set(wanted)):
        if name in table.properties:
            yield RemoveProperty(name)
