"""Quarantine files: the records that did not fit, kept byte for byte for mending.

One Parquet file a batch and run, `ops/quarantine/<dataset>/<batch>/<run>.parquet`. Its column
`raw` is row data: nothing here logs it, and listing does not open the files.
"""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from lakewarden.aws.objects import Objects
from lakewarden.batch.delivery.keys import quoted
from lakewarden.batch.model import Misfit
from lakewarden.errors import Failed, WrongUsage

PREFIX = "ops/quarantine/"
FORMAT = b"1"
_FORMAT_KEY = b"lakewarden.quarantine.format"
_SCHEMA = pa.schema(
    [
        pa.field("file", pa.string(), nullable=False),
        pa.field("file_sha256", pa.string(), nullable=False),
        pa.field("line", pa.int64(), nullable=False),
        pa.field("column", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("raw", pa.binary(), nullable=False),
    ],
    metadata={_FORMAT_KEY: FORMAT},
)
_BATCH_ROWS = 8192
_BATCH_BYTES = 8 << 20


class QuarantineUnknown(WrongUsage):
    """No quarantine file under this key."""


class NothingQuarantined(WrongUsage):
    """No run of this batch put anything into quarantine."""


class QuarantineUnreadable(Failed):
    """Not a quarantine file, or one of a format that this release does not read."""


@dataclass(frozen=True)
class QuarantineFile:
    """What one run quarantined of one batch, told without opening it."""

    key: str
    dataset: str
    batch: str | None  # None where an earlier release kept it, which did not say
    run: str
    bytes: int
    at: datetime


def key_of(dataset: str, batch: str, run: str) -> str:
    """Where a run's quarantine of a batch is kept."""
    return f"{PREFIX}{dataset}/{batch}/{run}.parquet"


def write(objects: Objects, key: str, misfits: Iterable[Misfit], scratch: Path) -> bool:
    """Keep misfits, in the order given; False, and nothing kept, where there are none.

    Takes memory for some megabytes of them, and room in the folder `scratch` for all.
    """
    rest = iter(misfits)
    if (first := next(rest, None)) is None:
        return False
    with tempfile.NamedTemporaryFile(dir=scratch, suffix=".parquet") as file:
        with pq.ParquetWriter(file, _SCHEMA, compression="zstd") as writer:
            for batch in _batches(chain([first], rest)):
                writer.write_batch(_columns(batch))
        file.flush()
        objects.upload(key, Path(file.name))
    return True


def _batches(misfits: Iterable[Misfit]) -> Iterator[list[Misfit]]:
    batch: list[Misfit] = []
    held = 0
    for misfit in misfits:
        batch.append(misfit)
        held += len(misfit.raw) + len(misfit.message)
        if len(batch) == _BATCH_ROWS or held >= _BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _columns(batch: list[Misfit]) -> pa.RecordBatch:
    columns = zip(*(astuple(misfit) for misfit in batch), strict=True)
    arrays = [
        pa.array(column, type=field.type) for column, field in zip(columns, _SCHEMA, strict=True)
    ]
    return pa.record_batch(arrays, schema=_SCHEMA)


def read(objects: Objects, key: str) -> Iterator[Misfit]:
    """A quarantine file's records, in the order in which they were kept; memory stays small.

    The file passes through an unnamed temporary file that nobody else can open. Raises
    QuarantineUnknown, QuarantineUnreadable.
    """
    version = objects.head(key) if key.startswith(PREFIX) else None
    if version is None:
        raise QuarantineUnknown(
            f"there is no quarantine {quoted(key)}",
            hint='"lakewarden quarantine list" shows those that there are.',
        )
    with tempfile.TemporaryFile() as file:
        for chunk in objects.stream(version):
            file.write(chunk)
        file.seek(0)
        opened = _opened(file, key)
        for group in range(opened.num_row_groups):
            rows = opened.read_row_group(group, use_threads=False).to_pylist()
            yield from (Misfit(**row) for row in rows)


def _opened(file: IO[bytes], key: str) -> pq.ParquetFile:
    try:
        # Read ahead, and with threads, Arrow's own threads may still hold Python's file when the
        # process ends: now and then that aborts it after all went well (apache/arrow#34314).
        opened = pq.ParquetFile(file, pre_buffer=False)
    except pa.ArrowInvalid as error:
        raise _unreadable(key, "no Parquet file") from error
    if (opened.schema_arrow.metadata or {}).get(_FORMAT_KEY) != FORMAT:
        raise _unreadable(key, "another format, or none")
    if opened.schema_arrow.names != [field.name for field in fields(Misfit)]:
        raise _unreadable(key, "other columns")
    return opened


def _unreadable(key: str, found: str) -> QuarantineUnreadable:
    return QuarantineUnreadable(
        f"{key}: expected a quarantine file of format 1, found {found}",
        hint="Was it written by a newer release? Read it with that one.",
    )


def list_quarantines(
    objects: Objects, dataset: str | None = None, batch: str | None = None
) -> list[QuarantineFile]:
    """The quarantine files of all datasets, of one, or of one of its batches; newest first."""
    found = []
    within = "".join(f"{name}/" for name in (dataset, batch) if name)
    for version in objects.list(f"{PREFIX}{within}"):
        parts = version.key.removeprefix(PREFIX).split("/")
        if len(parts) == 3 and parts[2].endswith(".parquet"):
            run = parts[2].removesuffix(".parquet")
            found.append(
                QuarantineFile(version.key, parts[0], parts[1], run, version.size, version.modified)
            )
    return sorted(found, key=lambda one: (one.run, one.key), reverse=True)


def newest_quarantine(objects: Objects, dataset: str, which: str) -> QuarantineFile:
    """The quarantine of a run, or of the last run of a batch that has one; raises
    NothingQuarantined."""
    for one in list_quarantines(objects, dataset):
        if which in (one.batch, one.run):
            return one
    raise NothingQuarantined(
        f"no run of {dataset} {which} quarantined anything", hint="lakewarden quarantine list"
    )
