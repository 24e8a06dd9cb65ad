"""Records on local disk → rows as the table wants them, and why the others do not fit.

The quick way assumes that every record fits and compares counts. Only where they disagree, or a
part is doubtful, are the records looked at one by one (`diagnose`), and the part is written again
without the misfits.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.types import DoubleType, FloatType

from lakewarden.batch.duck import identifier, literal
from lakewarden.batch.parsing.casts import Check, Target, cast, checks, misfit, nul_checks
from lakewarden.batch.parsing.records import JSON_DELIMITER, RecordForm, record_form
from lakewarden.batch.parsing.structure import Flaw, cut_out
from lakewarden.tables.template import CsvOptions, FileFormat

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Longer records are misfits. DuckDB keeps one whole in memory.
MAX_LINE_BYTES = 2 << 20

# Whatever is passed over silently is found by the counts. Measured with the line end.
_LENIENT = f"max_line_size = {MAX_LINE_BYTES + 2}, ignore_errors = true"
# DuckDB takes a folder `column=value` above the file for a column of it.
_NO_MORE_COLUMNS = "hive_partitioning = false"
# DuckDB wants at least one, without the delimiter, the quote and the escape: those are ASCII.
_NO_NULL = "\ufdd0\ufdd1\ufdd2"


@dataclass(frozen=True)
class Shape:
    """How one file's records become rows. `columns` are the file's own, in the file's order."""

    format: FileFormat
    columns: Sequence[str]
    targets: Sequence[Target]
    options: CsvOptions

    @cached_property
    def form(self) -> RecordForm:
        return record_form(self.format, self.options, len(self.columns))

    @cached_property
    def position(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.columns)}


@dataclass(frozen=True)
class Part:
    """A stretch of whole records of one file, as UTF-8 on local disk (Parquet: the file itself).

    `first` is the record number of its first record. `quoted`: there are quotes in it. `doubtful`:
    a parser might read it otherwise than we do, so it has to be diagnosed before it is read.
    `numbers`, filled in by a diagnosis: a file with the numbers of what it did not cut out.
    `cut`: columns, and a file for each with the numbers of rows whose value DuckDB would cut.
    """

    path: Path
    file: str
    first: int
    records: int
    shape: Shape
    line_end: str = "\n"
    has_nul: bool = False
    quoted: bool = True
    doubtful: bool = False
    numbers: Path | None = None
    cut: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
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
    return (
        f"SELECT {values}, {literal(batch)} AS _batch, {literal(part.file)} AS _file,"
        f" {_number(part)} AS _line FROM ({_casts(part)}){_numbered(part)}"
        f" WHERE NOT {_misfit(part)}"
    )


def diagnose(connection: "DuckDBPyConnection", part: Part) -> tuple[Part, Sequence[Defect]]:
    """Look at every record: the part as it can be read, without broken records (they are cut out
    of its file), and all the records that do not fit."""
    broken = _cut_out(part)
    known = replace(part, numbers=_write_numbers(part, broken), doubtful=False)
    structural = [
        Defect(part.first + number - 1, None, reason, message)
        for number, (reason, message) in broken.items()
    ]
    found = [*structural, *_misfits(connection, known)]
    return known, sorted(found, key=lambda defect: defect.number)


def _cut_out(part: Part) -> Mapping[int, Flaw]:
    """Broken records by their number within the part; they are gone from its file."""
    shape = part.shape
    if shape.format is FileFormat.PARQUET:
        return {}
    broken = cut_out(part.path, shape.form, max_bytes=MAX_LINE_BYTES)
    if shape.format is FileFormat.JSON:
        return {n: _NO_JSON if flaw.reason == "columns" else flaw for n, flaw in broken.items()}
    return broken


_NO_JSON = Flaw("json", "not a JSON object on one line")


def _write_numbers(part: Part, broken: Collection[int]) -> Path | None:
    """A table of `row` and `record`: which record (both from 1, within the part) the parser's
    row will be, where some were cut out."""
    if not broken:
        return None
    records = np.delete(np.arange(1, part.records + 1), np.array(list(broken)) - 1)
    path = part.path.with_suffix(".numbers")
    rows = np.arange(1, len(records) + 1)
    pq.write_table(pa.table({"row": rows, "record": records}), path)
    return path


def _misfits(connection: "DuckDBPyConnection", part: Part) -> Iterator[Defect]:
    """Records that were parsed and do not fit: the first reason of each."""
    every = list(_checks(part))
    cases = " ".join(
        f"WHEN coalesce({check.condition}, false) THEN {n}" for n, check in enumerate(every)
    )
    if not cases:
        return
    connection.execute(
        f"SELECT {_number(part)}, CASE {cases} END FROM ({_casts(part)}){_numbered(part)}"
        f" WHERE {_misfit(part)}"
    )
    while rows := connection.fetchmany(10_000):
        for number, first in rows:
            check = every[first]
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
    nulls = shape.options.null_strings
    fields = ", ".join(
        f"{_without_nulls(f'f{shape.position[target.name]}', nulls)} AS c{number}"
        for number, target in enumerate(shape.targets)
    )
    return f"SELECT {fields}, row_number() OVER () AS k FROM {_read_csv(part)}"


def _without_nulls(field: str, null_strings: Sequence[str]) -> str:
    """SQL for a field that is NULL where its text, quoted or not, is one of these. DuckDB's own
    `nullstr` would refuse `\\N` where the escape is a backslash, as MySQL and Hive export it."""
    if not null_strings:
        return field
    return (
        f"CASE WHEN {field} IN ({', '.join(map(literal, null_strings))}) THEN NULL ELSE {field} END"
    )


def _raw_json(part: Part) -> str:
    fields = ", ".join(
        f"{_json_text(target)} AS c{number}" for number, target in enumerate(part.shape.targets)
    )
    lines = _read_lines(part)
    whole = "CASE WHEN json_valid(line) AND json_type(line) = 'OBJECT' THEN line END"
    return (
        f"SELECT {fields}, j, k FROM (SELECT {whole} AS j, row_number() OVER () AS k FROM {lines})"
    )


def _json_text(target: Target) -> str:
    """SQL for a field of j as text. DuckDB passes a number with a point or an exponent through a
    double; where its digits matter they are looked up in the line."""
    path = literal(f"$.{target.name}")
    text = f"json_extract_string(j, {path})"
    if isinstance(target.kind, FloatType | DoubleType):
        return text
    # Within a string there is no bare quote, so this matches fields only; of several with this
    # name, at other depths, the one of the same value. Where digits still differ nobody knows.
    field = literal(rf'"{target.name}"\s*:\s*(-?[0-9][0-9.eE+-]*)')
    same = f"list_filter(regexp_extract_all(j, {field}, 1), n -> n::DOUBLE = {text}::DOUBLE)"
    digits = f"CASE WHEN len(list_distinct({same})) = 1 THEN {same}[1] END"
    zero = f"WHEN 'BIGINT' THEN CASE {text} WHEN '0' THEN '-0' ELSE {text} END"  # 0 is UBIGINT
    return f"CASE json_type(j, {path}) WHEN 'DOUBLE' THEN {digits} {zero} ELSE {text} END"


def _raw_parquet(part: Part) -> str:
    fields = ", ".join(
        f"{identifier(target.name)} AS c{number}"
        for number, target in enumerate(part.shape.targets)
    )
    path = literal(str(part.path))
    return (
        f"SELECT {fields}, file_row_number + 1 AS k"
        f" FROM read_parquet({path}, file_row_number = true, {_NO_MORE_COLUMNS})"
    )


def _read_csv(part: Part) -> str:
    options = part.shape.options
    columns = ", ".join(f"'f{number}': 'VARCHAR'" for number in range(len(part.shape.columns)))
    quote = options.quote or ""
    escape = options.escape or quote
    return (
        f"read_csv({literal(str(part.path))}, columns = {{{columns}}}, header = false,"
        f" auto_detect = false, delim = {literal(options.delimiter)}, quote = {literal(quote)},"
        f" escape = {literal(escape)}, nullstr = [{literal(_NO_NULL)}],"
        f" {_LENIENT}, {_line_end(part)}, {_NO_MORE_COLUMNS},"
        # Threads that begin in the middle of a file take lines within quotes for records.
        f" parallel = {'false' if part.quoted else 'true'})"
    )


def _read_lines(part: Part) -> str:
    delimiter = literal(JSON_DELIMITER.decode())
    return (
        f"read_csv({literal(str(part.path))}, columns = {{'line': 'VARCHAR'}}, header = false,"
        f" auto_detect = false, delim = {delimiter}, quote = '', escape = '',"
        f" {_LENIENT}, {_line_end(part)}, {_NO_MORE_COLUMNS})"
    )


def _line_end(part: Part) -> str:
    """Left to itself DuckDB would take the first CR or LF, which may be within quotes."""
    return f"new_line = {literal(part.line_end.encode('unicode_escape').decode())}"


# --- rows as the table wants them -----------------------------------------------------------


def _casts(part: Part) -> str:
    values = ", ".join(
        f"{cast(target, f'c{number}')} AS v{number}"
        for number, target in enumerate(part.shape.targets)
    )
    return f"SELECT *, {values} FROM ({_raw(part)})"


def _checks(part: Part) -> Iterator[Check]:
    """Everything that may be wrong with a record, in the order in which it is told."""
    yield from _record_checks(part)
    yield from _cut_checks(part)
    for number, target in enumerate(part.shape.targets):
        yield from checks(target, f"c{number}", f"v{number}")
    yield from _byte_checks(part)


def _misfit(part: Part) -> str:
    """SQL: one of the checks is true of a record."""
    some = (*_record_checks(part), *_cut_checks(part), *_byte_checks(part))
    conditions = [check.condition for check in some]
    for number, target in enumerate(part.shape.targets):
        if wrong := misfit(target, f"c{number}", f"v{number}"):
            conditions.append(wrong)
    joined = " OR ".join(f"({condition})" for condition in conditions)
    return f"coalesce({joined or 'false'}, false)"


def _record_checks(part: Part) -> Iterator[Check]:
    targets = part.shape.targets
    if part.shape.format is FileFormat.JSON:
        yield from _json_checks(targets)
    if part.shape.format is FileFormat.CSV and part.shape.options.header:
        same = " AND ".join(
            f"{raw} = {literal(t.name)}" for raw, t in zip(_raws(part), targets, strict=True)
        )
        yield Check(same, None, "repeated-header", "the header again, as a record")


def _cut_checks(part: Part) -> Iterator[Check]:
    """What a cast can no longer see."""
    for target in part.shape.targets:
        if path := part.cut.get(target.name):
            rows = f"read_parquet({literal(str(path))}, {_NO_MORE_COLUMNS})"
            message = f"does not fit {target.kind} exactly"
            yield Check(f"k IN (SELECT row FROM {rows})", target.name, "precision", message)


def _byte_checks(part: Part) -> Iterator[Check]:
    if part.has_nul or part.shape.format is not FileFormat.CSV:
        yield from nul_checks(part.shape.targets, _raws(part))


def _raws(part: Part) -> Sequence[str]:
    return [f"c{number}" for number in range(len(part.shape.targets))]


def _json_checks(targets: Sequence[Target]) -> Iterator[Check]:
    yield Check("j IS NULL", None, "json", "not a JSON object on one line")
    known = ", ".join(literal(target.name) for target in targets)
    unknown = f"len(list_filter(json_keys(j), key -> key NOT IN ({known}))) > 0"
    yield Check(unknown, None, "unexpected-field", "a field that the template does not name")
    twice = "len(json_keys(j)) <> len(list_distinct(json_keys(j)))"
    yield Check(twice, None, "repeated-field", "a field twice")
    for number, target in enumerate(targets):
        unknown = f"c{number} IS NULL AND json_type(j, {literal(f'$.{target.name}')}) = 'DOUBLE'"
        yield Check(unknown, target.name, "json", "a number whose digits cannot be told")


def _number(part: Part) -> str:
    """SQL for the record number of a row."""
    return f"{'numbers.record' if part.numbers else 'k'} + {part.first - 1}"


def _numbered(part: Part) -> str:
    if part.numbers is None:
        return ""
    numbers = f"read_parquet({literal(str(part.numbers))}, {_NO_MORE_COLUMNS})"
    return f" JOIN {numbers} AS numbers ON k = numbers.row"
