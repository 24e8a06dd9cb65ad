"""A model's rows → the lake table that it is marked for, by that table's types, without loss."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pyiceberg.expressions import AlwaysTrue, BooleanExpression
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import NestedField

from lakewarden.aws.objects import Objects
from lakewarden.batch.duck import identifier, literal
from lakewarden.batch.models.selection import Node, Write
from lakewarden.batch.parquet import upload, write_local
from lakewarden.batch.parsing.casts import Check, Target, cast, checks
from lakewarden.batch.sql_types import duckdb_type
from lakewarden.errors import Failed, WrongUsage
from lakewarden.lake.commit import rows_of, stage
from lakewarden.tables.template import BATCH_COLUMN, Level

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


class ModelColumnsDiffer(WrongUsage):
    """A model's columns are not those of the table that it is written to."""


class ModelMisfit(Failed):
    """A model holds a value that its table cannot."""


@dataclass(frozen=True)
class Output:
    """A built model and where it goes. `batches` are those of the run."""

    model: Node
    table: str
    write: Write
    batches: Sequence[str]
    level: Level = Level.OWNED  # the table's

    @property
    def relation(self) -> str:
        return f"{identifier(self.model.schema)}.{identifier(self.model.relation)}"


def write_back(
    connection: "DuckDBPyConnection",
    output: Output,
    table: Table,
    objects: Objects,
    *,
    scratch: Path,
    stem: str,
    run: str,
) -> Sequence[DataFile]:
    """Replace the table's rows (all, or those of the batches) by the model's, in one commit.

    stem: begins the names of data files and is never used again. Returns what was written.
    Raises ModelColumnsDiffer, ModelMisfit; then nothing was committed.
    """
    schema = table.schema()
    types = dict(_describe(connection, output.relation))
    _check_names(output, schema, types)
    targets = [_target(field, types[field.name]) for field in schema.fields]
    _check_values(connection, output, targets)
    columns = ", ".join(
        f"{cast(target, identifier(target.name))} AS {identifier(target.name)}"
        for target in targets
    )
    select = f"SELECT {columns} FROM {output.relation}"
    local = [
        file
        for number, rows in enumerate(_parts(output, select))
        for file in write_local(connection, rows, table, scratch, f"{stem}-{number:03d}")
    ]
    files = upload(local, table, objects)
    put(output, table, files, run=run)
    return files


def put(output: Output, table: Table, files: Sequence[DataFile], *, run: str) -> None:
    """Data files that were written before take the place of the rows that they are for."""
    stage(
        table,
        files,
        level=output.level,
        replacing=_replaced(output),
        properties={"lakewarden.run": run, "lakewarden.model": output.model.name},
    )


def _parts(output: Output, select: str) -> Sequence[str]:
    """What has files of its own. Of a table by batch each batch does, so that the next write of one
    drops whole files: PyIceberg would rewrite the others' rows, with bounds that leave NaN out."""
    if output.write is Write.ALL:
        return [select]
    of = f"SELECT * FROM ({select}) WHERE {identifier(BATCH_COLUMN)} ="
    return [f"{of} {literal(batch)}" for batch in sorted(set(output.batches))]


def _replaced(output: Output) -> BooleanExpression:
    return AlwaysTrue() if output.write is Write.ALL else rows_of(output.batches)


def _target(field: NestedField, has: str) -> Target:
    wants = duckdb_type(field.field_type)
    same = has == wants.replace(", ", ",")
    return Target(field.name, field.field_type, field.required, wants if same else has)


def _describe(connection: "DuckDBPyConnection", relation: str) -> Iterator[tuple[str, str]]:
    """Columns, in lower case as Iceberg has them, and their DuckDB types."""
    for name, kind, *_ in connection.execute(f"DESCRIBE {relation}").fetchall():
        yield str(name).lower(), str(kind)


def _check_names(output: Output, schema: Schema, found: Iterable[str]) -> None:
    has, wants = set(found), set(schema.column_names)
    wrong = [f"has no column {name}" for name in sorted(wants - has)]
    wrong += [f"has the column {name}, which the table lacks" for name in sorted(has - wants)]
    if wrong:
        raise ModelColumnsDiffer(
            f"model {output.model.name} cannot be written to {output.table}:"
            f" it {'; it '.join(wrong)}",
            hint="Give model and template the same columns; where the template is newer than the"
            " table, run `lakewarden table apply`.",
        )


def _check_values(
    connection: "DuckDBPyConnection", output: Output, targets: Sequence[Target]
) -> None:
    wrong = []
    for target in targets:
        column = identifier(target.name)
        for check in checks(target, column, cast(target, column)):
            if count := _count_misfits(connection, output, column, check):
                wrong.append(
                    f"{target.name} ({target.source_type}) {check.message} in {count} rows"
                )
    if output.write is Write.BATCH and (strangers := _strangers(connection, output)):
        batches = ", ".join(output.batches)
        wrong.append(f"{strangers} rows are of other batches than {batches}, which alone it writes")
    if wrong:
        raise ModelMisfit(
            f"model {output.model.name} cannot be written to {output.table}: {'; '.join(wrong)}",
            hint="Mend the model (a cast, a rounding, a filter), or widen the template.",
        )


def _count_misfits(
    connection: "DuckDBPyConnection", output: Output, column: str, check: Check
) -> int:
    import duckdb

    try:
        return _count(connection, output, check.condition)
    except (duckdb.BinderException, duckdb.ConversionException):
        # There is no such cast, whatever the value.
        return _count(connection, output, f"{column} IS NOT NULL")


def _strangers(connection: "DuckDBPyConnection", output: Output) -> int:
    return _count(
        connection,
        output,
        f"list_contains($batches, {identifier(BATCH_COLUMN)}) IS NOT TRUE",
        {"batches": list(output.batches)},
    )


def _count(
    connection: "DuckDBPyConnection",
    output: Output,
    condition: str,
    parameters: dict[str, object] | None = None,
) -> int:
    row = connection.execute(
        f"SELECT count(*) FROM {output.relation} WHERE {condition}", parameters
    ).fetchone()
    return int(row[0]) if row else 0
