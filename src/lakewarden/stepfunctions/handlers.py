"""The Lambda functions: thin, over the same functions as the command line's.

What was to be expected is answered (`outcome`); only what nobody knows is raised, and then by its
class alone. None of this needs DuckDB, PyArrow or PyIceberg: the runner reads the bytes.
"""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ValidationError

from lakewarden.errors import LakewardenError, WrongUsage
from lakewarden.stepfunctions import arrivals, notices
from lakewarden.stepfunctions.words import Answer, Payload, answer_to, told
from lakewarden.wiring import Project, open_project

Document = dict[str, Any]  # JSON, as Lambda hands it over and takes it


class PayloadInvalid(WrongUsage):
    """What the execution was started with is not a payload."""


class HandlerFailed(Exception):
    """Something that nobody expected; it tells the class only."""


class Validated(BaseModel):
    """A delivery that is whole, as far as the store tells."""

    outcome: str = "ok"
    files: int
    bytes: int
    completeness: str


class RawCopied(BaseModel):
    """What CopyRaw did; nothing where there is no source."""

    outcome: str = "ok"
    files: int = 0
    bytes: int = 0
    equal: int = 0


def validate_manifest(event: Document, _context: object = None) -> Document:
    """Whether the delivery is whole: where the producer put it, or where it landed."""
    return _answered(lambda: _validate(open_project(), _payload(event)))


def copy_raw(event: Document, _context: object = None) -> Document:
    """Bring it to where it lands."""
    return _answered(lambda: _copy(open_project(), _payload(event)))


def notify(event: Document, _context: object = None) -> Document:
    """Tell people how it ended; answers how the execution is to end."""

    def work() -> BaseModel:
        notice = _notice(open_project(), notices.Event.model_validate(event))
        return Ending(error=notice.error, cause=notice.cause)

    return _guarded(work).model_dump()


def check_deliveries(event: Document, _context: object = None) -> Document:
    """Start what is due or has arrived, and count what did not arrive in time."""
    return _guarded(lambda: arrivals.check(open_project(), event)).model_dump()


class Ending(BaseModel):
    """For the Fail state; empty where nothing failed."""

    error: str
    cause: str


def _validate(project: Project, payload: Payload) -> BaseModel:
    found = project.validate(payload.dataset, payload.batch, payload.source)
    size = sum(file.version.size for file in found.files)
    return Validated(files=len(found.files), bytes=size, completeness=found.completeness)


def _copy(project: Project, payload: Payload) -> BaseModel:
    if payload.source is None:
        return RawCopied()
    done = project.copy_raw(payload.dataset, payload.batch, payload.source)
    return RawCopied(files=done.files, bytes=done.bytes, equal=done.equal)


def _notice(project: Project, event: notices.Event) -> notices.Notice:
    make = notices.success if event.kind == "success" else notices.failure
    notice = make(event, project.names.pipeline, project.env_name)
    project.alert(notice.subject, notice.message)
    return notice


def _payload(event: Document) -> Payload:
    try:
        return Payload.model_validate(event)
    except ValidationError as error:
        wrong = {".".join(str(part) for part in one["loc"]) for one in error.errors()}
        raise PayloadInvalid(
            f"the payload is wrong in: {', '.join(sorted(wrong)) or 'its form'}",
            hint='It is like {"dataset": "dpc", "batch": "2025-04"}, and may have "source".',
        ) from None


def _answered(work: Callable[[], BaseModel]) -> Document:
    def answer() -> BaseModel:
        try:
            return work()
        except LakewardenError as error:
            return answer_to(error)

    return _guarded(answer).model_dump()


def _guarded(work: Callable[[], BaseModel]) -> BaseModel:
    try:
        return work()
    except Exception as error:
        raise HandlerFailed(told(error).message) from None


__all__ = ["Answer", "check_deliveries", "copy_raw", "notify", "validate_manifest"]
