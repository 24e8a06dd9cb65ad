"""Manifests as they come: whatever the bytes are, a Manifest or one of its errors.

Three forms are read: our version 1, the one that Redshift's UNLOAD writes ("Unloading data to
Amazon S3", MANIFEST), and the older one, which names no file and covers the data file beside it.
"""

import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from typing import Annotated, Literal, NoReturn, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)
from pydantic_core import ErrorDetails

from lakewarden.batch.delivery.keys import Landing, quoted
from lakewarden.batch.delivery.manifest import (
    Entry,
    Manifest,
    ManifestAmbiguous,
    ManifestCountNegative,
    ManifestFileTwice,
    ManifestHashInvalid,
    ManifestMalformed,
    ManifestNotJson,
    ManifestOfAnother,
    ManifestPathOutside,
    ManifestRefused,
    ManifestTooLarge,
    ManifestVersionUnknown,
)

MAX_BYTES = 32 << 20
MAX_ENTRIES = 100_000
_MAX_COUNT = 2**63 - 1
_DESCRIPTION = frozenset({"schema", "meta", "author"})  # what UNLOAD adds for human readers


def _moment(value: object) -> datetime:
    if not isinstance(value, str):
        raise ValueError("a time as text")
    moment = datetime.fromisoformat(value)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


Count = Annotated[int, Field(ge=0, le=_MAX_COUNT)]
Moment = Annotated[datetime, BeforeValidator(_moment)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}\z", to_lower=True)]
Md5 = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{32}\z", to_lower=True)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _Lenient(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Meta(_Strict):
    content_length: Count | None = None
    record_count: Count | None = None


class _Item(_Strict):
    url: str
    mandatory: bool = True  # COPY's own default is false; a part that is missing must be noticed
    sha256: Sha256 | None = None
    md5: Md5 | None = None
    meta: _Meta = _Meta()


class _VersionOne(_Strict):
    version: Literal[1]
    dataset: str
    batch: str
    created_at: Moment | None = None
    entries: list[_Item]


class _UnloadMeta(_Lenient):
    content_length: Count | None = None
    record_count: Count | None = None


class _UnloadItem(_Lenient):
    url: str
    mandatory: bool = True
    meta: _UnloadMeta = _UnloadMeta()


class _Unload(_Lenient):
    entries: list[_UnloadItem]


class _OlderHash(_Strict):
    algorithm: Literal["MD5", "SHA256"]
    value: str


class _Older(_Lenient):
    yyyymm: str
    file_type: str
    facility_cd: str  # text: leading zeros count
    records: Count
    hash: _OlderHash
    created_at: Moment | None = None


def parse(body: bytes, landing: Landing, *, file: str, covers: str | None = None) -> Manifest:
    """Any of the three forms, checked against the delivery that it lies in.

    `file` is what messages call it; `covers` is the data file that an older manifest speaks of.
    Raises a ManifestRefused, and nothing else, whatever the bytes are.
    """
    return parse_form(parse_document(body, file=file), landing, file=file, covers=covers)


def parse_form(
    document: dict[str, object], landing: Landing, *, file: str, covers: str | None = None
) -> Manifest:
    """As `parse`, from the JSON object that `parse_document` gave."""
    _check_entries(document.get("entries"), file)
    if "version" in document:
        return _version_one(document, landing, file)
    if "entries" in document:
        return _unloaded(document, landing, file)
    if names_no_file(document):
        return _older(document, landing, file, covers)
    raise ManifestVersionUnknown(
        file,
        expected="version 1",
        found="no version, and no entries",
        hint='Write it with "lakewarden batch manifest", or add "version": 1.',
    )


def names_no_file(document: Mapping[str, object]) -> bool:
    """Whether this is the older form, which speaks of the data file beside it."""
    return not {"version", "entries"} & document.keys() and (
        "hash" in document or "records" in document
    )


def parse_document(body: bytes, *, file: str) -> dict[str, object]:
    """The JSON object in a manifest's bytes: UTF-8, no key twice, no NaN, no absurd size."""
    check_bytes(len(body), file=file)
    try:
        text = body.decode("utf-8-sig")
        document = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
        )
    except UnicodeDecodeError as error:
        _not_json(file, f"a byte that is not UTF-8 at offset {error.start}")
    except json.JSONDecodeError as error:
        _not_json(file, f"{error.msg} at line {error.lineno}, column {error.colno}")
    except RecursionError:
        _not_json(file, "lists or objects nested too deeply")
    except ValueError as error:  # our hooks, and integers of thousands of digits
        _not_json(file, str(error) if isinstance(error, _Unreadable) else "a number too long")
    if not isinstance(document, dict):
        _not_json(file, _kind(document))
    return document


class _Unreadable(ValueError):
    """What our JSON hooks refuse; its text is fit for a message."""


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise _Unreadable(f"the key {quoted(key)} twice in one object")
        found[key] = value
    return found


def _no_constant(name: str) -> NoReturn:
    raise _Unreadable(f"{name}, which is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _Unreadable("a number too large")
    return number


def _not_json(file: str, found: str) -> NoReturn:
    raise ManifestNotJson(
        file,
        expected="one JSON object in UTF-8",
        found=found,
        hint='Mend it, or remove it and write it anew with "lakewarden batch manifest".',
    )


def check_bytes(size: int, *, file: str) -> None:
    """Before a manifest is fetched: raises ManifestTooLarge."""
    if size > MAX_BYTES:
        raise ManifestTooLarge(
            file,
            expected=f"at most {MAX_BYTES} bytes",
            found=f"{size} bytes",
            hint="Is this a data file under a manifest's name? Deliver in larger files otherwise.",
        )


def _check_entries(entries: object, file: str) -> None:
    if isinstance(entries, list) and len(entries) > MAX_ENTRIES:
        raise ManifestTooLarge(
            file,
            expected=f"at most {MAX_ENTRIES} entries",
            found=str(len(entries)),
            hint="Deliver the batch in fewer, larger files.",
        )


def _version_one(document: dict[str, object], landing: Landing, file: str) -> Manifest:
    version = document["version"]
    if type(version) is not int or version != 1:
        known = type(version) is int
        raise ManifestVersionUnknown(
            file,
            expected="version 1",
            found=f"version {str(version)[:20]}" if known else f"{_kind(version)} as its version",
            hint="Write it as version 1, or use a release of Lakewarden that reads this one.",
        )
    described = {k: v for k, v in document.items() if k not in _DESCRIPTION}
    read = _validated(_VersionOne, described, file)
    _check_same("dataset", read.dataset, landing.dataset, file)
    _check_same("batch", read.batch, landing.batch, file)
    entries = (
        Entry(
            resolve(item.url, landing, file=file),
            item.mandatory,
            item.sha256,
            item.md5,
            item.meta.content_length,
            item.meta.record_count,
        )
        for item in read.entries
    )
    return _manifest(landing, read.created_at, entries, file)


def _unloaded(document: dict[str, object], landing: Landing, file: str) -> Manifest:
    entries = (
        Entry(
            resolve(item.url, landing, file=file),
            item.mandatory,
            size=item.meta.content_length,
            records=item.meta.record_count,
        )
        for item in _validated(_Unload, document, file).entries
    )
    return _manifest(landing, None, entries, file)


def _older(
    document: dict[str, object], landing: Landing, file: str, covers: str | None
) -> Manifest:
    read = _validated(_Older, document, file)
    _check_same("yyyymm", read.yyyymm.replace("-", ""), landing.batch[:7].replace("-", ""), file)
    digest = read.hash.value.lower()
    width = {"MD5": 32, "SHA256": 64}[read.hash.algorithm]
    if len(digest) != width or not set(digest) <= set("0123456789abcdef"):
        raise _bad_hash(file, "hash.value", width, read.hash.value)
    if covers is None:
        raise ManifestAmbiguous(
            file,
            expected="the one data file that this manifest is for",
            found="none",
            hint="The older form names no file: put it beside its file, as {stem}_manifest.json.",
        )
    entry = Entry(
        covers,
        sha256=digest if width == 64 else None,
        md5=digest if width == 32 else None,
        records=read.records,
    )
    return Manifest(landing.dataset, landing.batch, read.created_at, (entry,))


def _manifest(
    landing: Landing, at: datetime | None, entries: Iterable[Entry], file: str
) -> Manifest:
    """Sorted by name, so that two manifests of one delivery are equal."""
    found = sorted(entries, key=lambda entry: entry.name)
    for one, other in pairwise(found):
        if one.name == other.name:
            raise ManifestFileTwice(
                file,
                expected="every file once",
                found=f"{quoted(one.name)} twice",
                hint="Remove one of the two entries; a url may be relative or absolute, not both.",
            )
    return Manifest(landing.dataset, landing.batch, at, tuple(found))


def resolve(url: str, landing: Landing, *, file: str) -> str:
    """A url of a manifest as a name inside of the delivery; raises ManifestPathOutside."""
    home = f"s3://{landing.bucket}/{landing.prefix}"
    name = url.removeprefix(home)
    if fault := landing.fault(name):
        raise ManifestPathOutside(
            file,
            expected=f"a name relative to {home}, or an address inside of it",
            found=f"{quoted(url)} ({fault})",
            hint="Name the file as it lies in the delivery, for example flights.csv.",
        )
    return name


def _check_same(field: str, found: str, expected: str, file: str) -> None:
    if found != expected:
        raise ManifestOfAnother(
            file,
            expected=f"{field} {quoted(expected)}",
            found=quoted(found),
            hint="Was it delivered under another batch's prefix? Deliver it where it belongs.",
        )


_Read = TypeVar("_Read", bound=BaseModel)


def _validated(form: type[_Read], document: dict[str, object], file: str) -> _Read:
    try:
        return form.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
    raise _fault(first, file)


def _fault(first: ErrorDetails, file: str) -> ManifestRefused:
    """The first thing that is wrong, told by its field and the kind of value, never the value."""
    # Without a place where a name itself is no text.
    field = ".".join(str(part) for part in first["loc"]) or "each field's name"
    leaf = str(first["loc"][-1]) if first["loc"] else ""
    match first["type"]:
        case "string_pattern_mismatch":
            return _bad_hash(file, field, 64 if leaf == "sha256" else 32, first["input"])
        case "greater_than_equal":
            return ManifestCountNegative(
                file,
                expected=f"{field} of 0 or more",
                found="a negative number",
                hint="Write the true number, or leave it out where it is not known.",
            )
        case "extra_forbidden":
            return _malformed(file, "only fields that version 1 has", f"also {quoted(field)}")
        case "missing":
            return _malformed(file, f"the field {field}", "none")
    return _malformed(file, f"{field} as {_WANTED.get(leaf, 'text')}", _kind(first["input"]))


_NUMBER = f"a whole number up to {_MAX_COUNT}"
_WANTED = {
    "records": _NUMBER,
    "record_count": _NUMBER,
    "content_length": _NUMBER,
    "mandatory": "true or false",
    "entries": "a list",
    "meta": "an object",
    "hash": "an object",
    "algorithm": '"MD5" or "SHA256"',
    "created_at": 'a time such as "2013-01-02T06:00:00+00:00"',
}


def _malformed(file: str, expected: str, found: str) -> ManifestMalformed:
    return ManifestMalformed(
        file,
        expected=expected,
        found=found,
        hint='"lakewarden batch manifest --help" shows what a manifest looks like.',
    )


def _bad_hash(file: str, field: str, width: int, found: str) -> ManifestHashInvalid:
    return ManifestHashInvalid(
        file,
        expected=f"{field} as {width} hexadecimal digits",
        found=f"{len(found)} characters that are not",
        hint="Write it as sha256sum or md5sum prints it.",
    )


def _kind(value: object) -> str:
    """The JSON type of a value, never the value."""
    for types, words in _KINDS:
        if isinstance(value, types):
            return words
    return "null"


_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "true or false"),
    (int, "a whole number"),
    (float, "a number with a fraction"),
    (str, "text"),
    (list, "a list"),
    (dict, "an object"),
)
