"""Where the local stack keeps its things: all of it below the project's folder."""

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from lakewarden.errors import WrongUsage
from lakewarden.local.overlay import SOCKETS


class LocalFolderUnusable(WrongUsage):
    """The project's folder, or /tmp, cannot be written."""


@dataclass(frozen=True)
class Layout:
    """The paths of one project's stack."""

    root: Path  # the project

    @property
    def folder(self) -> Path:
        return self.root / ".lakewarden" / "local"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    @property
    def log(self) -> Path:
        return self.folder / "weed.log"

    @property
    def identities(self) -> Path:
        return self.folder / "s3.json"

    @property
    def ports(self) -> Path:
        return self.folder / "ports.json"

    @property
    def process(self) -> Path:
        return self.folder / "process.json"

    @property
    def endpoint(self) -> Path:
        return self.folder / "endpoint.json"

    @property
    def control(self) -> Path:
        """Where ministack works, and keeps its state."""
        return self.folder / "control"

    @property
    def sockets(self) -> Path:
        """A folder of its own for Unix sockets, whose paths may have no more than 107 bytes."""
        name = hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()[:16]
        return SOCKETS / f"lakewarden-{os.getuid()}-{name}"

    @property
    def control_socket(self) -> Path:
        return self.sockets / "control.sock"

    @property
    def containers_socket(self) -> Path:
        return self.sockets / "containers.sock"

    @property
    def containers(self) -> Path:
        """What the ECS stand-in remembers of its processes, and their output."""
        return self.folder / "containers"

    @property
    def nessie(self) -> Path:
        """Nessie's own folder."""
        return self.folder / "nessie"

    @property
    def nessie_store(self) -> Path:
        """Which of its stores Nessie's data lie in."""
        return self.nessie / "store.json"

    @property
    def images(self) -> Path:
        """The allow-list: which command an image's name stands for."""
        return self.folder / "images.json"

    @property
    def cloud_ports(self) -> Path:
        return self.folder / "cloud-ports.json"

    @property
    def cloud(self) -> Path:
        """What the stack has beside S3, as `up` was told."""
        return self.folder / "cloud.json"

    def make_cloud(self) -> None:
        """The folders of all that is beside S3. Raises LocalFolderUnusable when another user has
        the name of the sockets' folder."""
        for folder in (self.control, self.containers):
            folder.mkdir(mode=0o700, exist_ok=True)
        for name in ("tmp", "state", "s3"):
            (self.control / name).mkdir(mode=0o700, exist_ok=True)
        self.sockets.mkdir(mode=0o700, exist_ok=True)
        found = self.sockets.lstat()
        private = stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) & 0o077 == 0
        if not private or found.st_uid != os.getuid():
            raise LocalFolderUnusable(
                f"{self.sockets} is not a private folder of yours",
                hint="Remove it, or have its owner remove it; then try again.",
            )

    def remove_sockets(self) -> None:
        """Remove what ended processes left outside of the project."""
        for path in (self.control_socket, self.containers_socket):
            path.unlink(missing_ok=True)
        with suppress(OSError):  # there was none, or it is not ours
            self.sockets.rmdir()

    def make(self) -> None:
        """Make the folders; only their owner may look into them."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.data.mkdir(mode=0o700, exist_ok=True)
        self.temporary.mkdir(mode=0o700, exist_ok=True)


def write_private(path: Path, content: Mapping[str, JsonValue]) -> None:
    """Write JSON that only its owner may read, whole or not at all."""
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
    draft.replace(path)
