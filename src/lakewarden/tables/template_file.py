"""Template files: YAML checked by pydantic, each mistake told with file, line and column."""

import codecs
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from lakewarden.errors import WrongUsage
from lakewarden.tables.consistency import contradictions
from lakewarden.tables.properties import PROPERTY_NAMES
from lakewarden.tables.template import (
    AccessLevel,
    Column,
    CsvOptions,
    Direction,
    FileFormat,
    Level,
    NullOrder,
    PartitionColumn,
    SortColumn,
    Source,
    Template,
)
from lakewarden.tables.types import any_type, canonical_transform, canonical_type
from lakewarden.tables.yaml_file import Document, Mistake, TemplateInvalid, read_document, shown

NAME = r"^[a-z][a-z0-9_]*$"
COLUMN_NAME = r"^(_?[a-z][a-z0-9_]*)$"  # which leading underscores are allowed: consistency.py


class NoTemplates(WrongUsage):
    """The folder of templates is not there, or holds none."""


def _codec(name: str) -> str:
    """The canonical name of a codec that turns bytes into text, piece by piece."""
    expected = "a text encoding that Python knows, such as utf-8 or cp932"
    try:
        found = codecs.lookup(name)
        "".encode(name)  # refuses the codecs that are not text, such as base64
    except (LookupError, ValueError) as error:
        raise ValueError(expected) from error
    if found.incrementaldecoder is None:
        raise ValueError(expected)
    return found.name


def _delimiting(character: str) -> str:
    if len(character) != 1 or not character.isascii() or character in "\r\n\0":
        raise ValueError("one ASCII character that is not a line end")
    return character


def _strptime(text: str) -> str:
    if not _STRPTIME.fullmatch(text):
        raise ValueError("what DuckDB's strptime knows, such as '%Y-%m-%d %H:%M:%S.%f'")
    return text


_STRPTIME = re.compile(r"([^%\0]|%(-?[dHIjmMSy]|[aAbBcfgGhnpTuUVwWxXYzZ%]))+")


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("a text without NUL")
    return text


Name = Annotated[str, Field(pattern=NAME, max_length=255)]
ColumnName = Annotated[str, Field(pattern=COLUMN_NAME, max_length=255)]
AnyName = Annotated[str, Field(min_length=1, max_length=255)]  # of somebody else's column
AnyType = Annotated[str, AfterValidator(any_type)]
Character = Annotated[str, AfterValidator(_delimiting)]
TimeFormat = Annotated[str, AfterValidator(_strptime)]
NullString = Annotated[str, AfterValidator(_without_nul)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Column(_Model):
    name: ColumnName
    type: Annotated[str, AfterValidator(canonical_type)]
    required: bool = False
    description: str | None = None
    pii: bool = False
    access_level: Annotated[AccessLevel, Field(strict=False)] | None = None
    was: Name | None = None
    field_id: Annotated[int, Field(ge=1)] | None = None

    def freeze(self) -> Column:
        default = AccessLevel.RESTRICTED if self.pii else AccessLevel.INTERNAL
        return Column(
            name=self.name,
            type=self.type,
            required=self.required,
            description=(self.description or "").strip(),
            pii=self.pii,
            access_level=self.access_level or default,
            was=self.was,
            field_id=self.field_id,
        )


class _PartitionColumn(_Model):
    column: ColumnName
    transform: Annotated[str, AfterValidator(canonical_transform)] = "identity"


class _SortColumn(_Model):
    column: ColumnName
    direction: Annotated[Direction, Field(strict=False)] = Direction.ASC
    null_order: Annotated[NullOrder, Field(strict=False)] | None = None

    def freeze(self) -> SortColumn:
        ascending = self.direction is Direction.ASC
        default = NullOrder.NULLS_FIRST if ascending else NullOrder.NULLS_LAST
        return SortColumn(self.column, self.direction, self.null_order or default)


class _TheirColumn(_Column):
    name: AnyName
    type: AnyType


class _TheirPartitionColumn(_PartitionColumn):
    column: AnyName
    transform: Annotated[str, Field(min_length=1, max_length=255)] = "identity"


class _TheirSortColumn(_SortColumn):
    column: AnyName


class _CsvOptions(_Model):
    header: bool = True
    delimiter: Character = ","
    quote: Character | None = '"'
    escape: Character | None = None
    skip_rows: Annotated[int, Field(ge=0)] = 0
    encoding: Annotated[str, AfterValidator(_codec)] = "utf-8"
    null_strings: list[NullString] = [""]
    date_format: TimeFormat | None = None
    timestamp_format: TimeFormat | None = None

    def freeze(self) -> CsvOptions:
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return CsvOptions(**{**fields, "null_strings": tuple(dict.fromkeys(self.null_strings))})


class _Source(_Model):
    path: str | None = None
    format: Annotated[FileFormat, Field(strict=False)]
    csv_options: _CsvOptions | None = None

    def freeze(self) -> Source:
        options = self.csv_options.freeze() if self.csv_options else CsvOptions()
        return Source(self.format, options, self.path)


class _Load(_Model):
    dataset: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]


class _Template(_Model):
    name: Name
    namespace: Name
    description: str | None = None
    level: Annotated[Level, Field(strict=False)] = Level.OWNED
    columns: Annotated[Sequence[_Column], Field(min_length=1)]
    partition_spec: Sequence[_PartitionColumn] | None = None
    sort_order: Sequence[_SortColumn] | None = None
    properties: dict[str, bool | int | float | str] | None = None
    tags: dict[str, str] | None = None
    source: _Source | None = None
    load: _Load | None = None
    key: list[ColumnName] | None = None

    def freeze(self) -> Template:
        return Template(
            namespace=self.namespace,
            name=self.name,
            columns=tuple(column.freeze() for column in self.columns),
            partition_spec=tuple(
                PartitionColumn(p.column, p.transform) for p in self.partition_spec or ()
            ),
            sort_order=tuple(s.freeze() for s in self.sort_order or ()),
            properties={
                PROPERTY_NAMES.get(name, name): _property_value(value)
                for name, value in (self.properties or {}).items()
            },
            tags=dict(self.tags or {}),
            description=(self.description or "").strip(),
            source=self.source.freeze() if self.source else None,
            load_dataset=self.load.dataset if self.load else None,
            key=tuple(self.key or ()),
            level=self.level,
        )


class _ObservedTemplate(_Template):
    """Of a table that is only looked at: names and types are as somebody else chose them."""

    columns: Annotated[Sequence[_TheirColumn], Field(min_length=1)]
    partition_spec: Sequence[_TheirPartitionColumn] | None = None
    sort_order: Sequence[_TheirSortColumn] | None = None
    key: list[AnyName] | None = None


def read_templates(folder: Path) -> Mapping[str, Template]:
    """Every *.yaml and *.yml of a folder (not of its subfolders, and as in a shell none whose name
    begins with a dot) by "namespace.name", in order.

    Raises NoTemplates, or TemplateInvalid with the mistakes of all files.
    """
    files = sorted(
        path
        for path in _entries(folder)
        if path.suffix in (".yaml", ".yml") and not path.name.startswith(".")
    )
    if not files:
        raise NoTemplates(
            f"no template in {folder}",
            hint="Put one YAML file a table there; `lakewarden init` writes examples.",
        )
    templates: dict[str, tuple[Path, Template]] = {}
    mistakes: list[Mistake] = []
    for file in files:
        try:
            document = read_document(file)
            template = parse_template(document)
        except TemplateInvalid as error:
            mistakes.extend(error.mistakes)
            continue
        first = templates.setdefault(template.identifier, (file, template))[0]
        if first != file:
            message = f"the table {template.identifier} is described in {first} already"
            mistakes.append(document.mistake(("name",), message))
    if mistakes:
        raise TemplateInvalid(mistakes)
    return {identifier: templates[identifier][1] for identifier in sorted(templates)}


def parse_template(document: Document) -> Template:
    """A document's template; raises TemplateInvalid with every mistake in it."""
    try:
        template = _kind_of(document).model_validate(document.content)
    except ValidationError as error:
        raise TemplateInvalid(_located(document, error.errors(include_url=False))) from error
    found = template.freeze()
    written = template.properties or {}
    wrong = contradictions(found, written=written, csv_options=_has_csv_options(template))
    if wrong:
        raise TemplateInvalid([document.mistake(c.path, c.message, at_key=c.at_key) for c in wrong])
    return found


def _kind_of(document: Document) -> type[_Template]:
    content = document.content
    observed = isinstance(content, dict) and content.get("level") == Level.OBSERVED
    return _ObservedTemplate if observed else _Template


def _entries(folder: Path) -> Sequence[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise NoTemplates(
            f"the folder of templates {folder} cannot be read: {error.strerror}",
            hint="Is this the project's folder? `--project DIR` names another.",
        ) from error


def _has_csv_options(template: _Template) -> bool:
    return template.source is not None and template.source.csv_options is not None


def _property_value(value: bool | int | float | str) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _located(document: Document, errors: Sequence[ErrorDetails]) -> list[Mistake]:
    mistakes: dict[tuple[str | int, ...], Mistake] = {}
    for error in errors:
        path = tuple(error["loc"])
        if error["type"] == "missing":
            message = f"expected the field {path[-1]!r}, which is missing"
            mistakes.setdefault(path, document.mistake(path[:-1], message))
        elif error["type"] == "extra_forbidden":
            message = f"unknown field {path[-1]!r}"
            mistakes.setdefault(path, document.mistake(path, message, at_key=True))
        else:
            known = _known(document, path)
            message = f"{_expectation(error)}, found {shown(error['input'])}"
            mistakes.setdefault(known, document.mistake(known, message))
    return sorted(mistakes.values(), key=lambda mistake: mistake.position)


def _known(document: Document, path: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """The path without the parts that pydantic adds for the members of a union."""
    while path not in document.values:
        path = path[:-1]
    return path


def _expectation(error: ErrorDetails) -> str:
    context: Mapping[str, Any] = error.get("ctx", {})
    match error["type"]:
        case "value_error":
            return f"expected {context['error']}"
        case "string_pattern_mismatch":
            return "expected a name of lower-case letters, digits and _ that begins with a letter"
        case "enum":
            return f"expected {context['expected']}"
        case "int_type" | "float_type" | "bool_type" | "string_type" if (
            error["loc"][0] == "properties"
        ):
            return "expected a string, a number, true or false"
        case "bool_type":
            return "expected true or false"
        case "model_type" | "model_attributes_type" | "dict_type":
            return "expected a mapping of fields"
        case _:
            return (
                error["msg"]
                .replace("Input should be", "expected")
                .replace("should have", "expected to have")
            )
