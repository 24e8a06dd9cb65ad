"""Receive a delivery: find out whether it is whole, and pin every byte of it.

Whole by its manifest, by a marker that was written last, or by having lain still for some time.

Nothing is downloaded but manifests. What the manifest promises of the content (hashes, counts) is
checked by the load, which reads the versions that are pinned here.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from lakewarden.aws.objects import ObjectMissing, Objects, ObjectVersion
from lakewarden.batch.delivery.inventory import (
    FileNotDeliverable,
    PartMissing,
    is_folder,
    is_manifest,
    listed,
    promise_of,
)
from lakewarden.batch.delivery.keys import Landing, landings_of, quoted
from lakewarden.batch.delivery.manifest import Entry, Manifest
from lakewarden.batch.delivery.manifest_read import check_bytes
from lakewarden.batch.model import Dataset, DeliveredFile, Delivery
from lakewarden.errors import Refused, TryAgain, WrongUsage


class BatchUnknown(WrongUsage):
    """Nothing was ever delivered under this batch key."""


class NotReady(TryAgain):
    """The delivery is on its way: later it may be whole."""


class DeliveryMoving(NotReady):
    """The delivery changed while it was looked at: somebody is delivering."""


class MarkerMissing(NotReady):
    """The file that says that the delivery is whole is not there, or older than what it is for."""


class NotSettled(NotReady):
    """Something of the delivery came only a while ago; more may follow."""


class FileMissing(Refused):
    """The manifest names a file that is not there."""


class FileUnexpected(Refused):
    """A file that the manifest does not name."""


class FileEmpty(Refused):
    """A file of zero bytes that was not promised to be without records."""


class SizeDisagrees(Refused):
    """A file is not as long as the manifest promises."""


class ChecksumMismatch(Refused):
    """A file's bytes are not those that its manifest describes."""


class FileWithoutTable(Refused):
    """A file that no table of the dataset takes."""


class FileOfTwoTables(Refused):
    """A file that more than one table of the dataset would take."""


class TableWithoutFile(Refused):
    """No file for one of the dataset's tables."""


@dataclass(frozen=True)
class _Part:
    """One part of a delivery, or the whole of it: what is promised, and what lies there."""

    landing: Landing
    manifest: Manifest
    data: Mapping[str, ObjectVersion]


# Of two answers of a store about one version, a write's time may differ by a second.
_CLOCK = timedelta(seconds=2)


def receive(
    objects: Objects,
    dataset: Dataset,
    batch: str,
    *,
    now: datetime,
    places: Sequence[Landing] | None = None,
) -> Delivery:
    """The delivery of a batch, checked and pinned: all parts of it. What manifests promise is
    checked also where they are not what makes it complete.

    Every table of the dataset needs at least one file; it may go without only where a manifest
    names a file for it as not mandatory. Globs match a file's name within the batch, which begins
    with its part where there are parts. A glob's `*` also matches slashes; case counts.
    `places`: where it lies, when not where the dataset lands.
    Raises BatchUnknown, a ManifestRefused, the errors of this module, StorageUnavailable.
    """
    landings = places or landings_of(dataset, batch, objects.bucket)
    parts = [
        _part(objects, dataset, landing, files, now)
        for landing, files in _listings(objects, landings).items()
    ]
    for part in parts:
        _check_present(part)
    files = [
        _delivered(entry, part, dataset)
        for part in parts
        for entry in part.manifest.entries
        if entry.name in part.data
    ]
    _check_tables(dataset, batch, parts, files)
    return Delivery(batch, tuple(files), delivery_hash(files), str(dataset.complete))


def validate(
    objects: Objects,
    dataset: Dataset,
    batch: str,
    *,
    now: datetime,
    places: Sequence[Landing] | None = None,
) -> Delivery:
    """The same, and hashes are compared where the store holds one; no byte is read. Raises
    ChecksumMismatch too."""
    found = receive(objects, dataset, batch, now=now, places=places)
    for file in found.files:
        held = objects.sha256(file.version) if file.sha256 else None
        if held and file.sha256 and held != file.sha256:
            raise other_bytes(f"{file.version.key}: SHA-256", file.sha256, held)
    return found


def other_bytes(kind: str, expected: str, found: str) -> ChecksumMismatch:
    """The error where a hash is another one than the manifest's."""
    return ChecksumMismatch(
        f"{kind} {found[:12]}…, the manifest says {expected[:12]}…",
        hint="The file is not the one that was meant: deliver it again with its manifest.",
    )


def is_delivered(objects: Objects, dataset: Dataset, batch: str) -> bool:
    """Whether anything at all lies there under this batch key, whole or not."""
    landings = landings_of(dataset, batch, objects.bucket)
    return any(not is_folder(v) for one in landings for v in objects.list(one.prefix))


def _listings(
    objects: Objects, landings: Sequence[Landing]
) -> dict[Landing, dict[str, ObjectVersion]]:
    """Name → version of everything that was delivered, as it lay there at one moment.

    One listing is no snapshot: it may show the beginning of one delivery and the end of the next.
    A delivery removes its manifests first and writes them last; so two equal listings of all
    parts, with their manifests, show files that all lay there while those manifests did.
    """
    found = [list(objects.list(landing.prefix)) for landing in landings]
    for landing, before in zip(landings, found, strict=True):
        if before != list(objects.list(landing.prefix)):
            raise _moving(landing)
    files = {
        landing: {landing.name(v.key): v for v in versions if not is_folder(v)}
        for landing, versions in zip(landings, found, strict=True)
    }
    _check_delivered(files)
    for landing in landings:
        _check_names(landing, files[landing])
    return files


def _check_delivered(files: Mapping[Landing, Mapping[str, ObjectVersion]]) -> None:
    missing = [landing for landing, found in files.items() if not found]
    if not missing:
        return
    first = missing[0]
    deliver = f"lakewarden batch deliver {first.dataset} {first.batch} DIR"
    if len(missing) == len(files):
        others = " or any other part" if first.part else ""
        raise BatchUnknown(
            f"nothing was delivered in s3://{first.bucket}/{first.prefix}{others}",
            hint=f'"{deliver}" delivers it.',
        )
    names = listed([landing.part or "" for landing in missing])
    raise PartMissing(
        f"batch {first.batch} of dataset {first.dataset}: expected the part {names} too,"
        f" found nothing in s3://{first.bucket}/{first.prefix}",
        hint=f'"{deliver} --part {first.part}" delivers it; an empty one is a file with a header'
        " only.",
    )


def _check_names(landing: Landing, names: Iterable[str]) -> None:
    for name in names:
        if fault := landing.fault(name):
            raise FileNotDeliverable(
                f"{quoted(landing.prefix + name)} cannot be part of a delivery: {fault}",
                hint="Remove the object, or deliver it under a plain name.",
            )


def _moving(landing: Landing) -> DeliveryMoving:
    return DeliveryMoving(
        f"s3://{landing.bucket}/{landing.prefix} changed while it was read",
        hint="Wait until the delivery is done, then run the same command again.",
    )


def _part(
    objects: Objects,
    dataset: Dataset,
    landing: Landing,
    found: Mapping[str, ObjectVersion],
    now: datetime,
) -> _Part:
    complete = dataset.complete
    if complete.marker:
        found = _marked(landing, found, complete.marker)
    elif complete.settled:
        _check_settled(landing, found.values(), complete.settled, now)
    if not (complete.marker or complete.settled) or any(map(is_manifest, found)):
        return _by_manifest(objects, landing, found)
    entries = tuple(Entry(name, size=version.size) for name, version in sorted(found.items()))
    return _Part(landing, Manifest(landing.dataset, landing.batch, None, entries), found)


def _marked(
    landing: Landing, found: Mapping[str, ObjectVersion], name: str
) -> Mapping[str, ObjectVersion]:
    """The files that a marker is for."""
    if name not in found:
        raise MarkerMissing(
            f"s3://{landing.bucket}/{landing.prefix}: {quoted(name)} is not there yet",
            hint="Wait until the delivery is done, then run the same command again.",
        )
    files = {other: version for other, version in found.items() if other != name}
    newer = [n for n, v in files.items() if v.modified > found[name].modified + _CLOCK]
    if newer:
        raise MarkerMissing(
            f"s3://{landing.bucket}/{landing.prefix}: {listed(newer)} came after {quoted(name)}",
            hint=f"Is somebody delivering? {quoted(name)} has to be written last: write it again.",
        )
    return files


def _check_settled(
    landing: Landing, found: Iterable[ObjectVersion], least: timedelta, now: datetime
) -> None:
    still = now - max(version.modified for version in found)
    if still < least:
        left = max(1, round((least - still).total_seconds()))
        raise NotSettled(
            f"s3://{landing.bucket}/{landing.prefix} changed a while ago; if nothing more comes it"
            f" counts as complete in {left} s",
            hint="Run the same command again then.",
        )


def _by_manifest(objects: Objects, landing: Landing, found: Mapping[str, ObjectVersion]) -> _Part:
    def where(name: str) -> str:
        return landing.prefix + name

    def read(name: str) -> bytes:
        version = found[name]
        check_bytes(version.size, file=where(name))
        try:
            return objects.get(version.key, version.version_id).body
        except ObjectMissing as error:
            raise _moving(landing) from error

    promise = promise_of(found, read, landing, where=where)
    data = {name: version for name, version in found.items() if name not in promise.sources}
    return _Part(landing, promise.manifest, data)


def _check_present(part: _Part) -> None:
    prefix, manifest, data = part.landing.prefix, part.manifest, part.data
    if missing := {e.name for e in manifest.entries if e.mandatory} - data.keys():
        raise FileMissing(
            f"{prefix}: its manifest names {listed(missing)}, which is not there",
            hint="Deliver the batch again, whole.",
        )
    if unexpected := data.keys() - {entry.name for entry in manifest.entries}:
        raise FileUnexpected(
            f"{prefix}: its manifest does not name {listed(unexpected)}",
            hint="Deliver the batch again with a manifest that names every file, "
            "or remove what is not part of it.",
        )


def _delivered(entry: Entry, part: _Part, dataset: Dataset) -> DeliveredFile:
    version, name = part.data[entry.name], part.landing.in_batch(entry.name)
    if entry.size is not None and entry.size != version.size:
        raise SizeDisagrees(
            f"{version.key}: expected {entry.size} bytes by its manifest, found {version.size}",
            hint="The file is cut off, or not the one that the manifest was made for: "
            "deliver the batch again.",
        )
    if version.size == 0 and entry.records != 0:
        raise FileEmpty(
            f"{version.key}: expected records, or a header at the least, found 0 bytes",
            hint="A file without records is a header only; where the template says that there is"
            " no header, 0 bytes with a record_count of 0 in the manifest.",
        )
    table = _table_of(version.key, name, dataset)
    return DeliveredFile(name, table, version, entry.sha256, entry.md5, entry.records)


def _table_of(key: str, name: str, dataset: Dataset) -> str:
    tables = [table for table, glob in dataset.tables.items() if fnmatchcase(name, glob)]
    if not tables:
        globs = ", ".join(f"{table} = {quoted(glob)}" for table, glob in dataset.tables.items())
        raise FileWithoutTable(
            f"{key}: expected a file for a table of dataset {dataset.name} ({globs}), found none",
            hint="Name the file so that one pattern matches, or add its table in lakewarden.toml.",
        )
    if len(tables) > 1:
        raise FileOfTwoTables(
            f"{key}: expected a file for one table, found that {' and '.join(tables)} take it",
            hint=f"Narrow the patterns of dataset {dataset.name} in lakewarden.toml.",
        )
    return tables[0]


def _check_tables(
    dataset: Dataset, batch: str, parts: Iterable[_Part], files: Iterable[DeliveredFile]
) -> None:
    filled = {file.table for file in files}
    optional = [
        part.landing.in_batch(entry.name)
        for part in parts
        for entry in part.manifest.entries
        if not entry.mandatory
    ]
    for table, glob in dataset.tables.items():
        if table not in filled and not any(fnmatchcase(name, glob) for name in optional):
            raise TableWithoutFile(
                f"batch {batch} of dataset {dataset.name}: expected a file for table "
                f"{table} ({quoted(glob)}), found none",
                hint="Deliver the file that is missing; an empty one is a file with a header only.",
            )


def delivery_hash(files: Iterable[DeliveredFile]) -> str:
    """Hex sha256 over names, promises and what lies there. What is promised may not be true, which
    only reading finds; so an entity tag or a size that differs is another delivery."""
    lines = sorted(
        json.dumps([f.name, f.sha256, f.md5, f.version.etag, f.version.size]) for f in files
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
