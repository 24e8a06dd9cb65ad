"""What a value has to be to fit a column: SQL that casts, and SQL that says why it does not fit.

DuckDB's own casts are lenient where a lakehouse must not be: '1.5' becomes the integer 2, '1.239'
the decimal 1.24, a timestamp the date it falls on. Here a value that would be changed is a misfit.
All of it is one pass over text, so it costs what DuckDB's typed CSV reader costs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pyiceberg.types import (
    BinaryType,
    DateType,
    DecimalType,
    IcebergType,
    IntegerType,
    LongType,
    StringType,
    TimestampType,
    TimestamptzType,
)

from lakewarden.batch.duck import literal
from lakewarden.batch.sql_types import duckdb_type

TEXT = "VARCHAR"


@dataclass(frozen=True)
class Target:
    """A column to fill: `source_type` is DuckDB's type of what was delivered (text, mostly)."""

    name: str
    kind: IcebergType
    required: bool
    source_type: str = TEXT
    date_format: str | None = None
    timestamp_format: str | None = None


@dataclass(frozen=True)
class Check:
    """A condition that makes a record a misfit, and what to say of it (never its content)."""

    condition: str
    column: str | None
    reason: str
    message: str


def cast(target: Target, raw: str) -> str:
    """SQL for the value of `raw` (an SQL column) as the target's type; NULL where it cannot be."""
    kind = duckdb_type(target.kind)
    if target.source_type == kind:
        return raw
    if target.source_type == TEXT:
        return _cast_text(target, raw, kind)
    return f"TRY_CAST({raw} AS {kind})"


def checks(target: Target, raw: str, value: str) -> Iterator[Check]:
    """Everything that may be wrong with one field; `value` is the SQL column of its cast."""
    kind = duckdb_type(target.kind)
    if target.source_type != kind:
        yield Check(
            f"{raw} IS NOT NULL AND {value} IS NULL",
            target.name,
            "type",
            f"not a valid {target.kind}{_format_note(target)}",
        )
    for condition in _changed(target, raw, value, kind):
        yield Check(condition, target.name, "precision", f"does not fit {target.kind} exactly")
    if target.required:
        yield Check(f"{value} IS NULL", target.name, "required", "required, and empty")


def nul_checks(targets: Sequence[Target], raws: Sequence[str]) -> Iterator[Check]:
    """A NUL byte passes every parser, and breaks what comes after it."""
    for target, raw in zip(targets, raws, strict=True):
        if target.source_type == TEXT:
            yield Check(f"contains({raw}, chr(0))", target.name, "nul", "holds a NUL byte")


def _cast_text(target: Target, raw: str, kind: str) -> str:
    if isinstance(target.kind, DateType) and target.date_format:
        return f"CAST(try_strptime({raw}, {literal(target.date_format)}) AS DATE)"
    if isinstance(target.kind, TimestampType | TimestamptzType) and target.timestamp_format:
        return f"CAST(try_strptime({raw}, {literal(target.timestamp_format)}) AS {kind})"
    if isinstance(target.kind, BinaryType):
        return f"TRY(unhex({raw}))"
    return f"TRY_CAST({raw} AS {kind})"


def _changed(target: Target, raw: str, value: str, kind: str) -> Iterator[str]:
    """Conditions under which the cast would succeed and change the value."""
    if target.source_type == kind or isinstance(target.kind, StringType):
        return
    if target.source_type != TEXT:
        yield f"TRY_CAST({value} AS {target.source_type}) IS DISTINCT FROM {raw}"
    elif isinstance(target.kind, IntegerType | LongType):
        number = f"TRY_CAST({raw} AS DOUBLE)"
        yield f"contains({raw}, '.') AND {number} <> trunc({number})"
    elif isinstance(target.kind, DecimalType):
        digits = f"length(rtrim({raw}, '0 ')) - strpos({raw}, '.')"
        yield f"contains({raw}, '.') AND {digits} > {target.kind.scale}"
        yield (
            f"(contains({raw}, 'e') OR contains({raw}, 'E'))"
            f" AND CAST({value} AS DOUBLE) IS DISTINCT FROM TRY_CAST({raw} AS DOUBLE)"
        )
    elif isinstance(target.kind, DateType) and not target.date_format:
        yield f"length({raw}) > {len('2013-01-01')}"


def _format_note(target: Target) -> str:
    wanted = target.date_format if isinstance(target.kind, DateType) else target.timestamp_format
    dated = isinstance(target.kind, DateType | TimestampType | TimestamptzType)
    return f" in the form {wanted}" if dated and wanted and target.source_type == TEXT else ""
