"""Deliver a folder as one batch: the files first, the manifest last.

A delivery is complete by its manifest, so the old manifest goes before anything else is touched
and the new one comes when everything lies there: a delivery that was interrupted is incomplete,
never a mixture of two. Every file is uploaded, also where an equal one seems to lie there: what
was uploaded is what was read now, and an entity tag is no proof of content.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

from lakewarden.aws.objects import Objects
from lakewarden.batch.delivery.inventory import (
    files_of,
    is_manifest,
    is_marker,
    listed,
    manifest_of_folder,
    promise_of,
)
from lakewarden.batch.delivery.keys import Landing, landing_of
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
    """What is to lie in the landing prefix, and nothing else."""

    manifest: Manifest
    data: Mapping[str, Path]
    manifests: Mapping[str, bytes]


def deliver(
    objects: Objects,
    dataset: Dataset,
    batch: str,
    folder: Path,
    *,
    now: Callable[[], datetime],
    count: Callable[[Path, str], int | None],
    progress: Callable[[Progress], None] = lambda _: None,
) -> Manifest:
    """Put a folder's files into the batch's landing prefix, in place of what lies there.

    The folder's own manifest is delivered as it is, in whichever form; where there is none, one
    is made in memory (`count(path, name)` counts the records of one file). The folder is never
    changed. Whether hashes, sizes and counts are true is found by `receive` and the load, from
    what landed. Raises BatchKeyInvalid, FolderUnknown, FolderEmpty, FileNotDeliverable,
    FolderDisagrees, a ManifestRefused: all before anything is uploaded.
    """
    landing = landing_of(dataset, batch, objects.bucket)
    parcel = _pack(folder, landing, now, count)
    _replace(objects, landing, parcel, progress)
    return parcel.manifest


def _pack(
    folder: Path,
    landing: Landing,
    now: Callable[[], datetime],
    count: Callable[[Path, str], int | None],
) -> _Parcel:
    files = files_of(folder, landing)
    if not any(is_manifest(name) for name in files):
        manifest = manifest_of_folder(folder, landing, at=now(), count=count)
        return _Parcel(manifest, files, {MANIFEST: write(manifest)})

    @cache  # what was checked is what is uploaded
    def read(name: str) -> bytes:
        check_bytes(files[name].stat().st_size, file=str(folder / name))
        return files[name].read_bytes()

    promise = promise_of(files, read, landing, where=lambda name: f"{folder}/{name}")
    data = {name: path for name, path in files.items() if name not in promise.sources}
    _check_agrees(promise.manifest, data, folder)
    return _Parcel(promise.manifest, data, {name: read(name) for name in promise.sources})


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
    objects: Objects, landing: Landing, parcel: _Parcel, progress: Callable[[Progress], None]
) -> None:
    old = [v.key for v in objects.list(landing.prefix) if not is_marker(v)]
    for key in old:
        if is_manifest(landing.name(key)):
            objects.delete(key)
    for done, (name, path) in enumerate(parcel.data.items(), start=1):
        version = objects.upload(landing.key(name), path)
        progress(Progress(name, done, len(parcel.data), version.size))
    kept = {landing.key(name) for name in (*parcel.data, *parcel.manifests)}
    for key in old:
        if key not in kept:
            objects.delete(key)
    for name, body in parcel.manifests.items():
        objects.put(landing.key(name), body)
