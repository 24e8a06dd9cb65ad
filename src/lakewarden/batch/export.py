"""What is published, as Parquet for those who do not read Iceberg: whole, of one version.

    <prefix>_manifest.json                            what holds: written last, and by nobody older
    <prefix><table>/v<version>/<n>-<hash>.parquet    files; none is ever written over

All tables come from one pin. Who goes by the manifest sees all of one version or all of another;
files of the version before stay until the next one, for those who still read them. A table that did
not change keeps its files.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from lakewarden.aws.objects import ObjectChanged, ObjectExists, ObjectMissing, Objects
from lakewarden.batch.duck import NO_BLOOM_FILTER, DuckConfig, identifier, literal
from lakewarden.batch.query import interruptibly, open_pin
from lakewarden.errors import Failed, TryAgain
from lakewarden.lake.model import Lake, Pin, Publication
from lakewarden.tables.template import AccessLevel, Template

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MANIFEST = "_manifest.json"
_FILE_BYTES = 256 << 20
_OURS = re.compile(r"[^/]+/v(\d+)/\d{5,}-[0-9a-f]{16}\.parquet")  # as _upload calls them
_ATTEMPTS = 20  # to read main, or to write the manifest, while others do


class ExportUnreadable(Failed):
    """What lies where the manifest of the exports should is none that this release reads."""


class ExportForeign(Failed):
    """What lies where the exports should was exported from another catalog."""


class ExportBusy(TryAgain):
    """Main, or the manifest, moved again and again meanwhile."""


@dataclass(frozen=True)
class ExportConfig:
    """`prefix` ends with a slash. `tables`: globs of names; None: what models write. Without
    `restricted`, columns that a template calls pii or restricted are left out."""

    prefix: str
    tables: Sequence[str] | None
    restricted: bool
    scratch: Path


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ExportedFile(_Model):
    """`key` is within the bucket."""

    key: str
    rows: int
    bytes: int
    sha256: str


class ExportedTable(_Model):
    """`location`: the table's metadata, which these files are of. `left_out`: columns that are not
    in the files."""

    location: str
    columns: tuple[str, ...]
    left_out: tuple[str, ...]
    rows: int
    files: tuple[ExportedFile, ...]


class Export(_Model):
    """The manifest: of which publication (`version`, and the run that made it) everything is."""

    format: Literal[1] = 1
    version: int
    run: str | None = None  # older releases did not keep it; nor is there one before the first
    at: AwareDatetime
    tables: Mapping[str, ExportedTable]


@dataclass(frozen=True)
class Exported:
    """`changed`: tables whose files are new; None: the version, or a newer one, lay there."""

    export: Export
    changed: tuple[str, ...] | None


def export(
    lake: Lake,
    objects: Objects,
    templates: Mapping[str, Template],
    duck: DuckConfig,
    config: ExportConfig,
    now: datetime,
) -> Exported:
    """Write what main holds now, unless it, or something newer, lies there.

    Raises ExportUnreadable, ExportForeign, ExportBusy, StorageUnavailable, CatalogUnavailable."""
    newest, pin = _newest(lake)
    version = newest.version if newest else 0
    wanted = {
        name: template
        for name, template in templates.items()
        if name in pin.tables and _is_wanted(template, config)
    }
    before, _ = read_export(objects, config.prefix)
    # The log is read after the manifest, which may be of what was published a moment ago.
    if before and before.version >= version and not _is_of(before, lake.publications()):
        by = f" by run {before.run}" if before.run else ""
        raise ExportForeign(
            f"s3://{objects.bucket}/{config.prefix}{MANIFEST} is of another catalog:"
            f" this one has no version {before.version}{by}",
            hint="Remove it, and export again; or choose another prefix in [export].",
        )
    if before and _holds(before, version, pin, wanted, config):
        return Exported(before, None)
    tables: dict[str, ExportedTable] = {}
    changed = []
    shutil.rmtree(config.scratch, ignore_errors=True)
    with open_pin(duck, replace(pin, tables={n: pin.tables[n] for n in wanted})) as connection:
        for name, template in sorted(wanted.items()):
            kept = _kept(before, name, pin.tables[name], template, config)
            if kept is None:
                changed.append(name)
                prefix = f"{config.prefix}{_folder(template, wanted)}/v{version}/"
                kept = _write(connection, objects, template, pin.tables[name], prefix, config)
            tables[name] = kept
    shutil.rmtree(config.scratch, ignore_errors=True)
    run = newest.run if newest else None
    made = Export(version=version, run=run, at=now, tables=tables)
    return _finish(objects, config, made, changed)


def read_export(objects: Objects, prefix: str) -> tuple[Export | None, str]:
    """What lies there, and its entity tag; raises ExportUnreadable."""
    key = prefix + MANIFEST
    try:
        stored = objects.get(key)
    except ObjectMissing:
        return None, ""
    try:
        return Export.model_validate_json(stored.body), stored.version.etag
    except ValidationError:
        raise ExportUnreadable(
            f"s3://{objects.bucket}/{key} is not a manifest that this release reads",
            hint="Remove it, and export again; or choose another prefix in [export].",
        ) from None


def _is_of(export: Export, log: Sequence[Publication]) -> bool:
    """Whether one of these publications is what was exported. Version 0 is of none."""
    found = {(one.version, run) for one in log for run in (one.run, None)} | {(0, None)}
    return (export.version, export.run) in found


def _newest(lake: Lake) -> tuple[Publication | None, Pin]:
    """The newest publication and main as it left it: read twice, as main may move."""
    for _ in range(_ATTEMPTS):
        before = lake.publications()
        pin = lake.pin()
        if before[:1] == lake.publications()[:1]:
            return next(iter(before), None), pin
    raise ExportBusy("main moved all the time while it was read", hint="Try again.")


def _is_wanted(template: Template, config: ExportConfig) -> bool:
    if config.tables is None:
        return template.load_dataset is None
    return any(fnmatchcase(template.identifier, glob) for glob in config.tables)


def _folder(template: Template, wanted: Mapping[str, Template]) -> str:
    """The table's name; with its namespace where another one is called the same."""
    same = sum(one.name == template.name for one in wanted.values())
    return template.name if same == 1 else template.identifier


def _columns(template: Template, config: ExportConfig) -> tuple[str, ...]:
    return tuple(
        column.name
        for column in template.all_columns
        if config.restricted or not (column.pii or column.access_level is AccessLevel.RESTRICTED)
    )


def _left_out(template: Template, config: ExportConfig) -> tuple[str, ...]:
    kept = set(_columns(template, config))
    return tuple(column.name for column in template.all_columns if column.name not in kept)


def _holds(
    before: Export, version: int, pin: Pin, wanted: Mapping[str, Template], config: ExportConfig
) -> bool:
    """Whether it is of this version or a newer one. Of the same: with the same columns."""
    if before.version != version:
        return before.version > version
    return before.tables.keys() == wanted.keys() and all(
        _kept(before, name, pin.tables[name], template, config) for name, template in wanted.items()
    )


def _kept(
    before: Export | None, name: str, location: str, template: Template, config: ExportConfig
) -> ExportedTable | None:
    """What was exported of the same state of a table, if it was, and with the same columns."""
    found = before.tables.get(name) if before else None
    if found and (found.location, found.columns) == (location, _columns(template, config)):
        return found
    return None


def _write(
    connection: "DuckDBPyConnection",
    objects: Objects,
    template: Template,
    location: str,
    prefix: str,
    config: ExportConfig,
) -> ExportedTable:
    name, columns = template.identifier, _columns(template, config)
    folder = config.scratch / name
    folder.mkdir(parents=True)
    where = ".".join(map(identifier, (template.namespace, template.name)))
    sql = (
        f"COPY (SELECT {', '.join(map(identifier, columns))} FROM {where})"
        f" TO {literal(str(folder))}"
        f" (FORMAT parquet, {NO_BLOOM_FILTER}, FILE_SIZE_BYTES {_FILE_BYTES})"
    )
    rows = interruptibly(connection, lambda: connection.execute(sql)).fetchone()
    found = sorted(folder.rglob("*.parquet"))
    files = tuple(_upload(objects, prefix, number, path) for number, path in enumerate(found))
    shutil.rmtree(folder)
    return ExportedTable(
        location=location,
        columns=columns,
        left_out=_left_out(template, config),
        rows=_checked(name, int(rows[0]) if rows else 0, files),
        files=files,
    )


def _upload(objects: Objects, prefix: str, number: int, path: Path) -> ExportedFile:
    """A key that tells its content is nobody else's."""
    import pyarrow.parquet as pq

    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    version = objects.upload(f"{prefix}{number:05d}-{digest[:16]}.parquet", path)
    rows = pq.ParquetFile(path).metadata.num_rows
    return ExportedFile(key=version.key, rows=rows, bytes=version.size, sha256=digest)


def _checked(name: str, rows: int, files: Sequence[ExportedFile]) -> int:
    written = sum(file.rows for file in files)
    if written != rows:
        raise Failed(f"{name}: {rows:,} rows were read, the files hold {written:,}")
    return rows


def _finish(
    objects: Objects, config: ExportConfig, made: Export, changed: Sequence[str]
) -> Exported:
    """The manifest, in place of an older one only; then what neither it nor that one names goes.

    Another export of the same version may have come first: what is equal stays as it lies there,
    and what that one left for its readers does too."""
    body = json.dumps(made.model_dump(mode="json"), indent=1).encode()
    key = config.prefix + MANIFEST
    for _ in range(_ATTEMPTS):
        before, etag = read_export(objects, config.prefix)
        if before and (before.version > made.version or _is_equal(before, made)):
            return Exported(before, None)
        try:
            if before:
                objects.replace(key, body, etag=etag)
            else:
                objects.create(key, body)
        except (ObjectExists, ObjectChanged):
            continue
        if before is None or before.version < made.version:
            _clear(objects, config.prefix, made, before)
        return Exported(made, tuple(changed))
    raise ExportBusy(f"s3://{objects.bucket}/{key} changes all the time", hint="Try again.")


def _is_equal(one: Export, other: Export) -> bool:
    """Whether both hold the same, in whatever files."""
    told = [
        (each.version, {name: (t.location, t.columns) for name, t in each.tables.items()})
        for each in (one, other)
    ]
    return told[0] == told[1]


def _clear(objects: Objects, prefix: str, made: Export, before: Export | None) -> None:
    """Our files of older versions: an export of one that is still under way will not be taken."""
    named = {key for one in (made, before) if one for key in _keys(one)}
    for version in list(objects.list(prefix)):
        found = _OURS.fullmatch(version.key.removeprefix(prefix))
        if found and int(found[1]) < made.version and version.key not in named:
            objects.delete(version.key)


def _keys(export: Export) -> Iterator[str]:
    return (file.key for table in export.tables.values() for file in table.files)
