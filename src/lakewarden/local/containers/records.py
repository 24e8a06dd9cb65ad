"""What the stand-in for ECS knows of a container, in a file: it may be killed and come back."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from lakewarden.local.layout import write_private

TOKEN = "LAKEWARDEN_TASK_TOKEN"  # noqa: S105 - the name of the variable

State = Literal["created", "waiting", "running", "exited"]
KILLED = 137


class Record(BaseModel):
    """One container. `state` waiting: for the last one of its image to end."""

    model_config = ConfigDict(frozen=True)
    id: str
    name: str
    image: str
    labels: dict[str, str]
    variables: dict[str, str]  # that the task added
    created: str  # moments as ISO 8601
    state: State = "created"
    pid: int | None = None
    started: str | None = None  # see records.processes
    started_at: str | None = None
    ended_at: str | None = None
    exit_code: int | None = None
    out_of_memory: bool = False

    @property
    def task(self) -> str:
        """Its task's ARN; empty where it has none."""
        return self.labels.get("com.amazonaws.ecs.task-arn", "")

    @property
    def task_definition(self) -> str:
        """family:revision; empty where it has none."""
        family = self.labels.get("com.amazonaws.ecs.task-definition-family")
        revision = self.labels.get("com.amazonaws.ecs.task-definition-version")
        return f"{family}:{revision}" if family and revision else ""

    @property
    def cluster(self) -> str:
        return self.labels.get("com.amazonaws.ecs.cluster", "")

    @property
    def token(self) -> str | None:
        """What a state of Step Functions waits for, where one does."""
        return self.variables.get(TOKEN)


def record_file(folder: Path, container: str) -> Path:
    return folder / f"{container}.json"


def log_file(folder: Path, container: str) -> Path:
    return folder / f"{container}.log"


def write(folder: Path, record: Record) -> None:
    write_private(record_file(folder, record.id), record.model_dump(mode="json"))


def read_all(folder: Path) -> Iterator[Record]:
    """Every record that can be read."""
    for path in sorted(folder.glob("*.json")):
        with suppress(ValidationError, FileNotFoundError):
            yield Record.model_validate_json(path.read_bytes())
