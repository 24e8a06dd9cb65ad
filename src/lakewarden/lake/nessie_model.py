"""What Nessie's REST API v2 is told and tells: references, contents, commits and what they hold."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel

NO_ANCESTOR = "2e1cfa82b035c26cbbbdae632cea070514eb8b773f616aaeaf668e2f0be8f10d"
"""The hash of what has no commit yet; the same on every Nessie."""

TABLE = "ICEBERG_TABLE"
NAMESPACE = "NAMESPACE"

Key = tuple[str, ...]


class Answer(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class Reference(Answer):
    """A branch or tag and the hash it is at; `name` is empty where only a hash was asked for."""

    name: str = ""
    hash: str


class Content(Answer):
    """What a key holds. Fields that we have no use for are kept, to be written back."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="allow"
    )

    type: str
    id: str | None = None
    metadata_location: str | None = None  # of a table
    elements: tuple[str, ...] | None = None  # of a namespace
    properties: Mapping[str, str] = {}  # of a namespace

    def body(self, content_id: str | None) -> dict[str, JsonValue]:
        """As it is written, under this id; None for a key that is new where it is written."""
        told: dict[str, JsonValue] = self.model_dump(
            mode="json", by_alias=True, exclude_none=True, exclude={"id"}
        )
        if self.type != NAMESPACE:
            told.pop("properties", None)
        return told if content_id is None else {**told, "id": content_id}


def namespace(key: Key, properties: Mapping[str, str]) -> Content:
    """A namespace: Nessie's own way to keep a few named texts under a key."""
    return Content(type=NAMESPACE, elements=key, properties=dict(properties))


def _elements(told: object) -> object:
    return told["elements"] if isinstance(told, dict) and "elements" in told else told


_Key = Annotated[Key, BeforeValidator(_elements)]


class Entry(Answer):
    """A key, with what it holds where that was asked for."""

    name: _Key
    type: str
    content: Content | None = None


class Difference(Answer):
    """A key that two references hold differently."""

    key: _Key
    before: Content | None = Field(None, alias="from")
    after: Content | None = Field(None, alias="to")


class Commit(Answer):
    """What a commit tells of itself."""

    hash: str
    message: str = ""
    all_properties: Mapping[str, tuple[str, ...]] = {}


@dataclass(frozen=True)
class Put:
    """Write a key. `content_id`: that of what is there; None where nothing may be."""

    key: Key
    content: Content
    content_id: str | None


@dataclass(frozen=True)
class Delete:
    key: Key


@dataclass(frozen=True)
class Unchanged:
    """The key is still what it was at the expected hash."""

    key: Key


Operation = Put | Delete | Unchanged


class Page(Answer):
    token: str | None = None
    has_more: bool = False


class References(Page):
    references: tuple[Reference, ...]


class Entries(Page):
    entries: tuple[Entry, ...]
    effective_reference: Reference


class Differences(Page):
    diffs: tuple[Difference, ...]


class LogEntry(Answer):
    commit_meta: Commit


class Log(Page):
    log_entries: tuple[LogEntry, ...]


class Referred(Answer):
    reference: Reference


class Committed(Answer):
    target_branch: Reference


class KeyContent(Answer):
    key: _Key
    content: Content


class Contents(Answer):
    contents: tuple[KeyContent, ...]


class Config(Answer):
    defaults: Mapping[str, str]


class Problem(Answer):
    """Of the REST API."""

    message: str
    error_code: str

    @property
    def text(self) -> str:
        return self.message


class IcebergError(Answer):
    message: str


class IcebergProblem(Answer):
    """Of Iceberg REST."""

    error: IcebergError

    @property
    def text(self) -> str:
        return self.error.message
