"""Objects in one bucket: the interface that every room above uses, and the errors it raises."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from lakewarden.errors import LakewardenError, TryAgain


@dataclass(frozen=True)
class ObjectVersion:
    """One version of one object: the unit that is pinned, so that nobody can change it under us."""

    key: str
    version_id: str
    etag: str
    size: int  # bytes
    # Of two answers about one version, a write's time may differ by a second from a read's.
    modified: datetime = field(compare=False)


@dataclass(frozen=True)
class Stored:
    """An object's bytes with the version that they belong to."""

    version: ObjectVersion
    body: bytes


class ObjectMissing(LakewardenError):
    """No object (or no such version) under this key."""


class ObjectExists(LakewardenError):
    """A create lost: the key already holds an object."""


class ObjectChanged(LakewardenError):
    """The object is not the one that was seen before: a replace or a delete lost; or what was to
    be read was replaced, in a bucket that keeps no versions."""


class StorageUnavailable(TryAgain):
    """The object store refused, throttled, stalled or could not be reached."""


class Objects(Protocol):
    """A versioned bucket. Every method may raise StorageUnavailable after its own retries."""

    @property
    def bucket(self) -> str: ...

    def put(self, key: str, body: bytes) -> ObjectVersion:
        """Write a small object, whatever was there before."""
        ...

    def upload(self, key: str, path: Path) -> ObjectVersion:
        """Write a file of any size, in parts where that helps."""
        ...

    def create(self, key: str, body: bytes) -> ObjectVersion:
        """Write only where nothing is (If-None-Match: *); raises ObjectExists."""
        ...

    def replace(self, key: str, body: bytes, *, etag: str) -> ObjectVersion:
        """Write only over the object that was read (If-Match); raises ObjectChanged."""
        ...

    def head(self, key: str, version_id: str | None = None) -> ObjectVersion | None:
        """The current (or the named) version without its bytes; None where there is none."""
        ...

    def get(self, key: str, version_id: str | None = None) -> Stored:
        """A small object, whole; raises ObjectMissing."""
        ...

    def stream(self, version: ObjectVersion, *, chunk_bytes: int = 16 << 20) -> Iterator[bytes]:
        """The bytes of a pinned version, in order, in chunks of chunk_bytes (the last may be
        shorter). Ranges are read ahead; a broken connection is resumed, not restarted.
        Raises ObjectMissing when the version was removed, and ObjectChanged when other bytes have
        its version id by now, as in a bucket that keeps no versions."""
        ...

    def copy(self, source: "Objects", version: ObjectVersion, key: str) -> ObjectVersion:
        """Write a pinned version of that bucket under this key, inside of the store: no byte comes
        through here. Raises ObjectMissing, and ObjectChanged where the version is another by now.
        """
        ...

    def sha256(self, version: ObjectVersion) -> str | None:
        """The hash in hex that the store keeps of a version as a whole; None where it keeps none.
        Nothing is read. Raises ObjectMissing."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectVersion]:
        """The current objects under a prefix, in key order, with their version ids."""
        ...

    def delete(self, key: str, *, etag: str | None = None) -> None:
        """Put a delete marker; deleting nothing is fine. With an etag, only on that object
        (If-Match); raises ObjectChanged where there is another."""
        ...
