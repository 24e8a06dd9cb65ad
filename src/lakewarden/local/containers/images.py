"""The allow-list: the command that an image's name stands for, and what may be added to it.

Nothing that is not on it ever runs. What a task brings (its command, its mounts, its rights) is
not looked at; of its environment only variables are taken that the image's entry names, and none
of them may replace what the entry itself sets.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lakewarden.errors import Refused
from lakewarden.local.layout import write_private

# What ministack adds to every container, and real ECS sets in its own way: of no use here.
_ADDED = re.compile(
    r"ECS_CONTAINER_METADATA_URI(_V4)?|AWS_(ENDPOINT_URL|CONTAINER_[A-Z_]+|REGION|DEFAULT_REGION)"
)


class ImageUnknown(Refused):
    """An image that is not on the allow-list."""


class VariableRefused(Refused):
    """A task sets an environment variable that its image does not take."""


@dataclass(frozen=True)
class Image:
    """What runs in place of an image."""

    argv: tuple[str, ...]
    folder: Path  # where it works
    environment: Mapping[str, str] = field(repr=False)  # all that it sees, beside what it takes
    takes: tuple[str, ...] = ()  # names of variables that a task may add
    memory_mb: int | None = None  # a limit, where the task's definition says none
    stop_seconds: float = 30.0  # from SIGTERM to SIGKILL
    single: bool = False  # the next waits until the last has ended: it has the same port, or files


class _Image(BaseModel):
    model_config = ConfigDict(extra="forbid")
    argv: list[str] = Field(min_length=1)
    folder: Path
    environment: dict[str, str]
    takes: list[str] = []
    memory_mb: int | None = None
    stop_seconds: float = 30.0
    single: bool = False


class _Images(BaseModel):
    model_config = ConfigDict(extra="forbid")
    images: dict[str, _Image]


def name_of(reference: str) -> str:
    """The name of an image without its registry, its tag and its digest."""
    path = reference.split("@", 1)[0].rsplit("/", 1)[-1]
    return path.split(":", 1)[0]


def read(path: Path) -> Mapping[str, Image]:
    """The allow-list; nothing is on it where there is none, or none that can be read."""
    try:
        found = _Images.model_validate_json(path.read_bytes()).images
    except (FileNotFoundError, ValidationError):
        return {}
    return {
        name: Image(
            argv=tuple(image.argv),
            folder=image.folder,
            environment=image.environment,
            takes=tuple(image.takes),
            memory_mb=image.memory_mb,
            stop_seconds=image.stop_seconds,
            single=image.single,
        )
        for name, image in found.items()
    }


def write(path: Path, images: Mapping[str, Image]) -> None:
    """Write the allow-list, for its owner only: environments may hold keys."""
    content = _Images(
        images={
            name: _Image(
                argv=list(image.argv),
                folder=image.folder,
                environment=dict(image.environment),
                takes=list(image.takes),
                memory_mb=image.memory_mb,
                stop_seconds=image.stop_seconds,
                single=image.single,
            )
            for name, image in images.items()
        }
    )
    write_private(path, content.model_dump(mode="json"))


def choose(images: Mapping[str, Image], reference: str) -> Image:
    """The entry of an image; raises ImageUnknown."""
    found = images.get(name_of(reference))
    if found is None:
        raise ImageUnknown(
            f"image {reference!r} is not on this stack's allow-list",
            hint=f"It has: {', '.join(sorted(images)) or 'nothing'}.",
        )
    return found


def added(image: Image, variables: Mapping[str, str]) -> Mapping[str, str]:
    """What a task adds to its image's environment; raises VariableRefused, naming the variable
    and never its value."""
    taken = {name: value for name, value in variables.items() if not _ADDED.fullmatch(name)}
    for name, value in taken.items():
        if name not in image.takes or name in image.environment or "\0" in value:
            raise VariableRefused(
                f"a task sets {name[:64]!r}, which its image does not take",
                hint=f"It takes: {', '.join(image.takes) or 'nothing'}.",
            )
    return taken
