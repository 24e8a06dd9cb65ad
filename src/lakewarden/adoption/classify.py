"""A table's metadata → adopted, at which level, or not, and why. Pure."""

import re
from collections.abc import Iterator, Sequence

from pyiceberg.partitioning import PartitionField
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.transforms import IdentityTransform, UnknownTransform, VoidTransform
from pyiceberg.types import DecimalType, NestedField, UUIDType

from lakewarden.adoption.model import Adopted, FileFacts, NotAdopted, Obstacle, Reason
from lakewarden.tables.consistency import contradictions
from lakewarden.tables.iceberg import DIRECTIONS, NULL_ORDERS
from lakewarden.tables.properties import COMMENT, FIELD_IDS
from lakewarden.tables.template import (
    ADDED_COLUMNS,
    Column,
    Level,
    PartitionColumn,
    SortColumn,
    Template,
)
from lakewarden.tables.template_file import COLUMN_NAME, NAME
from lakewarden.tables.types import canonical_type, spell

NAME_MAPPING = "schema.name-mapping.default"
_LONGEST = 240  # characters of a table's name with its namespace; with .yaml it is a file's
READ_VERSIONS = (1, 2)


def classify(
    table: str, metadata: TableMetadata, files: FileFacts, *, bucket: str
) -> Adopted | NotAdopted:
    """What becomes of a table.

    table: "namespace.name". bucket: the project's, in which data files are written."""
    if wrong := [*_name(table), *_unreadable(metadata, files)]:
        return NotAdopted(table, wrong)
    template = _template(table, metadata)
    if wrong := [*_untellable(template)]:
        return NotAdopted(table, wrong)
    limits = [
        *_deletes(files),
        *_columns(metadata.schema()),
        *_partitions(metadata),
        *_sorting(metadata),
        *_location(metadata, bucket),
    ]
    level = Level.OBSERVED if limits else Level.LOADED
    return Adopted(table, level, template, limits, [*_notes(metadata, files)])


def _name(table: str) -> Iterator[Reason]:
    namespace, _, name = table.rpartition(".")
    for part in (namespace, name):
        if not re.fullmatch(NAME, part):
            yield Reason(
                Obstacle.NAME,
                f"{part!r} is no name that a template can have: one level of namespace, and lower"
                " case letters, digits and _",
            )
    if len(table) > _LONGEST:
        yield Reason(
            Obstacle.NAME,
            f"its template's file could not be called by it: {len(table)}"
            f" characters, of {_LONGEST} at most",
        )


def _unreadable(metadata: TableMetadata, files: FileFacts) -> Iterator[Reason]:
    if metadata.format_version not in READ_VERSIONS:
        yield Reason(
            Obstacle.FORMAT_VERSION,
            f"Iceberg's format {metadata.format_version}; this release reads 1 and 2",
        )
    if files.deletion_vectors:
        yield Reason(Obstacle.FORMAT_VERSION, "deletion vectors, which are of Iceberg's format 3")
    if others := sorted(files.formats - {"PARQUET"}):
        yield Reason(
            Obstacle.FILE_FORMAT,
            f"files in {', '.join(others)}, which DuckDB does not read; Parquet only",
        )
    if not files.has_field_ids and NAME_MAPPING not in metadata.properties:
        yield Reason(
            Obstacle.NO_FIELD_IDS,
            f"files without field ids, and no property {NAME_MAPPING} that says which column is"
            " which: engines guess, and not all the same",
        )
    if any("encryption" in name for name in metadata.properties):
        yield Reason(Obstacle.ENCRYPTED, "encrypted: neither engine has the keys")


def _untellable(template: Template) -> Iterator[Reason]:
    wrong = contradictions(template, written={}, csv_options=False)
    for one in wrong:
        yield Reason(Obstacle.NAME, one.message)


def _template(table: str, metadata: TableMetadata) -> Template:
    namespace, _, name = table.rpartition(".")
    return Template(
        namespace=namespace,
        name=name,
        columns=tuple(_column(field) for field in _theirs(metadata.schema())),
        partition_spec=tuple(
            PartitionColumn(_source(metadata.schema(), part), str(part.transform))
            for part in metadata.spec().fields
            if not isinstance(part.transform, VoidTransform)
        ),
        sort_order=tuple(_sort_columns(metadata)),
        properties={},
        tags={},
        description=metadata.properties.get(COMMENT, "").strip(),
        source=None,
        load_dataset=None,
        level=Level.OBSERVED,
    )


def _theirs(schema: Schema) -> Sequence[NestedField]:
    """The columns without those that loading has added before, which no template names."""
    ours = {column.name for column in ADDED_COLUMNS} if _took_batches(schema) else set()
    return [field for field in schema.fields if field.name not in ours]


def _took_batches(schema: Schema) -> bool:
    """Whether all three are there as loading adds them, described as it does: what only looks alike
    may hold keys of somebody else's batches, and those would be replaced by ours."""
    found = {field.name: field for field in schema.fields}
    return all(
        column.name in found
        and spell(found[column.name].field_type) == column.type
        and found[column.name].optional
        and found[column.name].doc == column.description
        for column in ADDED_COLUMNS
    )


def _column(field: NestedField) -> Column:
    return Column(
        name=field.name,
        type=spell(field.field_type),
        required=field.required,
        description=(field.doc or "").strip(),
        field_id=field.field_id,
    )


def _source(schema: Schema, part: PartitionField) -> str:
    return schema.find_column_name(part.source_id) or f"field {part.source_id}, which is gone"


def _sort_columns(metadata: TableMetadata) -> Iterator[SortColumn]:
    order = metadata.sort_order_by_id(metadata.default_sort_order_id)
    directions = {theirs: ours for ours, theirs in DIRECTIONS.items()}
    nulls = {theirs: ours for ours, theirs in NULL_ORDERS.items()}
    for field in order.fields if order else ():
        name = metadata.schema().find_column_name(field.source_id) or (
            f"field {field.source_id}, which is gone"
        )
        plain = isinstance(field.transform, IdentityTransform)
        yield SortColumn(
            name if plain else f"{field.transform}({name})",
            directions[field.direction],
            nulls[field.null_order],
        )


def _deletes(files: FileFacts) -> Iterator[Reason]:
    if files.equality_deletes:
        yield Reason(
            Obstacle.EQUALITY_DELETES,
            "equality deletes: DuckDB reads them right, PyIceberg refuses to, so no batch could be"
            " replaced",
        )
    if files.missing:
        yield Reason(Obstacle.FILES_MISSING, f"its snapshot names {files.missing}, which is gone")


def _columns(schema: Schema) -> Iterator[Reason]:
    odd = [f"{f.name} ({spell(f.field_type)})" for f in schema.fields if not _is_loadable(f)]
    if odd:
        yield Reason(Obstacle.COLUMN_TYPES, f"types that are not loaded: {_some(odd)}")
    names = [field.name for field in schema.fields]
    ours = {column.name for column in ADDED_COLUMNS}
    strange = [n for n in names if not re.fullmatch(COLUMN_NAME, n) or n.startswith("_")]
    if unfit := [repr(name) for name in strange if name not in ours]:
        yield Reason(
            Obstacle.COLUMN_NAMES,
            f"names that a loaded table cannot have: {_some(unfit)}; lower-case letters, digits"
            " and _",
        )
    lower = [name.lower() for name in names]
    if twins := [name for name in names if lower.count(name.lower()) > 1]:
        yield Reason(
            Obstacle.TWIN_COLUMNS,
            f"names that differ by case only ({_some(twins)}): DuckDB calls the second otherwise",
        )
    if not _took_batches(schema) and (taken := [name for name in names if name in ours]):
        yield Reason(
            Obstacle.OUR_COLUMNS,
            f"{_some(taken)} of its own, which loading would take for what it writes itself",
        )


def _is_loadable(field: NestedField) -> bool:
    try:
        canonical_type(spell(field.field_type))
    except ValueError:
        return False
    return True


def _partitions(metadata: TableMetadata) -> Iterator[Reason]:
    schema, spec = metadata.schema(), metadata.spec()
    tops = {field.field_id: field for field in schema.fields}
    fixed = []
    for part in spec.fields:
        source = tops.get(part.source_id)
        what = f"partitions by {part.transform}({_source(schema, part)})"
        if isinstance(part.transform, VoidTransform | UnknownTransform):
            yield Reason(Obstacle.PARTITIONS, f"{what}: values of that are not computed here")
        elif source is None:
            yield Reason(Obstacle.PARTITIONS, f"{what}: not a column of the table itself")
        elif part.transform.can_transform(source.field_type):
            fixed.append(part.transform.result_type(source.field_type))
    if sum(isinstance(kind, DecimalType | UUIDType) for kind in fixed) > 1:
        yield Reason(
            Obstacle.PARTITIONS,
            "partitions by several decimals or uuids: manifests that PyIceberg writes of them end"
            " the process of DuckDB 1.5.5",
        )


def _sorting(metadata: TableMetadata) -> Iterator[Reason]:
    names = {field.name for field in metadata.schema().fields}
    if odd := [one.column for one in _sort_columns(metadata) if one.column not in names]:
        yield Reason(Obstacle.SORT_ORDER, f"sorted by {_some(odd)}: only plain columns are")


def _location(metadata: TableMetadata, bucket: str) -> Iterator[Reason]:
    if not metadata.location.startswith(f"s3://{bucket}/"):
        yield Reason(
            Obstacle.ELSEWHERE,
            f"it lies at {metadata.location}, and batches are written into s3://{bucket}/ only",
        )


def _notes(metadata: TableMetadata, files: FileFacts) -> Iterator[str]:
    if FIELD_IDS in metadata.properties:
        yield "Lakewarden made or changed it before; the project that did may still write to it"
    if _took_batches(metadata.schema()):
        yield "batches were added to it before"
    if metadata.format_version == 1:
        yield "Iceberg's format 1"
    if files.position_deletes:
        yield (
            f"{files.position_deletes} position delete files: both engines read them right; to"
            " replace a batch rewrites the files that they concern"
        )
    if not files.has_field_ids:
        yield f"files without field ids, read by {NAME_MAPPING}"
    if len(metadata.partition_specs) > 1:
        yield f"partitioned in {len(metadata.partition_specs)} ways over time"
    for name, ref in sorted(metadata.refs.items()):
        if name != "main":
            yield f"it has a {ref.snapshot_ref_type} of its own, {name}, which is left alone"
    if metadata.properties.get("write.metadata.delete-after-commit.enabled") == "true":
        yield (
            "its owner deletes old metadata files, so what was published long ago may not be"
            " readable any more"
        )
    for name in ("write.data.path", "write.object-storage.enabled"):
        if name in metadata.properties:
            yield f"{name} is not followed by batches: their files lie under its location"
    if files.sampled:
        yield "it has many manifests, of which a part was read"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
