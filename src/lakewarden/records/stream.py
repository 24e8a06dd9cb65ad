"""Append-only streams of numbered JSON records on object storage, chained by hashes.

A stream is the objects `<prefix><nnnn>-<name>.json`, and `<prefix>head.json`, which holds the last
record. A key holds the record's name, so a create alone would guard the key but not the number:
it is the head that gives numbers out. An append replaces the head by If-Match (the one step that
decides a race), then writes the record under its own key. Whoever is killed in between leaves a
record that only the head holds; the next append writes it first, and `read` knows it meanwhile.
So no number is ever held twice, none is left out, and a record that was removed or changed,
the last one too, is found out.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter, ValidationError

from lakewarden.aws.objects import ObjectChanged, ObjectExists, ObjectMissing, Objects
from lakewarden.errors import Failed, TryAgain

if TYPE_CHECKING:
    from tenacity import Retrying

FORMAT = 1
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_KEY = re.compile(r"([0-9]{4,})-([a-z0-9-]+)\.json")
_BODY = TypeAdapter(dict[str, JsonValue])
_PATIENCE = 30.0  # seconds of lost races


class StreamBroken(Failed):
    """A record of the stream was changed, removed or added from outside."""


class StreamBusy(TryAgain):
    """Others appended all the time."""


@dataclass(frozen=True)
class Record:
    """One record. `body` has everything that was written, "format" and "previous" too."""

    key: str
    number: int  # from 1
    name: str
    body: Mapping[str, JsonValue]
    sha256: str  # of its bytes


class _Head(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    number: int
    name: str
    record: str  # the record's bytes as text

    @property
    def sha256(self) -> str:
        return _sha256(self.record.encode())


@dataclass(frozen=True)
class _Seen:
    """The head as it was read or written last."""

    head: _Head
    etag: str


class Stream:
    """The records under one prefix. Several writers may append at once."""

    def __init__(self, objects: Objects, prefix: str) -> None:
        self._objects = objects
        self._prefix = prefix
        self._seen: _Seen | None = None  # spares a read while nobody else appends

    def append(self, name: str, body: Mapping[str, JsonValue]) -> str:
        """Add a record and return its key; it gets `"previous"`, and `"format": 1` unless it has
        a format of its own. `name` is of a-z, 0-9 and single hyphens. Raises StreamBusy, and
        StreamBroken where records lie without a head."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"not a record's name: {name!r}")
        if "previous" in body:
            raise ValueError('"previous" is the chain\'s own')
        try:
            return _retrying()(self._append, name, body)
        except (ObjectExists, ObjectChanged) as error:
            raise StreamBusy(
                f"others kept appending to s3://{self._objects.bucket}/{self._prefix}",
                hint="Try again.",
            ) from error

    def read(self) -> list[Record]:
        """All records in order, verified; raises StreamBroken. It writes nothing, and tells
        the stream as it was when it began to read."""
        seen = self._read_head()
        keys = sorted(self._keys())
        last = seen.head.number if seen else 0
        if keys and keys[-1][0] > last:  # appended since, or not by us
            self._check_appended(keys[-1][0])
        if seen is None:
            return []
        found = [
            self._record(key, number, name, self._objects.get(key).body)
            for number, name, key in keys
            if number <= last
        ]
        return self._verified(self._with_head(found, seen.head))

    def _check_appended(self, number: int) -> None:
        seen = self._head_of_records()
        if number > seen.head.number:
            raise self._broken(f"its head knows of {seen.head.number} records, not of {number}")

    def _append(self, name: str, body: Mapping[str, JsonValue]) -> str:
        seen = self._seen or self._settled()
        head = _Head(
            number=seen.head.number + 1 if seen else 1,
            name=name,
            record=_text(body, seen.head.sha256 if seen else None),
        )
        self._seen = None  # until we know how it went
        etag = self._write_head(head, seen)
        key = self._write_record(head)
        self._seen = _Seen(head, etag)
        return key

    def _settled(self) -> _Seen | None:
        """The head, with its record under the record's own key."""
        seen = self._read_head()
        if seen is None and any(self._keys()):
            seen = self._head_of_records()  # others may have begun the stream just now
        if seen is not None:
            self._write_record(seen.head)
        return seen

    def _write_head(self, head: _Head, seen: _Seen | None) -> str:
        content = head.model_dump_json().encode()
        if seen is None:
            return self._objects.create(self._head_key, content).etag
        return self._objects.replace(self._head_key, content, etag=seen.etag).etag

    def _write_record(self, head: _Head) -> str:
        key = f"{self._prefix}{head.number:04d}-{head.name}.json"
        content = head.record.encode()
        try:
            self._objects.create(key, content)
        except ObjectExists:  # by whoever appended after us and found it missing
            if self._objects.get(key).body != content:
                raise self._broken(f"{key} is not what was written") from None
        return key

    def _head_of_records(self) -> _Seen:
        """The head that must be there, since records were seen."""
        seen = self._read_head()
        if seen is None:
            raise self._broken("its head is missing")
        return seen

    def _read_head(self) -> _Seen | None:
        try:
            stored = self._objects.get(self._head_key)
        except ObjectMissing:
            return None
        try:
            head = _Head.model_validate_json(stored.body)
        except ValidationError as error:
            raise self._broken("its head cannot be read") from error
        return _Seen(head, stored.version.etag)

    def _keys(self) -> Iterator[tuple[int, str, str]]:
        """(number, name, key) of the records; other objects may lie below the prefix."""
        for version in self._objects.list(self._prefix):
            match = _KEY.fullmatch(version.key.removeprefix(self._prefix))
            if match:
                yield int(match[1]), match[2], version.key

    def _record(self, key: str, number: int, name: str, content: bytes) -> Record:
        try:
            body = _BODY.validate_json(content)
        except ValidationError as error:
            raise self._broken(f"{key} is not a record") from error
        return Record(key, number, name, body, _sha256(content))

    def _with_head(self, found: Sequence[Record], head: _Head) -> list[Record]:
        """The records, and the last one from the head where it is not under its own key yet."""
        key = f"{self._prefix}{head.number:04d}-{head.name}.json"
        last = self._record(key, head.number, head.name, head.record.encode())
        if head.number == len(found) + 1:
            return [*found, last]
        if not found or found[-1] != last:
            raise self._broken(f"{key} is not what the head says")
        return list(found)

    def _verified(self, records: list[Record]) -> list[Record]:
        previous: str | None = None
        for number, record in enumerate(records, start=1):
            if record.number != number:
                raise self._broken(f"number {number} is not there once, but {record.key} is")
            if record.body.get("previous") != previous:
                raise self._broken(f"{record.key} does not follow the record before it")
            previous = record.sha256
        return records

    @property
    def _head_key(self) -> str:
        return f"{self._prefix}head.json"

    def _broken(self, why: str) -> StreamBroken:
        return StreamBroken(
            f"the records s3://{self._objects.bucket}/{self._prefix} are damaged: {why}",
            hint="Look at the objects' versions to see who changed them, and restore the old ones.",
        )


def _retrying() -> "Retrying":
    from tenacity import (
        Retrying,
        retry_if_exception_type,
        stop_after_delay,
        wait_random_exponential,
    )

    return Retrying(
        retry=retry_if_exception_type((ObjectExists, ObjectChanged)),
        wait=wait_random_exponential(multiplier=0.01, max=0.5),
        stop=stop_after_delay(_PATIENCE),
        reraise=True,
    )


def _text(body: Mapping[str, JsonValue], previous: str | None) -> str:
    record = {"format": FORMAT, **body, "previous": previous}
    return json.dumps(record, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
