"""The manifest: what a delivery says that it holds; the errors of reading one; and writing it.

`manifest_read.py` reads the forms that there are; version 1 is the one that is written.
"""

import json
from dataclasses import dataclass
from datetime import datetime

from lakewarden.errors import Refused

MANIFEST = "_manifest.json"


class ManifestRefused(Refused):
    """A manifest that cannot be believed: the file, what was expected, what was found."""

    def __init__(self, file: str, *, expected: str, found: str, hint: str) -> None:
        super().__init__(f"{file}: expected {expected}, found {found}", hint=hint)
        self.file = file
        self.expected = expected
        self.found = found


class ManifestMissing(ManifestRefused):
    """Files without a manifest that covers them: the delivery is not complete (yet)."""


class ManifestNotJson(ManifestRefused):
    """Not one JSON object in UTF-8, or one that different readers would read differently."""


class ManifestTooLarge(ManifestRefused):
    """More bytes or entries than any real delivery has."""


class ManifestVersionUnknown(ManifestRefused):
    """A version that this release does not read, or no form that it knows."""


class ManifestMalformed(ManifestRefused):
    """A field is missing, unknown, or of another type."""


class ManifestCountNegative(ManifestRefused):
    """A size or a number of records below zero."""


class ManifestHashInvalid(ManifestRefused):
    """A hash that is not written as that kind of hash."""


class ManifestPathOutside(ManifestRefused):
    """A url that does not name a file inside of the delivery."""


class ManifestFileTwice(ManifestRefused):
    """Two entries, or two manifests, for one file."""


class ManifestOfAnother(ManifestRefused):
    """The manifest of another dataset or batch."""


class ManifestAmbiguous(ManifestRefused):
    """More than one manifest where one is expected, or one that covers nothing."""


@dataclass(frozen=True)
class Entry:
    """One file of a delivery and what is promised of it; None where nothing is promised."""

    name: str  # relative to the landing prefix
    mandatory: bool = True
    sha256: str | None = None  # lower-case hex
    md5: str | None = None
    size: int | None = None  # bytes, as delivered
    records: int | None = None


@dataclass(frozen=True)
class Manifest:
    """A delivery as promised. No two entries have one name, and every name is inside of it."""

    dataset: str
    batch: str
    created_at: datetime | None
    entries: tuple[Entry, ...]


def write(manifest: Manifest) -> bytes:
    """Version 1 as UTF-8 JSON, one field a line; equal manifests give equal bytes."""
    document: dict[str, object] = {
        "version": 1,
        "dataset": manifest.dataset,
        "batch": manifest.batch,
    }
    if manifest.created_at is not None:
        document["created_at"] = manifest.created_at.isoformat()
    entries = sorted(manifest.entries, key=lambda entry: entry.name)
    document["entries"] = [_item(entry) for entry in entries]
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def _item(entry: Entry) -> dict[str, object]:
    meta = {"content_length": entry.size, "record_count": entry.records}
    promised = {
        "sha256": entry.sha256,
        "md5": entry.md5,
        "meta": {k: v for k, v in meta.items() if v is not None} or None,
    }
    return {
        "url": entry.name,
        "mandatory": entry.mandatory,
        **{k: v for k, v in promised.items() if v is not None},
    }
