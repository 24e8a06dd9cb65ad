"""How a mend is made: a quarantined record, what is wrong in it put right, checked as it is read.

Only quarantined records can be mended, and only by what their table takes: what would still not
fit is refused here, and not in the next run.
"""

import codecs
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory

from lakewarden.aws.objects import Objects, ObjectVersion
from lakewarden.batch.delivery.inventory import listed
from lakewarden.batch.delivery.keys import landings_of
from lakewarden.batch.duck import DuckConfig, connect
from lakewarden.batch.mends import (
    Mend,
    Overlay,
    add_mends,
    digest_of_record,
    overlay,
    read_mends,
)
from lakewarden.batch.model import Dataset, Misfit
from lakewarden.batch.parsing.parse import Part, Shape, diagnose
from lakewarden.batch.parsing.read import columns_in, targets
from lakewarden.batch.parsing.records import count, record_form
from lakewarden.batch.parsing.unpack import unpacked
from lakewarden.batch.quarantine import list_quarantines, newest_quarantine, read
from lakewarden.batch.receipts import Receipt, receipts_of
from lakewarden.errors import Refused, WrongUsage
from lakewarden.tables.template import CsvOptions, FileFormat, Source, Template


class RecordNotQuarantined(WrongUsage):
    """No such record is in quarantine, or more than one is."""


class MendImpossible(WrongUsage):
    """The record cannot be mended in this way, or not at all."""


class MendDoesNotFit(Refused):
    """The record would not fit its table as it is mended either."""


class DeliveryUnknown(WrongUsage):
    """The receipts do not say where the file was."""


@dataclass(frozen=True)
class Correction:
    """One record put right: by its whole text, or by the values of single columns.
    `file` None: the only file with such a record in quarantine."""

    line: int
    file: str | None = None
    raw: str | None = None
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Delivery:
    """A batch as a run met it, by the run's receipts."""

    dataset: Dataset
    batch: str
    receipts: Sequence[Receipt]
    objects: Objects


@dataclass(frozen=True)
class _Bench(_Delivery):
    """What mending needs to know of the batch: `receipts` are those of the last run that put
    anything in quarantine, `mends` those that there are."""

    templates: Mapping[str, Template]
    mends: Overlay
    scratch: Path


def mend(
    dataset: Dataset,
    batch: str,
    corrections: Sequence[Correction],
    *,
    objects: Objects,
    templates: Mapping[str, Template],
    scratch: Path,
    by: str,
    at: datetime,
) -> Sequence[Mend]:
    """Keep the mends that these corrections make, all of them or none, and return them; a
    correction that changes nothing makes none. A record that was mended before is mended further.

    Raises RecordNotQuarantined, MendImpossible, MendDoesNotFit, DeliveryUnknown, MendsUnreadable,
    MendsBusy."""
    newest = newest_quarantine(objects, dataset.name, batch)
    bench = _Bench(
        dataset,
        batch,
        receipts_of(objects, dataset.name, newest.run),
        objects,
        templates,
        overlay(read_mends(objects, dataset.name, batch)),
        scratch,
    )
    every = list_quarantines(objects, dataset.name, batch)
    made = _made(bench, (read(objects, one.key) for one in every), corrections, by=by, at=at)
    if made:
        add_mends(objects, dataset.name, batch, made, seen=bench.mends)
    return made


def _made(
    bench: _Bench,
    quarantines: Iterable[Iterable[Misfit]],
    corrections: Sequence[Correction],
    *,
    by: str,
    at: datetime,
) -> Sequence[Mend]:
    """quarantines: those of the batch, the newest run's first; it is the one meant, unless it does
    not have the record."""
    for correction in corrections:
        _check_is_text(correction)
    wanted = {one.line for one in corrections}
    found = [
        [one for one in kept if one.line in wanted and _is_delivered(bench, one)]
        for kept in quarantines
    ]
    made: dict[str, list[Mend]] = {}
    shapes: dict[str, Shape] = {}
    met: set[tuple[str, int]] = set()
    for correction in corrections:
        misfit = _one(found, correction)
        if (misfit.file, misfit.line) in met:
            raise MendImpossible(
                f"{misfit.file}, record {misfit.line}: it is to be mended twice",
                hint="Nothing was kept. Say once how the record should have read.",
            )
        met.add((misfit.file, misfit.line))
        if misfit.file not in shapes:
            shapes[misfit.file] = _shape(bench, misfit.file)
        shape = shapes[misfit.file]
        delivered = _text(misfit, shape)
        before = bench.mends.get((misfit.file, misfit.file_sha256), {}).get(misfit.line)
        text = before.raw if before else delivered
        raw = text if correction.raw is None else correction.raw.strip("\r\n")
        if raw == delivered and not correction.values:  # as `show` printed it
            continue
        if correction.values:
            raw = _with(raw, shape, correction.values)
        if raw == text:
            continue
        _check_is_one(raw, shape, misfit)
        replaces = digest_of_record(delivered.encode())
        mended = Mend(misfit.file, misfit.file_sha256, misfit.line, replaces, raw, by, at)
        made.setdefault(misfit.file, []).append(mended)
    for file, mends in made.items():
        _check_fit(mends, shapes[file], bench)
    return [one for mends in made.values() for one in mends]


def _check_is_text(correction: Correction) -> None:
    """What a terminal or JSON gives may hold halves of characters."""
    for text in (correction.raw or "", *correction.values, *correction.values.values()):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise MendImpossible(
                f"record {correction.line}: what it should read is not text in UTF-8",
                hint="Write it in UTF-8; it is kept and checked so, however the file is encoded.",
            ) from None


def _is_delivered(bench: _Bench, misfit: Misfit) -> bool:
    """Whether the last run met the same bytes, as far as it is known."""
    keys = _keys(bench, misfit.file)
    known = {one.sha256 for receipt in bench.receipts for one in receipt.objects if one.key in keys}
    return not (known - {None}) or misfit.file_sha256 in known


def _keys(delivery: _Delivery, file: str) -> Collection[str]:
    landings = landings_of(delivery.dataset, delivery.batch, delivery.objects.bucket)
    return {
        landing.prefix + file.removeprefix(f"{landing.part}/" if landing.part else "")
        for landing in landings
    }


def _one(found: Iterable[Sequence[Misfit]], correction: Correction) -> Misfit:
    where = f" of {correction.file}" if correction.file else ""
    every = (
        [one for one in kept if one.line == correction.line and correction.file in (None, one.file)]
        for kept in found
    )
    fitting = next(filter(None, every), [])
    if not fitting:
        raise RecordNotQuarantined(
            f"record {correction.line}{where} is not in quarantine",
            hint="`lakewarden quarantine show` lists those that are.",
        )
    if len(fitting) > 1:
        files = listed([one.file for one in fitting])
        raise RecordNotQuarantined(
            f"record {correction.line} of more than one file is in quarantine: {files}",
            hint="Name the file with --file.",
        )
    return fitting[0]


def _shape(bench: _Bench, file: str) -> Shape:
    tables = [t for t, glob in bench.dataset.tables.items() if fnmatchcase(file, glob)]
    if len(tables) != 1:
        raise MendImpossible(
            f"{file} belongs to no one table of dataset {bench.dataset.name} any more",
            hint="Deliver the batch mended.",
        )
    template = bench.templates[tables[0]]
    source = template.source or Source(FileFormat.CSV)
    if source.format is FileFormat.PARQUET:
        raise MendImpossible(
            f"{file} is Parquet, whose rows cannot be mended", hint="Deliver it mended."
        )
    options = source.csv_options
    version = _pinned(bench, file)
    if version is None:
        raise DeliveryUnknown(
            f"{file}: the receipts of the run do not say which object it was, or it is gone",
            hint="Deliver the batch mended.",
        )
    columns = columns_in(bench.objects, version, template, max_bytes=bench.dataset.max_bytes)
    encoding = _in_order(options.encoding, bench, version)
    told = replace(options, encoding=encoding)
    return Shape(source.format, columns, targets(template, options), told)


def _pinned(delivery: _Delivery, file: str) -> ObjectVersion | None:
    """The delivered file that the run had pinned, where it is known and still there."""
    keys = _keys(delivery, file)
    for receipt in delivery.receipts:
        for one in receipt.objects:
            if one.key in keys and (found := delivery.objects.head(one.key, one.version_id)):
                return found
    return None


# Where an encoding leaves the order of bytes to each file, the mark that it begins with says it.
_ORDERS = {
    "utf-16": {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"},
    "utf-32": {codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be"},
}


def encoding_of(
    dataset: Dataset, batch: str, run: str, file: str, encoding: str, *, objects: Objects
) -> str:
    """In what a record out of the middle of a file that a run met is encoded: `encoding` is what
    the template says, which may leave the order of bytes to the file."""
    if encoding not in _ORDERS:
        return encoding
    delivery = _Delivery(dataset, batch, receipts_of(objects, dataset.name, run), objects)
    version = _pinned(delivery, file)
    return _in_order(encoding, delivery, version) if version else encoding


def _in_order(encoding: str, delivery: _Delivery, version: ObjectVersion) -> str:
    if encoding not in _ORDERS:
        return encoding
    start = b""
    for piece in unpacked(delivery.objects.stream(version), max_bytes=delivery.dataset.max_bytes):
        start += piece
        if len(start) >= len(codecs.BOM_UTF32):
            break
    orders = _ORDERS[encoding].items()
    return next((told for mark, told in orders if start.startswith(mark)), encoding)


def _text(misfit: Misfit, shape: Shape) -> str:
    return misfit.raw.decode(shape.options.encoding, "backslashreplace")


def _with(raw: str, shape: Shape, values: Mapping[str, str]) -> str:
    """The record with other values in some columns."""
    if unknown := values.keys() - set(shape.columns):
        raise MendImpossible(
            f"the file has no column {listed(sorted(unknown))}",
            hint=f"It has {', '.join(shape.columns)}.",
        )
    if shape.format is FileFormat.JSON:
        return _json_with(raw, values)
    return _csv_with(raw, shape, values)


class _Number(str):
    """A number as it is written: a float would change its digits."""

    __slots__ = ()


def _json_with(raw: str, values: Mapping[str, str]) -> str:
    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len({name for name, _ in pairs}) < len(pairs):
            raise ValueError("a field twice")
        return dict(pairs)

    try:
        record = json.loads(
            raw,
            parse_float=_Number,
            parse_int=_Number,
            parse_constant=_Number,
            object_pairs_hook=once,
        )
        if isinstance(record, dict):
            return _json({**record, **values})
    except (ValueError, RecursionError):  # whose text would quote the record
        pass
    raise MendImpossible(
        "the record is not a JSON object whose fields are there once (or it is nested too"
        " deeply), so none can be set",
        hint="Give the whole record with --raw.",
    )


def _json(value: object) -> str:
    match value:
        case _Number():
            return str(value)
        case dict():
            pairs = (f"{json.dumps(k, ensure_ascii=False)}: {_json(v)}" for k, v in value.items())
            return f"{{{', '.join(pairs)}}}"
        case list():
            return f"[{', '.join(map(_json, value))}]"
        case _:
            return json.dumps(value, ensure_ascii=False)


def _csv_with(raw: str, shape: Shape, values: Mapping[str, str]) -> str:
    """Other fields in the place of some; the rest stays as it is written."""
    spans = _fields(raw.encode(), shape)
    if len(spans) != len(shape.columns):
        raise MendImpossible(
            f"the record has {len(spans)} fields, and the file has {len(shape.columns)} columns",
            hint="Give the whole record with --raw.",
        )
    record = raw.encode()
    for name in sorted(values, key=shape.columns.index, reverse=True):
        start, end = spans[shape.columns.index(name)]
        record = record[:start] + _written(values[name], shape.options).encode() + record[end:]
    return record.decode()


def _fields(record: bytes, shape: Shape) -> Sequence[tuple[int, int]]:
    """Where each field stands; none where the record cannot be cut."""
    field = re.compile(shape.form.field(strict=False))
    spans, at = [], 0
    while found := field.match(record, at):
        spans.append(found.span())
        at = found.end()
        if at == len(record):
            return spans
        if not record.startswith(shape.form.delimiter, at):
            break
        at += len(shape.form.delimiter)
    return []


def _written(value: str, options: CsvOptions) -> str:
    """A value as a field, quoted where it has to be."""
    special = [options.delimiter, "\r", "\n", *([options.quote] if options.quote else [])]
    if not any(sign in value for sign in special) and value == value.strip(" "):
        return value
    if options.quote is None:
        raise MendImpossible(
            "a value holds the delimiter, a line end or spaces around it, and the file quotes"
            " nothing",
            hint="Deliver the file mended.",
        )
    escape = options.escape or options.quote
    inside = value.replace(escape, escape * 2) if escape != options.quote else value
    return f"{options.quote}{inside.replace(options.quote, escape + options.quote)}{options.quote}"


def _check_is_one(raw: str, shape: Shape, misfit: Misfit) -> None:
    form = record_form(shape.format, shape.options)
    try:
        records = count([raw.encode()], form)
    except (Refused, UnicodeEncodeError):
        records = 0
    if records != 1:
        raise MendDoesNotFit(
            f"{misfit.file}, record {misfit.line}: as mended it is not one record",
            hint="Write it on one line, with quotes that are closed.",
        )


def _check_fit(mends: Sequence[Mend], shape: Shape, bench: _Bench) -> None:
    """As the load would read them, all of one file at once, after another record: a parser may
    drop what a file begins with."""
    with TemporaryDirectory(dir=bench.scratch) as folder:
        path = Path(folder, "mended.txt")
        records = [_before(shape), *(one.raw for one in mends)]
        path.write_bytes(b"".join(record.encode() + b"\n" for record in records))
        part = Part(path, mends[0].file, 0, len(records), shape, has_nul=True, doubtful=True)
        with connect(DuckConfig(Path(folder), threads=1)) as connection:
            defects = diagnose(connection, part)[1]
    for defect in defects:
        if not defect.number:  # whether that record fits does not matter
            continue
        column = f", column {defect.column}" if defect.column else ""
        one = mends[defect.number - 1]
        raise MendDoesNotFit(
            f"{one.file}, record {one.line}{column}: as mended it does not fit either:"
            f" {defect.message}",
            hint="Nothing was kept. Mend it as the table's template wants it.",
        )


def _before(shape: Shape) -> str:
    """A record with as many fields as the file's, so that it is not cut out."""
    if shape.format is FileFormat.JSON:
        return "{}"
    options = shape.options
    free = next(c for c in "abcd" if c not in (options.delimiter, options.quote, options.escape))
    return free + options.delimiter * (len(shape.columns) - 1)
