"""Where a table differs from its template: the whole contract, and nothing but it. Pure.

Of properties that no template asks for, those count that change how data are written, kept or
found (WATCHED); an owner, a catalog's own notes and the like do not.

Of a table that is not ours the template is a record of how it was found. Descriptions, records and
properties are its owner's: only properties that the template names are compared.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pyiceberg.table import Table
from pyiceberg.types import NestedField

from lakewarden.tables.changes import spell_partitions, spell_sorting
from lakewarden.tables.present import field_ids, partitioning, sorting
from lakewarden.tables.properties import (
    FIELD_IDS,
    OUR_PREFIX,
    expected_properties,
    recorded_field_ids,
)
from lakewarden.tables.template import ADDED_COLUMNS, Column, Level, Template
from lakewarden.tables.types import spell

WATCHED = ("write.", "commit.", "history.", "gc.", "schema.")
"""Prefixes of Iceberg's own properties that steer writers, retention and reading."""

SET_BY_ENGINES = ("write.parquet.compression-codec",)
"""Catalogs that are built on Iceberg's Java library write these into every new table."""

SET_BY_NESSIE = {"gc.enabled": "false"}
"""Nessie keeps every table's files from being deleted by engines that know one branch only. With
this value nobody's writing changes; with another one somebody else set it."""


class FindingKind(StrEnum):
    MISSING_TABLE = "missing-table"
    MISSING_COLUMN = "missing-column"
    EXTRA_COLUMN = "extra-column"
    TYPE = "type"
    NULLABILITY = "nullability"
    FIELD_ID = "field-id"
    DOC = "doc"
    COLUMN_ORDER = "column-order"
    PARTITION_SPEC = "partition-spec"
    SORT_ORDER = "sort-order"
    PROPERTY = "property"
    EXTRA_PROPERTY = "extra-property"


@dataclass(frozen=True)
class Finding:
    """One difference. `subject` is the column's or the property's name; None: the table itself."""

    kind: FindingKind
    subject: str | None
    expected: str
    found: str

    def describe(self) -> str:
        """One line."""
        about = f"{self.kind} of {self.subject}" if self.subject else str(self.kind)
        return f"{about}: expected {self.expected}, found {self.found}"


def drift(template: Template, table: Table | None) -> Sequence[Finding]:
    """Every difference between a template and a table as it was loaded; empty: they agree."""
    if table is None:
        return [Finding(FindingKind.MISSING_TABLE, None, template.identifier, "no table")]
    return [
        *_columns(template, table),
        *_order(template, table),
        *_layout(template, table),
        *_properties(template, table),
    ]


def hinders_loading(template: Template, finding: Finding) -> bool:
    """Whether rows cannot be added while a table differs so. How a table that is not ours is laid
    out is its owner's to change, and new files follow it."""
    if template.level is Level.OWNED:
        return True
    return finding.kind not in (
        FindingKind.PARTITION_SPEC,
        FindingKind.SORT_ORDER,
        FindingKind.COLUMN_ORDER,
        FindingKind.PROPERTY,
    )


def _columns(template: Template, table: Table) -> Iterator[Finding]:
    fields = {field.name: field for field in table.schema().fields}
    ours = template.level is Level.OWNED
    recorded = recorded_field_ids(table.properties) if ours else _noted(template)
    if recorded is None:
        yield Finding(FindingKind.PROPERTY, FIELD_IDS, "the record of an apply", "none")
    for column in template.all_columns:
        field = fields.pop(column.name, None)
        if field is None:
            yield Finding(FindingKind.MISSING_COLUMN, column.name, column.type, "no such column")
        else:
            expected = (recorded or {}).get(column.name, field.field_id)
            yield from _column(column, field, expected, described=ours)
    for name, field in fields.items():
        if not ours and _is_added(field):
            continue  # batches were added, whatever the level is now
        yield Finding(
            FindingKind.EXTRA_COLUMN, name, "no such column", _extra(field, recorded or {})
        )


def _is_added(field: NestedField) -> bool:
    added = {column.name: column for column in ADDED_COLUMNS}.get(field.name)
    return added is not None and field.optional and spell(field.field_type) == added.type


def _noted(template: Template) -> Mapping[str, int]:
    """The field ids that a template itself remembers."""
    return {c.name: c.field_id for c in template.columns if c.field_id is not None}


def _column(
    column: Column, field: NestedField, recorded: int, *, described: bool
) -> Iterator[Finding]:
    name = column.name
    if spell(field.field_type) != column.type:
        yield Finding(FindingKind.TYPE, name, column.type, spell(field.field_type))
    if field.required != column.required:
        yield Finding(
            FindingKind.NULLABILITY,
            name,
            _nullability(column.required),
            _nullability(field.required),
        )
    if recorded != field.field_id:
        yield Finding(FindingKind.FIELD_ID, name, str(recorded), str(field.field_id))
    if described and (field.doc or "") != column.description:
        yield Finding(FindingKind.DOC, name, repr(column.description), repr(field.doc or ""))


def _nullability(required: bool) -> str:
    return "required" if required else "optional"


def _extra(field: NestedField, recorded: Mapping[str, int]) -> str:
    spelled = spell(field.field_type)
    before = [n for n, field_id in recorded.items() if field_id == field.field_id]
    renamed = [name for name in before if name != field.name]
    return f"{spelled}, which was {renamed[0]} when last applied" if renamed else spelled


def _order(template: Template, table: Table) -> Iterator[Finding]:
    """Compared only where the same columns are there; else the order tells nothing new."""
    expected = [column.name for column in template.all_columns]
    found = list(field_ids(table))
    if template.level is Level.LOADED:  # ours may stand anywhere among theirs
        ours = {column.name for column in template.owned_columns}
        expected = [name for name in expected if name not in ours]
        found = [name for name in found if name not in ours]
    if found != expected and sorted(found) == sorted(expected):
        yield Finding(FindingKind.COLUMN_ORDER, None, ", ".join(expected), ", ".join(found))


def _layout(template: Template, table: Table) -> Iterator[Finding]:
    partitions = partitioning(table, {})
    if tuple(partitions) != template.partition_spec:
        yield Finding(
            FindingKind.PARTITION_SPEC,
            None,
            spell_partitions(template.partition_spec),
            spell_partitions(partitions),
        )
    order = sorting(table, {})
    if tuple(order) != template.sort_order:
        yield Finding(
            FindingKind.SORT_ORDER,
            None,
            spell_sorting(template.sort_order),
            spell_sorting(order),
        )


def _properties(template: Template, table: Table) -> Iterator[Finding]:
    ours = template.level is Level.OWNED
    wanted = expected_properties(template) if ours else template.properties
    for name, value in wanted.items():
        found = table.properties.get(name)
        if found != value:
            yield Finding(FindingKind.PROPERTY, name, value, "none" if found is None else found)
    if not ours:
        return
    for name, value in table.properties.items():
        known = name in wanted or name.startswith(OUR_PREFIX) or name in SET_BY_ENGINES
        known = known or SET_BY_NESSIE.get(name) == value
        if not known and name.startswith(WATCHED):
            yield Finding(FindingKind.EXTRA_PROPERTY, name, "none", value)
