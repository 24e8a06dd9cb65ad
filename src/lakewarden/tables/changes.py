"""The changes of which a plan consists: values, each with one line that says what it does."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.sorting import SortOrder

from lakewarden.tables.template import Level, PartitionColumn, SortColumn


@dataclass(frozen=True)
class CreateTable:
    schema: Schema
    partition_spec: PartitionSpec
    sort_order: SortOrder
    properties: Mapping[str, str]

    def describe(self) -> str:
        return f"create the table with {len(self.schema.fields)} columns"


@dataclass(frozen=True)
class RenameColumn:
    old: str
    new: str

    def describe(self) -> str:
        return f"rename the column {self.old} to {self.new}"


@dataclass(frozen=True)
class WidenColumn:
    column: str
    old: str
    new: str

    def describe(self) -> str:
        return f"widen {self.column} from {self.old} to {self.new}"


@dataclass(frozen=True)
class MakeOptional:
    column: str

    def describe(self) -> str:
        return f"make {self.column} optional"


@dataclass(frozen=True)
class SetDoc:
    column: str
    doc: str  # empty: no description

    def describe(self) -> str:
        return f"describe {self.column}" if self.doc else f"clear the description of {self.column}"


@dataclass(frozen=True)
class AddColumn:
    column: str
    type: str
    required: bool
    doc: str

    def describe(self) -> str:
        return f"add {'required' if self.required else 'optional'} {self.column} {self.type}"


@dataclass(frozen=True)
class OrderColumns:
    """`columns` are all columns in the order that they are to have."""

    columns: tuple[str, ...]

    def describe(self) -> str:
        return "put the columns in the template's order"


@dataclass(frozen=True)
class ReplacePartitionSpec:
    """`fields` pair each partition column with the name of its field. Data already written stay
    as they are; the new spec is for what comes."""

    fields: tuple[tuple[PartitionColumn, str], ...]

    def describe(self) -> str:
        return f"partition new data by {spell_partitions(part for part, _ in self.fields)}"


@dataclass(frozen=True)
class ReplaceSortOrder:
    fields: tuple[SortColumn, ...]

    def describe(self) -> str:
        return f"sort new data by {spell_sorting(self.fields)}"


@dataclass(frozen=True)
class SetProperty:
    name: str
    value: str

    def describe(self) -> str:
        return f"set {self.name} = {self.value}"


@dataclass(frozen=True)
class RemoveProperty:
    name: str

    def describe(self) -> str:
        return f"remove the property {self.name}"


@dataclass(frozen=True)
class RecordFieldIds:
    """Every apply records them; a plan with only this makes up for a record that is missing."""

    def describe(self) -> str:
        return "record the columns' field ids"


SchemaChange = RenameColumn | WidenColumn | MakeOptional | SetDoc | AddColumn | OrderColumns
Change = (
    CreateTable
    | SchemaChange
    | ReplacePartitionSpec
    | ReplaceSortOrder
    | SetProperty
    | RemoveProperty
    | RecordFieldIds
)


@dataclass(frozen=True)
class TablePlan:
    """What brings one table to its template.

    `base` is the metadata location that the plan was made for; None: there was no table.
    `level` is the table's, by its template.
    """

    identifier: str
    base: str | None
    changes: tuple[Change, ...]
    level: Level = Level.OWNED

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.changes)


def spell_partitions(parts: Iterable[PartitionColumn]) -> str:
    """Partition columns in one line, such as "day(at), bucket[4](id)"."""
    return ", ".join(f"{part.transform}({part.column})" for part in parts) or "nothing"


def spell_sorting(parts: Iterable[SortColumn]) -> str:
    """Sort columns in one line, such as "at asc nulls_first"."""
    spelled = (f"{part.column} {part.direction} {part.null_order}" for part in parts)
    return ", ".join(spelled) or "nothing"
