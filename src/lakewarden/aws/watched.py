"""Objects that tell when something moves: bytes that came or went, and answers."""

from collections.abc import Callable, Iterator
from pathlib import Path

from lakewarden.aws.objects import Objects, ObjectVersion, Stored


class Watched:
    """A bucket as `Objects`; `moved` is told how many bytes came or went, 0 for a listing. It is
    not told of what a run does whose work stands still: it renews its leases, which reads and
    replaces small objects."""

    def __init__(self, objects: Objects, moved: Callable[[int], None]) -> None:
        self._objects = objects
        self._moved = moved

    @property
    def bucket(self) -> str:
        return self._objects.bucket

    def put(self, key: str, body: bytes) -> ObjectVersion:
        return self._written(self._objects.put(key, body))

    def upload(self, key: str, path: Path) -> ObjectVersion:
        return self._written(self._objects.upload(key, path))

    def create(self, key: str, body: bytes) -> ObjectVersion:
        return self._written(self._objects.create(key, body))

    def replace(self, key: str, body: bytes, *, etag: str) -> ObjectVersion:
        return self._objects.replace(key, body, etag=etag)

    def head(self, key: str, version_id: str | None = None) -> ObjectVersion | None:
        return self._objects.head(key, version_id)

    def get(self, key: str, version_id: str | None = None) -> Stored:
        return self._objects.get(key, version_id)

    def stream(self, version: ObjectVersion, *, chunk_bytes: int = 16 << 20) -> Iterator[bytes]:
        for chunk in self._objects.stream(version, chunk_bytes=chunk_bytes):
            self._moved(len(chunk))
            yield chunk

    def copy(self, source: Objects, version: ObjectVersion, key: str) -> ObjectVersion:
        return self._written(self._objects.copy(source, version, key))

    def sha256(self, version: ObjectVersion) -> str | None:
        return self._objects.sha256(version)

    def list(self, prefix: str) -> Iterator[ObjectVersion]:
        for version in self._objects.list(prefix):
            self._moved(0)
            yield version

    def delete(self, key: str, *, etag: str | None = None) -> None:
        self._objects.delete(key, etag=etag)

    def _written(self, version: ObjectVersion) -> ObjectVersion:
        self._moved(version.size)
        return version
