"""What commands print: a view for people, or JSON for programs; errors on standard error.

Views are cut to the width of a terminal, and never where there is none; JSON is never cut.
"""

import json
import math
import sys
import tempfile
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import NoReturn

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from lakewarden.errors import LakewardenError, Refused, TryAgain


@dataclass
class _Mode:
    """How this process was asked to speak, and whether it said its one JSON document."""

    as_json: bool = False
    said: bool = False


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        """Rich would end with exit code 1, which says that the command failed."""
        raise BrokenPipeError


_mode = _Mode()
console = _Console(highlight=False, emoji=False)
_errors = Console(stderr=True, highlight=False, emoji=False)

_KINDS = {1: "failed", 2: "usage", 3: "refused", 75: "try again", 130: "stopped", 143: "stopped"}
_GAP = 2  # between two columns
_FLEX = 16  # characters that are left of a column that is cut, at the least


def speak(*, as_json: bool) -> None:
    """Choose the way of speaking for this process; nothing was said yet."""
    _mode.as_json = as_json
    _mode.said = False
    console.quiet = as_json


def begin(*, as_json: bool, quiet: bool = False) -> None:
    """Choose the way of speaking, and of logging, for this process."""
    speak(as_json=as_json)
    _begin_logging(quiet=quiet)


def show_json(value: object) -> None:
    """One JSON document on standard output: all of it, or nothing."""
    text = _encoder(indent=2).encode(_plain(value))
    _mode.said = True
    sys.stdout.write(f"{text}\n")


def show_json_rows(rows: Iterable[object]) -> None:
    """A JSON list of any length, one row a line; nothing is printed before the last is known."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="backslashreplace") as kept:
        encoder = _encoder()
        for number, row in enumerate(rows):
            kept.write(f"{',' if number else '['}\n  {_row(row, encoder)}")
        kept.write("\n]\n" if kept.tell() else "[]\n")
        kept.seek(0)
        _mode.said = True
        while chunk := kept.read(1 << 20):
            sys.stdout.write(chunk)


def show_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Sequence[str] = (),
    flex: Sequence[str] = (),
    extra: Sequence[str] = (),
) -> Sequence[str]:
    """A plain table; numbers in `right` stand at the right.

    Where a terminal is too narrow, columns in `extra` are left out, the last one first, and then
    those in `flex` are cut. Returns the columns that were left out."""
    cells = [[visible(cell(value)) for value in row] for row in rows]
    widths = {
        name: max([cell_len(name), *(cell_len(row[number]) for row in cells)])
        for number, name in enumerate(columns)
    }
    fitting = _fitting(widths, flex, extra) if console.is_terminal else widths
    for row, style in [(columns, "bold"), *((row, "") for row in cells)]:
        line = Text(style=style)
        for name, text in zip(columns, row, strict=True):
            if name in fitting:
                line.append_text(_padded(text, fitting[name], at_right=name in right))
                line.append(" " * _GAP)
        line.rstrip()
        console.print(line, soft_wrap=True)
    return [name for name in columns if name not in fitting]


def _fitting(
    widths: Mapping[str, int], flex: Sequence[str], extra: Sequence[str]
) -> Mapping[str, int]:
    """How wide each column is to be, of those that there is room for."""
    fitting = dict(widths)
    least = {n: min(width, _FLEX) if n in flex else width for n, width in widths.items()}
    for name in reversed(extra):
        if _beyond([least[other] for other in fitting]) > 0:
            del fitting[name]
    for name in flex:
        if name in fitting and (beyond := _beyond(fitting.values())) > 0:
            fitting[name] = max(least[name], fitting[name] - beyond)
    return fitting


def _beyond(widths: Collection[int]) -> int:
    """How many characters a line has too many."""
    return sum(widths) + _GAP * (len(widths) - 1) - console.width


def _padded(text: str, width: int, *, at_right: bool) -> Text:
    padded = Text(text)
    padded.truncate(width, overflow="ellipsis")
    padded.align("right" if at_right else "left", width)
    return padded


def say(text: str = "") -> None:
    """A line for people; a long one is left to the terminal, so that commands can be copied."""
    console.print(Text(visible(text, lines=True)), soft_wrap=True)


def error_json(error: LakewardenError) -> Mapping[str, object]:
    """An error for programs."""
    told = {"code": error.code, "message": error.message, "hint": error.hint}
    return {**told, "exit_code": error.exit_code}


def complain(error: LakewardenError) -> None:
    """What happened, to what, and what to do next."""
    if _mode.as_json:
        if not _mode.said:
            show_json({"error": error_json(error)})
        return
    colour = "yellow" if isinstance(error, Refused | TryAgain) else "red"
    _tell(_KINDS[error.exit_code], f"{colour} bold", error.message)
    if error.hint:
        _tell("next", "dim", error.hint)


def _tell(word: str, style: str, text: str) -> None:
    line = Text.assemble((f"{word:<9}", style), " ", visible(text, lines=True))
    _errors.print(line, soft_wrap=True)


def cell(value: object) -> str:
    """A value as people read it."""
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M:%S}"
        case bytes():
            return value.hex()
        case _:
            return str(value)


def visible(text: str, *, lines: bool = False) -> str:
    """Text as it may go to a terminal: what controls one, or cannot be seen, is spelled out.
    `lines`: it may have several."""
    if text.isprintable():
        return text
    return "".join(
        char if _is_seen(char) or (lines and char == "\n") else ascii(char)[1:-1] for char in text
    )


def _is_seen(char: str) -> bool:
    # Spaces that are not ASCII's, such as the ideographic one, count as not printable in Python.
    return char.isprintable() or unicodedata.category(char) == "Zs"


def size(count: int) -> str:
    """Bytes as people read them."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError("the loop returns")


def plural(count: int, one: str, many: str | None = None) -> str:
    """1 file, 2 files."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _encoder(*, indent: int | None = None) -> json.JSONEncoder:
    # Whatever the terminal can show, JSON may be written in ASCII alone; and is on a terminal,
    # which would obey the signs that steer it.
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    readable = utf8 and not sys.stdout.isatty()
    return json.JSONEncoder(
        indent=indent, ensure_ascii=not readable, allow_nan=False, default=_plain
    )


def _row(value: object, encoder: json.JSONEncoder) -> str:
    try:
        return encoder.encode(value)  # the quick way, for there may be millions
    except (TypeError, ValueError):  # a key that is no text; NaN
        return encoder.encode(_plain(value))


def _plain(value: object) -> object:
    """As JSON has it. What JSON has no exact form for becomes text: decimals, dates, NaN and
    infinity (as PostgreSQL has them); bytes become hex."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else _BEYOND.get(value, "NaN")
        case bytes():
            return value.hex()
        case datetime() | date() | time():
            return value.isoformat()
        case Mapping():
            return {_key(key): _plain(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_plain(item) for item in value]
        case _:
            return str(value)


_BEYOND = {math.inf: "Infinity", -math.inf: "-Infinity"}


def _key(key: object) -> str:
    plain = _plain(key)
    return plain if isinstance(plain, str) else json.dumps(plain)


def _begin_logging(*, quiet: bool) -> None:
    """JSON lines where nobody watches; on a terminal, or quiet, only what is worth a look."""
    import logging

    import structlog

    watched = sys.stderr.isatty()
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[
            *processors,
            structlog.dev.ConsoleRenderer() if watched else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.WARNING if watched or quiet else logging.INFO
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
