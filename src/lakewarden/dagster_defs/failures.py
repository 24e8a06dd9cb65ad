"""Our errors as Dagster's: code, message and hint as metadata, and whether to try again. Pure.

Dagster keeps an exception with all that led to it, and a library's message may quote a cell. So
errors become values here, and what is raised has no cause.
"""

import traceback
from collections.abc import Mapping, Sequence

import dagster as dg

from lakewarden.batch.model import LeftOut, span
from lakewarden.errors import LakewardenError, TryAgain

CODE, HINT, DATASET, BATCH = "code", "hint", "dataset", "batch"  # names of metadata
UNEXPECTED = "unexpected"
NOT_ALL = "batches-left-out"


def failure(error: Exception, dataset: str, batches: Sequence[str]) -> dg.Failure:
    """What ended a run. Only what may be better later is tried again."""
    told = {DATASET: dataset, BATCH: span(batches)}
    if isinstance(error, LakewardenError):
        told |= {CODE: error.code, HINT: error.hint or "", "message": error.message}
        return _failure(error.message, told, again=isinstance(error, TryAgain))
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    frames = traceback.extract_tb(error.__traceback__)
    where = "\n".join(f"{one.filename}:{one.lineno} {one.name}" for one in frames)
    message = f"an error that Lakewarden does not know: {name}"
    hint = "Please report it, with the lines that it came by."
    return _failure(
        message,
        {**told, CODE: UNEXPECTED, HINT: hint, "message": message, "came_by": where},
        again=False,
    )


def failure_of_some(left_out: Sequence[LeftOut], dataset: str, wanted: int) -> dg.Failure:
    """Of a range: the other batches are published."""
    first = left_out[0]
    message = (
        f"{len(left_out)} of {wanted} batches of {dataset} are not published; {first.batch}:"
        f" {first.error.message}"
    )
    codes = {one.error.code for one in left_out}
    told = {
        DATASET: dataset,
        BATCH: ", ".join(one.batch for one in left_out),
        CODE: codes.pop() if len(codes) == 1 else NOT_ALL,
        HINT: first.error.hint or "",
        "message": message,
        "why": "\n".join(f"{one.batch} {one.error.code}: {one.error.message}" for one in left_out),
    }
    return _failure(message, told, again=all(isinstance(one.error, TryAgain) for one in left_out))


def _failure(message: str, told: Mapping[str, str], *, again: bool) -> dg.Failure:
    values = {name: dg.MetadataValue.text(text) for name, text in told.items()}
    return dg.Failure(message, metadata=values, allow_retries=again)
