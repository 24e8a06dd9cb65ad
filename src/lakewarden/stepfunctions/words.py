"""What the states, the functions and the runner tell each other, checked where it comes in.

Expected refusals are answers (`outcome`), not exceptions: names of exceptions do not survive
everywhere. An error is told by its class's name, its code, its message and its hint, which hold no
value of the data; of an error that is not ours only the class is told.
"""

import hashlib
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from lakewarden.errors import Failed, LakewardenError, TryAgain


class Unexpected(Failed):
    """A mistake of ours, or of a library."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class Payload(_Model):
    """What an execution is started with. `source`: where the producer put the delivery."""

    dataset: str = Field(max_length=200)
    batch: str = Field(max_length=100)
    source: str | None = Field(None, max_length=1200)


class Order(_Model):
    """What the runner is to do, in LAKEWARDEN_TASK."""

    action: Literal["run", "export", "rollback"]
    dataset: str = Field(max_length=200)
    batch: str = Field(max_length=100)
    execution: str = Field(min_length=1, max_length=2000)
    heartbeat_seconds: float = Field(300, gt=0)


class ToldError(_Model):
    """An error of ours, as it travels."""

    model_config = ConfigDict(extra="forbid")

    name: str
    code: str
    message: str
    hint: str | None = None


class Answer(_Model):
    """`refused`: it will not do; `again`: later it may."""

    outcome: Literal["ok", "refused", "again"]
    error: ToldError | None = None


class Ran(_Model):
    """What the runner answers of `run`. `version`: of the publication that holds the batch."""

    outcome: Literal["ok"] = "ok"
    status: str
    run: str
    version: int | None
    counts: dict[str, int] = {}


class ExportedTables(_Model):
    """What the runner answers of `export`: rows by table. `changed`: which of them are new."""

    outcome: Literal["ok"] = "ok"
    version: int
    manifest: str
    rows: dict[str, int]
    changed: tuple[str, ...]


class Killed(_Model):
    """How the container of a runner ended that said nothing."""

    exit_code: int | None
    reason: str = ""

    @property
    def name(self) -> str:
        """For memory only where ECS says so: 137 is what any kill looks like."""
        if "OutOfMemory" in self.reason:
            return "RunnerOutOfMemory"
        return "RunnerKilled" if self.exit_code == 137 else "RunnerEnded"


class PutAway(_Model):
    """What the runner answers of `rollback`. `version`: of what was published after all."""

    outcome: Literal["ok"] = "ok"
    version: int | None
    fenced: tuple[str, ...]
    killed: Killed | None = None


def told(error: BaseException) -> ToldError:
    """An error as it may travel."""
    if isinstance(error, LakewardenError):
        return ToldError(
            name=type(error).__name__, code=error.code, message=error.message, hint=error.hint
        )
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    return ToldError(
        name=Unexpected.__name__,
        code=Unexpected.code,
        message=f"an error that Lakewarden does not know: {kind}",
        hint="Look into the log of the step, and please report it.",
    )


def answer_to(error: LakewardenError) -> Answer:
    """An error as an answer of a function."""
    return Answer(outcome="again" if isinstance(error, TryAgain) else "refused", error=told(error))


def thrown_name(error: BaseException) -> str:
    """Under which name the runner fails: its kind where the state machine is to try again."""
    return "TryAgain" if isinstance(error, TryAgain) else told(error).name


def mark_of(execution: str) -> str:
    """How the ids of an execution's runs end: what is left of them is found by it."""
    return f"-x{hashlib.sha256(execution.encode()).hexdigest()[:12]}"
