"""Receive a delivery: find out whether it is whole, and pin every byte of it.

Nothing is downloaded but manifests. What the manifest promises of the content (hashes, counts) is
checked by the load, which reads the versions that are pinned here.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from lakewarden.aws.objects import ObjectMissing, Objects, ObjectVersion
from lakewarden.batch.delivery.inventory import FileNotDeliverable, is_marker, listed, promise_of
from lakewarden.batch.delivery.keys import Landing, landing_of, quoted
from lakewarden.batch.delivery.manifest import Entry, Manifest
from lakewarden.batch.delivery.manifest_read import check_bytes
from lakewarden.batch.model import Dataset, DeliveredFile, Received, Run
from lakewarden.errors import Refused, TryAgain, WrongUsage


class BatchUnknown(WrongUsage):
    """Nothing was ever delivered under this batch key."""


class DeliveryMoving(TryAgain):
    """The delivery changed while it was looked at: somebody is delivering."""


class FileMissing(Refused):
    """The manifest names a file that is not there."""


class FileUnexpected(Refused):
    """A file that the manifest does not name."""


class FileEmpty(Refused):
    """A file of zero bytes that was not promised to be without records."""


class SizeDisagrees(Refused):
    """A file is not as long as the manifest promises."""


class FileWithoutTable(Refused):
    """A file that no table of the dataset takes."""


class FileOfTwoTables(Refused):
    """A file that more than one table of the dataset would take."""


class TableWithoutFile(Refused):
    """A part is missing: no file for one of the dataset's tables."""


def receive(objects: Objects, dataset: Dataset, run: Run) -> Received:
    """The delivery of a run's batch, checked and pinned.

    Every table of the dataset needs at least one file; it may go without only where the manifest
    names a file for it as not mandatory. A glob's `*` also matches slashes; case counts.
    Raises BatchUnknown, a ManifestRefused, the errors of this module, StorageUnavailable.
    """
    landing = landing_of(dataset, run.batch, objects.bucket)
    found = _listing(objects, landing)
    # The other ways in which a delivery can be complete (a marker, having settled) belong here.
    manifest, data = _by_manifest(objects, landing, found)
    _check_present(manifest, data, landing)
    files = [
        _delivered(entry, data[entry.name], dataset)
        for entry in manifest.entries
        if entry.name in data
    ]
    _check_tables(dataset, manifest, files)
    return Received(run, tuple(files), delivery_hash(files), "manifest")


def _listing(objects: Objects, landing: Landing) -> dict[str, ObjectVersion]:
    """Name → version of everything in the prefix, as it lay there at one moment.

    One listing is no snapshot: it may show the beginning of one delivery and the end of the next.
    A delivery removes its manifest first and writes it last; so two equal listings, both with
    the manifest, show files that all lay there while that manifest did.
    """
    found = list(objects.list(landing.prefix))
    if found != list(objects.list(landing.prefix)):
        raise _moving(landing)
    files = {landing.name(v.key): v for v in found if not is_marker(v)}
    if not files:
        raise BatchUnknown(
            f"nothing was delivered in s3://{landing.bucket}/{landing.prefix}",
            hint=f'"lakewarden batch deliver {landing.dataset} {landing.batch} DIR" delivers it.',
        )
    for name in files:
        if fault := landing.fault(name):
            raise FileNotDeliverable(
                f"{quoted(landing.prefix + name)} cannot be part of a delivery: {fault}",
                hint="Remove the object, or deliver it under a plain name.",
            )
    return files


def _moving(landing: Landing) -> DeliveryMoving:
    return DeliveryMoving(
        f"s3://{landing.bucket}/{landing.prefix} changed while it was read",
        hint="Wait until the delivery is done, then run the same command again.",
    )


def _by_manifest(
    objects: Objects, landing: Landing, found: Mapping[str, ObjectVersion]
) -> tuple[Manifest, dict[str, ObjectVersion]]:
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
    return promise.manifest, {n: v for n, v in found.items() if n not in promise.sources}


def _check_present(manifest: Manifest, data: Mapping[str, ObjectVersion], landing: Landing) -> None:
    if missing := {e.name for e in manifest.entries if e.mandatory} - data.keys():
        raise FileMissing(
            f"{landing.prefix}: its manifest names {listed(missing)}, which is not there",
            hint="Deliver the batch again, whole.",
        )
    if unexpected := data.keys() - {entry.name for entry in manifest.entries}:
        raise FileUnexpected(
            f"{landing.prefix}: its manifest does not name {listed(unexpected)}",
            hint="Deliver the batch again with a manifest that names every file, "
            "or remove what is not part of it.",
        )


def _delivered(entry: Entry, version: ObjectVersion, dataset: Dataset) -> DeliveredFile:
    if entry.size is not None and entry.size != version.size:
        raise SizeDisagrees(
            f"{version.key}: expected {entry.size} bytes by its manifest, found {version.size}",
            hint="The file is cut off, or not the one that the manifest was made for: "
            "deliver the batch again.",
        )
    if version.size == 0 and entry.records != 0:
        raise FileEmpty(
            f"{version.key}: expected records, or a header at the least, found 0 bytes",
            hint="A delivery without records is a header only, or promises a record_count of 0.",
        )
    table = _table_of(version.key, entry.name, dataset)
    return DeliveredFile(entry.name, table, version, entry.sha256, entry.md5, entry.records)


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


def _check_tables(dataset: Dataset, manifest: Manifest, files: Iterable[DeliveredFile]) -> None:
    filled = {file.table for file in files}
    optional = [entry.name for entry in manifest.entries if not entry.mandatory]
    for table, glob in dataset.tables.items():
        if table not in filled and not any(fnmatchcase(name, glob) for name in optional):
            raise TableWithoutFile(
                f"batch {manifest.batch} of dataset {dataset.name}: expected a file for table "
                f"{table} ({quoted(glob)}), found none",
                hint="Deliver the part that is missing; an empty one is a file with a header only.",
            )


def delivery_hash(files: Iterable[DeliveredFile]) -> str:
    """Hex sha256 over the names and contents: equal for equal deliveries where content hashes are
    promised. Where none is, an object counts as equal while its entity tag and size are."""
    lines = sorted(json.dumps([file.name, _content(file)]) for file in files)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _content(file: DeliveredFile) -> str:
    if file.sha256:
        return f"sha256 {file.sha256}"
    if file.md5:
        return f"md5 {file.md5}"
    return f"etag {file.version.etag} {file.version.size}"
