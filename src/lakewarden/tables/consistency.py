"""What a template must not contradict: rules that need more than one field to see."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pyiceberg.types import DecimalType, UUIDType

from lakewarden.tables.properties import (
    BATCH_METRICS,
    OUR_PREFIX,
    PROPERTY_NAMES,
    SET_BY_US,
)
from lakewarden.tables.template import (
    BATCH_COLUMN,
    AccessLevel,
    Column,
    FileFormat,
    Level,
    PartitionColumn,
    Template,
)
from lakewarden.tables.types import TIME_TRANSFORMS, iceberg_type, spell, transform_of
from lakewarden.tables.yaml_file import MAX_NUMBER, shown


@dataclass(frozen=True)
class Contradiction:
    path: tuple[str | int, ...]
    message: str
    at_key: bool = False  # the field's name is wrong, not its value


def contradictions(
    template: Template, *, written: Mapping[str, object], csv_options: bool
) -> Sequence[Contradiction]:
    """Everything that does not fit together, in the order of the file's usual layout.

    `written` are the properties under the names that the file uses.
    """
    if template.level is Level.OBSERVED:
        return [*_namespace(template), *_repeated(template), *_key(template)]
    return [
        *_namespace(template),
        *_level(template),
        *_columns(template),
        *_partitions(template),
        *_sorting(template),
        *_key(template),
        *_properties(written),
        *_source(template, csv_options),
    ]


# DuckDB's own schemas and databases. Queries run in `memory`, dbt in `models`.
_KEPT_BY_DUCKDB = frozenset(
    ("main", "temp", "system", "memory", "models", "information_schema", "pg_catalog")
)


def _namespace(template: Template) -> Iterator[Contradiction]:
    """A namespace is a schema where tables are read."""
    if template.namespace in _KEPT_BY_DUCKDB:
        yield Contradiction(
            ("namespace",),
            f"expected another name, found {template.namespace!r}, which DuckDB keeps for itself",
        )


def _level(template: Template) -> Iterator[Contradiction]:
    if template.level is not Level.LOADED:
        return
    if not template.load_dataset:
        yield Contradiction(
            ("level",), "a table at the level loaded says by what: `load: {dataset: NAME}`"
        )
    for index, column in enumerate(template.columns):
        if column.was is not None:
            yield Contradiction(
                ("columns", index, "was"), "columns of a table that is not ours are not renamed"
            )


def _repeated(template: Template) -> Iterator[Contradiction]:
    names = [column.name for column in template.columns]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield Contradiction(
                ("columns", index, "name"), f"the column {name!r} stands here again"
            )


def _columns(template: Template) -> Iterator[Contradiction]:
    names = [column.name for column in template.columns]
    for index, column in enumerate(template.columns):
        if column.name in names[:index]:
            yield Contradiction(
                ("columns", index, "name"), f"the column {column.name!r} stands here again"
            )
        if column.was is not None and column.was in names:
            yield Contradiction(
                ("columns", index, "was"),
                f"expected an old name that is free, found the column {column.was!r}; "
                "rename first, and add a column of the old name later",
            )
        if column.was is not None and column.was in [c.was for c in template.columns[:index]]:
            yield Contradiction(
                ("columns", index, "was"), f"two columns cannot both have been {column.was!r}"
            )
        if column.pii and column.access_level is AccessLevel.PUBLIC:
            yield Contradiction(
                ("columns", index, "access_level"),
                "expected internal or restricted for personal data, found public",
            )
        yield from _underscore(template, index, column)


def _underscore(template: Template, index: int, column: Column) -> Iterator[Contradiction]:
    if not column.name.startswith("_"):
        return
    path = ("columns", index, "name")
    if template.load_dataset:
        yield Contradiction(
            path,
            f"expected a name that begins with a letter, found {column.name!r}; "
            "loading adds _batch, _file and _line itself",
        )
    elif column.name != BATCH_COLUMN:
        yield Contradiction(
            path, f"expected a name that begins with a letter, or _batch, found {column.name!r}"
        )
    elif column.type != "string":
        yield Contradiction(
            ("columns", index, "type"), f"expected string for _batch, found {column.type}"
        )


def _key(template: Template) -> Iterator[Contradiction]:
    columns = {column.name for column in template.all_columns}
    for index, name in enumerate(template.key):
        if name not in columns:
            yield _no_column(("key", index), name)


def _partitions(template: Template) -> Iterator[Contradiction]:
    columns = {column.name: column for column in template.all_columns}
    for index, part in enumerate(template.partition_spec):
        earlier = template.partition_spec[:index]
        column = columns.get(part.column)
        if column is None:
            yield _no_column(("partition_spec", index, "column"), part.column)
            continue
        if not transform_of(part.transform).can_transform(iceberg_type(column.type)):
            yield Contradiction(
                ("partition_spec", index, "transform"),
                f"{part.transform} does not apply to {column.name}, "
                f"which is {spell(iceberg_type(column.type))}",
            )
        if part in earlier:
            yield Contradiction(
                ("partition_spec", index),
                f"the table is partitioned by {part.transform} of {part.column} already",
            )
        elif part.transform in TIME_TRANSFORMS:
            for other in earlier:
                if other.column == part.column and other.transform in TIME_TRANSFORMS:
                    yield Contradiction(
                        ("partition_spec", index, "transform"),
                        f"{part.column} is partitioned by {other.transform} already; "
                        "Iceberg allows one of year, month, day and hour a column. "
                        "Keep the finer one",
                    )
        fixed = _of_fixed_size(part, column)
        if fixed and fixed in [
            _of_fixed_size(other, columns[other.column])
            for other in earlier
            if other.column in columns
        ]:
            yield Contradiction(
                ("partition_spec", index),
                f"the table is partitioned by a value of type {fixed} already; not every engine "
                "can read the manifests of two. Use bucket[N] for one of them",
            )


def _of_fixed_size(part: PartitionColumn, column: Column) -> str | None:
    """The type of a partition's value where manifests hold it as a named type of Avro, and may name
    it once only: PyIceberg names it twice, and DuckDB 1.5.5 ends the process that reads that."""
    kind, transform = iceberg_type(column.type), transform_of(part.transform)
    if not transform.can_transform(kind):
        return None
    result = transform.result_type(kind)
    return spell(result) if isinstance(result, DecimalType | UUIDType) else None


def _sorting(template: Template) -> Iterator[Contradiction]:
    names = {column.name for column in template.all_columns}
    for index, part in enumerate(template.sort_order):
        path = ("sort_order", index, "column")
        if part.column not in names:
            yield _no_column(path, part.column)
        if part.column in [other.column for other in template.sort_order[:index]]:
            yield Contradiction(path, f"the table is sorted by {part.column} already")


def _no_column(path: tuple[str | int, ...], name: str) -> Contradiction:
    return Contradiction(path, f"expected a column of this table, found {name!r}")


def _properties(written: Mapping[str, object]) -> Iterator[Contradiction]:
    short = ", ".join(PROPERTY_NAMES)
    for name, value in written.items():
        path = ("properties", name)
        full = PROPERTY_NAMES.get(name, name)
        wrong = None
        if name not in PROPERTY_NAMES and "." not in name:
            wrong = f"expected {short}, or a name with a dot, found {name!r}"
        elif full in SET_BY_US or full == BATCH_METRICS or full.startswith(OUR_PREFIX):
            wrong = f"{name} is set by Lakewarden itself; leave it out"
        elif full != name and full in written:
            wrong = f"{name} and {full} are the same property"
        if wrong:
            yield Contradiction(path, wrong, at_key=True)
        else:
            yield from _property_value(path, full, value)


def _property_value(
    path: tuple[str | int, ...], name: str, value: object
) -> Iterator[Contradiction]:
    found = f"found {shown(value)}"
    least = {"history.expire.max-snapshot-age-ms": 1, "commit.retry.num-retries": 0}.get(name)
    if name == "write.format.default" and value != "parquet":
        yield Contradiction(path, f"expected parquet, the one format that is written, {found}")
    elif least is not None and not _is_whole(value, least):
        yield Contradiction(path, f"expected a whole number of at least {least}, {found}")


def _is_whole(value: object, least: int) -> bool:
    text = str(value)
    return len(text) <= MAX_NUMBER and text.isascii() and text.isdigit() and int(text) >= least


def _source(template: Template, csv_options: bool) -> Iterator[Contradiction]:
    source = template.source
    if template.load_dataset and source is None:
        yield Contradiction(
            ("load",), "a table that is loaded needs `source: {format: csv | json | parquet}`"
        )
    if source is None:
        return
    if csv_options and source.format is not FileFormat.CSV:
        yield Contradiction(
            ("source", "csv_options"), f"csv_options do not apply to {source.format.value} files"
        )
    options, base = source.csv_options, ("source", "csv_options")
    if options.delimiter in (options.quote, options.escape):
        yield Contradiction((*base, "delimiter"), "the delimiter is the quote or the escape, too")
    if options.quote is None and options.escape is not None:
        yield Contradiction((*base, "escape"), "an escape without a quote has no effect")
