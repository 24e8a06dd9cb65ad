"""Load: the delivered files become data files, and those the rows of the run's branch.

Main is untouched. Always: records counted = rows loaded + rows quarantined = what the manifest
promises.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from lakewarden.aws.objects import ObjectChanged, ObjectMissing, Objects
from lakewarden.batch import quarantine
from lakewarden.batch.intake import Intake, IntakeConfig, RecordsUnclear, take_in
from lakewarden.batch.limits import local_trouble
from lakewarden.batch.mends import Mend
from lakewarden.batch.model import (
    Counts,
    Dataset,
    DeliveredFile,
    Delivery,
    LoadedBatch,
    LoadedFile,
    Misfit,
    Run,
    TooManyMisfits,
)
from lakewarden.batch.parsing.raw import raw_records
from lakewarden.batch.receive import NotReady
from lakewarden.lake.apply import table_for
from lakewarden.lake.commit import rows_of, stage
from lakewarden.tables.template import FileFormat, Level, Source, Template


class DeliveryGone(NotReady):
    """A version that was received is not there any more: somebody delivers, or deletes."""


def load(
    delivery: Delivery,
    run: Run,
    dataset: Dataset,
    tables: Mapping[str, Table],
    *,
    objects: Objects,
    templates: Mapping[str, Template],
    config: IntakeConfig,
) -> LoadedBatch:
    """Read every file of a batch once, write what fits as data files, quarantine what does not.

    tables: the branch's, by template. Raises Refused for bad data (nothing but the quarantine is
    left behind), ScratchFull, DeliveryGone."""
    with local_trouble(config.scratch), _still_there():
        intake = take_in(
            run.id,
            delivery.batch,
            delivery.files,
            objects=objects,
            templates=templates,
            tables=tables,
            max_bytes=dataset.max_bytes,
            config=config,
            mends=_mends(delivery, objects),
        )
        misfits = _misfits(delivery, intake, objects, templates, dataset, config.scratch)
        first = next(misfits, None)
        every = (each.misfit for each in chain([first], misfits)) if first else ()
        key = quarantine.key_of(run.dataset, delivery.batch, run.id)
        kept = key if quarantine.write(objects, key, every, config.scratch) else None
    counts = _total(intake)
    if first and kept and counts.share > dataset.max_share:
        raise _too_many(dataset, delivery.batch, counts, first, kept)
    files = [_loaded_file(file, intake, number) for number, file in enumerate(delivery.files)]
    return LoadedBatch(delivery, files, intake.data_files, kept, counts)


def tables_on(
    catalog: Catalog, dataset: Dataset, templates: Mapping[str, Template]
) -> Mapping[str, Table]:
    """The dataset's tables on a branch, made where they are missing; raises TableDrifted."""
    return {
        name: table_for(catalog, templates[name], needs=Level.LOADED, what="to load into it")
        for name in dataset.tables
    }


def loaded_from(
    catalog: Catalog, dataset: str, names: Collection[str], templates: Mapping[str, Template]
) -> Sequence[str]:
    """Of these tables those that are there and that the dataset loads, by their templates: also
    those that it names no more."""
    own = (n for n in sorted(names) if n in templates and templates[n].load_dataset == dataset)
    return [name for name in own if catalog.table_exists(name)]


def put_rows(
    tables: Mapping[str, Table],
    batches: Sequence[LoadedBatch],
    run: Run,
    *,
    levels: Mapping[str, Level],
    replacing: Collection[str],
) -> None:
    """Commit loaded batches to their tables, one commit a table; the rows of the batches
    `replacing` go in the same commit. levels: the tables'."""
    for name, table in tables.items():
        stage(
            table,
            [file for one in batches for file in one.data_files[name]],
            level=levels[name],
            replacing=rows_of(replacing) if replacing else None,
            properties={"lakewarden.run": run.id, "lakewarden.batch": run.span},
        )


def remove_rows(table: Table, batches: Collection[str], run: Run, level: Level) -> None:
    """The rows of batches go from a table, in one commit."""
    properties = {"lakewarden.run": run.id, "lakewarden.batch": run.span}
    stage(table, (), level=level, replacing=rows_of(batches), properties=properties)


def _mends(delivery: Delivery, objects: Objects) -> Mapping[str, Mapping[int, Mend]]:
    """The mends by file name. Where nobody promised what is in a file, it is read once more."""
    mended = {name for name, _ in delivery.mends}
    return {
        file.name: delivery.mends.get((file.name, file.sha256 or _sha256(objects, file)), {})
        for file in delivery.files
        if file.name in mended
    }


def _sha256(objects: Objects, file: DeliveredFile) -> str:
    digest = hashlib.sha256()
    for chunk in objects.stream(file.version):
        digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _still_there() -> Iterator[None]:
    try:
        yield
    except (ObjectMissing, ObjectChanged) as error:
        raise DeliveryGone(
            f"the delivery changed after it was received: {error.message}",
            hint="Wait until the delivery is done, then run the same command again.",
        ) from error


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
    delivery: Delivery,
    intake: Intake,
    objects: Objects,
    templates: Mapping[str, Template],
    dataset: Dataset,
    scratch: Path,
) -> Iterator[_Placed]:
    """Each record that does not fit, with its bytes as delivered."""
    for file, reading in zip(delivery.files, intake.readings, strict=True):
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
    dataset: Dataset, batch: str, counts: Counts, first: _Placed, kept: str
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
        hint=f"lakewarden quarantine show {dataset.name} {batch}",
        quarantine=kept,
        counts=counts,
    )
