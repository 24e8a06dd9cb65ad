"""What lies in a delivery: its files, the manifest that covers them, and a new one of them."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import NoReturn, TypeVar

from lakewarden.aws.objects import Objects, ObjectVersion
from lakewarden.batch.delivery.keys import Landing, quoted
from lakewarden.batch.delivery.manifest import (
    MANIFEST,
    Entry,
    Manifest,
    ManifestAmbiguous,
    ManifestMissing,
)
from lakewarden.batch.delivery.manifest_read import names_no_file, parse_document, parse_form
from lakewarden.errors import Refused, WrongUsage

_OLDER_END = "_manifest.json"
_CHUNK = 1 << 20


class FolderUnknown(WrongUsage):
    """The folder to deliver is not there, or is no folder."""


class FolderEmpty(Refused):
    """Nothing to deliver."""


class PartMissing(Refused):
    """Nothing is there of one of the dataset's parts."""


class FileNotDeliverable(Refused):
    """A file whose name or kind cannot be delivered: a link that leads out, a pipe, a bad name."""


@dataclass(frozen=True)
class Promise:
    """A manifest, and the names of the files that it was read from."""

    manifest: Manifest
    sources: tuple[str, ...]


# ── which file is the manifest ──────────────────────────────────────────────────────────────────


def is_manifest(name: str) -> bool:
    """Whether a file of this name could complete a delivery, in any of the forms."""
    return name.endswith(_OLDER_END) or _is_unloaded(name)


def _is_unloaded(name: str) -> bool:
    """UNLOAD writes its manifest as the prefix that it was given plus `manifest`."""
    return "/" not in name and name.endswith("manifest")


def promise_of(
    names: Collection[str],
    read: Callable[[str], bytes],
    landing: Landing,
    *,
    where: Callable[[str], str],
) -> Promise:
    """What a delivery promises, from the names of all its files.

    `_manifest.json` (or UNLOAD's) speaks for all files; the older form for one file each, as
    `_manifest.json` where one data file lies in a folder, else as `{stem}_manifest.json` beside it.
    `where` says what messages call a file. Raises a ManifestRefused.
    """
    if top := _top(names, where):
        document = parse_document(read(top), file=where(top))
        if not names_no_file(document):
            return Promise(parse_form(document, landing, file=where(top)), (top,))
    older = {name for name in names if name.endswith(_OLDER_END)}
    covers = _cover(sorted(set(names) - older), older, where)
    found = [
        parse_form(
            parse_document(read(source), file=where(source)),
            landing,
            file=where(source),
            covers=data,
        )
        for source, data in sorted(covers.items())
    ]
    entries = sorted((m.entries[0] for m in found), key=lambda entry: entry.name)
    times = [m.created_at for m in found if m.created_at is not None]
    return Promise(
        Manifest(landing.dataset, landing.batch, max(times, default=None), tuple(entries)),
        tuple(sorted(covers)),
    )


def _top(names: Collection[str], where: Callable[[str], str]) -> str | None:
    """The one file that may speak for all."""
    if MANIFEST in names:
        return MANIFEST
    unloaded = sorted(name for name in names if _is_unloaded(name))
    if len(unloaded) > 1:
        raise ManifestAmbiguous(
            where(unloaded[0]),
            expected="one manifest",
            found=f"also {quoted(unloaded[1])}",
            hint="Leave one manifest that names every file, as _manifest.json.",
        )
    return unloaded[0] if unloaded else None


def _cover(data: list[str], older: Collection[str], where: Callable[[str], str]) -> dict[str, str]:
    """Older manifest → the data file that it is for; every file has one, none is left over."""
    folders = Counter(PurePosixPath(name).parent for name in data)
    covers: dict[str, str] = {}
    bare = []
    for name in data:
        alone = folders[PurePosixPath(name).parent] == 1
        source = next((n for n in _beside(name, alone=alone) if n in older), None)
        if source is None:
            bare.append(name)
        elif source in covers:
            _ambiguous(where(source), f"{quoted(covers[source])} and {quoted(name)}")
        else:
            covers[source] = name
    if bare:
        raise ManifestMissing(
            where(MANIFEST),
            expected="a manifest that covers every file",
            found=f"none for {listed(bare)}",
            hint="Is the delivery still being written? The manifest comes last; "
            '"lakewarden batch manifest" makes one.',
        )
    for name in sorted(set(older) - covers.keys()):
        _ambiguous(where(name), "none")
    return covers


def _beside(name: str, *, alone: bool) -> Iterator[str]:
    path = PurePosixPath(name)
    stem = path
    while stem.suffix:
        stem = stem.with_suffix("")
        yield f"{stem}{_OLDER_END}"
    if not path.suffix:
        yield f"{path}{_OLDER_END}"
    if alone:
        yield str(path.with_name(MANIFEST))


def _ambiguous(file: str, found: str) -> NoReturn:
    raise ManifestAmbiguous(
        file,
        expected="the one data file that this manifest is for",
        found=found,
        hint="Beside several files each needs its own {stem}_manifest.json.",
    )


def listed(names: Collection[str], most: int = 5) -> str:
    """Some names and how many more there are, for a message."""
    shown = ", ".join(quoted(name) for name in sorted(names)[:most])
    more = len(names) - most
    return f"{shown} and {more} more" if more > 0 else shown


# ── a folder, a prefix ──────────────────────────────────────────────────────────────────────────


def files_of(folder: Path, landing: Landing, *, marker: str | None = None) -> dict[str, Path]:
    """The files of a folder and its subfolders by relative name with slashes, sorted.

    Hidden files and folders (`.DS_Store`) and the marker are left out. A link is followed only to
    a file inside of the folder. Raises FolderUnknown, FolderEmpty, FileNotDeliverable.
    """
    try:
        if not folder.is_dir():
            raise FolderUnknown(f"{folder} is not a folder", hint="Give the folder with the files.")
        root = folder.resolve()
        found = {name: path for name, path in sorted(_walk(root, root)) if name != marker}
    except PermissionError as error:
        _not_deliverable(str(error.filename), "it may not be read", "Change its permissions.")
    for name in found:
        if fault := landing.fault(name):
            _not_deliverable(name, fault, "Rename the file.")
    if not any(name != MANIFEST for name in found):
        raise FolderEmpty(
            f"{folder} has no files to deliver",
            hint="A batch without records is a file with a header only.",
        )
    return found


def _walk(folder: Path, root: Path) -> Iterator[tuple[str, Path]]:
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        name = path.relative_to(root).as_posix()
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path, root)
        elif not path.is_file() or not path.resolve().is_relative_to(root):
            fault = "it is not a file, or a link that leads out of the folder"
            _not_deliverable(name, fault, "Copy what it points to into the folder.")
        elif not os.access(path, os.R_OK):
            _not_deliverable(name, "it may not be read", "Change its permissions.")
        else:
            yield name, path


def _not_deliverable(name: str, fault: str, hint: str) -> NoReturn:
    raise FileNotDeliverable(f"{quoted(name)} cannot be delivered: {fault}", hint=hint)


def manifest_of_folder(
    folder: Path,
    landing: Landing,
    *,
    at: datetime,
    count: Callable[[Path, str], int | None],
    marker: str | None = None,
) -> Manifest:
    """A manifest of the files in a folder, with their sha256, size and number of records.

    `count(path, name)` counts the records of one file, by its name within the batch; None where
    it cannot tell. A `_manifest.json` in the folder is not read: this one is to take its place.
    """
    found = files_of(folder, landing, marker=marker)
    files = _without_manifest(found, lambda name: f"{folder}/{name}")
    entries = []
    for name, path in files.items():
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
        records = count(path, landing.in_batch(name))
        entries.append(Entry(name, sha256=digest, size=size, records=records))
    return Manifest(landing.dataset, landing.batch, at, tuple(entries))


def manifest_of_prefix(
    objects: Objects, landing: Landing, *, at: datetime, marker: str | None = None
) -> Manifest:
    """A manifest of what already lies in the landing prefix: sha256 and size of each pinned
    object, streamed once. How many records there are is not promised."""
    found = {landing.name(v.key): v for v in objects.list(landing.prefix) if not is_folder(v)}
    found.pop(marker or "", None)
    entries = []
    for name, version in sorted(_without_manifest(found, landing.key).items()):
        if fault := landing.fault(name):
            _not_deliverable(version.key, fault, "Remove the object, or copy it to a plain name.")
        digest = hashlib.sha256()
        for chunk in objects.stream(version):
            digest.update(chunk)
        entries.append(Entry(name, sha256=digest.hexdigest(), size=version.size))
    if not entries:
        raise FolderEmpty(
            f"nothing lies in s3://{landing.bucket}/{landing.prefix}",
            hint="Deliver the files first.",
        )
    return Manifest(landing.dataset, landing.batch, at, tuple(entries))


def is_folder(version: ObjectVersion) -> bool:
    """Consoles make an empty object that ends with a slash, to show a folder: it is no file."""
    return version.key.endswith("/") and version.size == 0


_Found = TypeVar("_Found")


def _without_manifest(
    files: Mapping[str, _Found], where: Callable[[str], str]
) -> dict[str, _Found]:
    """Files that a new manifest is to name; raises ManifestAmbiguous where others lie there."""
    data = {name: file for name, file in files.items() if name != MANIFEST}
    for name in data:
        if is_manifest(name):
            raise ManifestAmbiguous(
                where(name),
                expected="no manifest of another form beside the new one",
                found="one",
                hint="These files have their manifest already: deliver them as they are, "
                "or move it out of the folder.",
            )
    return data
