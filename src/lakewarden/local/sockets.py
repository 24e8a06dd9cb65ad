"""SeaweedFS's Unix sockets: it puts them into /tmp, whatever TMPDIR says, and leaves them there."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from lakewarden.local.overlay import GRPC_OFFSET, SOCKETS


def is_ours_to_take(port: int) -> bool:
    """Whether no other user's socket is in the way: it could not be replaced."""
    return all(path.lstat().st_uid == os.getuid() for path in _paths(port) if path.is_socket())


def can_be_made() -> bool:
    return os.access(SOCKETS, os.W_OK | os.X_OK)


def remove(ports: Iterable[int]) -> None:
    """Remove what an ended stack left."""
    for port in ports:
        for path in _paths(port):
            if path.is_socket():
                path.unlink(missing_ok=True)


def _paths(port: int) -> Iterator[Path]:
    for part in ("master", "volume", "filer", "s3", "admin"):
        yield SOCKETS / f"seaweedfs-{part}-grpc-{port + GRPC_OFFSET}.sock"
