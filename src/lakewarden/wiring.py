"""The door for every front end (the command line, Python, …), and the one clock.

`Project` does nothing itself; each method says which room does. What its environment is made of
is chosen in environment.py.
"""

import getpass
import logging
import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from lakewarden.environment import Environment
from lakewarden.errors import Refused, WrongUsage
from lakewarden.settings import DatasetSettings, find_project, load_settings, task_settings

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from lakewarden.adoption.catalogs import CatalogAddress
    from lakewarden.adoption.model import Survey
    from lakewarden.aws.clients import Connection
    from lakewarden.aws.objects import Objects
    from lakewarden.batch.calendar import Calendar
    from lakewarden.batch.conductor import Outcome, StageDone, Terms, Workshop
    from lakewarden.batch.delivery.copy import Copied
    from lakewarden.batch.delivery.deliver import Progress
    from lakewarden.batch.delivery.keys import Landing
    from lakewarden.batch.delivery.manifest import Manifest
    from lakewarden.batch.diff import TableDiff
    from lakewarden.batch.export import Exported
    from lakewarden.batch.history import RunRecord
    from lakewarden.batch.mending import Correction
    from lakewarden.batch.mends import Mend
    from lakewarden.batch.model import Dataset, Delivery
    from lakewarden.batch.models.selection import Graph
    from lakewarden.batch.overview import BatchState
    from lakewarden.batch.rollback import RolledBack
    from lakewarden.batch.run import Delivered
    from lakewarden.batch.waiting import Lying
    from lakewarden.lake.model import Pin, Publication, TableChange
    from lakewarden.records.lease import Holder
    from lakewarden.tables.changes import TablePlan
    from lakewarden.tables.drift import Finding


__all__ = ["DatasetUnknown", "Project", "now", "open_project", "task_settings"]


class DatasetUnknown(WrongUsage):
    """lakewarden.toml has no such dataset."""


class TemplateUnknown(WrongUsage):
    """A table that a dataset names has no template, or more than one."""


class BatchUnnamed(WrongUsage):
    """A folder does not say which batch it holds."""


class ManifestNotWritten(WrongUsage):
    """The folder does not take the manifest: it is read-only, or full."""


class AcceptWithoutReason(WrongUsage):
    """A failing test is accepted with a reason, or not at all."""


GROUP = 31  # batches that are published together: a month of days


def now() -> datetime:
    """The clock, in UTC."""
    return datetime.now(UTC)


def new_run_id(at: datetime) -> str:
    """Sorts by time (to the millisecond), and is never made twice."""
    return f"{at:%Y%m%dT%H%M%S}{at.microsecond // 1000:03d}-{secrets.token_hex(3)}"


def _user() -> str:
    """Who gives the command, as this machine knows them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container, a uid may have no name
        return f"uid {os.getuid()}"


class Asked(TypedDict, total=False):
    """How a run is to be made. Unless it is said: published, on no conditions."""

    publish: bool  # False leaves the branch to look at
    accept: str | None  # the one failing test that is taken on your word
    reason: str | None  # why; it is kept with the publication
    take_over: bool  # fence the run that holds the batch
    tell: "Callable[[StageDone], None]"  # called after each stage
    may_publish: "Callable[[], None]"  # called just before; raises where it may not
    mark: str  # ends the run's id, so that who started it finds it again


def _terms(asked: Asked, *, strict: bool = True) -> "Terms":
    from lakewarden.batch.conductor import Terms
    from lakewarden.lake.model import Override

    accept, reason = asked.get("accept"), asked.get("reason")
    if (accept is None) != (reason is None):
        raise AcceptWithoutReason(
            "--accept and --reason belong together",
            hint="--accept TEST --reason 'why it may be published all the same'",
        )
    override = Override(accept, reason, _user()) if accept and reason else None
    return Terms(
        publish=asked.get("publish", True),
        accept=override,
        take_over=asked.get("take_over", False),
        strict=strict,
        may_publish=asked.get("may_publish", _agree),
    )


def _agree() -> None:
    """Nobody else decides."""


def _tell_nobody(done: "StageDone") -> None:
    del done


def open_project(folder: Path | str | None = None, env: str | None = None) -> "Project":
    """A project's folder and one of its environments; see settings.py for how both are found."""
    _calm_logging()
    settings = load_settings(find_project(Path(folder) if folder else None))
    name, chosen = settings.environment(env)
    return Project(settings, name, chosen)


def _calm_logging() -> None:
    """Used as a library, only warnings are told, on standard error; a front end that configured
    structlog keeps its own way."""
    import structlog

    if not structlog.is_configured():
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        )


@dataclass(frozen=True)
class AdoptAsked:
    """What is to be surveyed, and as whom."""

    name: str
    env: str
    connection: "Connection"
    catalog: "CatalogAddress"
    bucket: str | None = None
    landings: "Sequence[str]" = ()
    dbt: Path | None = None


def survey_lakehouse(asked: AdoptAsked) -> "Survey":
    """Read somebody else's catalog, deliveries and dbt project (adoption/survey.py); nothing is
    written anywhere.

    Raises CatalogUnreadable, CatalogKindUnknown, LandingElsewhere, DbtProjectUnreadable,
    WrongAccount, StorageUnavailable."""
    from lakewarden.adoption.survey import Wanted, survey
    from lakewarden.aws.clients import check_account, pyiceberg_properties, s3_client

    check_account(asked.connection)
    wanted = Wanted(
        project=asked.name,
        env=asked.env,
        account=asked.connection.account,
        region=asked.connection.region,
        bucket=asked.bucket,
        catalog=asked.catalog,
        landings=asked.landings,
        dbt=asked.dbt,
    )
    client, told = s3_client(asked.connection, attempts=4), pyiceberg_properties(asked.connection)
    return survey(wanted, client=client, file_io=told)


def write_survey(survey: "Survey", into: Path) -> "Sequence[str]":
    """Write what was found into a new folder, as a project that can be opened (adoption/folder.py);
    returns the names of the files. Raises FolderTaken."""
    from lakewarden.adoption.folder import write_folder
    from lakewarden.adoption.render import files_of
    from lakewarden.tables.template_file import read_templates

    def check(made: Path) -> None:
        load_settings(made)
        if survey.adopted:
            read_templates(made / "tables")

    files = files_of(survey)
    write_folder(into, files, check)
    return sorted(files)


class Project(Environment):
    """What can be done with one project in one environment."""

    def receipts_prefix(self, dataset: str, run: str) -> str:
        """Where a run keeps its receipts, and dbt's artifacts in `dbt/`."""
        from lakewarden.batch.receipts import prefix_of

        return prefix_of(dataset, run)

    def dataset(self, name: str) -> "Dataset":
        """A dataset as the batch rooms know it."""
        found = self._named(name)
        tables = {self._template(name, table): glob for table, glob in found.tables.items()}
        return self._dataset(name, found, tables)

    def arriving(self, name: str) -> "Dataset":
        """The same for who looks at deliveries only: tables are called as lakewarden.toml calls
        them, and no template is read."""
        found = self._named(name)
        return self._dataset(name, found, found.tables)

    def _named(self, name: str) -> DatasetSettings:
        found = self.settings.dataset.get(name)
        if found is None:
            known = ", ".join(sorted(self.settings.dataset))
            raise DatasetUnknown(f"no dataset is called {name!r}", hint=f"Choose one of: {known}")
        return found

    def keys(self, dataset: str, batches: str) -> "Sequence[str]":
        """The batch keys that FIRST..LAST names, or the one that is named."""
        from lakewarden.batch.delivery.keys import parse_keys

        return [str(key) for key in parse_keys(self.dataset(dataset).key_form, batches)]

    def key(self, dataset: str, batch: str) -> str:
        """A batch key as it is kept; raises BatchKeyInvalid."""
        from lakewarden.batch.delivery.keys import parse_key

        return str(parse_key(self.dataset(dataset).key_form, batch))

    def published_keys(self, dataset: str, batches: str) -> "Sequence[str]":
        """The same, of a range only those that something is published of (batch/unpublish.py)."""
        from lakewarden.batch.unpublish import published

        return published(self.lake, dataset, self.keys(dataset, batches))

    def run(
        self,
        dataset: str,
        batch: str,
        **asked: Unpack[Asked],
    ) -> "Outcome":
        """Bring one batch from its delivery to main (batch/run.py).

        Raises the four kinds of errors.py."""
        from lakewarden.batch.run import run_batches

        return run_batches(
            self.dataset(dataset),
            [batch],
            _terms(asked),
            self.workshop,
            self._holder(asked.get("mark", "")),
            tell=asked.get("tell", _tell_nobody),
        )

    def delivered(self, dataset: str, named: str) -> "Delivered":
        """What is there of a set of batches, FIRST..LAST (batch/run.py)."""
        from lakewarden.batch.run import delivered

        return delivered(self.objects, self.lake, self.dataset(dataset), named)

    def run_set(
        self,
        dataset: str,
        batches: "Sequence[str]",
        group: int = GROUP,
        **asked: Unpack[Asked],
    ) -> "Iterator[Outcome]":
        """Bring batches to main, so many in a group; the models of a group are built once, and it
        is published in one step.

        What is wrong with single batches is told in the outcomes; the others go on. A set that was
        cut off goes on where it stopped, when it is asked for again. Raises as `run` does."""
        from lakewarden.batch.run import groups, run_batches

        found, terms = self.dataset(dataset), _terms(asked, strict=False)
        tell = asked.get("tell", _tell_nobody)
        for some in groups(batches, group):
            yield run_batches(found, some, terms, self.workshop, self._holder(), tell=tell)

    def unpublish(
        self,
        dataset: str,
        batches: "Sequence[str]",
        **asked: Unpack[Asked],
    ) -> "Outcome":
        """Take batches out of main again, whole, in one step (batch/unpublish.py)."""
        from lakewarden.batch.unpublish import unpublish

        reason = asked.get("reason") or ""
        if asked.get("accept") is None:  # it is why the batch goes, and accepts nothing
            asked["reason"] = None
        return unpublish(
            self.dataset(dataset),
            batches,
            _terms(asked),
            self.workshop,
            self._holder(),
            reason=reason,
            tell=asked.get("tell", _tell_nobody),
        )

    def rebuild(
        self,
        dataset: str,
        batches: "Sequence[str]",
        models: "Sequence[str]",
        **asked: Unpack[Asked],
    ) -> "Outcome":
        """Make models and their descendants again; nothing is loaded (batch/rebuild.py)."""
        from lakewarden.batch.rebuild import rebuild

        return rebuild(
            self.dataset(dataset),
            batches,
            models,
            _terms(asked),
            self.workshop,
            self._holder(),
            tell=asked.get("tell", _tell_nobody),
        )

    def mend(
        self, dataset: str, batch: str, corrections: "Sequence[Correction]"
    ) -> "Sequence[Mend]":
        """Put quarantined records of a batch right (batch/mending.py); running the batch again
        reads them so. Returns the mends that were kept: none where nothing changed."""
        from lakewarden.batch.mending import mend

        return mend(
            self.dataset(dataset),
            self.key(dataset, batch),
            corrections,
            objects=self.objects,
            templates=self.templates,
            scratch=self.duck.temp.parent,
            by=_user(),
            at=now(),
        )

    def replay(self, dataset: str, batch: str, **asked: Unpack[Asked]) -> "Outcome":
        """Run a whole batch again, with its mends; raises NothingMended."""
        from lakewarden.batch.mends import check_mended

        check_mended(self.objects, dataset, self.key(dataset, batch))
        return self.run(dataset, batch, **asked)

    @property
    def workshop(self) -> "Workshop":
        """What every run works with."""
        from lakewarden.batch.conductor import Workshop

        return Workshop(
            lake=self.lake,
            objects=self.objects,
            templates=self.templates,
            dbt=self.dbt,
            duck=self.duck,
            scratch=self.scratch,
            part_bytes=self.settings.load.part_mib << 20,
            now=now,
        )

    def deliver(
        self,
        dataset: str,
        batch: str,
        folder: Path,
        *,
        part: str | None = None,
        progress: "Callable[[Progress], None]" = lambda one: None,
    ) -> "Manifest":
        """Upload a folder as one batch, or as one part of it (batch/delivery/deliver.py)."""
        from lakewarden.batch.delivery.deliver import deliver

        found = self.dataset(dataset)
        return deliver(
            self.objects,
            found,
            batch,
            folder,
            part=part,
            now=now,
            count=self._counter(found),
            progress=progress,
        )

    def write_manifest_of_folder(
        self, folder: Path, dataset: str | None, batch: str | None, part: str | None = None
    ) -> "tuple[Manifest, str]":
        """Put `_manifest.json` into a folder; returns it and where it is."""
        from lakewarden.batch.delivery.inventory import manifest_of_folder
        from lakewarden.batch.delivery.keys import landing_of
        from lakewarden.batch.delivery.manifest import MANIFEST, write

        if dataset is None or batch is None:
            raise BatchUnnamed(
                f"which batch {folder} holds is not said",
                hint="Name it with --dataset and --batch.",
            )
        found = self.dataset(dataset)
        landing = landing_of(found, batch, self.env.bucket, part)
        marker = found.complete.marker
        made = manifest_of_folder(
            folder, landing, at=now(), count=self._counter(found), marker=marker
        )
        place = folder / MANIFEST
        try:
            place.write_bytes(write(made))
        except OSError as error:
            raise ManifestNotWritten(
                f"{place} cannot be written: {error.strerror}",
                hint="Copy the files to a folder of your own, and write the manifest there.",
            ) from error
        return made, str(place)

    def write_manifest_of_prefix(self, prefix: str) -> "tuple[Manifest, str]":
        """Put the manifest of what lies in a landing prefix there; returns it and where it is."""
        from lakewarden.batch.delivery.inventory import manifest_of_prefix
        from lakewarden.batch.delivery.keys import landing_at
        from lakewarden.batch.delivery.manifest import MANIFEST, write

        datasets = [self.dataset(name) for name in self.settings.dataset]
        landing = landing_at(prefix, datasets, self.env.bucket)
        marker = next(one.complete.marker for one in datasets if one.name == landing.dataset)
        made = manifest_of_prefix(self.objects, landing, at=now(), marker=marker)
        key = landing.key(MANIFEST)
        self.objects.put(key, write(made))
        return made, f"s3://{self.env.bucket}/{key}"

    def validate(self, dataset: str, batch: str, source: str | None = None) -> "Delivery":
        """Whether a delivery is whole, where it landed or at its producer's; no byte of it is read
        (batch/receive.py). A refusal leaves the receipt that a run would leave."""
        from lakewarden.batch.delivery.keys import parse_key
        from lakewarden.batch.model import Run
        from lakewarden.batch.receipts import leave
        from lakewarden.batch.receive import validate

        at, found = now(), self.arriving(dataset)
        try:
            if source is None:
                return validate(self.objects, found, batch, now=at)
            objects, places = self._source(found, batch, source)
            return validate(objects, found, batch, now=at, places=places)
        except Refused as error:
            seconds = (now() - at).total_seconds()
            run = Run(new_run_id(at), dataset, (str(parse_key(found.key_form, batch)),))
            leave(self.objects, run, "receive", error, at=at, seconds=seconds)
            raise

    def copy_raw(self, dataset: str, batch: str, source: str) -> "Copied":
        """Bring a delivery from its producer's bucket to where it lands
        (batch/delivery/copy.py)."""
        from lakewarden.batch.delivery.copy import copy_delivery

        found = self.arriving(dataset)
        objects, places = self._source(found, batch, source)
        return copy_delivery(objects, places, self.objects, found, batch, now=now())

    def _source(
        self, dataset: "Dataset", batch: str, source: str
    ) -> "tuple[Objects, Sequence[Landing]]":
        from lakewarden.aws.clients import check_account
        from lakewarden.aws.s3 import S3Objects
        from lakewarden.batch.delivery.copy import parse_source, places_at

        place = parse_source(source)
        check_account(self.connection)
        objects = S3Objects(self.connection, place.bucket)
        return objects, places_at(place, dataset, batch, self.env.bucket)

    def export(self) -> "Exported":
        """Write what main holds as Parquet for others (batch/export.py)."""
        from lakewarden.batch.export import ExportConfig, export

        settings = self.settings.export
        scratch = self.duck.temp.parent / new_run_id(now())
        config = ExportConfig(settings.prefix, settings.tables, settings.restricted, scratch)
        return export(self.lake, self.objects, self.templates, self.duck, config, now())

    def roll_back(self, dataset: str, batch: str, mark: str) -> "RolledBack":
        """Put away what runs left whose ids end with the mark (batch/rollback.py)."""
        from lakewarden.batch.rollback import roll_back

        return roll_back(
            self.lake,
            self.objects,
            self.scratch,
            dataset,
            self.key(dataset, batch),
            mark,
            self._holder(),
            now(),
        )

    def runs(self, dataset: str | None = None, *, most: int | None = None) -> "Sequence[RunRecord]":
        """Runs, newest first, and what became of each (batch/history.py)."""
        from lakewarden.batch.history import runs

        return runs(self.objects, self.lake, dataset, leases=self._leases, most=most)

    def runs_named(
        self, named: "Iterable[tuple[str, str]]"
    ) -> "Mapping[tuple[str, str], RunRecord]":
        """What became of these runs, by dataset and run (batch/history.py)."""
        from lakewarden.batch.history import runs_named

        return runs_named(self.objects, self.lake, named, leases=self._leases)

    def overview(self, dataset: str, *, most: int = 400) -> "Sequence[BatchState]":
        """What there is of each batch, and what there should be (batch/overview.py)."""
        from lakewarden.batch.overview import overview
        from lakewarden.batch.receive import is_delivered

        found = self.dataset(dataset)
        settings = self.settings.dataset[dataset]
        return overview(
            settings.due.calendar(settings.batch) if settings.due else None,
            self.lake.publications(dataset),
            self.runs(dataset, most=4 * most),  # a batch may have had several
            lambda batch: is_delivered(self.objects, found, batch),
            now(),
            most=most,
        )

    def diff(self, publication: "Publication") -> "Iterator[TableDiff]":
        """What a publication changed, by table; of tables by batch only its batch's rows
        (batch/diff.py)."""
        batch = publication.contribution.batch
        return self._diff(publication.tables, [batch] if batch else [])

    def diff_of_branch(self, name: str) -> "Iterator[TableDiff]":
        """What a branch would change."""
        from lakewarden.batch.diff import changes_on_branch

        return self._diff(changes_on_branch(self.lake, name), [])

    def _diff(
        self, changes: "Mapping[str, TableChange]", batches: "Sequence[str]"
    ) -> "Iterator[TableDiff]":
        from lakewarden.batch.diff import diff

        keys = {name: template.row_key for name, template in self.templates.items()}
        return diff(self.duck, changes, keys=keys, batches=batches)

    def plan_tables(self) -> "Sequence[TablePlan]":
        """What brings each table to its template (lake/evolve.py)."""
        from lakewarden.lake.evolve import plan_tables

        return plan_tables(self.lake, self.lake.pin(), self.templates)

    def apply_tables(self) -> "Publication | None":
        """Bring every table to its template, in one publish; None where nothing had to change."""
        from lakewarden.lake.evolve import apply_tables

        at = now()
        # Who we are is checked before anything is written.
        _ = self.objects
        return apply_tables(self.lake, self.plan_tables(), run=new_run_id(at), at=at)

    def graph(self) -> "Graph":
        """What is in the dbt project; empty without one. Neither the store nor the catalog is
        asked (batch/models/project.py)."""
        from lakewarden.batch.models.project import read_graph

        project = self.dbt
        if project is None:
            return {}
        self.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        return read_graph(project, self.scratch / f"graph-{new_run_id(now())}")

    def calendar(self, dataset: str) -> "Calendar | None":
        """When a dataset's batches are due, where lakewarden.toml says so."""
        found = self.settings.dataset[self.dataset(dataset).name]
        return found.due.calendar(found.batch) if found.due else None

    def landed(self, dataset: str) -> Mapping[str, str]:
        """A digest of what lies in the landing prefix, by batch (batch/waiting.py)."""
        from lakewarden.batch.waiting import landed

        return landed(self.objects, self.dataset(dataset))

    def look(self, dataset: str, landed: Mapping[str, str]) -> "Iterator[Lying]":
        """Which of these deliveries are whole, and which are published (batch/waiting.py)."""
        from lakewarden.batch.waiting import look

        return look(self.objects, self.lake, self.dataset(dataset), landed, now())

    def is_withdrawn(self, dataset: str, batch: str) -> bool:
        """Whether somebody took the batch out of main (batch/published.py)."""
        from lakewarden.batch.published import newest

        found = newest(self.lake, dataset, batch)
        return found is not None and found.contribution.withdrawn

    def tests_of(self, publication: "Publication") -> "Mapping[str, str]":
        """How the dbt tests ended before a publication, by name; empty where no receipt tells."""
        from lakewarden.batch.receipts import tests_of

        dataset = publication.contribution.dataset
        return tests_of(self.objects, dataset, publication.run) if dataset else {}

    def alert(self, subject: str, message: str, topic: str | None = None) -> str:
        """Tell the people on call, by SNS; topic: other than the project's own (aws/topics.py)."""
        from lakewarden.aws.topics import publish

        return publish(self.connection, topic or self.names.topic, subject, message)

    def drift(self) -> "Mapping[str, Sequence[Finding]]":
        """Tables that are not what their templates say, and how (lake/evolve.py).

        Raises DriftUnknown where nobody can tell."""
        from lakewarden.lake.evolve import drift_now

        return drift_now(lambda: self.lake, self.templates)

    def pin(self, *, branch: str | None = None, at: int | None = None) -> "Pin":
        """Main as it is, as it was after a publication, or a branch."""
        if at is not None:
            return self.lake.pin_at(at)
        return self.lake.pin(branch) if branch else self.lake.pin()

    @contextmanager
    def session(self, pin: "Pin") -> "Iterator[DuckDBPyConnection]":
        """DuckDB over one pinned version of all tables (batch/query.py)."""
        from lakewarden.batch.query import open_pin

        with open_pin(self.duck, pin) as connection:
            yield connection

    def _leases(self) -> Mapping[str, bool]:
        from lakewarden.records.lease import LEASES, holders

        return holders(self.objects, LEASES, host=socket.gethostname(), now=now())

    def _counter(self, dataset: "Dataset") -> "Callable[[Path, str], int | None]":
        """Counts the records of a file to be delivered, as its table's template reads it."""
        from lakewarden.batch.parsing.read import count_file

        def count(path: Path, name: str) -> int | None:
            fitting = [t for t, glob in dataset.tables.items() if fnmatchcase(name, glob)]
            template = self.templates[fitting[0]] if len(fitting) == 1 else None
            if template is None or template.source is None:
                return None
            return count_file(path, template.source, max_bytes=dataset.max_bytes)

        return count

    def _dataset(self, name: str, found: DatasetSettings, tables: Mapping[str, str]) -> "Dataset":
        from lakewarden.batch.model import Complete, Dataset

        return Dataset(
            name=name,
            key_form=found.batch,
            landing=found.landing,
            tables=tables,
            max_share=found.quarantine.max_share,
            max_bytes=found.max_bytes,
            parts=found.parts,
            complete=Complete(found.marker, found.settled),
        )

    def _template(self, dataset: str, table: str) -> str:
        """The one template that a dataset means; its `load.dataset` has to agree."""
        fitting = [
            name
            for name, template in self.templates.items()
            if table in (name, template.name) and template.load_dataset == dataset
        ]
        if len(fitting) != 1:
            raise TemplateUnknown(
                f"dataset {dataset} fills the table {table}, and {len(fitting) or 'no'} templates"
                f" of that name say `load: {{dataset: {dataset}}}`",
                hint=f"Look into {self.root / 'tables'}, and at [dataset.{dataset}] in"
                " lakewarden.toml.",
            )
        return fitting[0]

    def _holder(self, mark: str = "") -> "Holder":
        from lakewarden.records.lease import this_process

        at = now()
        return this_process(new_run_id(at) + mark, host=socket.gethostname(), since=at)
