"""The words of the lake: pins, branches, publications, and the interface of every catalog.

A branch is a branch of the whole catalog. A reader takes a Pin and reads nothing else, so it can
never see two versions. A publish moves main for all tables in one atomic step, or not at all.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from lakewarden.errors import Failed, TryAgain, WrongUsage

if TYPE_CHECKING:  # Lambda functions come by here, and have no PyIceberg
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

MAIN = "main"


@dataclass(frozen=True)
class Pin:
    """One version of every table: `tables` maps "namespace.table" to a metadata location."""

    ref: str
    version: str  # SQL: the publication's number; Nessie: the hash of a commit
    tables: Mapping[str, str]


@dataclass(frozen=True)
class Branch:
    """Where one run writes. `name` is never used again; `base` is main as it was at the start."""

    name: str
    run: str
    base: Pin
    created_at: datetime


@dataclass(frozen=True)
class TableChange:
    """A table's metadata location before and after; None where it does not exist."""

    before: str | None
    after: str | None


@dataclass(frozen=True)
class Override:
    """A publish in spite of one failing test: which, why, and on whose word."""

    test: str
    reason: str
    by: str


@dataclass(frozen=True)
class Contribution:
    """What a run brings to main: one batch of one dataset; or, with both None, a change that is
    not a batch (`table apply`), told by `summary`. `withdrawn`: the batch was taken out again;
    `inputs_hash` is then that of what was taken out. `project`: the digest of the dbt project by
    which the models were made, where any were."""

    dataset: str | None
    batch: str | None
    inputs_hash: str
    counts: Mapping[str, int]  # in, loaded, quarantined
    override: Override | None = None
    summary: str = ""
    withdrawn: bool = False
    models: bool = False  # models made again, without a batch
    project: str | None = None


@dataclass(frozen=True)
class Publication:
    """One contribution, as it was published. Several of one version were published together."""

    version: int
    run: str
    at: datetime
    contribution: Contribution
    tables: Mapping[str, TableChange]


@dataclass(frozen=True)
class TakenOver:
    """The tombstone of a dead run: it can never publish any more."""

    run: str
    by: str
    at: datetime


class CatalogUnavailable(TryAgain):
    """The catalog did not answer."""


class CatalogFormatUnknown(Failed):
    """What a lake keeps in the catalog was written by another release."""


class BaseMoved(TryAgain):
    """Tables (`tables`) that the run read or wrote are no longer where the branch began."""

    def __init__(self, message: str, *, tables: Sequence[str], hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.tables = tuple(tables)


class RunFenced(Failed):
    """This run was taken over, or has published already; it cannot publish."""


class BranchUnknown(WrongUsage):
    """No branch of that name."""


class BranchNameTaken(WrongUsage):
    """A branch of that name exists, or existed."""


class VersionUnknown(WrongUsage):
    """No publication has that version."""


class Lake(Protocol):
    """A catalog with branches. Every method may raise CatalogUnavailable."""

    def pin(self, ref: str = MAIN) -> Pin:
        """All tables of main or of a branch, in one consistent read; raises BranchUnknown."""
        ...

    def pin_at(self, version: int) -> Pin:
        """Main as it was right after a publication; raises VersionUnknown."""
        ...

    def begin(self, name: str, run: str, at: datetime) -> Branch:
        """A new branch of main. A name serves once: raises BranchNameTaken; raises RunFenced
        if the run has an outcome."""
        ...

    def catalog(self, branch: Branch) -> "Catalog":
        """The branch through PyIceberg, to write: what is done there leaves main as it is."""
        ...

    def load(self, pin: Pin, table: str) -> "Table":
        """A table as pinned, to read; KeyError where the pin has no such table."""
        ...

    def publish(
        self,
        branch: Branch,
        contributions: Sequence[Contribution],
        *,
        reads: AbstractSet[str],
        at: datetime,
    ) -> Publication:
        """Move main to the branch in one atomic step, write the publications and the run's fence,
        and remove the branch. Asserts that every table written on the branch, and every one in
        `reads`, is still where the branch began (raises BaseMoved; nothing changed).
        Raises RunFenced where the run was taken over. The run's own second publish after a lost
        answer is found and returned, not repeated. Returns the first contribution's publication."""
        ...

    def outcome(self, run: str) -> Publication | TakenOver | None:
        """What became of a run, from its fence."""
        ...

    def take_over(self, run: str, *, by: str, at: datetime) -> Publication | TakenOver:
        """Fence a dead run: a tombstone, or its publication where it had published after all."""
        ...

    def publications(
        self, dataset: str | None = None, batch: str | None = None
    ) -> Sequence[Publication]:
        """Newest first."""
        ...

    def branches(self) -> Sequence[Branch]:
        """Branches that exist, oldest first."""
        ...

    def discard(self, name: str) -> None:
        """Remove a branch; discarding what is gone is fine. Data files are left to maintenance."""
        ...
