"""What a value has to be to fit a column: SQL that casts, and SQL that says why it does not fit.

DuckDB's own casts are lenient where a lakehouse must not be: '1.5' becomes the integer 2, '1.239'
the decimal 1.24, '1e400' infinity, 'epoch' a date, and an offset is dropped from a timestamp. Here
a value that would be changed or guessed is a misfit. What a text may look like, with spaces around
it or without (also in JSON, where a number or a boolean is taken for its text):

boolean      true false t f yes no y n 1 0, in any case
int, long    digits, `-` before them; `.0` after them (as programs write that know floats only)
float,       digits with `.` and an exponent; nan, inf, infinity; no number that is too large
double       (a float's digits are rounded to what it can hold, as everywhere; -0.0 may become 0.0)
decimal      the same without nan and inf; not one digit may get lost
date         2013-01-31, or `date_format`; the years 0001 to 9999
time         23:59, 23:59:59, 23:59:59.999999; no leap second, no 24:00
timestamp    a date, or a date, `T` or a space, and a time; or `timestamp_format`. An offset is a
             misfit: the column could not keep it, and to shift by it would be a guess
timestamptz  the same, and Z, UTC, +09, +0900 or +09:00 after it; without any of these it is UTC
uuid         550e8400-e29b-41d4-a716-446655440000, in any case
binary       hex, two digits a byte
string       every text, as it is. An object or an array in JSON is written anew, without spaces:
             1.10 in it becomes 1.1, and of a number with a point no more than 17 digits stay
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    LongType,
    StringType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

from lakewarden.batch.duck import literal
from lakewarden.batch.sql_types import duckdb_type

TEXT = "VARCHAR"

_DATE = r"\d{4}-\d{2}-\d{2}"
_TIME = r"([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d+)?)?"
_ZONE = r"(Z| ?UTC|[+-](0\d|1[0-5])(:?[0-5]\d)?)"
_MOMENT = rf"{_DATE}[ T]([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{{1,6}})?{_ZONE}"
_NUMBER = r"-?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?"
_FORMS: dict[type[IcebergType], str] = {
    BooleanType: r"(?i)true|false|t|f|yes|no|y|n|1|0",
    IntegerType: r"-?\d+(\.\d*)?",
    LongType: r"-?\d+(\.\d*)?",
    FloatType: rf"{_NUMBER}|(?i:nan|-?inf(inity)?)",
    DoubleType: rf"{_NUMBER}|(?i:nan|-?inf(inity)?)",
    DecimalType: _NUMBER,
    DateType: _DATE,
    TimeType: _TIME,
    TimestampType: rf"{_DATE}([ T]{_TIME})?",
    TimestamptzType: rf"{_DATE}([ T]{_TIME}{_ZONE}?)?",
    UUIDType: r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
    BinaryType: r"([0-9A-Fa-f]{2})*",
}

# What Python, Java and most engines can hold.
_FIRST, _LAST = "0001-01-01", "9999-12-31"
# Formats that have one way only to write a value, and one value for a text.
_ONE_TO_ONE = re.compile(r"(%[YmdHMSf]|[^%\w\s])+")
_TIMESTAMPS = (TimestampType, TimestamptzType)
# DuckDB passes over spaces around numbers and dates itself.
_TRIMMED = (BooleanType, TimeType, *_TIMESTAMPS, UUIDType, BinaryType)


@dataclass(frozen=True)
class Target:
    """A column to fill: `source_type` is DuckDB's type of what was delivered (text, mostly)."""

    name: str
    kind: IcebergType
    required: bool
    source_type: str = TEXT
    date_format: str | None = None
    timestamp_format: str | None = None

    @property
    def strptime(self) -> str | None:
        """The format that a text has to have, where the template gives one."""
        if isinstance(self.kind, DateType):
            return self.date_format
        return self.timestamp_format if isinstance(self.kind, _TIMESTAMPS) else None


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
    if target.source_type == "BLOB" and isinstance(target.kind, StringType):
        return f"TRY(decode({raw}))"
    if digits := _shortest(target, raw):
        return _cast_text(target, digits, kind)
    return f"TRY_CAST({raw} AS {kind})"


def checks(target: Target, raw: str, value: str) -> Iterator[Check]:
    """Everything that may be wrong with one field; `value` is the SQL column of its cast."""
    kind = duckdb_type(target.kind)
    if target.source_type == TEXT != kind:
        yield from _text_checks(target, raw, value)
    elif target.source_type != kind:
        yield from _typed_checks(target, raw, value)
    if isinstance(target.kind, DateType | TimestampType | TimestamptzType):
        outside = f"NOT ({_within(value, target.kind)})"
        yield Check(outside, target.name, "range", "outside of the years 0001 to 9999")
    if isinstance(target.kind, TimeType):
        yield Check(f"{value} >= TIME '24:00:00'", target.name, "range", "no time of a day")
    if target.required:
        yield Check(f"{value} IS NULL", target.name, "required", "required, and empty")


def misfit(target: Target, raw: str, value: str) -> str | None:
    """SQL that is true where one of the checks is, and costs little where none is; None: nothing
    can be wrong with the field."""
    wrong = " OR ".join(f"({check.condition})" for check in checks(target, raw, value))
    plain = _plain(target, raw, value)
    # CASE, unlike OR, leaves alone what it does not need.
    return f"CASE WHEN {plain} THEN false ELSE {wrong} END" if plain else wrong or None


def nul_checks(targets: Sequence[Target], raws: Sequence[str]) -> Iterator[Check]:
    """A NUL byte passes every parser, and breaks what comes after it."""
    for target, raw in zip(targets, raws, strict=True):
        if target.source_type == TEXT:
            yield Check(f"contains({raw}, chr(0))", target.name, "nul", "holds a NUL byte")


def _cast_text(target: Target, raw: str, kind: str) -> str:
    if target.strptime:
        return f"CAST({_parsed(target, raw)} AS {kind})"
    match target.kind:
        case BinaryType():
            return f"TRY(unhex(trim({raw}, ' ')))"
        case DecimalType():
            return f"TRY_CAST({_written_out(raw)} AS {kind})"
    if not isinstance(target.kind, _TRIMMED):
        return f"TRY_CAST({raw} AS {kind})"
    # To trim costs more than to cast, and is rarely of use; coalesce does it only where it may be.
    # It may stand there only once: what is asked twice, DuckDB works out beforehand, for all rows.
    text = f"trim({raw}, ' ')"
    if isinstance(target.kind, TimestamptzType):
        text = _with_seconds(text)
    return f"coalesce(TRY_CAST({raw} AS {kind}), TRY_CAST({text} AS {kind}))"


def _plain(target: Target, raw: str, value: str) -> str | None:
    """SQL: the text is such that the value cannot be another one. True of nearly all texts, and
    quicker to see than a form. None where there is no such proof."""
    kind = duckdb_type(target.kind)
    if target.source_type != TEXT or kind == TEXT:
        return None
    written = f"CAST({value} AS {TEXT}) = {raw}"
    match target.kind:
        case DateType() | TimestampType() | TimestamptzType() if target.strptime:
            one = _ONE_TO_ONE.fullmatch(target.strptime) and not isinstance(
                target.kind, TimestamptzType
            )
            written = f"strftime({value}, {literal(target.strptime)}) = {raw}"
            return f"{written} AND {_within(value, target.kind)}" if one else None
        case TimestamptzType():
            # To write it down would take the calendar of DuckDB's ICU extension, which is slow.
            return f"regexp_full_match({raw}, {literal(_MOMENT)}) AND {_within(value, target.kind)}"
        case DateType():
            return f"{written} AND {_within(value, target.kind)}"
        case TimestampType():
            either = f"({written} OR CAST({value} AS {TEXT}) = replace({raw}, 'T', ' '))"
            return f"{either} AND {_within(value, target.kind)}"
        case TimeType():
            return f"{written} AND {value} < TIME '24:00:00'"
    return written


def _within(value: str, kind: IcebergType) -> str:
    """SQL: a date or a moment is in a year that can be kept. NULL is not."""
    last = _LAST if isinstance(kind, DateType) else f"{_LAST} 23:59:59.999999"
    name = duckdb_type(kind)
    return f"{value} BETWEEN CAST('{_FIRST}' AS {name}) AND CAST('{last}' AS {name})"


# Sign, digits, digits after the point, exponent. Without a bound a text could ask for any length.
_SCIENTIFIC = r" *(-?)(\d*)\.?(\d*)[eE]([+-]?\d{1,4}) *"


def _written_out(raw: str) -> str:
    """SQL for the text of a decimal without its exponent: DuckDB 1.5.5 does not see where a text
    with one overflows, and gives up on some that fit."""
    parts = f"regexp_extract({raw}, '^{_SCIENTIFIC}$', ['sign', 'whole', 'fraction', 'exponent'])"
    digits = f"{parts}.whole || {parts}.fraction"
    places = f"(length({parts}.fraction) - TRY_CAST({parts}.exponent AS INTEGER))"
    padded = f"lpad({digits}, greatest(length({digits}), {places})::INTEGER, '0')"
    small = f"left({padded}, -{places}) || '.' || right({padded}, {places})"
    large = f"{digits} || repeat('0', -{places})"
    plain = f"{parts}.sign || CASE WHEN {places} > 0 THEN {small} ELSE {large} END"
    return f"CASE WHEN contains({raw}, 'e') OR contains({raw}, 'E') THEN {plain} ELSE {raw} END"


def _with_seconds(text: str) -> str:
    """SQL for a time of hours and minutes before a zone as DuckDB wants it."""
    return f"regexp_replace({text}, '^(.{{10}}[ T]\\d\\d:\\d\\d)([-+ UZ])', '\\1:00\\2')"


def _parsed(target: Target, raw: str) -> str:
    return f"try_strptime({raw}, {literal(target.strptime or '')})"


def _text_checks(target: Target, raw: str, value: str) -> Iterator[Check]:
    name, kind = target.name, target.kind
    if zoned := _zoned(target, raw):
        yield Check(zoned, name, "zone", f"has a zone, which a {kind} cannot keep")
    # What DuckDB itself writes for a value means that value, whatever it looks like: infinity.
    wrong = (
        f"{value} IS NULL OR CAST({value} AS {TEXT}) <> {raw}"
        f" AND NOT regexp_full_match({raw}, {literal(f' *({_form(target)}) *')})"
    )
    note = f" in the form {target.strptime}" if target.strptime else ""
    yield Check(f"{raw} IS NOT NULL AND ({wrong})", name, "type", f"not a valid {kind}{note}")
    if lost := _lost(target, raw, value):
        yield Check(lost, name, "precision", f"does not fit {kind} exactly")
    if isinstance(kind, FloatType | DoubleType):
        too_large = f"isinf({value}) AND NOT contains(lower({raw}), 'inf')"
        yield Check(too_large, name, "range", f"too large for a {kind}")


def _typed_checks(target: Target, raw: str, value: str) -> Iterator[Check]:
    """For values that come typed, in Parquet."""
    name, kind = target.name, target.kind
    yield Check(f"{raw} IS NOT NULL AND {value} IS NULL", name, "type", f"not a valid {kind}")
    if isinstance(kind, StringType):
        return
    if isinstance(kind, TimestampType | DateType) and "WITH TIME ZONE" in target.source_type:
        yield Check(f"{raw} IS NOT NULL", name, "zone", f"has a zone, which a {kind} cannot keep")
    if digits := _shortest(target, raw):
        changed = _lost(target, digits, value)
    else:
        changed = f"TRY_CAST({value} AS {target.source_type}) IS DISTINCT FROM {raw}"
    if changed:
        yield Check(changed, name, "precision", f"does not fit {kind} exactly")


def _shortest(target: Target, raw: str) -> str | None:
    """SQL for the text of a binary number that a decimal goes by: a whole number as it is, any
    other the shortest that means it. DuckDB 1.5.5 itself makes 1234567.8899999998 of 1234567.89,
    and 1234567.89 of that again; and its text of the float 1073741824 is 1073741800.0."""
    if target.source_type not in ("FLOAT", "DOUBLE") or not isinstance(target.kind, DecimalType):
        return None
    whole = f"CASE WHEN {raw} = trunc({raw}) THEN TRY_CAST({raw} AS HUGEINT) END"
    return f"coalesce(CAST({whole} AS {TEXT}), CAST({raw} AS {TEXT}))"


def _zoned(target: Target, raw: str) -> str | None:
    """SQL: the text says in which zone it is, and the column cannot."""
    if not isinstance(target.kind, DateType | TimestampType):
        return None
    if target.strptime:
        return "true" if re.search(r"%[zZ]", target.strptime.replace("%%", "")) else None
    form = rf" *{_DATE}[ T]{_TIME}{_ZONE} *"
    return f"regexp_full_match({raw}, {literal(form)})"


def _lost(target: Target, raw: str, value: str) -> str | None:
    """SQL: the cast succeeds, and changes the value."""
    match target.kind:
        case DateType() if target.strptime:
            return f"{_parsed(target, raw)} <> {value}"
        case IntegerType() | LongType():
            return f"regexp_matches({raw}, '\\.\\d*[1-9]')"
        case DecimalType(scale=scale):
            return f"regexp_matches({_written_out(raw)}, '\\.\\d{{{scale}}}\\d*[1-9]')"
        case TimestampType() | TimestamptzType() if target.strptime:
            return _nanoseconds(target.strptime, raw)
        case TimeType() | TimestampType() | TimestamptzType():
            return f"regexp_matches({raw}, '\\.\\d{{6}}\\d*[1-9]')"
    return None


def _nanoseconds(strptime: str, raw: str) -> str | None:
    """SQL: there are others than full microseconds. (DuckDB cuts them off, or rounds them before
    anybody can compare.)"""
    if "%n" not in strptime.replace("%%", ""):
        return None
    form = _written(strptime, nanoseconds=r"\d{1,6}0{0,3}")
    return f"NOT regexp_full_match({raw}, {literal(form)})"


def _form(target: Target) -> str:
    """The regular expression of what a text may look like."""
    return _written(target.strptime) if target.strptime else _FORMS[type(target.kind)]


_CLOCK = r"\d{1,2}:\d{1,2}:\d{1,2}"
_DAY = r"\d{4}-\d{1,2}-\d{1,2}"
_NOT_366 = r"[0-2]\d\d|3[0-5]\d|36[0-5]"
# What a directive may stand for. DuckDB takes less of a year too: '01.02.13' is of the year 13;
# and more names of zones: by IST it guesses India, and by CST that its clock has a summer.
_AT_MOST = {
    **dict.fromkeys("ymdHIMSUWwuV", r"\d{1,2}"),
    **dict.fromkeys((f"-{letter}" for letter in "ymdHIMS"), r"\d{1,2}"),
    **dict.fromkeys("YG", r"\d{4}"),
    **dict.fromkeys(("j", "-j"), rf"\d{{1,2}}|{_NOT_366}"),
    **dict.fromkeys("aAbBhp", r"\D+"),
    **dict.fromkeys("TX", _CLOCK),
    "c": rf"{_DAY}\s+{_CLOCK}",
    "x": _DAY,
    "g": r"\d{1,3}",
    "f": r"\d{1,6}",
    "z": r"\D.*",
    "Z": r"\s*(?i:UTC|GMT)?",
}
_FULL = {**dict.fromkeys("ymdHIMS", r"\d{2}"), "j": _NOT_366, "g": r"\d{3}"}
# Day 366 of another year would be the first of the next one.
_LEAP = {
    **dict.fromkeys(("j", "-j"), "366"),
    **dict.fromkeys(("y", "-y"), "[02468]?[048]|[13579][26]"),
    "Y": r"\d\d(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00",
}


def _written(strptime: str, nanoseconds: str = r"\d{1,9}") -> str:
    """The regular expression of a text in this format. Where directives follow each other without
    a sign between them, each has its full width: '2013111' is no %Y%m%d, for nobody could tell its
    month from its day."""
    patterns = {**_AT_MOST, "n": nanoseconds}
    if re.search(r"%-?[a-zA-Z]%-?[a-zA-Z]", strptime):
        patterns |= _FULL
    forms = [_filled(strptime, patterns)]
    if re.search("%-?[yY]", strptime.replace("%%", "")):
        forms.append(_filled(strptime, patterns | _LEAP))
    return rf"\s*({'|'.join(forms)})\s*"


def _filled(strptime: str, patterns: Mapping[str, str]) -> str:
    """The format with a pattern in place of each directive, and of each run of spaces."""
    pieces = re.split(r"%(-?.)", strptime)  # text, directive, text, directive, …, text
    return "".join(
        f"({patterns[piece]})"
        if number % 2 and piece != "%"
        else re.sub(r"(\\[ \t-\r])+", r"\\s+", re.escape(piece))
        for number, piece in enumerate(pieces)
    )
