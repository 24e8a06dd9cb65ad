"""A versioned bucket in memory, with the semantics of S3 (see tests/contract/test_objects.py)."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from threading import Lock

from lakewarden.aws.objects import (
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    Objects,
    ObjectVersion,
    Stored,
)

_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class _Kept:
    version_id: str
    stored: Stored | None  # None: a delete marker


class MemoryObjects:
    """Objects in memory. Safe to use from several threads."""

    def __init__(self, bucket: str = "memory") -> None:
        self._bucket = bucket
        self._kept: dict[str, list[_Kept]] = defaultdict(list)  # oldest first
        self._lock = Lock()
        self._numbers = count(1)
        self.hashes = False  # whether it keeps a sha256 of each version
        self.clock: datetime | None = None  # what it is; None: a second passes with each write

    @property
    def bucket(self) -> str:
        return self._bucket

    def put(self, key: str, body: bytes) -> ObjectVersion:
        with self._lock:
            return self._write(key, body)

    def upload(self, key: str, path: Path) -> ObjectVersion:
        return self.put(key, path.read_bytes())

    def copy(self, source: Objects, version: ObjectVersion, key: str) -> ObjectVersion:
        found = source.get(version.key, version.version_id)
        if found.version.etag != version.etag:
            raise ObjectChanged(f"s3://{source.bucket}/{version.key} was replaced")
        return self.put(key, found.body)

    def sha256(self, version: ObjectVersion) -> str | None:
        return hashlib.sha256(self._pinned(version).body).hexdigest() if self.hashes else None

    def create(self, key: str, body: bytes) -> ObjectVersion:
        with self._lock:
            if self._current(key) is not None:
                raise ObjectExists(f"s3://{self._bucket}/{key} exists already")
            return self._write(key, body)

    def replace(self, key: str, body: bytes, *, etag: str) -> ObjectVersion:
        with self._lock:
            current = self._current(key)
            if current is None or current.version.etag != etag:
                raise ObjectChanged(f"s3://{self._bucket}/{key} is no longer what was read")
            return self._write(key, body)

    def head(self, key: str, version_id: str | None = None) -> ObjectVersion | None:
        with self._lock:
            found = self._find(key, version_id)
            return found.version if found else None

    def get(self, key: str, version_id: str | None = None) -> Stored:
        with self._lock:
            found = self._find(key, version_id)
        if found is None:
            raise ObjectMissing(f"there is no s3://{self._bucket}/{key}")
        return found

    def stream(self, version: ObjectVersion, *, chunk_bytes: int = 16 << 20) -> Iterator[bytes]:
        size = self._pinned(version).version.size
        for start in range(0, size, chunk_bytes):
            yield self._pinned(version).body[start : start + chunk_bytes]

    def list(self, prefix: str) -> Iterator[ObjectVersion]:
        with self._lock:
            keys = sorted(key for key in self._kept if key.startswith(prefix))
            found = [current.version for key in keys if (current := self._current(key))]
        yield from found

    def delete(self, key: str, *, etag: str | None = None) -> None:
        with self._lock:
            current = self._current(key)
            if etag is not None and (current is None or current.version.etag != etag):
                if current is None:
                    return
                raise ObjectChanged(f"s3://{self._bucket}/{key} is another object by now")
            self._kept[key].append(_Kept(self._next(), None))

    def remove_version(self, version: ObjectVersion) -> None:
        """Remove one version for good, as a lifecycle rule would. Not part of Objects."""
        with self._lock:
            self._kept[version.key] = [
                kept for kept in self._kept[version.key] if kept.version_id != version.version_id
            ]

    def _pinned(self, version: ObjectVersion) -> Stored:
        found = self.get(version.key, version.version_id)
        if found.version.etag != version.etag:
            raise ObjectChanged(f"s3://{self._bucket}/{version.key} was replaced")
        return found

    def _write(self, key: str, body: bytes) -> ObjectVersion:
        number = next(self._numbers)
        version = ObjectVersion(
            key,
            f"v{number:08d}",
            hashlib.md5(body, usedforsecurity=False).hexdigest(),
            len(body),
            self.clock or _EPOCH + timedelta(seconds=number),
        )
        self._kept[key].append(_Kept(version.version_id, Stored(version, bytes(body))))
        return version

    def _next(self) -> str:
        return f"v{next(self._numbers):08d}"

    def _current(self, key: str) -> Stored | None:
        kept = self._kept.get(key)
        return kept[-1].stored if kept else None

    def _find(self, key: str, version_id: str | None) -> Stored | None:
        if version_id is None:
            return self._current(key)
        for kept in self._kept.get(key, ()):
            if kept.version_id == version_id:
                return kept.stored
        return None
