"""Receipts: what became of each stage of each run, as one small JSON object a stage.

Receipts are reports: what is published is known from the catalog. They never hold row data. Of
our own errors they keep the message, which tells file, line, column and type; of any other error
only its class, since a library's message may quote a cell.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from lakewarden.aws.objects import Objects, ObjectVersion
from lakewarden.batch.delivery.keys import quoted
from lakewarden.batch.model import (
    Audited,
    Counts,
    LeftOut,
    Loaded,
    Published,
    Received,
    Run,
    TooManyMisfits,
    Transformed,
    span,
)
from lakewarden.errors import Failed, LakewardenError, Refused, WrongUsage
from lakewarden.lake.model import Publication
from lakewarden.records.stream import Stream, StreamBroken

PREFIX = "ops/batches/"
FORMAT: Literal[2] = 2  # 1 told of one batch only, see _of_format_1
_RECEIPT = re.compile(r"[0-9]{4,}-[a-z]+\.json")
_MESSAGE_LENGTH = 4000

Result = Received | Loaded | Transformed | Audited | Published
# What the last stage can find instead: the publication that holds the batch already.
Told = Result | Publication


class ReceiptUnreadable(Failed):
    """Not a receipt, or one of a format that this release does not read."""


class RunUnknown(WrongUsage):
    """No receipts of such a run."""


class _Part(BaseModel):
    """Fields that a later release adds are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class ReceiptError(_Part):
    code: str
    message: str
    hint: str | None = None


class ReceiptCounts(_Part):
    """records_in = loaded + quarantined."""

    records_in: Annotated[int, Field(alias="in")]
    loaded: int
    quarantined: int

    @classmethod
    def of(cls, counts: Counts) -> Self:
        return cls(
            records_in=counts.records_in, loaded=counts.loaded, quarantined=counts.quarantined
        )


class ReceiptObject(_Part):
    """A file as it was read: `records` as promised (receive) or as counted (load)."""

    key: str
    version_id: str
    sha256: str | None = None
    bytes: int
    records: int | None = None

    @classmethod
    def of(cls, version: ObjectVersion, sha256: str | None, records: int | None) -> Self:
        return cls(
            key=version.key,
            version_id=version.version_id,
            sha256=sha256,
            bytes=version.size,
            records=records,
        )


class ReceiptBatch(_Part):
    """One batch of the run. `error`: why the run went on without it."""

    batch: str
    counts: ReceiptCounts | None = None
    completeness: str | None = None  # how the delivery was known to be complete
    delivery_hash: str | None = None
    quarantine: str | None = None  # key of the quarantine file
    withdrawn: bool = False
    error: ReceiptError | None = None


class ReceiptTable(_Part):
    """Metadata locations; None where there was no table."""

    before: str | None = None
    after: str | None = None


class ReceiptTest(_Part):
    name: str
    status: str
    failures: int


class Receipt(_Part):
    """One stage of one run. `seconds` is how long the stage took, `at` when it ended; `counts`
    are of all batches together."""

    format: Literal[2] = FORMAT
    dataset: str
    run: str
    batches: tuple[ReceiptBatch, ...]
    stage: str
    outcome: Literal["ok", "refused", "failed"]
    at: datetime
    seconds: float
    error: ReceiptError | None = None
    counts: ReceiptCounts | None = None
    tables: Mapping[str, ReceiptTable] = {}
    objects: tuple[ReceiptObject, ...] = ()
    branch: str | None = None
    models: tuple[str, ...] = ()
    rebuilds: tuple[str, ...] = ()  # of a run that loads nothing: the models it makes again
    tests: tuple[ReceiptTest, ...] = ()
    accepted: str | None = None  # the failing test that somebody took on their word
    version: int | None = None  # of the publication; without tables: of an earlier run's

    @property
    def batch(self) -> str:
        """The batches as people write them: the only one, or the first and the last."""
        return span([one.batch for one in self.batches])

    def body(self) -> dict[str, JsonValue]:
        """As JSON values, without what is not known."""
        body: dict[str, JsonValue] = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return body


# ── making ──────────────────────────────────────────────────────────────────────────────────────


def receipt_of(
    run: Run,
    stage: str,
    outcome: Told | BaseException,
    *,
    at: datetime,
    seconds: float,
    left_out: Sequence[LeftOut] = (),
) -> Receipt:
    """The receipt of a stage that ended with a result or with an error."""
    known = {batch: ReceiptBatch(batch=batch) for batch in run.batches}
    known |= {one.batch: _without(one) for one in left_out}
    told: dict[str, object] = {}
    if isinstance(outcome, BaseException):
        told["error"] = _error(outcome)
        if isinstance(outcome, TooManyMisfits):
            told["counts"] = ReceiptCounts.of(outcome.counts)
            known |= {one: _without(LeftOut(one, outcome)) for one in run.batches}
    else:
        told = _told(outcome)
        known |= {one.batch: one for one in _batches(outcome)}
    return Receipt.model_validate(
        {
            "dataset": run.dataset,
            "run": run.id,
            "batches": [known[batch] for batch in sorted(known)],
            "rebuilds": run.models,
            "stage": stage,
            "outcome": _outcome(outcome),
            "at": at,
            "seconds": round(seconds, 3),
            **told,
        }
    )


def leave(
    objects: Objects,
    run: Run,
    stage: str,
    error: LakewardenError,
    *,
    at: datetime,
    seconds: float,
) -> None:
    """Write the one receipt of a run that ended before there was anything to hold a lease for."""
    receipt = receipt_of(run, stage, error, at=at, seconds=seconds)
    Stream(objects, prefix_of(run.dataset, run.id)).append(stage, receipt.body())


def _without(one: LeftOut) -> ReceiptBatch:
    if isinstance(one.error, TooManyMisfits):
        counts, kept = ReceiptCounts.of(one.error.counts), one.error.quarantine
        return ReceiptBatch(
            batch=one.batch, counts=counts, quarantine=kept, error=_error(one.error)
        )
    return ReceiptBatch(batch=one.batch, error=_error(one.error))


def _batches(result: Told) -> Sequence[ReceiptBatch]:
    """What a result has to say of single batches."""
    match result:
        case Received():
            return [
                ReceiptBatch(batch=d.batch, completeness=d.completeness, delivery_hash=d.hash)
                for d in result.deliveries
            ]
        case Loaded():
            return [
                *(
                    ReceiptBatch(
                        batch=one.delivery.batch,
                        counts=ReceiptCounts.of(one.counts),
                        completeness=one.delivery.completeness,
                        delivery_hash=one.delivery.hash,
                        quarantine=one.quarantine,
                    )
                    for one in result.batches
                ),
                *(ReceiptBatch(batch=batch, withdrawn=True) for batch in result.withdrawn),
            ]
        case Transformed():
            return _batches(result.loaded)
        case Audited():
            return _batches(result.transformed)
        case Published():
            return _batches(result.audited)
        case Publication():
            return ()


def _outcome(outcome: Told | BaseException) -> str:
    if isinstance(outcome, Refused):
        return "refused"
    return "failed" if isinstance(outcome, BaseException) else "ok"


def _error(error: BaseException) -> ReceiptError:
    if isinstance(error, LakewardenError):
        message = error.message[:_MESSAGE_LENGTH]
        return ReceiptError(code=error.code, message=message, hint=error.hint)
    if isinstance(error, KeyboardInterrupt):
        return ReceiptError(code="interrupted", message="the run was interrupted")
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    return ReceiptError(
        code="unexpected",
        message=f"an error that Lakewarden does not know: {name}",
        hint="The log of the run has the details. Please report it.",
    )


def _told(result: Told) -> dict[str, object]:
    """What a result has to say. Counts go on to every later stage, long lists do not."""
    match result:
        case Received():
            files = [
                ReceiptObject.of(file.version, file.sha256, file.records)
                for delivery in result.deliveries
                for file in delivery.files
            ]
            return {"objects": files}
        case Loaded():
            read = [
                ReceiptObject.of(file.version, file.sha256, file.counts.records_in)
                for one in result.batches
                for file in one.files
            ]
            return {**_loaded(result), "objects": read}
        case Transformed():
            tests = [
                ReceiptTest(name=t.name, status=t.status, failures=t.failures) for t in result.tests
            ]
            return {**_loaded(result.loaded), "models": result.models, "tests": tests}
        case Audited():
            accepted = result.accepted.name if result.accepted else None
            return {**_loaded(result.transformed.loaded), "accepted": accepted}
        case Published():
            publication = result.publication
            tables = {
                name: ReceiptTable(before=change.before, after=change.after)
                for name, change in publication.tables.items()
            }
            return {
                **_told(result.audited),
                "tables": tables,
                "version": publication.version,
            }
        case Publication():
            return {"version": result.version}


def _loaded(loaded: Loaded) -> dict[str, object]:
    counts = ReceiptCounts.of(loaded.counts) if loaded.batches else None
    return {"counts": counts, "branch": loaded.branch.name}


# ── reading ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class RunSummary:
    """A run as its last receipt tells it; `receipts` is how many it left."""

    run: str
    dataset: str
    receipts: int
    last: Receipt


def list_runs(
    objects: Objects, dataset: str | None = None, *, most: int | None = None
) -> list[RunSummary]:
    """The runs of a dataset (or of all), newest first; only the last receipt of each is read.

    Raises ReceiptUnreadable.
    """
    runs: dict[tuple[str, str], list[ObjectVersion]] = {}
    for version in objects.list(f"{PREFIX}{dataset}/" if dataset else PREFIX):
        parts = version.key.removeprefix(PREFIX).split("/")
        if len(parts) == 3 and _RECEIPT.fullmatch(parts[2]):
            runs.setdefault((parts[0], parts[1]), []).append(version)
    # Ids of runs sort by time, and finer than the store's own times do.
    newest = sorted(runs.items(), key=lambda item: item[0][1], reverse=True)
    return [
        RunSummary(run, name, len(versions), _read(objects, versions[-1]))
        for (name, run), versions in newest[:most]
    ]


def prefix_of(dataset: str, run: str) -> str:
    """Where a run keeps its receipts, and what dbt left beside them."""
    return f"{PREFIX}{dataset}/{run}/"


def receipts_of(objects: Objects, dataset: str, run: str) -> list[Receipt]:
    """All receipts of one run, in order. Raises RunUnknown, ReceiptUnreadable, and StreamBroken
    where one was changed or removed since."""
    found = Stream(objects, prefix_of(dataset, run)).read()
    if not found:
        raise RunUnknown(
            f"there is no run {quoted(run)} of dataset {quoted(dataset)}",
            hint='"lakewarden batch list" shows those that there are.',
        )
    return [parse_receipt(record.body, key=record.key) for record in found]


def tests_of(objects: Objects, dataset: str, run: str) -> Mapping[str, str]:
    """How the tests of a run ended, by name; empty where no receipt tells of them."""
    try:
        receipts = receipts_of(objects, dataset, run)
    except (RunUnknown, ReceiptUnreadable, StreamBroken):
        return {}
    return {test.name: test.status for receipt in receipts for test in receipt.tests}


def parse_receipt(body: object, *, key: str) -> Receipt:
    """A stored receipt of format 1 or 2, also one of a later release that has more fields."""
    try:
        if isinstance(body, dict) and body.get("format") == 1:
            body = _of_format_1(body)
        return Receipt.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "the whole"
    raise ReceiptUnreadable(
        f"{key}: expected a receipt of format {FORMAT}, but {field} is not as it should be",
        hint="Was it written by a newer release? Read it with that one.",
    )


def _of_format_1(body: Mapping[str, object]) -> Mapping[str, object]:
    """As format 2 tells it: what was said of the one batch is said in a list of batches."""
    of_batch = ("batch", "completeness", "delivery_hash", "quarantine", "counts")
    told = {key: body[key] for key in of_batch if key in body}
    return {**body, "format": FORMAT, "batches": [told]}


def _read(objects: Objects, version: ObjectVersion) -> Receipt:
    body = objects.get(version.key, version.version_id).body
    try:
        return parse_receipt(json.loads(body), key=version.key)
    except ValueError as error:  # not JSON, not UTF-8
        raise ReceiptUnreadable(
            f"{version.key}: expected a receipt, found no JSON",
            hint="Look at the object's versions to see who changed it, and restore the old one.",
        ) from error
