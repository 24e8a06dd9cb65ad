"""Records on local disk → rows as the table wants them, and why the others do not fit.

The quick way assumes that every record fits and compares counts. Only where they disagree are
the records looked at one by one (`diagnose`), and the part is written again without the misfits.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lakewarden.batch.duck import identifier, literal
from lakewarden.batch.parsing.casts import Check, Target, cast, checks, nul_checks
from lakewarden.batch.parsing.records import record_form, without_wide
from lakewarden.tables.template import CsvOptions, FileFormat

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Longer records are misfits. DuckDB keeps one whole in memory.
MAX_LINE_BYTES = 2 << 20

# No text may hold this raw: JSON forbids it, so a JSON line is always one field.
_UNIT_SEPARATOR = "\x1f"


@dataclass(frozen=True)
class Shape:
    """How one file's records become rows. `columns` are the file's own, in the file's order."""

    format: FileFormat
    columns: Sequence[str]
    targets: Sequence[Target]
    options: CsvOptions

    @cached_property
    def position(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.columns)}


@dataclass(frozen=True)
class Part:
    """A stretch of whole records of one file, as UTF-8 on local disk (Parquet: the file itself).

    `first` is the record number of its first record. `gaps`, filled in by a diagnosis, are the
    records (from 1, within the part) that the parser drops, so that the others keep their numbers.
    """

    path: Path
    file: str
    first: int
    records: int
    shape: Shape
    has_nul: bool = False
    gaps: tuple[int, ...] = ()


@dataclass(frozen=True)
class Defect:
    """Why one record of a part (its number in the file) does not fit."""

    number: int
    column: str | None
    reason: str
    message: str


def select(part: Part, batch: str) -> str:
    """SQL for the part's rows that fit: the targets' columns, then _batch, _file, _line."""
    values = ", ".join(
        f"v{number} AS {identifier(target.name)}"
        for number, target in enumerate(part.shape.targets)
    )
    conditions = " OR ".join(f"({check.condition})" for check in _checks(part))
    return (
        f"SELECT {values}, {literal(batch)} AS _batch, {literal(part.file)} AS _file,"
        f" {_number(part)} AS _line FROM ({_casts(part)}){_gap_join(part)}"
        f" WHERE NOT coalesce({conditions or 'false'}, false)"
    )


def diagnose(connection: "DuckDBPyConnection", part: Part) -> tuple[Part, Sequence[Defect]]:
    """Look at every record: the part with its gaps filled in, and the records that do not fit."""
    _narrow(part)
    broken = _broken_records(connection, part)
    known = replace(part, gaps=tuple(sorted(broken)))
    found = [*_misfits(connection, known)]
    structural = [
        Defect(part.first + number - 1, None, reason, message)
        for number, (reason, message) in broken.items()
    ]
    return known, sorted([*structural, *found], key=lambda defect: defect.number)


def _misfits(connection: "DuckDBPyConnection", part: Part) -> Iterator[Defect]:
    """Records that were parsed and do not fit: the first reason of each."""
    every = list(_checks(part))
    cases = " ".join(
        f"WHEN coalesce({check.condition}, false) THEN {n}" for n, check in enumerate(every)
    )
    if not cases:
        return
    connection.execute(
        f"SELECT number, misfit FROM (SELECT {_number(part)} AS number, CASE {cases} END AS misfit"
        f" FROM ({_casts(part)}){_gap_join(part)}) WHERE misfit IS NOT NULL"
    )
    while rows := connection.fetchmany(10_000):
        for number, misfit in rows:
            check = every[misfit]
            yield Defect(number, check.column, check.reason, check.message)


# --- rows as they were delivered ------------------------------------------------------------


def _raw(part: Part) -> str:
    """SQL for the delivered fields c0, c1, … (one for each target) and the row's number k."""
    match part.shape.format:
        case FileFormat.CSV:
            return _raw_csv(part)
        case FileFormat.JSON:
            return _raw_json(part)
        case FileFormat.PARQUET:
            return _raw_parquet(part)


def _raw_csv(part: Part) -> str:
    shape = part.shape
    fields = ", ".join(
        f"f{shape.position[target.name]} AS c{number}"
        for number, target in enumerate(shape.targets)
    )
    rows = _read_csv(part, _on_error(part))
    return f"SELECT {fields}, row_number() OVER () AS k FROM {rows}"


def _raw_json(part: Part) -> str:
    fields = ", ".join(
        f"json_extract_string(j, '$.{target.name}') AS c{number}"
        for number, target in enumerate(part.shape.targets)
    )
    lines = _read_lines(part, _on_error(part))
    whole = "CASE WHEN json_valid(line) AND json_type(line) = 'OBJECT' THEN line END"
    return (
        f"SELECT {fields}, j, k FROM (SELECT {whole} AS j, row_number() OVER () AS k FROM {lines})"
    )


def _raw_parquet(part: Part) -> str:
    fields = ", ".join(
        f"{identifier(target.name)} AS c{number}"
        for number, target in enumerate(part.shape.targets)
    )
    path = literal(str(part.path))
    return (
        f"SELECT {fields}, file_row_number + 1 AS k"
        f" FROM read_parquet({path}, file_row_number = true, hive_partitioning = false)"
    )


def _on_error(part: Part) -> str:
    """How broken records are passed over. After a misplaced quote `ignore_errors` silently leaves
    out good records that follow; where rejects are stored it does not (DuckDB 1.5.5). The quick
    way may lose them: the counts tell."""
    return f"{_storing_rejects(part)}, rejects_limit = 1" if part.gaps else "ignore_errors = true"


def _storing_rejects(part: Part) -> str:
    errors, scans = _reject_tables(part)
    return (
        f"store_rejects = true, rejects_table = {literal(errors)}, rejects_scan = {literal(scans)}"
    )


def _reject_tables(part: Part) -> tuple[str, str]:
    """Tables of the session's own, for one part."""
    stem = re.sub(r"\W", "_", part.path.stem)
    return f"rejects_errors_{stem}", f"rejects_scans_{stem}"


def _read_csv(part: Part, on_error: str) -> str:
    options = part.shape.options
    columns = ", ".join(f"'f{number}': 'VARCHAR'" for number in range(len(part.shape.columns)))
    nulls = ", ".join(literal(text) for text in options.null_strings)
    quote = options.quote or ""
    escape = options.escape or quote
    return (
        f"read_csv({literal(str(part.path))}, columns = {{{columns}}}, header = false,"
        f" auto_detect = false, delim = {literal(options.delimiter)}, quote = {literal(quote)},"
        f" escape = {literal(escape)}, nullstr = [{nulls}], max_line_size = {MAX_LINE_BYTES},"
        f" {on_error})"
    )


def _read_lines(part: Part, on_error: str) -> str:
    return (
        f"read_csv({literal(str(part.path))}, columns = {{'line': 'VARCHAR'}}, header = false,"
        f" auto_detect = false, delim = {literal(_UNIT_SEPARATOR)}, quote = '', escape = '',"
        f" max_line_size = {MAX_LINE_BYTES}, {on_error})"
    )


# --- rows as the table wants them -----------------------------------------------------------


def _casts(part: Part) -> str:
    values = ", ".join(
        f"{cast(target, f'c{number}')} AS v{number}"
        for number, target in enumerate(part.shape.targets)
    )
    return f"SELECT *, {values} FROM ({_raw(part)})"


def _checks(part: Part) -> Iterator[Check]:
    targets = part.shape.targets
    raws = [f"c{number}" for number in range(len(targets))]
    if part.shape.format is FileFormat.JSON:
        yield from _json_checks(targets)
    if part.shape.format is FileFormat.CSV and part.shape.options.header:
        same = " AND ".join(
            f"{raw} = {literal(t.name)}" for raw, t in zip(raws, targets, strict=True)
        )
        yield Check(same, None, "repeated-header", "the header again, as a record")
    for number, target in enumerate(targets):
        yield from checks(target, f"c{number}", f"v{number}")
    if part.has_nul or part.shape.format is not FileFormat.CSV:
        yield from nul_checks(targets, raws)


def _json_checks(targets: Sequence[Target]) -> Iterator[Check]:
    yield Check("j IS NULL", None, "json", "not a JSON object on one line")
    known = ", ".join(literal(target.name) for target in targets)
    unknown = f"len(list_filter(json_keys(j), key -> key NOT IN ({known}))) > 0"
    yield Check(unknown, None, "unexpected-field", "a field that the template does not name")
    twice = "len(json_keys(j)) <> len(list_distinct(json_keys(j)))"
    yield Check(twice, None, "repeated-field", "a field twice")


def _number(part: Part) -> str:
    """SQL for the record number of a row: its position, and the dropped records before it."""
    offset = part.first - 1
    return f"k + {offset} + coalesce(gap.dropped, 0)" if part.gaps else f"k + {offset}"


def _gap_join(part: Part) -> str:
    """The j-th dropped record r has r - j kept rows before it: later rows are j further on."""
    if not part.gaps:
        return ""
    rows = ", ".join(f"({gap - j}, {j})" for j, gap in enumerate(part.gaps, start=1))
    return (
        " ASOF LEFT JOIN (SELECT kept, max(dropped) AS dropped"
        f" FROM (VALUES {rows}) AS g(kept, dropped) GROUP BY kept) AS gap ON k > gap.kept"
    )


# --- records that the parser cannot read ----------------------------------------------------

_STRUCTURAL = {
    "MISSING COLUMNS": "columns",
    "TOO MANY COLUMNS": "columns",
    "UNQUOTED VALUE": "quote",
    "LINE SIZE OVER MAXIMUM": "too-long",
}


# Fields more than there are columns, from which on DuckDB's explanations take too much memory:
# it keeps the whole record once for each of them (1.5.5; a record of 80 kB of commas takes 1 GB).
_WIDE = 100


def _narrow(part: Part) -> None:
    """Put a short record with too many fields in the place of each with far too many."""
    if part.shape.format is FileFormat.PARQUET:
        return
    text = part.shape.format is FileFormat.CSV
    options = part.shape.options
    delimiter = options.delimiter if text else _UNIT_SEPARATOR
    columns = len(part.shape.columns) if text else 1
    data = part.path.read_bytes()
    form = record_form(part.shape.format, options)
    by = (delimiter * columns + ".").encode()
    narrow = without_wide(data, form, delimiter.encode(), columns + _WIDE, by)
    if narrow is not data:
        part.path.write_bytes(narrow)


def _broken_records(connection: "DuckDBPyConnection", part: Part) -> dict[int, tuple[str, str]]:
    """Record number (from 1, within the part) → reason and message, of what the parser drops."""
    if part.shape.format is FileFormat.PARQUET:
        return {}
    errors, scans = _reject_tables(part)
    keep = f"{_storing_rejects(part)}, rejects_limit = 0"
    read = _read_csv if part.shape.format is FileFormat.CSV else _read_lines
    # The window makes DuckDB read in order, so that every record's number is right; the rejects
    # are there when the answer was fetched.
    numbered = f"SELECT row_number() OVER () AS k FROM {read(part, keep)}"
    connection.execute(f"SELECT max(k) FROM ({numbered})").fetchall()
    found = connection.execute(
        "SELECT line, arg_min(error_type::VARCHAR, byte_position),"
        f" arg_min(error_message, byte_position) FROM {errors} GROUP BY line"
    ).fetchall()
    connection.execute(f"DROP TABLE {errors}; DROP TABLE {scans}")
    return {line: _explain(str(kind), message, part) for line, kind, message in found}


def _explain(kind: str, message: str, part: Part) -> tuple[str, str]:
    """Our own words: DuckDB's may quote the data."""
    reason = _STRUCTURAL.get(kind, "record")
    if reason == "columns":
        expected = len(part.shape.columns)
        found = re.search(r"Found: (\d+)", message)
        # DuckDB counts no further than the first column too many.
        count = "more" if kind == "TOO MANY COLUMNS" or not found else found[1]
        return reason, f"expected {expected} columns, found {count}"
    if reason == "quote":
        return reason, "text follows a closing quote, or a quote is not closed"
    if reason == "too-long":
        return reason, f"longer than {MAX_LINE_BYTES >> 20} MiB"
    return reason, kind.lower()
