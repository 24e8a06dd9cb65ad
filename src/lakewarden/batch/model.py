"""The words of a batch. Each stage's result is the next stage's argument.

delivery ─ receive ─▶ Received ─ load ─▶ Loaded ─ transform ─▶ Transformed ─ audit ─▶ Audited
         ─ publish ─▶ Published

A run takes one batch, or several of one dataset: those are received and loaded one by one, and
transformed, audited and published together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from lakewarden.aws.objects import ObjectVersion
from lakewarden.batch.mends import Overlay
from lakewarden.errors import LakewardenError, Refused
from lakewarden.lake.model import Branch, Publication

if TYPE_CHECKING:  # Lambda functions come by here, and have no PyIceberg
    from pyiceberg.manifest import DataFile


@dataclass(frozen=True)
class Complete:
    """How a delivery (each part of it) is known to be whole: by its manifest; by a file of this
    name, written last; or by having lain still for so long, which proves nothing."""

    marker: str | None = None
    settled: timedelta | None = None

    def __str__(self) -> str:
        return "marker" if self.marker else "settled" if self.settled else "manifest"


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
    complete: Complete = Complete()


@dataclass(frozen=True)
class Run:
    """One attempt to change main for these batches of a dataset, in their order."""

    id: str
    dataset: str
    batches: tuple[str, ...]
    models: tuple[str, ...] = ()  # of one that loads nothing: what it makes again

    @property
    def span(self) -> str:
        """The batches as people write them: 2013-01-01, or 2013-01-01..2013-01-31."""
        return span(self.batches)


def span(batches: Sequence[str]) -> str:
    """Batches in order, in few words: the only one, or the first and the last."""
    return batches[0] if len(batches) == 1 else f"{batches[0]}..{batches[-1]}"


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
class Delivery:
    """One batch as it was delivered: whole, and every file pinned."""

    batch: str
    files: Sequence[DeliveredFile]
    hash: str  # equal for equal deliveries
    completeness: str  # how it was known to be complete: manifest | marker | settled
    mends: Overlay = field(default_factory=dict, repr=False)  # row data


@dataclass(frozen=True)
class LeftOut:
    """A batch of a set that this run goes on without, and why."""

    batch: str
    error: LakewardenError


@dataclass(frozen=True)
class Received:
    """Whole deliveries. `same`: batches that are published as they would come out now."""

    run: Run
    deliveries: Sequence[Delivery]
    same: tuple[str, ...] = ()


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


class TooManyMisfits(Refused):
    """More records do not fit than the dataset allows; they are kept at `quarantine` (a key)."""

    def __init__(self, message: str, *, hint: str, quarantine: str, counts: Counts) -> None:
        super().__init__(message, hint=hint)
        self.quarantine = quarantine
        self.counts = counts


@dataclass(frozen=True)
class LoadedFile:
    name: str
    table: str
    version: ObjectVersion
    sha256: str
    bytes: int
    counts: Counts


@dataclass(frozen=True)
class LoadedBatch:
    """One batch, read and written as data files: they are in the bucket, and in no table yet."""

    delivery: Delivery
    files: Sequence[LoadedFile]
    data_files: "Mapping[str, Sequence[DataFile]]"  # by table
    quarantine: str | None  # key of the quarantine file
    counts: Counts


@dataclass(frozen=True)
class Loaded:
    """What a run has put on its branch; main is untouched. `touched`: tables whose rows changed.

    Batches are loaded, or withdrawn (their rows are gone); or neither, where models are to be
    made again."""

    run: Run
    branch: Branch
    touched: frozenset[str]
    batches: Sequence[LoadedBatch] = ()
    withdrawn: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """The batches whose rows are to be as the models make them: `var('batches')`."""
        if self.run.models:
            return self.run.batches
        return (*(one.delivery.batch for one in self.batches), *self.withdrawn)

    @property
    def counts(self) -> Counts:
        """Of all batches together."""
        every = [one.counts for one in self.batches]
        return Counts(
            sum(counts.records_in for counts in every),
            sum(counts.loaded for counts in every),
            sum(counts.quarantined for counts in every),
        )


@dataclass(frozen=True)
class TestResult:
    """One dbt test, as it ended."""

    __test__ = False  # not a pytest class

    name: str
    status: str  # pass | warn | fail | error
    failures: int
    message: str


@dataclass(frozen=True)
class ModelOutput:
    """The rows that a model wrote to its table of the lake, as data files: they serve again where
    main moved elsewhere."""

    node: str  # dbt's unique id
    table: str
    data_files: "Sequence[DataFile]"


@dataclass(frozen=True)
class Transformed:
    """Models are built, the marked ones written to the branch, and tested as written."""

    loaded: Loaded
    models: Sequence[str]
    tests: Sequence[TestResult]
    reads: frozenset[str]  # lake tables that the models read
    artifacts: Path | None  # a folder with dbt's artifacts and log; None where nothing ran
    outputs: Sequence[ModelOutput] = ()

    @property
    def asserted(self) -> frozenset[str]:
        """The tables that have to be where the branch began when it is published."""
        return self.reads | self.loaded.touched | {one.table for one in self.outputs}


@dataclass(frozen=True)
class Audited:
    transformed: Transformed
    warnings: Sequence[TestResult]
    accepted: TestResult | None  # a failing test that somebody took on their word


@dataclass(frozen=True)
class Published:
    audited: Audited
    publication: Publication
