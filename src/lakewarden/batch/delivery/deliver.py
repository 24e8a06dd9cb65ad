"""Deliver a folder as one batch: the files first, the manifest last.

A delivery is complete by its manifest (or by a marker, where the dataset has one), so the old one
goes before anything else is touched and the new one comes when everything lies there: a delivery
that was interrupted is incomplete, never a mixture of two. Every file is uploaded, also where an
equal one seems to lie there: what was uploaded is what was read now, and an entity tag is no proof
of content.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from pathlib import Path

from lakewarden.aws.objects import Objects
from lakewarden.batch.delivery.inventory import (
    FolderUnknown,
    PartMissing,
    files_of,
    is_folder,
    is_manifest,
    listed,
    manifest_of_folder,
    promise_of,
)
from lakewarden.batch.delivery.keys import Landing, PartUnknown, landing_of, landings_of
from lakewarden.batch.delivery.manifest import MANIFEST, Manifest, write
from lakewarden.batch.delivery.manifest_read import check_bytes
from lakewarden.batch.model import Dataset
from lakewarden.errors import Refused


class FolderDisagrees(Refused):
    """The folder's manifest names a file that is not there, or leaves one out."""


@dataclass(frozen=True)
class Progress:
    """One file of the delivery was uploaded: the `done`-th of `total`, of `bytes` bytes."""

    name: str
    done: int
    total: int
    bytes: int


@dataclass(frozen=True)
class _Parcel:
    """What is to lie in a landing prefix, and nothing else."""

    landing: Landing
    manifest: Manifest
    data: Mapping[str, Path]
    manifests: Mapping[str, bytes]


def deliver(
    objects: Objects,
    dataset: Dataset,
    batch: str,
    folder: Path,
    *,
    part: str | None = None,
    now: Callable[[], datetime],
    count: Callable[[Path, str], int | None],
    progress: Callable[[Progress], None] = lambda _: None,
) -> Manifest:
    """Put a folder's files into the batch's landing prefix, in place of what lies there.

    Where the dataset has parts, the folder has one subfolder for each; with `part` it holds the
    files of that part alone, and the others stay as they are. The manifest that is returned
    covers what was delivered, by names within the batch (`part/name`).

    The folder's own manifest is delivered as it is, in whichever form; where there is none, one
    is made in memory (`count(path, name)` counts the records of one file, by its name within the
    batch). The folder is never changed. Whether hashes, sizes and counts are true is found by
    `receive` and the load, from what landed. Raises BatchKeyInvalid, PartUnknown, PartMissing,
    FolderUnknown, FolderEmpty, FileNotDeliverable, FolderDisagrees, a ManifestRefused: all before
    anything is uploaded.
    """
    if part is not None or not dataset.parts:
        places = {landing_of(dataset, batch, objects.bucket, part): folder}
    else:
        places = _subfolders(folder, landings_of(dataset, batch, objects.bucket))
    marker = dataset.complete.marker
    parcels = [_pack(place, landing, marker, now, count) for landing, place in places.items()]
    _replace(objects, parcels, marker, progress)
    return _together(parcels)


def _subfolders(folder: Path, landings: Sequence[Landing]) -> dict[Landing, Path]:
    """One for each part, and nothing beside them but what is hidden."""
    try:
        if not folder.is_dir():
            raise FolderUnknown(f"{folder} is not a folder", hint="Give the folder with the parts.")
        found = {path.name: path for path in folder.iterdir() if not path.name.startswith(".")}
    except PermissionError as error:
        raise FolderUnknown(f"{folder} may not be read", hint="Change its permissions.") from error
    folders = {name for name, path in found.items() if path.is_dir() and not path.is_symlink()}
    parts = {landing.part or "": landing for landing in landings}
    others = found.keys() - (folders & parts.keys())
    if others:
        raise PartUnknown(
            f"{folder}: expected one subfolder a part ({', '.join(parts)}), found also"
            f" {listed(others)}",
            hint="Move it away, or name it in `parts` in lakewarden.toml. To deliver one part"
            " alone: --part NAME and its own folder.",
        )
    if missing := parts.keys() - folders:
        raise PartMissing(
            f"{folder}: expected one subfolder a part ({', '.join(parts)}), found none for"
            f" {listed(missing)}",
            hint="Add what is missing; a part without records is a file with a header only. To"
            " deliver one part alone: --part NAME and its own folder.",
        )
    return {landing: found[part] for part, landing in parts.items()}


def _together(parcels: Sequence[_Parcel]) -> Manifest:
    """One manifest of all parcels; of one that is the whole batch, its own."""
    first = parcels[0].manifest
    entries = [
        replace(entry, name=parcel.landing.in_batch(entry.name))
        for parcel in parcels
        for entry in parcel.manifest.entries
    ]
    times = [parcel.manifest.created_at for parcel in parcels]
    latest = max((time for time in times if time is not None), default=None)
    return Manifest(first.dataset, first.batch, latest, tuple(entries))


def _pack(
    folder: Path,
    landing: Landing,
    marker: str | None,
    now: Callable[[], datetime],
    count: Callable[[Path, str], int | None],
) -> _Parcel:
    files = files_of(folder, landing, marker=marker)
    if not any(is_manifest(name) for name in files):
        manifest = manifest_of_folder(folder, landing, at=now(), count=count, marker=marker)
        return _Parcel(landing, manifest, files, {MANIFEST: write(manifest)})

    @cache  # what was checked is what is uploaded
    def read(name: str) -> bytes:
        check_bytes(files[name].stat().st_size, file=str(folder / name))
        return files[name].read_bytes()

    promise = promise_of(files, read, landing, where=lambda name: f"{folder}/{name}")
    data = {name: path for name, path in files.items() if name not in promise.sources}
    _check_agrees(promise.manifest, data, folder)
    manifests = {name: read(name) for name in promise.sources}
    return _Parcel(landing, promise.manifest, data, manifests)


def _check_agrees(manifest: Manifest, data: Collection[str], folder: Path) -> None:
    missing = {entry.name for entry in manifest.entries if entry.mandatory} - set(data)
    unnamed = set(data) - {entry.name for entry in manifest.entries}
    if missing:
        raise FolderDisagrees(
            f"{folder}: its manifest names {listed(missing)}, which is not there",
            hint="Add what is missing (hidden files are never delivered), or write the manifest "
            'anew with "lakewarden batch manifest".',
        )
    if unnamed:
        raise FolderDisagrees(
            f"{folder}: its manifest does not name {listed(unnamed)}",
            hint="Move away what is not part of the delivery, or write the manifest anew with "
            '"lakewarden batch manifest".',
        )


def _replace(
    objects: Objects,
    parcels: Sequence[_Parcel],
    marker: str | None,
    progress: Callable[[Progress], None],
) -> None:
    """All old manifests and markers go first and all new ones come last: parts are never of two
    deliveries."""
    old = [list(_lying(objects, parcel.landing)) for parcel in parcels]
    for parcel, names in zip(parcels, old, strict=True):
        for name in names:
            if is_manifest(name) or name == marker:
                objects.delete(parcel.landing.prefix + name)
    _upload(objects, parcels, progress)
    for parcel, names in zip(parcels, old, strict=True):
        for name in names:
            if name not in parcel.data and name not in parcel.manifests:
                objects.delete(parcel.landing.prefix + name)
    for parcel in parcels:
        for name, body in parcel.manifests.items():
            objects.put(parcel.landing.key(name), body)
    if marker:
        for parcel in parcels:
            objects.put(parcel.landing.key(marker), b"")


def _lying(objects: Objects, landing: Landing) -> Iterator[str]:
    """Names of what lies there now; whoever put it there, they may be any."""
    return (landing.name(v.key) for v in objects.list(landing.prefix) if not is_folder(v))


def _upload(
    objects: Objects, parcels: Sequence[_Parcel], progress: Callable[[Progress], None]
) -> None:
    total = sum(len(parcel.data) for parcel in parcels)
    done = 0
    for parcel in parcels:
        for name, path in parcel.data.items():
            version = objects.upload(parcel.landing.key(name), path)
            done += 1
            progress(Progress(parcel.landing.in_batch(name), done, total, version.size))
