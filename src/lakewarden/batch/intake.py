"""Readers and parsers at work side by side: delivered files in, Iceberg data files out.

    readers ─ parts ─▶ bundles (a table's small parts together) ─▶ parsers ─▶ data files

The queue between readers and parsers is short, so scratch and memory stay small whatever the
size of the delivery. Only the calling thread holds state; readers and parsers return values.
"""

import math
import queue
import shutil
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from lakewarden.aws.objects import Objects
from lakewarden.batch.duck import DuckConfig, connect
from lakewarden.batch.mends import Mend
from lakewarden.batch.model import DeliveredFile
from lakewarden.batch.parquet import (
    BOXES,
    LocalFile,
    boxes,
    spread,
    upload,
    write_box,
    write_local,
)
from lakewarden.batch.parsing.parse import Defect, Part, diagnose, select
from lakewarden.batch.parsing.read import Reader, Reading, check_pages
from lakewarden.batch.sorting import Cut, find_cuts
from lakewarden.batch.workers import Workers, result_of
from lakewarden.errors import Refused
from lakewarden.tables.template import FileFormat, Template

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


# Parts that are parsed by one statement, which takes some 15 ms for each of them.
_MOST_PARTS = 50
# Of text, in one range of a sorted table: a file of 40 MB or so.
_RANGE_PARTS = 3


class RecordsUnclear(Refused):
    """The parser and the independent count disagree about how many records there are."""


@dataclass(frozen=True)
class IntakeConfig:
    """`scratch` is a folder of this run's own; `part_bytes` is how much text one parser takes."""

    duck: DuckConfig
    scratch: Path
    part_bytes: int = 64 << 20
    readers: int = 2


@dataclass(frozen=True)
class Intake:
    """What came of a delivery: a reading for each file, in order; data files by table; and the
    records that do not fit, by file, in order."""

    readings: Sequence[Reading]
    data_files: Mapping[str, Sequence[DataFile]]
    defects: Mapping[str, Sequence[Defect]]


@dataclass(frozen=True)
class _Bundle:
    """Parts of one table that are parsed together. `alone`: the table has no other bundle.
    `cuts`: of a table that is sorted as a whole, the ranges that its first bundle found."""

    table: str
    number: int
    parts: Sequence[Part]
    alone: bool
    cuts: Sequence[Cut] | None = None


@dataclass(frozen=True)
class _Written:
    """The rows of a bundle: in finished files, or spread over a shelf, where they wait to be
    sorted with the other bundles'."""

    rows: int
    files: Sequence[LocalFile] = ()
    shelf: Path | None = None
    cuts: Sequence[Cut] | None = None


@dataclass(frozen=True)
class _Parsed:
    """What came of a bundle."""

    table: str
    data_files: Sequence[DataFile]
    shelf: Path | None
    cuts: Sequence[Cut] | None
    defects: Sequence[tuple[str, Defect]]


def take_in(
    run: str,
    batch: str,
    files: Sequence[DeliveredFile],
    *,
    objects: Objects,
    templates: Mapping[str, Template],
    tables: Mapping[str, Table],
    max_bytes: int,
    config: IntakeConfig,
    mends: Mapping[str, Mapping[int, Mend]] = {},  # nobody changes it
) -> Intake:
    """Read every file once and write what fits; raises the first error of any reader or parser.
    `mends`: by a file's name, records that are to be read as mended."""
    config.scratch.mkdir(parents=True, exist_ok=True)
    reader = Reader(objects, config.scratch, config.part_bytes, max_bytes)

    def read(number: int, emit: Callable[[Part], None]) -> Reading:
        file = files[number]
        words = mends.get(file.name, {})
        return reader.read(file, templates[file.table], f"f{number:05d}", emit, words)

    with connect(config.duck) as connection:
        sizes: dict[str, int] = defaultdict(int)
        for delivered in files:
            sizes[delivered.table] += delivered.version.size
        work = _Work(connection, run, batch, objects, tables, sizes, config)
        table_of = {file.name: file.table for file in files}
        stopped = threading.Event()
        with Workers(config.readers, stop=stopped.set) as pool:
            reading = _Readers(read, len(files), pool, stopped, room=config.duck.threads + 2)
            parsed = list(work.parse(_bundles(reading.parts(), table_of, config.part_bytes)))
            readings = reading.results()
        data_files = work.finish(parsed)
    defects: dict[str, list[Defect]] = defaultdict(list)
    for file, defect in (pair for one in parsed for pair in one.defects):
        defects[file].append(defect)
    for found in defects.values():
        found.sort(key=lambda defect: defect.number)
    return Intake(readings, data_files, defects)


@dataclass(frozen=True)
class _Ended:
    """A reader is done with a file, or has failed."""

    error: BaseException | None = None


class _Readers:
    """Threads that read files, and the short queue that their parts come out of."""

    def __init__(
        self,
        read: Callable[[int, Callable[[Part], None]], Reading],
        files: int,
        pool: Workers,
        stopped: threading.Event,
        *,
        room: int,
    ) -> None:
        self._read = read
        self._queue: queue.Queue[Part | _Ended] = queue.Queue(room)
        self._stopped = stopped
        self._reading = [pool.submit(self._read_one, number) for number in range(files)]

    def parts(self) -> Iterator[Part]:
        """Parts as they come; raises what a reader raised."""
        ended = 0
        while ended < len(self._reading):
            try:
                item = self._queue.get(timeout=0.1)
            except queue.Empty:  # a signal may have come just before the wait: see result_of
                continue
            if isinstance(item, Part):
                yield item
                continue
            if item.error is not None:
                raise item.error
            ended += 1

    def results(self) -> Sequence[Reading]:
        return [future.result() for future in self._reading]

    def _read_one(self, number: int) -> Reading:
        try:
            reading = self._read(number, self._put)
        except BaseException as error:
            self._put(_Ended(error))
            raise
        self._put(_Ended())
        return reading

    def _put(self, item: Part | _Ended) -> None:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return
        raise _Stopped


class _Stopped(Exception):
    """Nobody takes parts any more."""


@dataclass
class _Waiting:
    parts: list[Part] = field(default_factory=list)
    bytes: int = 0
    bundles: int = 0


def _bundles(
    parts: Iterator[Part], table_of: Mapping[str, str], part_bytes: int
) -> Iterator[_Bundle]:
    """Gather parts by table until they are worth a parser's while."""
    waiting: dict[str, _Waiting] = defaultdict(_Waiting)
    for part in parts:
        table = table_of[part.file]
        here = waiting[table]
        here.parts.append(part)
        here.bytes += part.path.stat().st_size
        if here.bytes >= part_bytes or len(here.parts) == _MOST_PARTS:
            yield _Bundle(table, here.bundles, here.parts, alone=False)
            waiting[table] = _Waiting(bundles=here.bundles + 1)
    for table, here in waiting.items():
        if here.parts:
            yield _Bundle(table, here.bundles, here.parts, alone=here.bundles == 0)


@dataclass
class _Work:
    """What parsers need; none of it changes while they run, save which sessions are open."""

    connection: "DuckDBPyConnection"
    run: str
    batch: str
    objects: Objects
    tables: Mapping[str, Table]
    sizes: Mapping[str, int]  # bytes delivered, by table
    config: IntakeConfig
    _cursors: "set[DuckDBPyConnection]" = field(default_factory=set)

    def parse(self, bundles: Iterator[_Bundle]) -> Iterator[_Parsed]:
        """Parse bundles side by side, as many at a time as DuckDB has threads."""
        under_way: deque[Future[_Parsed]] = deque()
        cuts: dict[str, Sequence[Cut] | None] = {}  # of the tables that are sorted as a whole
        with Workers(self.config.duck.threads, stop=self._interrupt) as parsers:
            for bundle in bundles:
                sent = parsers.submit(self._parse, replace(bundle, cuts=cuts.get(bundle.table)))
                under_way.append(sent)
                if bundle.number == 0 and self._is_sorted_whole(bundle):
                    cuts[bundle.table] = result_of(sent).cuts  # for which the others wait
                if len(under_way) > self.config.duck.threads:
                    yield result_of(under_way.popleft())
            while under_way:
                yield result_of(under_way.popleft())

    def finish(self, parsed: Sequence[_Parsed]) -> Mapping[str, Sequence[DataFile]]:
        """All data files by table; rows that wait in boxes are sorted and partitioned now."""
        done: dict[str, list[DataFile]] = {name: [] for name in self.tables}
        shelves: dict[str, list[Path]] = defaultdict(list)
        for one in parsed:
            done[one.table].extend(one.data_files)
            if one.shelf:
                shelves[one.table].append(one.shelf)
        for name, found in shelves.items():
            done[name].extend(self._finish_spread(name, found))
        return done

    def _finish_spread(self, name: str, shelves: Sequence[Path]) -> Sequence[DataFile]:
        """Boxes side by side, so that one is sent while others are sorted."""
        table, stem = self.tables[name], self._stem(name, 0)
        folder = self.config.scratch / stem
        folder.mkdir(exist_ok=True)

        def write(number: int, box: Sequence[Path]) -> Sequence[DataFile]:
            with self._cursor() as cursor:
                files = write_box(
                    cursor,
                    box,
                    table,
                    folder,
                    f"{stem}-{number:04d}",
                    most_bytes=self._range_bytes,
                )
            return upload(files, table, self.objects)

        with Workers(self.config.duck.threads, stop=self._interrupt) as workers:
            under_way = [workers.submit(write, *each) for each in enumerate(boxes(shelves))]
            return [file for one in under_way for file in result_of(one)]

    @contextmanager
    def _cursor(self) -> "Iterator[DuckDBPyConnection]":
        """A session of one parser's own, which `_interrupt` knows."""
        with self.connection.cursor() as cursor:
            self._cursors.add(cursor)
            try:
                yield cursor
            finally:
                self._cursors.discard(cursor)

    def _interrupt(self) -> None:
        for cursor in tuple(self._cursors):
            cursor.interrupt()

    def _parse(self, bundle: _Bundle) -> _Parsed:
        """One bundle: the quick way first; a closer look only where there is doubt about the
        records, or the counts disagree."""
        expected = sum(part.records for part in bundle.parts)
        defects: list[tuple[str, Defect]] = []
        written = None
        with _pages_checked(bundle), self._cursor() as cursor:
            if not any(part.doubtful for part in bundle.parts):
                written = self._write_bundle(cursor, bundle, bundle.parts)
            if written is None or written.rows != expected:
                known = [diagnose(cursor, part) for part in bundle.parts]
                defects = [(part.file, defect) for part, found in known for defect in found]
                parts = [part for part, _ in known]
                written = self._write_bundle(cursor, bundle, parts)
        if written.rows + len(defects) != expected:
            raise _unclear(bundle, expected, written.rows, len(defects))
        for part in bundle.parts:
            part.path.unlink()
        data_files = upload(written.files, self.tables[bundle.table], self.objects)
        return _Parsed(bundle.table, data_files, written.shelf, written.cuts, defects)

    def _write_bundle(
        self, cursor: "DuckDBPyConnection", bundle: _Bundle, parts: Sequence[Part]
    ) -> _Written:
        rows = " UNION ALL ".join(select(part, self.batch) for part in parts)
        table = self.tables[bundle.table]
        as_it_comes = table.spec().is_unpartitioned() and not table.sort_order().fields
        stem = self._stem(bundle.table, bundle.number)
        if bundle.alone or as_it_comes:
            folder = self.config.scratch / stem
            shutil.rmtree(folder, ignore_errors=True)
            files = write_local(cursor, rows, table, folder, stem)
            return _Written(sum(file.rows for file in files), files)
        at = bundle.cuts
        if at is None and self._is_sorted_whole(bundle):
            at = find_cuts(cursor, rows, table, self._ranges(bundle.table))
        shelf = self.config.scratch / f"{stem}-shelf"
        shutil.rmtree(shelf, ignore_errors=True)
        return _Written(spread(cursor, rows, table, shelf, at or ()), (), shelf, at)

    def _is_sorted_whole(self, bundle: _Bundle) -> bool:
        table = self.tables[bundle.table]
        is_sorted = bool(table.sort_order().fields)
        return is_sorted and table.spec().is_unpartitioned() and not bundle.alone

    def _ranges(self, name: str) -> int:
        """So many that two of them, side by side, are sorted in little memory."""
        return min(BOXES, math.ceil(self.sizes[name] / self._range_bytes))

    @property
    def _range_bytes(self) -> int:
        return _RANGE_PARTS * self.config.part_bytes

    def _stem(self, table: str, number: int) -> str:
        return f"{self.run}-{self.batch}-{table.replace('.', '-')}-{number:05d}"


@contextmanager
def _pages_checked(bundle: _Bundle) -> Iterator[None]:
    """Where DuckDB stumbles over a Parquet file, say so, and over which."""
    import duckdb

    try:
        yield
    except duckdb.Error:
        for part in bundle.parts:
            if part.shape.format is FileFormat.PARQUET:
                check_pages(part)
        raise


def _unclear(bundle: _Bundle, expected: int, rows: int, defects: int) -> RecordsUnclear:
    names = ", ".join(sorted({part.file for part in bundle.parts}))
    return RecordsUnclear(
        f"{names}: {expected:,} records were counted, {rows:,} were read, {defects:,} do not fit",
        hint="Look for stray quotes; csv_options of the template say how to read them.",
    )
