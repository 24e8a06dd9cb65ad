"""What people are told when an execution ends: pure. No value of the data is in it."""

import json
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from lakewarden.batch.delivery.keys import quoted
from lakewarden.stepfunctions.words import Killed, Payload, ToldError

_SUBJECT = 100  # SNS: Publish, "Subject"
_CAUSE = 300  # characters of what ECS says


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Raised(_Model):
    """What Step Functions caught."""

    Error: str = "Unknown"
    Cause: str = ""


class FailedStep(_Model):
    """`told`: by an answer; `raised`: caught."""

    step: str = "?"
    told: ToldError | None = None
    raised: Raised | None = None


class RunTold(_Model):
    status: str | None = None
    version: int | None = None
    counts: dict[str, int] = {}


class ExportTold(_Model):
    version: int | None = None
    manifest: str | None = None
    rows: dict[str, int] = {}


class RollbackTold(_Model):
    version: int | None = None
    fenced: tuple[str, ...] = ()
    killed: Killed | None = None
    raised: Raised | None = None  # it failed itself


class Event(_Model):
    """What a state says when it asks for a notice."""

    kind: str
    execution: str
    payload: Any = None  # of whoever started it; nobody checked it yet
    run: RunTold = RunTold()
    exported: ExportTold = ExportTold()
    failed: FailedStep = FailedStep()
    rollback: RollbackTold = RollbackTold()


@dataclass(frozen=True)
class Notice:
    """`error` and `cause`: how the execution ends, where it failed."""

    subject: str
    message: str
    error: str = ""
    cause: str = ""


def success(event: Event, pipeline: str, env: str) -> Notice:
    """The batch is published, and exported."""
    dataset, batch = _batch(event)
    told = {
        **_head(event, pipeline, env),
        "outcome": event.run.status or "published",
        "version": event.run.version,
        "counts": event.run.counts,
        "exported": {"version": event.exported.version, "rows": event.exported.rows},
    }
    what = "holds already" if event.run.status == "unchanged" else "is published"
    return Notice(_subject(f"{pipeline}: {dataset} {batch} {what}"), _text(told))


def failure(event: Event, pipeline: str, env: str) -> Notice:
    """Something failed; what is published is told all the same."""
    dataset, batch = _batch(event)
    step, error = event.failed.step, error_of(event.failed, event.rollback.killed)
    version = event.run.version or event.rollback.version
    outcome = "failed" if version is None else "published, not exported"
    if version is not None and event.exported.version is not None:
        outcome = "published and exported, not told"
    again = f"start-execution with the same payload ({dataset} {batch})"
    told = {
        **_head(event, pipeline, env),
        "outcome": outcome,
        "version": version,
        "counts": event.run.counts,
        "step": step,
        "error": error.model_dump(),
        "rolled_back": event.rollback.raised is None,
        "fenced_runs": event.rollback.fenced,
        "next": f"{again}: it goes on with the export" if version is not None else again,
    }
    cause = f"{step}: {error.message}{f' ({error.hint})' if error.hint else ''}"
    if version is not None:
        cause = f"{outcome} (version {version}); {cause}"
    return Notice(
        _subject(f"{pipeline}: {dataset} {batch} {outcome} at {step}: {error.name}"),
        _text(told),
        error.name,
        cause,
    )


def error_of(failed: FailedStep, killed: Killed | None) -> ToldError:
    """Our own error where it is one; of others what may be told."""
    if failed.told:
        return failed.told
    raised = failed.raised or Raised()
    if ours := _ours(raised.Cause):
        return ours
    if raised.Error in ("States.HeartbeatTimeout", "States.Timeout"):
        return _silent(raised.Error.removeprefix("States."), killed)
    cause = raised.Cause[:_CAUSE] if raised.Error.startswith("ECS.") else ""
    return ToldError(
        name=raised.Error.removeprefix("States."),
        code="raised",
        message=f"it raised {raised.Error}{f': {quoted(cause)}' if cause else ''}",
        hint="Look into the log of the step.",
    )


def _ours(cause: str) -> ToldError | None:
    try:
        return ToldError.model_validate_json(cause)
    except ValidationError:
        return None


def _silent(name: str, killed: Killed | None) -> ToldError:
    """The runner gave no sign of life; how its container ended tells more."""
    if killed is None:
        return ToldError(
            name=name,
            code="silent",
            message="the runner gave no sign of life in time: it hangs, or never began",
            hint="Look into its log, and whether ECS could start it.",
        )
    if killed.name == "RunnerOutOfMemory":
        message, hint = "the runner was killed for memory", _MORE_MEMORY
    elif killed.name == "RunnerKilled":
        message = "the runner was killed (exit code 137)"
        hint = f"Most often that is for memory. {_MORE_MEMORY}"
    else:
        message = f"the runner ended with exit code {killed.exit_code} and without a word"
        hint = "Look into its log."
    return ToldError(name=killed.name, code="killed", message=message, hint=hint)


_MORE_MEMORY = "Lower memory_limit of [load], or give the task more memory."


def _batch(event: Event) -> tuple[str, str]:
    try:
        payload = Payload.model_validate(event.payload)
    except ValidationError:
        return "?", "?"
    return quoted(payload.dataset).strip("'"), quoted(payload.batch).strip("'")


def _head(event: Event, pipeline: str, env: str) -> dict[str, object]:
    dataset, batch = _batch(event)
    return {
        "format": 1,
        "pipeline": pipeline,
        "env": env,
        "execution": event.execution,
        "dataset": dataset,
        "batch": batch,
    }


def _subject(text: str) -> str:
    """SNS takes one line of ASCII."""
    plain = "".join(c if " " <= c <= "~" else "?" for c in text)
    return plain if len(plain) <= _SUBJECT else f"{plain[: _SUBJECT - 3]}..."


def _text(told: dict[str, object]) -> str:
    return json.dumps(told, indent=1, ensure_ascii=False)
