"""The words of a batch. Each stage's result is the next stage's argument.

delivery ─ receive ─▶ Received ─ load ─▶ Loaded ─ transform ─▶ Transformed ─ audit ─▶ Audited
         ─ publish ─▶ Published
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyiceberg.manifest import DataFile

from lakewarden.aws.objects import ObjectVersion
from lakewarden.lake.model import Branch, Publication


@dataclass(frozen=True)
class Dataset:
    """What `lakewarden.toml` says of one dataset; `tables` maps a template's name to a glob."""

    name: str
    key_form: str  # date | month
    landing: str  # with {batch}, and {part} where there are parts
    tables: Mapping[str, str]
    max_share: float  # above this share of misfit rows the batch is refused
    max_bytes: int  # of one file, unpacked
    parts: Sequence[str] = ()  # complete when every part is; none: delivered as one


@dataclass(frozen=True)
class Run:
    """One attempt to publish one batch."""

    id: str
    dataset: str
    batch: str


@dataclass(frozen=True)
class Counts:
    """records_in = loaded + quarantined, always."""

    records_in: int
    loaded: int
    quarantined: int

    @property
    def share(self) -> float:
        """Of records that do not fit. Divided, 29 of 100 are 0.29; 0.29 times 100 is not 29."""
        return self.quarantined / self.records_in if self.records_in else 0.0


@dataclass(frozen=True)
class DeliveredFile:
    """One file of a delivery, pinned, with what its manifest promises (None: not promised)."""

    name: str  # relative to the landing prefix; with parts, part/name
    table: str  # the template that reads it, "namespace.name"
    version: ObjectVersion
    sha256: str | None
    md5: str | None
    records: int | None


@dataclass(frozen=True)
class Received:
    run: Run
    files: Sequence[DeliveredFile]
    delivery_hash: str  # equal for equal deliveries
    completeness: str  # manifest


@dataclass(frozen=True)
class Misfit:
    """A quarantined record. `raw` is its bytes as delivered: never to be printed unasked."""

    file: str
    file_sha256: str
    line: int  # record number, the header being 1
    column: str | None
    reason: str
    message: str
    raw: bytes


@dataclass(frozen=True)
class LoadedFile:
    name: str
    table: str
    version: ObjectVersion
    sha256: str
    bytes: int
    counts: Counts


@dataclass(frozen=True)
class Loaded:
    """Data files are in the bucket and committed on the branch; main is untouched."""

    received: Received
    branch: Branch
    files: Sequence[LoadedFile]
    data_files: Mapping[str, Sequence[DataFile]]  # table → what was added, for staging again
    quarantine: str | None  # key of the quarantine file
    counts: Counts


@dataclass(frozen=True)
class TestResult:
    """One dbt test, as it ended."""

    __test__ = False  # not a pytest class

    name: str
    status: str  # pass | warn | fail | error
    failures: int
    message: str


@dataclass(frozen=True)
class Transformed:
    """Models are built, the marked ones written to the branch, and tested as written."""

    loaded: Loaded
    models: Sequence[str]
    tests: Sequence[TestResult]
    reads: frozenset[str]  # lake tables that the models read
    artifacts: Path | None  # a folder with dbt's artifacts and log; None where nothing ran


@dataclass(frozen=True)
class Audited:
    transformed: Transformed
    warnings: Sequence[TestResult]
    accepted: TestResult | None  # a failing test that somebody took on their word


@dataclass(frozen=True)
class Published:
    audited: Audited
    publication: Publication
