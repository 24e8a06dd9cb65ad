"""One YAML document with the position of everything in it, so that a mistake can be pointed at."""

import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml
from yaml.events import (
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
)

from lakewarden.errors import WrongUsage

# libyaml's parser, which every wheel of PyYAML has, is some twenty times as fast as one in Python.
_LOADER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader

MAX_BYTES = 1 << 20  # of one file
MAX_DEPTH = 20  # of nesting; the parser recurses
MAX_NUMBER = 100  # characters
_TOLD_AT_ONCE = 50  # mistakes

PathInFile = tuple[str | int, ...]


@dataclass(frozen=True, order=True)
class Position:
    """Both count from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class Mistake:
    """What is wrong at one place of a file."""

    file: Path
    position: Position
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.position.line}:{self.position.column}: {self.message}"


class TemplateInvalid(WrongUsage):
    """A template file is wrong; `mistakes` are all that were found, in reading order, of which
    the message tells the first."""

    def __init__(self, mistakes: Sequence[Mistake], *, hint: str | None = None) -> None:
        told = [str(mistake) for mistake in mistakes[:_TOLD_AT_ONCE]]
        if more := len(mistakes) - len(told):
            told.append(f"and {more:,} more mistake{'s' if more > 1 else ''}")
        super().__init__(
            "\n".join(told),
            hint=hint or "Mend the template at the places named and run the command again.",
        )
        self.mistakes = tuple(mistakes)


@dataclass(frozen=True)
class Document:
    """A file's content as plain values, and where each of them (and its key) stands."""

    file: Path
    content: object
    values: Mapping[PathInFile, Position]
    keys: Mapping[PathInFile, Position]

    def mistake(self, path: PathInFile, message: str, *, at_key: bool = False) -> Mistake:
        """A mistake at a path; at the nearest parent where the path itself is not in the file."""
        known = path
        while known not in self.values:
            known = known[:-1]
        position = (self.keys if at_key and known in self.keys else self.values)[known]
        return Mistake(self.file, position, message)


def read_document(file: Path) -> Document:
    """Read one file of at most MAX_BYTES with one document, no aliases, no tags, no repeated keys.

    Its values are plain data, by YAML 1.2's core schema; its keys are taken as texts. Raises
    TemplateInvalid.
    """
    text = _read_text(file)
    _refuse_unprintable(file, text)
    try:
        return _Reading(file, yaml.parse(text, Loader=_LOADER)).document()
    except yaml.YAMLError as error:
        raise TemplateInvalid([_yaml_mistake(file, error)]) from error


def _read_text(file: Path) -> str:
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # to open a pipe would wait for its other end
            message = "the file cannot be read: it is not a plain file"
            raise TemplateInvalid([_at_start(file, message)])
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        message = f"the file cannot be read: {error.strerror}"
        raise TemplateInvalid([_at_start(file, message)]) from error
    if len(content) > MAX_BYTES:
        raise TemplateInvalid([_at_start(file, f"the file is larger than {MAX_BYTES} bytes")])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        column = error.start - (content[: error.start].rfind(b"\n") + 1) + 1
        message = f"expected UTF-8, found the byte 0x{content[error.start]:02x}"
        raise TemplateInvalid([Mistake(file, Position(line, column), message)]) from error


# What YAML 1.2 does not allow as it is (section 5.1), and what only YAML 1.1 takes for line ends:
# the parser would change the text, and the positions behind it.
_UNPRINTABLE = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufffe\uffff]")
_LINE_END = re.compile("\r\n|\n|\r")


def _refuse_unprintable(file: Path, text: str) -> None:
    found = _UNPRINTABLE.search(text)
    if found is None:
        return
    lines = _LINE_END.split(text[: found.start()])
    code = ord(found[0])
    message = (
        f"not YAML: the character U+{code:04X} as it is; leave it out, or write \\u{code:04x}"
        " between double quotes"
    )
    raise TemplateInvalid([Mistake(file, Position(len(lines), len(lines[-1]) + 1), message)])


# What a parser tells besides is where a stream and a document begin and end.
_TOLD = (DocumentStartEvent, NodeEvent, MappingEndEvent, SequenceEndEvent)


class _Reading:
    """One pass over a parser's events, which makes the values and notes where they stand."""

    def __init__(self, file: Path, events: Iterator[Event]) -> None:
        self.file = file
        self.events = (event for event in events if isinstance(event, _TOLD))
        self.values: dict[PathInFile, Position] = {}
        self.keys: dict[PathInFile, Position] = {}
        self.repeated: list[Mistake] = []

    def document(self) -> Document:
        if next(self.events, None) is None:
            raise TemplateInvalid([_at_start(self.file, "the file is empty")])
        content = self._value(next(self.events), ())
        for event in self.events:
            raise self._refused(event, "expected one document, found a second one")
        if self.repeated:
            raise TemplateInvalid(self.repeated)
        return Document(self.file, content, self.values, self.keys)

    def _value(self, event: Event, path: PathInFile) -> object:
        self._refuse_unusual(event)
        self.values[path] = _position(event)
        if isinstance(event, ScalarEvent):
            return self._scalar(event)
        if len(path) >= MAX_DEPTH:
            raise self._refused(event, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, MappingStartEvent):
            return self._mapping(path)
        return [self._value(item, (*path, at)) for at, item in enumerate(self._items())]

    def _scalar(self, event: ScalarEvent) -> object:
        plain, _ = event.implicit
        try:
            return _resolved(event.value) if plain else event.value
        except ValueError as error:
            raise self._refused(event, "the number has too many digits") from error

    def _mapping(self, path: PathInFile) -> Mapping[str, object]:
        found: dict[str, object] = {}
        for key in self._items():
            if not isinstance(key, ScalarEvent):
                raise self._refused(key, "expected a plain key, found a nested one")
            self._refuse_unusual(key)
            at = (*path, key.value)
            if key.value in found:
                self.repeated.append(
                    Mistake(
                        self.file,
                        _position(key),
                        f"the key {key.value!r} stands here again; first on line"
                        f" {self.keys[at].line}",
                    )
                )
            self.keys.setdefault(at, _position(key))
            found[key.value] = self._value(next(self.events), at)
        return found

    def _items(self) -> Iterator[Event]:
        """What stands in the collection that has just begun."""
        while not isinstance(event := next(self.events), MappingEndEvent | SequenceEndEvent):
            yield event

    def _refuse_unusual(self, event: Event) -> None:
        if not isinstance(event, ScalarEvent | CollectionStartEvent) or event.anchor is not None:
            raise self._refused(
                event, "expected plain YAML, found an anchor or an alias; write the value out"
            )
        if event.tag is not None:
            raise self._refused(event, "expected plain YAML, found a tag; write the value alone")

    def _refused(self, event: Event, message: str) -> TemplateInvalid:
        return TemplateInvalid([Mistake(self.file, _position(event), message)])


_NULL = frozenset(["", "~", "null", "Null", "NULL"])
_TRUE = frozenset(["true", "True", "TRUE"])
_FALSE = frozenset(["false", "False", "FALSE"])
_INTEGER = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NUMBERS: Mapping[re.Pattern[str], Callable[[str], int | float]] = {
    _INTEGER: int,
    _BASED: partial(int, base=0),
    _FLOAT: float,
}
_NO_FINITE_FLOAT = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def _resolved(plain: str) -> bool | int | float | str | None:
    """What a plain scalar means: YAML 1.2.2, section 10.3.2. Raises ValueError for a number that
    is too long: Python neither reads nor shows one of thousands of digits."""
    if plain in _NULL:
        return None
    if plain in _TRUE or plain in _FALSE:
        return plain in _TRUE
    for form, number in _NUMBERS.items():
        if form.fullmatch(plain):
            if len(plain) > MAX_NUMBER:
                raise ValueError(f"longer than {MAX_NUMBER} characters")
            return number(plain)
    if _NO_FINITE_FLOAT.fullmatch(plain):
        return float(plain.replace(".", ""))
    return plain


def shown(value: object) -> str:
    """What was found, in few characters."""
    match value:
        case None:
            return "nothing"
        case dict():
            return "a mapping"
        case list():
            return f"a list of {len(value)}"
        case _:
            text = repr(value)
            return text if len(text) <= 60 else text[:57] + "…"


def _position(event: Event) -> Position:
    mark = event.start_mark
    return Position(mark.line + 1, mark.column + 1) if mark else Position(1, 1)


def _at_start(file: Path, message: str) -> Mistake:
    return Mistake(file, Position(1, 1), message)


def _yaml_mistake(file: Path, error: yaml.YAMLError) -> Mistake:
    """A parser's error with its place, where it tells one."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        problem = " ".join(part for part in (error.context, error.problem) if part)
        if mark is not None:
            return Mistake(file, Position(mark.line + 1, mark.column + 1), f"not YAML: {problem}")
    return _at_start(file, "not YAML: " + str(error).partition("\n")[0])
