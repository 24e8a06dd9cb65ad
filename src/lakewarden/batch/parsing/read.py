"""One delivered file → parts: whole records as UTF-8 on local disk, hashed and counted on the way.

Every byte is read once, from the version that was pinned when the delivery was received.
"""

import codecs
import csv
import hashlib
import io
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lakewarden.aws.objects import Objects, ObjectVersion
from lakewarden.batch.delivery.inventory import listed
from lakewarden.batch.mends import Mend, digest_of_record
from lakewarden.batch.model import DeliveredFile
from lakewarden.batch.parsing.casts import TEXT, Target
from lakewarden.batch.parsing.parse import Part, Shape
from lakewarden.batch.parsing.records import RecordScanner, count, record_form, skip_lines
from lakewarden.batch.parsing.unpack import (
    Tally,
    check_size,
    decoded,
    tallied,
    unpacked,
    within,
)
from lakewarden.batch.receive import ChecksumMismatch, other_bytes
from lakewarden.errors import Refused
from lakewarden.tables.iceberg import iceberg_schema
from lakewarden.tables.template import CsvOptions, FileFormat, Source, Template

_CHUNK_BYTES = 8 << 20
# Its own columns only: DuckDB takes a folder `column=value` above it for one more.
_PARQUET = "read_parquet(?, hive_partitioning = false)"


class RecordCountMismatch(Refused):
    """A file does not hold the number of records that its manifest promises."""


class HeaderMissing(Refused):
    """A file that should begin with a header does not."""


class ColumnsDiffer(Refused):
    """A file's columns are not the template's."""


class MendOfAnother(Refused):
    """A mend that was made for another record than the one with its number."""


class NotParquet(Refused):
    """A file that should be Parquet is not, or is damaged."""


class ColumnUnreadable(Refused):
    """A column of a Parquet file that DuckDB would read otherwise than it is written."""


@dataclass(frozen=True)
class Reading:
    """What was found in one file; `records` leaves the header out."""

    sha256: str
    bytes: int
    records: int
    blank_lines: int


@dataclass(frozen=True)
class Reader:
    """Where parts go, how large they may get, and how large a file may be unpacked (bytes)."""

    objects: Objects
    folder: Path
    part_bytes: int
    max_bytes: int

    def read(
        self,
        file: DeliveredFile,
        template: Template,
        stem: str,
        emit: Callable[[Part], None],
        mends: Mapping[int, Mend] = {},  # nobody changes it
    ) -> Reading:
        """Cut a file into parts and hand each to `emit` when it is complete. `mends`: records, by
        their number, that are to be read as mended.

        Refuses (with the file's name) what cannot be told apart into records, has other columns,
        or is not what its manifest promises."""
        tally = Tally(md5=hashlib.md5(usedforsecurity=False) if file.md5 else None)
        stored = tallied(self.objects.stream(file.version), tally)
        try:
            records, blank = self._read(file, stored, tally, template, stem, emit, mends)
            _check_count(file, records)
        except Refused as error:
            # Bytes that are not those that were sent explain whatever else is wrong with them.
            deque(stored, maxlen=0)
            found = _other_bytes(file, tally) or error
            raise type(found)(f"{file.name}: {found.message}", hint=found.hint) from error
        if other := _other_bytes(file, tally):
            raise type(other)(f"{file.name}: {other.message}", hint=other.hint)
        return Reading(tally.sha256.hexdigest(), tally.bytes, records, blank)

    def _read(
        self,
        file: DeliveredFile,
        stored: Iterator[bytes],
        tally: Tally,
        template: Template,
        stem: str,
        emit: Callable[[Part], None],
        mends: Mapping[int, Mend],
    ) -> tuple[int, int]:
        source = template.source or Source(FileFormat.CSV)
        if source.format is FileFormat.PARQUET:
            return self._read_parquet(file, stored, tally, template, stem, emit), 0
        text = decoded(unpacked(stored, max_bytes=self.max_bytes), source.csv_options.encoding)
        return self._read_text(file, text, template, source, stem, emit, mends)

    def _read_text(
        self,
        file: DeliveredFile,
        text: Iterator[bytes],
        template: Template,
        source: Source,
        stem: str,
        emit: Callable[[Part], None],
        mends: Mapping[int, Mend],
    ) -> tuple[int, int]:
        options = source.csv_options
        columns: Sequence[str] = [column.name for column in template.columns]
        form = record_form(source.format, options, len(columns))
        scanner = RecordScanner(form, skipped=options.skip_rows)
        whole = _whole_records(skip_lines(text, options.skip_rows), scanner)
        headers = 0
        if source.format is FileFormat.CSV and options.header:
            columns, whole = _header(whole, scanner, template, options)
            headers = 1
        if mends:
            whole = _mended(whole, scanner, mends, headers)
        shape = Shape(source.format, columns, targets(template, options), options)
        for part in self._parts(file, shape, whole, scanner, stem, headers):
            emit(part)
        return scanner.records - headers, scanner.blank_lines

    def _parts(
        self,
        file: DeliveredFile,
        shape: Shape,
        whole: Iterator[bytes],
        scanner: RecordScanner,
        stem: str,
        before: int,
    ) -> Iterator[Part]:
        """Write records to files of about part_bytes; `before` records went another way."""
        doubts = 0
        for number in itertools.count():
            path = self.folder / f"{stem}-{number:04d}.txt"
            if not _write_up_to(path, whole, self.part_bytes):
                return
            yield Part(
                path,
                file.name,
                before + 1,
                scanner.records - before,
                shape,
                scanner.line_end.decode(),
                has_nul=scanner.has_nul,
                quoted=scanner.has_quotes,
                doubtful=scanner.doubts > doubts,
            )
            before, doubts = scanner.records, scanner.doubts

    def _read_parquet(
        self,
        file: DeliveredFile,
        stored: Iterator[bytes],
        tally: Tally,
        template: Template,
        stem: str,
        emit: Callable[[Part], None],
    ) -> int:
        path = self.folder / f"{stem}.parquet"
        with path.open("wb") as output:
            output.writelines(within(stored, max_bytes=self.max_bytes))
        if other := _other_bytes(file, tally):  # before anybody stumbles over them
            raise other
        records, names = _parquet_footer(path, self.max_bytes)
        _check_columns(names, template, "")
        _check_readable(path)
        shape = Shape(FileFormat.PARQUET, names, _typed_targets(template, path), CsvOptions())
        if records:
            emit(Part(path, file.name, 1, records, shape, cut=dict(_cut_values(path))))
        return records


def count_file(path: Path, source: Source, *, max_bytes: int) -> int:
    """The records of a file on local disk, its header left out, for a manifest.

    Raises what reading it would raise, naming the file."""
    try:
        if source.format is FileFormat.PARQUET:
            return _parquet_footer(path, max_bytes)[0]
        with path.open("rb") as file:
            return _count_text(iter(partial(file.read, _CHUNK_BYTES), b""), source, max_bytes)
    except Refused as error:
        raise type(error)(f"{path}: {error.message}", hint=error.hint) from error


def _count_text(chunks: Iterable[bytes], source: Source, max_bytes: int) -> int:
    options = source.csv_options
    text = decoded(unpacked(chunks, max_bytes=max_bytes), options.encoding)
    found = count(
        skip_lines(text, options.skip_rows), record_form(source.format, source.csv_options)
    )
    header = source.format is FileFormat.CSV and options.header
    return found - 1 if header and found else found


def targets(template: Template, options: CsvOptions) -> Sequence[Target]:
    """The columns that a delivered text has to fill."""
    schema = iceberg_schema(template)
    return [
        Target(
            column.name,
            schema.find_type(column.name),
            column.required,
            TEXT,
            options.date_format,
            options.timestamp_format,
        )
        for column in template.columns
    ]


def _whole_records(text: Iterable[bytes], scanner: RecordScanner) -> Iterator[bytes]:
    for chunk in text:
        if out := scanner.feed(chunk):
            yield out
    if out := scanner.finish():
        yield out


def _mended(
    whole: Iterable[bytes], scanner: RecordScanner, mends: Mapping[int, Mend], before: int
) -> Iterator[bytes]:
    """Whole records, some of them as mended; `before` records went another way.

    Raises MendOfAnother where a record is not the one that was mended."""
    for piece in whole:
        starts, ends = scanner.spans(piece)
        mended, at = [], 0
        for number in sorted(n for n in mends if before < n <= before + len(ends)):
            start, end = (int(where[number - before - 1]) for where in (starts, ends))
            _check_is_meant(piece[start:end].removesuffix(scanner.line_end), mends[number])
            words = mends[number].raw.encode()
            mended += [piece[at:start], words, scanner.line_end]
            at = end
            # Nobody has looked at these bytes yet, so that the part has to be diagnosed.
            scanner.doubts += 1
            scanner.has_quotes = True
            scanner.has_nul = scanner.has_nul or b"\0" in words
        before += len(ends)
        yield b"".join((*mended, piece[at:])) if mended else piece


def _check_is_meant(record: bytes, mend: Mend) -> None:
    if digest_of_record(record) != mend.replaces:
        raise MendOfAnother(
            f"record {mend.line} is not the one that was mended: the template cuts the file into"
            " other records now",
            hint="Deliver the file mended, or take back the change of the template's source.",
        )


def columns_in(
    objects: Objects, version: ObjectVersion, template: Template, *, max_bytes: int
) -> Sequence[str]:
    """The columns of a delivered text, in its order: by its header, or by the template."""
    source = template.source or Source(FileFormat.CSV)
    options = source.csv_options
    if source.format is not FileFormat.CSV or not options.header:
        return [column.name for column in template.columns]
    data = unpacked(objects.stream(version), max_bytes=max_bytes)
    text = skip_lines(decoded(data, options.encoding), options.skip_rows)
    form = record_form(source.format, options, len(template.columns))
    scanner = RecordScanner(form, skipped=options.skip_rows)
    return _header(_whole_records(text, scanner), scanner, template, options)[0]


def _write_up_to(path: Path, pieces: Iterator[bytes], least: int) -> int:
    """Write pieces until there are `least` bytes or no more of them; returns the bytes written."""
    written = 0
    for piece in pieces:
        with path.open("ab" if written else "wb") as output:
            if not written and piece.startswith(codecs.BOM_UTF8):  # DuckDB takes one off
                output.write(codecs.BOM_UTF8)
            output.write(piece)
        written += len(piece)
        if written >= least:
            break
    return written


def _header(
    whole: Iterator[bytes], scanner: RecordScanner, template: Template, options: CsvOptions
) -> tuple[Sequence[str], Iterator[bytes]]:
    """The file's column names, checked, and the records after them."""
    first = next(whole, b"")
    _, ends = scanner.spans(first)
    if not len(ends):
        raise HeaderMissing("no header: the file holds no record", hint=_HINT_HEADER)
    names = _split(first[: ends[0]].rstrip(b"\r\n").decode(), options)
    where = f"line {options.skip_rows + scanner.lines_before_first + 1}: "
    expected = {column.name for column in template.columns}
    known = sum(name in expected for name in names)
    # What is no header is data, which no message may tell.
    if 2 * known < len(names) or not known:
        raise HeaderMissing(
            f"{where}no header: {known} of its {len(names)} fields are names of columns of"
            f" {template.identifier}",
            hint=_HINT_HEADER,
        )
    _check_columns(names, template, where)
    rest = first[ends[0] :]
    return names, itertools.chain([rest] if rest else [], whole)


_HINT_HEADER = "Deliver the names of the columns first, or set csv_options.header to false."


def _split(record: str, options: CsvOptions) -> Sequence[str]:
    """One record's fields, by Python's reader: independent of the one that loads."""
    quote = options.quote
    reader = csv.reader(
        io.StringIO(record, newline=""),
        delimiter=options.delimiter,
        quotechar=quote or None,
        quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
        escapechar=options.escape if options.escape != quote else None,
    )
    try:
        return [name.strip() for name in next(reader, [])]
    except csv.Error:  # a field longer than any name
        return []


def _check_columns(found: Sequence[str], template: Template, where: str) -> None:
    """Any order is fine; another set of names is not."""
    expected = [column.name for column in template.columns]
    missing = [name for name in expected if name not in found]
    unknown = [name for name in found if name not in expected]
    twice = sorted({name for name in found if found.count(name) > 1})
    if not (missing or unknown or twice):
        return
    told = [
        f"{what} {listed(names)}"
        for what, names in (("missing", missing), ("unknown", unknown), ("twice", twice))
        if names
    ]
    raise ColumnsDiffer(
        f"{where}the columns are not those of {template.identifier}: {'; '.join(told)}",
        hint="Deliver the columns of the template, or change the template first"
        " (`lakewarden table plan`).",
    )


def _parquet_footer(path: Path, max_bytes: int) -> tuple[int, Sequence[str]]:
    """Rows and column names: the file's own words, before any parser's. Raises TooLarge."""
    try:
        footer = pq.read_metadata(path)
        names = footer.schema.to_arrow_schema().names
    except (pa.ArrowInvalid, OSError) as error:
        raise _not_parquet() from error
    groups = (footer.row_group(number) for number in range(footer.num_row_groups))
    stored = path.stat().st_size
    check_size(sum(group.total_byte_size for group in groups), stored, max_bytes=max_bytes)
    # Equal values share a few bytes, however many they are; as text each would have one at least.
    check_size(max(stored, footer.num_rows * len(names)), 0, max_bytes=max_bytes)
    return footer.num_rows, names


def _check_readable(path: Path) -> None:
    """Raises ColumnUnreadable where DuckDB 1.5.5 would take a column's values for others."""
    schema = pq.read_metadata(path).schema
    for leaf in map(schema.column, range(len(schema))):
        if leaf.precision > 38:
            raise ColumnUnreadable(
                f"column {leaf.path.partition('.')[0]}: a decimal of {leaf.precision} digits",
                hint="Deliver it with 38 digits at most, or as a text.",
            )


def _typed_targets(template: Template, path: Path) -> Sequence[Target]:
    """The columns to fill, with the types that the Parquet file gives them (in DuckDB's words)."""
    with duckdb.connect() as connection:
        try:
            connection.execute(f"DESCRIBE SELECT * FROM {_PARQUET}", [str(path)])
        except duckdb.Error as error:
            raise _not_parquet() from error
        rows = connection.fetchall()
    kinds = {str(name): str(kind) for name, kind, *_ in rows}
    return [
        replace(target, source_type=kinds[target.name])
        for target in targets(template, CsvOptions())
    ]


def _cut_values(path: Path) -> Iterator[tuple[str, Path]]:
    """Columns of which DuckDB 1.5.5 cuts nanoseconds off without a word, as it does not where there
    is no zone, and a file for each with the numbers (from 1) of the rows that would lose some."""
    schema = pq.read_metadata(path).schema
    kinds = schema.to_arrow_schema()
    for number, leaf in enumerate(map(schema.column, range(len(schema)))):
        kind = kinds.field(leaf.path).type if leaf.path in kinds.names else pa.null()
        int96 = leaf.physical_type == "INT96"
        zoned = pa.types.is_timestamp(kind) and kind.unit == "ns" and kind.tz is not None
        if int96 or zoned or kind == pa.time64("ns"):
            rows = path.with_suffix(f".{number}.cut")
            if _write_cut(path, leaf.path, rows, int96=int96):
                yield leaf.path, rows


def _write_cut(path: Path, column: str, rows: Path, *, int96: bool) -> int:
    """Returns how many."""
    before = found = 0
    try:
        with pq.ParquetWriter(rows, pa.schema({"row": pa.int64()})) as writer:
            for rest in _nanoseconds(path, column, int96=int96):
                cut = np.flatnonzero(rest) + before + 1
                writer.write_table(pa.table({"row": cut}))
                before, found = before + len(rest), found + len(cut)
    except (pa.ArrowInvalid, OSError) as error:
        raise _not_parquet() from error
    return found


def _nanoseconds(path: Path, column: str, *, int96: bool) -> Iterator[np.ndarray]:
    """What is below the microsecond. INT96 holds years that 64 bits of nanoseconds do not: they
    run over, in the same way as the microseconds do here."""
    fine = _integers(pq.ParquetFile(path), column)
    if not int96:
        yield from (values % 1_000 for values in fine)
        return
    coarse = _integers(pq.ParquetFile(path, coerce_int96_timestamp_unit="us"), column)
    yield from (nano - micro * 1_000 for nano, micro in zip(fine, coarse, strict=True))


def _integers(file: pq.ParquetFile, column: str) -> Iterator[np.ndarray]:
    for batch in file.iter_batches(columns=[column]):
        yield batch.column(0).cast(pa.int64()).fill_null(0).to_numpy()


def check_pages(part: Part) -> None:
    """Read every value of a Parquet file; raises NotParquet where one cannot be read."""
    with duckdb.connect() as connection:  # of its own: damage may break the session
        try:
            connection.execute(f"SELECT bit_xor(hash(t)) FROM {_PARQUET} AS t", [str(part.path)])
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error as error:
            raise _not_parquet(f"{part.file}: ") from error


def _not_parquet(where: str = "") -> NotParquet:
    return NotParquet(
        f"{where}not a Parquet file, or a damaged one", hint="Deliver it again, as Parquet."
    )


def _other_bytes(file: DeliveredFile, tally: Tally) -> ChecksumMismatch | None:
    """The error, where the bytes are not those of the manifest."""
    sha256 = tally.sha256.hexdigest()
    if file.sha256 and sha256 != file.sha256:
        return other_bytes("SHA-256", file.sha256, sha256)
    if file.md5 and tally.md5 and tally.md5.hexdigest() != file.md5:
        return other_bytes("MD5", file.md5, tally.md5.hexdigest())
    return None


def _check_count(file: DeliveredFile, records: int) -> None:
    if file.records is not None and records != file.records:
        raise RecordCountMismatch(
            f"the manifest promises {file.records:,} records, the file holds {records:,}",
            hint="Deliver the file whole, or with the manifest that belongs to it.",
        )
