"""A lake on Nessie.

A branch is a Nessie branch of main, whose name is never used again. A publish is one commit on
main: the branch's tables, the run's fence, the head with the next version, and as its properties
what was published. It is made at the hash of main at which every table that the run read or wrote
was found where the branch began; Nessie makes it only if none of the keys that it names has changed
since. Where one has, main is looked at again: either a table moved, and the run has to be staged
again, or only the head did, and the commit is made at the newer hash.

An answer that is lost leaves open whether the commit was made, or will be. The fence's key is
written as new, so of all commits of a run only one can ever be made: looking, and making it again
where it is not there, is safe.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime

import structlog
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from lakewarden.aws.objects import Objects
from lakewarden.errors import Failed
from lakewarden.lake import nessie_history
from lakewarden.lake.file_io import file_io_properties
from lakewarden.lake.model import (
    MAIN,
    Branch,
    BranchUnknown,
    CatalogUnavailable,
    Contribution,
    Pin,
    Publication,
    TakenOver,
)
from lakewarden.lake.nessie_api import KeyMoved, NessieApi, ReferenceMissing
from lakewarden.lake.nessie_catalog import BranchCatalog
from lakewarden.lake.nessie_keys import (
    HEAD,
    ROOT,
    RUNS,
    OpenBranch,
    PublishedFence,
    check_format,
    fence,
    head_content,
    is_table,
    published_content,
    read_fence,
    root_content,
    table_name,
    taken_over_content,
    version_of,
)
from lakewarden.lake.nessie_model import (
    TABLE,
    Content,
    Entry,
    Key,
    Operation,
    Put,
    Reference,
    namespace,
)
from lakewarden.lake.nessie_publish import Staged, moved, operations, read_keys
from lakewarden.lake.nessie_records import ROUNDS, Records, too_busy
from lakewarden.lake.pinned import load_pinned
from lakewarden.lake.refusals import (
    check_contributions,
    fenced,
    name_taken,
    no_branch,
    no_version,
    refuse_moved,
    wrong_name,
)

_log = structlog.get_logger(__name__)

_NAME = re.compile(r"[A-Za-z]([A-Za-z0-9./_-]{0,198}[A-Za-z0-9_-])?")
_LOST_ANSWERS = 2  # of one publish or take-over, before it is told that the catalog is away


class MainMissing(Failed):
    """Nessie has no branch that is main."""


@dataclass(frozen=True)
class NessieConfig:
    """uri: `http://host:19120`. token: the bearer token, where one is asked for. main: Nessie's
    name of main. records: the branch with our records. warehouse: Nessie's name of it. author:
    who stands in the log."""

    uri: str
    warehouse: str = "lake"
    main: str = MAIN
    records: str = "lakewarden"
    author: str = "lakewarden"


@dataclass(frozen=True)
class _Main:
    """Main at one hash: our own records, and what became of a run by then."""

    at: Reference
    records: Mapping[Key, Content]
    fence: PublishedFence | TakenOver | None

    @property
    def version(self) -> int:
        return version_of(self.records.get(HEAD))


class NessieLake:
    """The Protocol `Lake` on a Nessie. May be shared by threads.

    file_io: PyIceberg's `s3.*` properties. objects: the warehouse's bucket, asked for when it is
    first needed; without it metadata too go by PyIceberg's own road."""

    def __init__(
        self,
        config: NessieConfig,
        file_io: Mapping[str, str],
        *,
        token: str | None = None,
        objects: Callable[[], Objects] | None = None,
    ) -> None:
        self._config = config
        self._api = NessieApi(config.uri, token)
        self._token = token
        self._records = Records(self._api, config.records, config.author)
        self._file_io = file_io_properties(file_io, objects)

    def __repr__(self) -> str:
        return f"NessieLake({self._api.uri!r}, {self._config.main!r})"

    def close(self) -> None:
        """Release connections; the next call opens new ones."""
        self._api.close()

    def pin(self, ref: str = MAIN) -> Pin:
        """Its version is the hash of the commit that made main what it is: the newest that is not
        a tombstone, which moves no table."""
        if ref == MAIN:
            return self._pin_main()
        if self._records.open(ref) is None:
            raise no_branch(ref)
        try:
            at, found = self._api.entries(ref, only=TABLE)
        except ReferenceMissing as error:
            raise no_branch(ref) from error
        return Pin(ref, at.hash, _tables(found))

    def pin_at(self, version: int) -> Pin:
        """Main as it was right after a publication, by the hash of its commit."""
        accept = nessie_history.with_version(version)
        for commit in self._api.history(self._main().name, None, accept, most=1):
            return self._pin_main(commit.hash)
        raise no_version(version)

    def begin(self, name: str, run: str, at: datetime) -> Branch:
        self._check_name(name)
        main = self._look(run)
        self._refuse_fenced(run, main)
        base = self._pin_main(main.at.hash)
        self._records.take(OpenBranch(name, run, at, main.at.hash, base.version))
        try:
            self._api.create_branch(name, main.at.hash)
        except KeyMoved as error:  # somebody else's branch
            self._records.forget(name)
            raise name_taken(name) from error
        self._sweep()
        # A take-over may have come after the first look, and ended the branches before this one.
        self._refuse_fenced(run, self._look(run))
        return Branch(name, run, base, at)

    def catalog(self, branch: Branch) -> Catalog:
        self._open(branch)
        config = self._config
        return BranchCatalog(
            branch.name, self._api.uri, self._token, config.warehouse, self._file_io
        )

    def load(self, pin: Pin, table: str) -> Table:
        return load_pinned(pin, table, self._file_io)

    def publish(
        self,
        branch: Branch,
        contributions: Sequence[Contribution],
        *,
        reads: AbstractSet[str],
        at: datetime,
    ) -> Publication:
        check_contributions(contributions)
        staged: Staged | None = None
        lost: list[CatalogUnavailable] = []
        for _ in range(ROUNDS):
            main = self._look(branch.run)
            match main.fence:
                case PublishedFence() as already:
                    self._tidy([already.branch])
                    return self._publication(branch.run, main.at)
                case TakenOver() as tombstone:
                    raise fenced(branch.run, tombstone)
            if staged is None:
                staged = self._staged(branch, reads)
            here = self._api.contents(main.at.name, main.at.hash, staged.keys)
            refuse_moved(branch, moved(staged.base, here))
            version, changes = main.version + 1, staged.changes
            record = published_content(branch.run, version, branch.name, at)
            made = self._commit(
                main.at,
                [
                    *self._tables_of(branch, staged, main, here),
                    *_own(main, record, branch.run),
                    _put(main, HEAD, head_content(version)),
                ],
                message=nessie_history.message_of(version, contributions),
                properties=nessie_history.publication_properties(
                    version, branch.run, at, contributions, changes
                ),
                lost=lost,
            )
            if made:
                self._tidy([branch.name])
                return Publication(version, branch.run, at, contributions[0], changes)
        raise too_busy(self._api.uri)

    def outcome(self, run: str) -> Publication | TakenOver | None:
        main = self._look(run)
        if isinstance(main.fence, PublishedFence):
            return self._publication(run, main.at)
        return main.fence

    def take_over(self, run: str, *, by: str, at: datetime) -> Publication | TakenOver:
        lost: list[CatalogUnavailable] = []
        for _ in range(ROUNDS):
            main = self._look(run)
            match main.fence:
                case PublishedFence() as published:
                    self._records.end([published.branch])
                    return self._publication(run, main.at)
                case TakenOver() as tombstone:
                    self._end_all_of(run)
                    return tombstone
            made = self._commit(
                main.at,
                _own(main, taken_over_content(run, by, at), run),
                message=f"run {run} was taken over",
                properties=nessie_history.tombstone_properties(run),
                lost=lost,
            )
            if made:
                self._end_all_of(run)
                return TakenOver(run, by, at)
        raise too_busy(self._api.uri)

    def publications(
        self, dataset: str | None = None, batch: str | None = None
    ) -> Sequence[Publication]:
        accept = nessie_history.of_batch(dataset, batch)
        return tuple(
            one
            for commit in self._api.history(self._main().name, None, accept)
            for one in nessie_history.publications_of(commit)
            if dataset in (None, one.contribution.dataset)
            and batch in (None, one.contribution.batch)
        )

    def branches(self) -> Sequence[Branch]:
        there = {one.name for one in self._api.references()}
        records = [one for one in self._records.all_open() if one.name in there]
        over = self._ended(records)
        return tuple(
            Branch(
                one.name,
                one.run,
                Pin(MAIN, one.version, self._tables_at(one.base)),
                one.at,
            )
            for one in records
            if one.name not in over
        )

    def discard(self, name: str) -> None:
        if self._records.is_known(name):  # somebody else's branches are none of ours
            self._records.end([name])

    def _commit(
        self,
        main: Reference,
        operations: Sequence[Operation],
        *,
        message: str,
        properties: Mapping[str, Sequence[str]],
        lost: list[CatalogUnavailable],
    ) -> bool:
        """Whether it was made for certain; where not, main has to be looked at again. Answers that
        did not come are added to `lost`; raises the last that is borne."""
        author = self._config.author
        try:
            self._api.commit(
                main, operations, message=message, author=author, properties=properties
            )
        except KeyMoved:
            return False
        except CatalogUnavailable as away:
            lost.append(away)
            if len(lost) == _LOST_ANSWERS:
                raise
            return False
        return True

    def _main(self) -> Reference:
        found = self._api.reference(self._config.main)
        if found is None:
            raise MainMissing(
                f"Nessie at {self._api.uri} has no branch {self._config.main}",
                hint="Correct `main` of the catalog, or make the branch."
                " If the branch was there before, its store may have been restored in part.",
            )
        return found

    def _look(self, run: str) -> _Main:
        """Main as it is now, and a run's outcome by it."""
        at = self._main()
        found = self._api.contents(at.name, at.hash, [ROOT, RUNS, HEAD, fence(run)])
        check_format(found.get(ROOT))
        return _Main(at, found, read_fence(run, found.get(fence(run))))

    def _refuse_fenced(self, run: str, main: _Main) -> None:
        match main.fence:
            case PublishedFence():
                raise fenced(run, self._publication(run, main.at))
            case TakenOver() as tombstone:
                self._end_all_of(run)
                raise fenced(run, tombstone)

    def _publication(self, run: str, at: Reference) -> Publication:
        """The first contribution of a run that has published, by main at this hash."""
        accept = nessie_history.of_run(run)
        for commit in self._api.history(at.name, at.hash, accept, most=1):
            return list(nessie_history.publications_of(commit))[-1]
        raise nessie_history.PublicationUnreadable(
            f"run {run} has published, and no commit on main tells what",
            hint="Was main's history rewritten? Look at it in Nessie.",
        )

    def _pin_main(self, at: str | None = None) -> Pin:
        main = self._config.main
        try:
            where, found = self._api.entries(main, at, only=TABLE)
        except ReferenceMissing:
            self._main()
            raise
        newest = self._api.history(main, where.hash, nessie_history.NO_TOMBSTONE, most=1)
        version = next((one.hash for one in newest), where.hash)
        return Pin(MAIN, version, _tables(found))

    def _tables_at(self, at: str) -> Mapping[str, str]:
        return _tables(self._api.entries("", at, only=TABLE)[1])

    def _open(self, branch: Branch) -> OpenBranch:
        found = self._records.open(branch.name)
        if found is None or found.run != branch.run or self._api.reference(branch.name) is None:
            raise no_branch(branch.name)
        return found

    def _staged(self, branch: Branch, reads: AbstractSet[str]) -> Staged:
        """What is to be published. Raises BranchUnknown, or RunFenced where that is why."""
        try:
            base = self._open(branch).base
            differences = self._api.differences(base, branch.name)
        except (BranchUnknown, ReferenceMissing) as error:
            self._refuse_fenced(branch.run, self._look(branch.run))
            raise no_branch(branch.name) from error
        keys = read_keys(reads)
        found = self._api.contents("", base, keys)
        return Staged(differences, {key: found.get(key) for key in keys})

    def _tables_of(
        self, branch: Branch, staged: Staged, main: _Main, here: Mapping[Key, Content]
    ) -> Sequence[Operation]:
        missing = {key for key in staged.above if key not in here}
        spaces = self._api.contents(branch.name, None, missing) if missing else {}
        inhabited: AbstractSet[Key] = frozenset()
        if any(one.after is None for one in staged.namespaces.values()):
            dropped = {one.key for one in staged.differences if one.after is None}
            _, held = self._api.entries(main.at.name, main.at.hash)
            inhabited = {
                one.name[:depth]
                for one in held
                if one.name not in dropped
                for depth in range(1, len(one.name))
            }
        return list(operations(staged, here, inhabited, spaces))

    def _ended(self, records: Sequence[OpenBranch]) -> AbstractSet[str]:
        """Those whose run has ended, by main: what a crash left before it could tidy up."""
        at = self._main()
        keys = {fence(one.run): one.run for one in records}
        found = self._api.contents(at.name, at.hash, keys) if keys else {}
        ends = {run: read_fence(run, found.get(key)) for key, run in keys.items()}
        return {
            one.name
            for one in records
            if isinstance(end := ends[one.run], TakenOver)
            or (isinstance(end, PublishedFence) and end.branch == one.name)
        }

    def _end_all_of(self, run: str) -> None:
        self._records.end([one.name for one in self._records.all_open() if one.run == run])

    def _sweep(self) -> None:
        self._tidy(sorted(self._ended(self._records.all_open())))

    def _tidy(self, names: Sequence[str]) -> None:
        """End branches whose run has ended. What was decided stands, whatever becomes of them."""
        try:
            self._records.end(names)
        except CatalogUnavailable as away:
            _log.warning("branches are left to the next run", branches=names, why=away.message)

    def _check_name(self, name: str) -> None:
        ours = (MAIN, self._config.main, self._config.records)
        if name in ours or not _NAME.fullmatch(name) or ".." in name:
            raise wrong_name(
                name,
                "1 to 200 of A-Z, a-z, 0-9 and ./_-, beginning with a letter, not one of "
                + ", ".join(sorted(set(ours))),
            )


def _tables(entries: Sequence[Entry]) -> Mapping[str, str]:
    """Metadata location by "namespace.table"."""
    return {
        table_name(one.name): one.content.metadata_location
        for one in entries
        if is_table(one.name, one.content) and one.content and one.content.metadata_location
    }


def _own(main: _Main, record: Content, run: str) -> list[Operation]:
    """The fence of a run, as a key that is new, and what it lies in."""
    above = [(ROOT, root_content()), (RUNS, namespace(RUNS, {}))]
    made = [Put(key, content, None) for key, content in above if key not in main.records]
    return [*made, Put(fence(run), record, None)]


def _put(main: _Main, key: Key, content: Content) -> Operation:
    now = main.records.get(key)
    return Put(key, content, now.id if now else None)
