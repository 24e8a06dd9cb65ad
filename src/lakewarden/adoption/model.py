"""The words of a survey: what was found in somebody else's lakehouse, and what fits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from lakewarden.errors import TryAgain, WrongUsage
from lakewarden.tables.template import FileFormat, Level, Template


class CatalogUnreadable(TryAgain):
    """The catalog that is to be adopted did not answer, or refused."""


class CatalogKindUnknown(WrongUsage):
    """The address is of no kind of catalog that can be adopted."""


class FolderTaken(WrongUsage):
    """What adopt writes goes into a new folder only."""


class LandingElsewhere(WrongUsage):
    """A landing prefix is not of the form s3://bucket/prefix, or lies in another bucket."""


class DbtProjectUnreadable(WrongUsage):
    """The folder holds no dbt project, or one whose files cannot be read."""


class Obstacle(StrEnum):
    """Why a table is not adopted, or not beyond a level; the names are stable."""

    # Not adopted at all.
    VIEW = "view"
    NAME = "name"
    METADATA = "metadata-unreadable"
    FORMAT_VERSION = "format-version"
    FILE_FORMAT = "file-format"
    NO_FIELD_IDS = "no-field-ids"
    ENCRYPTED = "encrypted"
    # Observed, and no more.
    EQUALITY_DELETES = "equality-deletes"
    COLUMN_TYPES = "column-types"
    COLUMN_NAMES = "column-names"
    TWIN_COLUMNS = "twin-columns"
    OUR_COLUMNS = "our-columns"
    PARTITIONS = "partitions"
    SORT_ORDER = "sort-order"
    ELSEWHERE = "elsewhere"
    FILES_MISSING = "files-missing"


@dataclass(frozen=True)
class Reason:
    """One obstacle, in words."""

    obstacle: Obstacle
    message: str


@dataclass(frozen=True)
class Adopted:
    """A table that can be adopted. `level` is the highest that it may be given; its template says
    observed, and raising it is somebody's decision. `reasons`: why it goes no further. `notes`:
    what is worth knowing."""

    table: str
    level: Level
    template: Template
    reasons: Sequence[Reason] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class NotAdopted:
    """A table, or a view, that is left alone, and why."""

    table: str
    reasons: Sequence[Reason]


@dataclass(frozen=True)
class FileFacts:
    """What the files of a table's current snapshot tell. `sampled`: not all manifests were read."""

    formats: frozenset[str] = frozenset()
    position_deletes: int = 0  # delete files
    equality_deletes: int = 0
    deletion_vectors: int = 0
    has_field_ids: bool = True
    missing: str | None = None  # a file that is named and is not there
    sampled: bool = False


@dataclass(frozen=True)
class Layout:
    """One way in which deliveries lie under a landing prefix.

    `landing` as lakewarden.toml has it, with {batch}; None where it cannot be written there, and
    `fault` says why. `globs`: file names of a delivery, with what changes from one to the next as
    `*`. Of the batches, `first` and `last` by their keys."""

    place: str
    form: str | None  # date | month
    landing: str | None
    globs: Sequence[str]
    batches: int
    files: int
    first: str
    last: str
    complete: str = "settled:15m"
    fault: str | None = None


@dataclass(frozen=True)
class Proposal:
    """A dataset for lakewarden.toml: a layout, and the tables that its globs go to."""

    name: str
    layout: Layout
    tables: Mapping[str, str]  # table = glob
    formats: Mapping[str, FileFormat]  # by table
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class LandingSurvey:
    """What lies under one landing prefix. `strange`: keys that fit no layout, a few of them."""

    prefix: str
    proposals: Sequence[Proposal]
    unfit: Sequence[tuple[Layout, str]]  # recognised, and why they are no dataset
    strange: Sequence[str]
    strange_count: int
    cut_off: bool = False  # there is more than was looked at


@dataclass(frozen=True)
class ModelFound:
    """A dbt model, and the catalog's table of the same name, where there is one."""

    name: str
    materialized: str
    table: str | None
    marked: bool


@dataclass(frozen=True)
class DbtSurvey:
    """What a dbt project is made of. `by`: what was read, its manifest or its files."""

    name: str
    by: str
    adapter: str | None
    sources: Mapping[str, str | None]  # schema.name = the table that it is
    models: Sequence[ModelFound]
    changes: Sequence[str] = ()  # what would have to change


@dataclass(frozen=True)
class CatalogSurvey:
    """The catalog, without its secrets. `usable`: whether the project can go on with it."""

    kind: str  # sql | rest
    uri: str
    name: str
    secret: bool  # something was left out of the uri
    note: str = ""


@dataclass(frozen=True)
class Place:
    """What the settings need besides: where all of it is."""

    project: str
    env: str
    account: str
    region: str
    bucket: str
    warehouse: str


@dataclass(frozen=True)
class Survey:
    """All that was found."""

    place: Place
    catalog: CatalogSurvey
    tables: Sequence[Adopted | NotAdopted]
    landings: Sequence[LandingSurvey] = ()
    dbt: DbtSurvey | None = None
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def adopted(self) -> Sequence[Adopted]:
        return [one for one in self.tables if isinstance(one, Adopted)]

    @property
    def left(self) -> Sequence[NotAdopted]:
        return [one for one in self.tables if isinstance(one, NotAdopted)]
