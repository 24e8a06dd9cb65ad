"""One YAML document with the position of everything in it, so that a mistake can be pointed at."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    NodeEvent,
)
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from lakewarden.errors import WrongUsage

MAX_BYTES = 1 << 20  # of one file
MAX_DEPTH = 20  # of nesting; the parser recurses

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
    """A template file is wrong; `mistakes` are all that were found, in reading order."""

    def __init__(self, mistakes: Sequence[Mistake], *, hint: str | None = None) -> None:
        super().__init__(
            "\n".join(str(mistake) for mistake in mistakes),
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
    """Read one file of at most MAX_BYTES with one document, no aliases, no duplicate keys.

    Only plain data are made of it (YAML 1.2's core types). Raises TemplateInvalid.
    """
    text = _read_text(file)
    _check_events(file, text)
    try:
        node = YAML(typ="safe", pure=True).compose(text)
        if node is None:
            raise TemplateInvalid([_at_start(file, "the file is empty")])
        repeated = [Mistake(file, *found) for found in _repeated_keys(node)]
        if repeated:
            raise TemplateInvalid(repeated)
        content: object = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise TemplateInvalid([_yaml_mistake(file, error)]) from error
    values: dict[PathInFile, Position] = {}
    keys: dict[PathInFile, Position] = {}
    _locate(node, (), values, keys)
    return Document(file, content, values, keys)


def _read_text(file: Path) -> str:
    try:
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


def _check_events(file: Path, text: str) -> None:
    """Refuse what the later, recursive passes must not meet. This pass does not recurse."""
    documents, depth = 0, 0
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            depth += isinstance(event, CollectionStartEvent)
            depth -= isinstance(event, CollectionEndEvent)
            documents += isinstance(event, DocumentStartEvent)
            message = _refused(event, documents, depth)
            if message:
                where = Position(event.start_mark.line + 1, event.start_mark.column + 1)
                raise TemplateInvalid([Mistake(file, where, message)])
    except YAMLError as error:
        raise TemplateInvalid([_yaml_mistake(file, error)]) from error


def _refused(event: object, documents: int, depth: int) -> str | None:
    if isinstance(event, AliasEvent) or (isinstance(event, NodeEvent) and event.anchor):
        return "expected plain YAML, found an anchor or an alias; write the value out"
    if documents > 1:
        return "expected one document, found a second one"
    if depth > MAX_DEPTH:
        return f"nested deeper than {MAX_DEPTH} levels"
    return None


def _repeated_keys(node: Node) -> Iterator[tuple[Position, str]]:
    if isinstance(node, MappingNode):
        seen: dict[str, Position] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                yield _position(key), "expected a plain key, found a nested one"
                continue
            if key.value in seen:
                first = seen[key.value].line
                yield (
                    _position(key),
                    f"the key {key.value!r} stands here again; first on line {first}",
                )
            seen.setdefault(key.value, _position(key))
            yield from _repeated_keys(value)
    elif isinstance(node, SequenceNode):
        for value in node.value:
            yield from _repeated_keys(value)


def _locate(
    node: Node,
    path: PathInFile,
    values: dict[PathInFile, Position],
    keys: dict[PathInFile, Position],
) -> None:
    values[path] = _position(node)
    if isinstance(node, MappingNode):
        for key, value in node.value:
            keys[(*path, key.value)] = _position(key)
            _locate(value, (*path, key.value), values, keys)
    elif isinstance(node, SequenceNode):
        for index, value in enumerate(node.value):
            _locate(value, (*path, index), values, keys)


def _position(node: Node) -> Position:
    return Position(node.start_mark.line + 1, node.start_mark.column + 1)


def _at_start(file: Path, message: str) -> Mistake:
    return Mistake(file, Position(1, 1), message)


def _yaml_mistake(file: Path, error: YAMLError) -> Mistake:
    """A parser's error with its place; a reader's error (a control character) has none."""
    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        problem = " ".join(part for part in (error.context, error.problem) if part)
        if mark is not None:
            return Mistake(file, Position(mark.line + 1, mark.column + 1), f"not YAML: {problem}")
    return _at_start(file, "not YAML: " + str(error).partition("\n")[0])
