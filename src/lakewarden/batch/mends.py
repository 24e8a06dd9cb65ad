"""Mends: how quarantined records should have read. An overlay over what was delivered.

`ops/mends/<dataset>/<batch>.jsonl`, one line a mend, newest last. What was delivered is never
changed: whoever runs the batch reads these records in the words of their mends, so a batch and its
mends always give the same rows. A mend is bound to the bytes of its file: a corrected delivery has
other bytes, and nothing is left of the mends for the old one.

Their text is row data: nothing here logs it, and it is in no receipt.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from lakewarden.aws.objects import ObjectChanged, ObjectExists, ObjectMissing, Objects
from lakewarden.errors import Failed, TryAgain, WrongUsage

PREFIX = "ops/mends/"
FORMAT: Literal[1] = 1
_ATTEMPTS = 20  # races lost in a row


class MendsUnreadable(Failed):
    """Not mends, or of a format that this release does not read."""


class NothingMended(WrongUsage):
    """A batch without mends has nothing to replay."""


class MendsBusy(TryAgain):
    """Others write mends of the same batch all the time, or of the same record just now."""


@dataclass(frozen=True)
class Mend:
    """One record as it should read. `line`: its number in the file, a header being 1. `replaces`:
    the sha256 of the record as it was delivered, in UTF-8 and without its line end: where a changed
    template cuts the file otherwise, another record would have the number."""

    file: str
    file_sha256: str
    line: int
    replaces: str
    raw: str
    by: str
    at: datetime


Overlay = Mapping[tuple[str, str], Mapping[int, Mend]]
"""By a file's name and sha256, and the number of a record in it."""


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True, extra="ignore")

    format: Literal[1] = FORMAT
    file: str
    file_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    line: int = Field(ge=1)
    replaces: str = Field(pattern=r"^[0-9a-f]{64}$")
    raw: str
    by: str
    at: AwareDatetime

    def mend(self) -> Mend:
        told = {name: getattr(self, name) for name in type(self).model_fields if name != "format"}
        return Mend(**told)


def key_of(dataset: str, batch: str) -> str:
    """Where the mends of a batch are kept."""
    return f"{PREFIX}{dataset}/{batch}.jsonl"


def read_mends(objects: Objects, dataset: str, batch: str) -> Sequence[Mend]:
    """All mends of a batch, oldest first; raises MendsUnreadable."""
    return _read(objects, key_of(dataset, batch))[0]


def check_mended(objects: Objects, dataset: str, batch: str) -> None:
    """Raises NothingMended."""
    if not read_mends(objects, dataset, batch):
        raise NothingMended(
            f"nothing of {dataset} {batch} was mended",
            hint=f"lakewarden quarantine show {dataset} {batch}",
        )


def add_mends(
    objects: Objects, dataset: str, batch: str, mends: Sequence[Mend], *, seen: Overlay
) -> None:
    """Put mends after those that there are, whoever else does the same. `seen`: the overlay that
    they were made on; raises MendsBusy where one of their records was mended since."""
    key = key_of(dataset, batch)
    for _ in range(_ATTEMPTS):
        before, etag = _read(objects, key)
        now = overlay(before)
        for one in mends:
            if _of(now, one) != _of(seen, one):
                raise MendsBusy(
                    f"somebody mended record {one.line} of {one.file} at the same moment",
                    hint="Nothing was kept. Look at it, and give the command again.",
                )
        body = b"".join(map(_bytes, (*before, *mends)))
        try:
            if etag is None:
                objects.create(key, body)
            else:
                objects.replace(key, body, etag=etag)
        except (ObjectExists, ObjectChanged):
            continue
        return
    raise MendsBusy(f"{key} changes all the time", hint="Give the same command again.")


def overlay(mends: Iterable[Mend]) -> Overlay:
    """What counts of them: of several for one record, the newest."""
    found: dict[tuple[str, str], dict[int, Mend]] = {}
    for mend in mends:
        found.setdefault((mend.file, mend.file_sha256), {})[mend.line] = mend
    return found


def _of(mends: Overlay, one: Mend) -> Mend | None:
    """What there is of the record that a mend is of."""
    return mends.get((one.file, one.file_sha256), {}).get(one.line)


def digest_of_record(record: bytes) -> str:
    """What `replaces` holds of a record in UTF-8."""
    return hashlib.sha256(record).hexdigest()


def digest_of(mends: Overlay) -> str | None:
    """Hex sha256, equal for overlays that say the same; None for an empty one."""
    if not mends:
        return None
    every = sorted(
        [*file, number, mend.raw]
        for file, records in mends.items()
        for number, mend in records.items()
    )
    return hashlib.sha256(json.dumps(every).encode()).hexdigest()


def _read(objects: Objects, key: str) -> tuple[Sequence[Mend], str | None]:
    try:
        stored = objects.get(key)
    except ObjectMissing:
        return (), None
    try:
        lines = stored.body.decode().split("\n")
        mends = [_Line.model_validate_json(line).mend() for line in lines if line]
    except (ValidationError, UnicodeDecodeError):  # whose text would quote a record
        raise MendsUnreadable(
            f"s3://{objects.bucket}/{key} is not a list of mends that this release reads",
            hint="Look at the object's versions to see who changed it, and restore the old one.",
        ) from None
    return mends, stored.version.etag


def _bytes(mend: Mend) -> bytes:
    return (_Line.model_validate(mend).model_dump_json() + "\n").encode()
