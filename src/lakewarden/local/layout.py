"""Where the local stack keeps its things: all of it below the project's folder."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue


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
