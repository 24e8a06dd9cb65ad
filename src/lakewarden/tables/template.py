"""What a table has to be: the frozen result of reading one template file.

`template_file.py` reads and checks the file; everything here may be trusted to be consistent.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

BATCH_COLUMN = "_batch"


class AccessLevel(StrEnum):
    """Who may read a column; Lake Formation excludes columns by it."""

    PUBLIC = "public"
    INTERNAL = "internal"
    RESTRICTED = "restricted"


class Level(StrEnum):
    """How far a table is ours; absent in a template means owned.

    observed: somebody else's, and only looked at (drift, log, diagnosis, recovery). loaded:
    somebody else's, to which batches are added: it gains `_batch`, `_file` and `_line`, and rows
    without a batch are never touched. owned: made, changed and written by us."""

    OBSERVED = "observed"
    LOADED = "loaded"
    OWNED = "owned"

    def reaches(self, needed: "Level") -> bool:
        """Whether what needs that level may be done."""
        order = list(Level)
        return order.index(self) >= order.index(needed)


class Direction(StrEnum):
    ASC = "asc"
    DESC = "desc"


class NullOrder(StrEnum):
    NULLS_FIRST = "nulls_first"
    NULLS_LAST = "nulls_last"


class FileFormat(StrEnum):
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


@dataclass(frozen=True)
class Column:
    """One column. `type` is canonical: a lower-case Iceberg name, or "decimal(p,s)" without spaces;
    of an observed table any type, as Iceberg spells it.

    `was` is the name under which a table may still hold the column: it is renamed, not dropped.
    `field_id` is known of tables that are not ours, where no record of ours can keep it.
    """

    name: str
    type: str
    required: bool = False
    description: str = ""
    pii: bool = False
    access_level: AccessLevel = AccessLevel.INTERNAL
    was: str | None = None
    field_id: int | None = None


@dataclass(frozen=True)
class PartitionColumn:
    """`transform` is spelled as Iceberg does: identity, year, month, day, hour, bucket[N],
    truncate[N]."""

    column: str
    transform: str


@dataclass(frozen=True)
class SortColumn:
    column: str
    direction: Direction
    null_order: NullOrder


@dataclass(frozen=True)
class CsvOptions:
    """How text is cut into fields.

    `quote` None: nothing is quoted. `escape` None: a quote inside a quoted field is doubled.
    `encoding` is a Python codec's canonical name. `skip_rows` lines come before the header.
    A field equal to one of `null_strings` is null. `date_format` and `timestamp_format` are
    strptime formats; None means ISO 8601.
    """

    header: bool = True
    delimiter: str = ","
    quote: str | None = '"'
    escape: str | None = None
    skip_rows: int = 0
    encoding: str = "utf-8"
    null_strings: tuple[str, ...] = ("",)
    date_format: str | None = None
    timestamp_format: str | None = None


@dataclass(frozen=True)
class Source:
    """How delivered files are read. `path` is kept for other programs and ignored by this one."""

    format: FileFormat
    csv_options: CsvOptions = CsvOptions()
    path: str | None = None


OWNED_COLUMNS = (
    Column(BATCH_COLUMN, "string", required=True, description="The batch that brought the row"),
    Column("_file", "string", required=True, description="The delivered file it came from"),
    Column("_line", "long", required=True, description="Its record number there; a header is 1"),
)


ADDED_COLUMNS = tuple(replace(column, required=False) for column in OWNED_COLUMNS)
"""The same in a table that is not ours: its rows of before have none of them."""


@dataclass(frozen=True)
class Template:
    """One table's contract. `properties` have Iceberg's names; those that we always set are not
    among them. A table of ours without `load_dataset` is written by dbt; of an observed one it
    says what would fill the table if its level were raised."""

    namespace: str
    name: str
    columns: tuple[Column, ...]
    partition_spec: tuple[PartitionColumn, ...]
    sort_order: tuple[SortColumn, ...]
    properties: Mapping[str, str]
    tags: Mapping[str, str]
    description: str
    source: Source | None
    load_dataset: str | None
    key: tuple[str, ...] = ()  # the columns that name a row, where it says so
    level: Level = Level.OWNED

    @property
    def identifier(self) -> str:
        return f"{self.namespace}.{self.name}"

    @property
    def owned_columns(self) -> Sequence[Column]:
        """The columns that loading adds after the template's own; none where dbt writes, or
        nobody of ours."""
        if not self.load_dataset or self.level is Level.OBSERVED:
            return ()
        return OWNED_COLUMNS if self.level is Level.OWNED else ADDED_COLUMNS

    @property
    def row_key(self) -> Sequence[str]:
        """The columns that name a row; of a loaded table, unless it says more, the record that
        was delivered. Empty where nobody knows."""
        return self.key or [column.name for column in self.owned_columns]

    @property
    def all_columns(self) -> Sequence[Column]:
        """Every column of the table, in its order (of a table that is not ours, nearly)."""
        return (*self.columns, *self.owned_columns)

    @property
    def digest(self) -> str:
        """The sha256, in hex, of what decides a batch's rows and files.

        Counted: the name; columns' names, types, nullability and order; partitioning, sorting,
        properties; how the source is read; the dataset. Not counted: layout, comments and
        defaults spelled out, descriptions, tags, `key`, `pii`, `access_level`, `was`,
        `field_id`, `source.path`; of `level` what it makes of the columns.
        """
        counted = {
            "format": 1,
            "identifier": self.identifier,
            "columns": [[c.name, c.type, c.required] for c in self.all_columns],
            "partition_spec": [asdict(p) for p in self.partition_spec],
            "sort_order": [asdict(s) for s in self.sort_order],
            "properties": dict(self.properties),
            "source": None
            if self.source is None
            else [self.source.format, asdict(self.source.csv_options)],
            "load_dataset": self.load_dataset,
        }
        canonical = json.dumps(counted, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()
