"""Load: the delivered files become data files of the run's branch. Main is untouched.

Always: records counted = rows loaded + rows quarantined = what the manifest promises.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from pyiceberg.expressions import EqualTo, Reference
from pyiceberg.expressions.literals import literal
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from lakewarden.aws.objects import ObjectChanged, ObjectMissing, Objects
from lakewarden.batch import quarantine
from lakewarden.batch.intake import Intake, IntakeConfig, RecordsUnclear, take_in
from lakewarden.batch.limits import local_trouble
from lakewarden.batch.model import (
    Counts,
    Dataset,
    DeliveredFile,
    Loaded,
    LoadedFile,
    Misfit,
    Received,
    Run,
)
from lakewarden.batch.parsing.raw import raw_records
from lakewarden.errors import Refused, TryAgain
from lakewarden.lake.apply import table_for
from lakewarden.lake.commit import stage
from lakewarden.lake.model import Branch, Lake
from lakewarden.tables.template import BATCH_COLUMN, FileFormat, Source, Template


class TooManyMisfits(Refused):
    """More records do not fit than the dataset allows; they are kept at `quarantine` (a key)."""

    def __init__(self, message: str, *, hint: str, quarantine: str, counts: Counts) -> None:
        super().__init__(message, hint=hint)
        self.quarantine = quarantine
        self.counts = counts


class DeliveryGone(TryAgain):
    """A version that was received is not there any more: somebody delivers, or deletes."""


def load(
    received: Received,
    dataset: Dataset,
    branch: Branch,
    *,
    lake: Lake,
    objects: Objects,
    templates: Mapping[str, Template],
    replaces: bool,
    config: IntakeConfig,
) -> Loaded:
    """Read every file once, write what fits, quarantine what does not, commit on the branch.

    `replaces`: the tables may hold rows of this batch, which are deleted in the same commit.
    Raises Refused for bad data (nothing but the quarantine is left behind), ScratchFull,
    DeliveryGone."""
    run = received.run
    catalog = lake.catalog(branch)
    tables = {name: table_for(catalog, templates[name]) for name in dataset.tables}
    with local_trouble(config.scratch), _still_there():
        intake = take_in(
            run.id,
            run.batch,
            received.files,
            objects=objects,
            templates=templates,
            tables=tables,
            max_bytes=dataset.max_bytes,
            config=config,
        )
        misfits = _misfits(received, intake, objects, templates, dataset, config.scratch)
        first = next(misfits, None)
        every = chain([first], misfits) if first else ()
        kept = quarantine.write(objects, run, (each.misfit for each in every), config.scratch)
    counts = _total(intake)
    if first and kept and counts.share > dataset.max_share:
        raise _too_many(dataset, run, counts, first, kept)
    for name, table in tables.items():
        _stage(table, intake.data_files[name], run, replaces=replaces)
    files = [_loaded_file(file, intake, number) for number, file in enumerate(received.files)]
    return Loaded(received, branch, files, intake.data_files, kept, counts)


def stage_again(
    loaded: Loaded,
    branch: Branch,
    *,
    lake: Lake,
    templates: Mapping[str, Template],
    replaces: bool,
) -> Loaded:
    """The same data files on a new branch: main moved underneath, the delivery did not."""
    catalog = lake.catalog(branch)
    for name, data_files in loaded.data_files.items():
        # It may have been made on the branch that is gone, and it may have changed since.
        table = table_for(catalog, templates[name])
        _stage(table, data_files, loaded.received.run, replaces=replaces)
    return replace(loaded, branch=branch)


@contextmanager
def _still_there() -> Iterator[None]:
    try:
        yield
    except (ObjectMissing, ObjectChanged) as error:
        raise DeliveryGone(
            f"the delivery changed after it was received: {error.message}",
            hint="Wait until the delivery is done, then run the same command again.",
        ) from error


def _stage(table: Table, data_files: Sequence[DataFile], run: Run, *, replaces: bool) -> None:
    this_batch = EqualTo(term=Reference(BATCH_COLUMN), value=literal(run.batch))
    stage(
        table,
        data_files,
        replacing=this_batch if replaces else None,
        properties={"lakewarden.run": run.id, "lakewarden.batch": run.batch},
    )


def _total(intake: Intake) -> Counts:
    records = sum(reading.records for reading in intake.readings)
    quarantined = sum(len(found) for found in intake.defects.values())
    written = chain.from_iterable(intake.data_files.values())
    return Counts(records, sum(file.record_count for file in written), quarantined)


def _loaded_file(file: DeliveredFile, intake: Intake, number: int) -> LoadedFile:
    reading = intake.readings[number]
    misfits = len(intake.defects.get(file.name, ()))
    counts = Counts(reading.records, reading.records - misfits, misfits)
    return LoadedFile(file.name, file.table, file.version, reading.sha256, reading.bytes, counts)


@dataclass(frozen=True)
class _Placed:
    """A misfit, and its physical line; None where a file has no lines."""

    misfit: Misfit
    physical_line: int | None


def _misfits(
    received: Received,
    intake: Intake,
    objects: Objects,
    templates: Mapping[str, Template],
    dataset: Dataset,
    scratch: Path,
) -> Iterator[_Placed]:
    """Each record that does not fit, with its bytes as delivered."""
    for file, reading in zip(received.files, intake.readings, strict=True):
        defects = {defect.number: defect for defect in intake.defects.get(file.name, ())}
        if not defects:
            continue
        source = templates[file.table].source or Source(FileFormat.CSV)
        for record in raw_records(
            objects, file, source, defects, max_bytes=dataset.max_bytes, scratch=scratch
        ):
            found = defects.pop(record.number)
            line = None if source.format is FileFormat.PARQUET else record.physical_line
            misfit = Misfit(
                file.name,
                reading.sha256,
                record.number,
                found.column,
                found.reason,
                f"line {line}: {found.message}" if line else found.message,
                record.raw,
            )
            yield _Placed(misfit, line)
        if defects:
            raise RecordsUnclear(
                f"{file.name}: {len(defects):,} records that do not fit could not be cut out again",
                hint="Please report this; nothing was published.",
            )


def _too_many(
    dataset: Dataset, run: Run, counts: Counts, first: _Placed, kept: str
) -> TooManyMisfits:
    allowed = f"{100 * dataset.max_share:g} %" if dataset.max_share else "none"
    misfit, line = first.misfit, first.physical_line
    on_line = f" (line {line})" if line else ""
    column = f", column {misfit.column}" if misfit.column else ""
    what = misfit.message.removeprefix(f"line {line}: ")
    return TooManyMisfits(
        f"{counts.quarantined:,} of {counts.records_in:,} records do not fit, and"
        f" {dataset.name} allows {allowed}; the first: {misfit.file}, record"
        f" {misfit.line}{on_line}{column}: {what}",
        hint=f"lakewarden quarantine show {run.dataset} {run.batch}",
        quarantine=kept,
        counts=counts,
    )
