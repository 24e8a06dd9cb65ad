"""Batch keys, and where a batch lands: the only two things that object keys are made of.

A key's text is made from a date and a landing name is checked before it is joined to the prefix,
so no key that this module gives can lead outside of its delivery.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import islice
from typing import TYPE_CHECKING
from urllib.parse import unquote

from lakewarden.errors import WrongUsage

if TYPE_CHECKING:
    from lakewarden.batch.model import Dataset  # which takes its time

_FORMS = {
    "date": (re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}"), "YYYY-MM-DD", "2013-01-31"),
    "month": (re.compile(r"[0-9]{4}-[0-9]{2}"), "YYYY-MM", "2013-01"),
}
_MOST = 10_000  # batches of a range: each is looked for
_KEY_BYTES = 1024  # S3: "Naming Amazon S3 objects", the length of a key in UTF-8
_NO_PARTS = frozenset({"", ".", ".."})
# Unicode's classes of controls, of invisible marks (also those that turn text around), of half
# characters and of line separators.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


class BatchKeyInvalid(WrongUsage):
    """The batch key is not of its dataset's form, or no such day or month exists."""


class RangeBackwards(WrongUsage):
    """A range of batches whose last comes before its first."""


class RangeTooLong(WrongUsage):
    """A range of more batches than anybody means."""


class LandingInvalid(WrongUsage):
    """A dataset's `landing` in lakewarden.toml cannot hold one batch apart from the others."""


class PrefixUnknown(WrongUsage):
    """No dataset lands there."""


class PartUnknown(WrongUsage):
    """The dataset has no part of that name, or it has parts and none was named."""


class NameUnsafe(ValueError):
    """A name that would not stay inside of its delivery; our own mistake where it is raised."""


@dataclass(frozen=True, order=True)
class BatchKey:
    """The key of a batch, ordered by time. Its text is made from the date, never kept as given."""

    first_day: date
    form: str  # date | month

    def __str__(self) -> str:
        text = self.first_day.isoformat()
        return text if self.form == "date" else text[:7]


def parse_key(form: str, text: str) -> BatchKey:
    """The key that a person or a file wrote; raises BatchKeyInvalid."""
    if form not in _FORMS:
        raise BatchKeyInvalid(
            f"the form of batch key {quoted(form)} is not known",
            hint='Write batch = "date" or batch = "month" in lakewarden.toml.',
        )
    pattern, shape, example = _FORMS[form]
    day = _day(text if form == "date" else f"{text}-01") if pattern.fullmatch(text) else None
    if day is None:
        raise BatchKeyInvalid(
            f"{quoted(text)} is not a batch key: a {form} is written {shape}",
            hint=f"Give the batch as, for example, {example}.",
        )
    return BatchKey(day, form)


def parse_keys(form: str, text: str) -> tuple[BatchKey, ...]:
    """One key, or FIRST..LAST with all between; raises BatchKeyInvalid, RangeBackwards,
    RangeTooLong."""
    first, dots, last = text.partition("..")
    start = parse_key(form, first)
    if not dots:
        return (start,)
    keys = tuple(islice(keys_between(start, parse_key(form, last)), _MOST + 1))
    if len(keys) > _MOST:
        raise RangeTooLong(
            f"{quoted(text)} is more than {_MOST:,} batches", hint="Name a shorter range."
        )
    return keys


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def following(key: BatchKey) -> BatchKey | None:
    """The next day's or month's key; None after the last one of the year 9999."""
    try:
        # 31 days after the first of a month lie in the next one.
        later = key.first_day + timedelta(days=1 if key.form == "date" else 31)
    except OverflowError:
        return None
    return key_of(later, key.form)


def preceding(key: BatchKey) -> BatchKey | None:
    """The day's or month's key before this one; None before the first one of the year 1."""
    try:
        return key_of(key.first_day - timedelta(days=1), key.form)
    except OverflowError:
        return None


def key_of(day: date, form: str) -> BatchKey:
    """The key of a day, or of its month."""
    return BatchKey(day if form == "date" else day.replace(day=1), form)


def keys_between(first: BatchKey, last: BatchKey) -> Iterator[BatchKey]:
    """All keys of one form from the first to the last, with both; raises RangeBackwards."""
    if last < first:
        raise RangeBackwards(
            f"the range {first}..{last} ends before it begins", hint="Write it as FIRST..LAST."
        )
    key: BatchKey | None = first
    while key is not None and key <= last:
        yield key
        key = following(key)


@dataclass(frozen=True)
class Landing:
    """Where one batch of one dataset is delivered, or one part of it. `prefix` ends with a slash.

    Names are relative to the prefix; `in_batch` gives those that tell parts apart.
    """

    bucket: str
    prefix: str
    dataset: str
    batch: str
    part: str | None = None

    def key(self, name: str) -> str:
        """The object key of a file of the delivery; raises NameUnsafe."""
        if fault := self.fault(name):
            raise NameUnsafe(f"{quoted(name)}: {fault}")
        return self.prefix + name

    def name(self, key: str) -> str:
        """The name of an object that lies under the prefix, relative to it."""
        return key.removeprefix(self.prefix)

    def in_batch(self, name: str) -> str:
        """A file's name within its batch, `part/name`: what globs match and receipts hold."""
        return f"{self.part}/{name}" if self.part else name

    def fault(self, name: str) -> str | None:
        """Why a name cannot be a file of this delivery, in words; None where it can."""
        return name_fault(name, room=_KEY_BYTES - len(self.prefix.encode()))


def landings_of(dataset: "Dataset", batch: str, bucket: str) -> tuple[Landing, ...]:
    """Where a batch of this dataset lands: one place, or one a part, in the dataset's order.
    Raises BatchKeyInvalid, LandingInvalid."""
    key = str(parse_key(dataset.key_form, batch))
    parts = dataset.parts or (None,)
    if fault := _landing_fault(dataset):
        raise LandingInvalid(
            f"dataset {dataset.name}: landing {quoted(dataset.landing)} cannot be used: {fault}",
            hint=f'Write it like landing = "raw/{dataset.name}/{{batch}}/'
            f'{"{part}/" if dataset.parts else ""}" in lakewarden.toml.',
        )
    return tuple(
        Landing(bucket, _prefix(dataset.landing, key, part), dataset.name, key, part)
        for part in parts
    )


def landing_of(dataset: "Dataset", batch: str, bucket: str, part: str | None = None) -> Landing:
    """Where one part of a batch lands, or the whole of it where the dataset has no parts.
    Raises BatchKeyInvalid, LandingInvalid, PartUnknown."""
    for landing in landings_of(dataset, batch, bucket):
        if landing.part == part:
            return landing
    known = ", ".join(dataset.parts)
    raise PartUnknown(
        f"dataset {dataset.name} has no part {quoted(part)}"
        if part is not None
        else f"dataset {dataset.name} is delivered in parts, and none is named",
        hint=f"Name one with --part: {known}." if known else "Leave out --part: it has no parts.",
    )


_DIGIT = "\0"  # in a shape; no prefix has it


def shapes_of(landing: str, form: str, parts: Sequence[str]) -> tuple[str, ...]:
    """What the prefixes of a dataset's batches look like, one shape a part: every digit of the
    key stands for any digit."""
    key = re.sub("[0-9]", _DIGIT, _FORMS[form][2])
    return tuple(_prefix(landing, key, part) for part in parts or (None,))


def meet(one: str, other: str) -> bool:
    """Whether a prefix of one shape can be, or lie in, a prefix of the other. A plain prefix is
    a shape too."""
    return all(map(_fits, one, other))  # as far as the shorter one goes


def _fits(one: str, other: str) -> bool:
    if _DIGIT in (one, other):
        return {one, other} <= {_DIGIT, *"0123456789"}
    return one == other


def _prefix(landing: str, key: str, part: str | None) -> str:
    prefix = landing.replace("{batch}", key)
    return prefix.replace("{part}", part) if part is not None else prefix


def _landing_fault(dataset: "Dataset") -> str | None:
    """Why a dataset's landing cannot hold its batches, and their parts, apart."""
    landing, parts = dataset.landing, dataset.parts
    known = landing.replace("{batch}", "").replace("{part}", "")
    if "{batch}" not in landing:
        return "it does not contain {batch}"
    if parts and "{part}" not in landing:
        return "it does not contain {part}, and the dataset has parts"
    if not parts and "{part}" in landing:
        return "it contains {part}, and the dataset has no parts"
    if not landing.endswith("/"):
        return "it does not end with a slash"
    if "{" in known or "}" in known:
        return "it has a placeholder other than {batch} and {part}"
    # Parts have no slashes and a prefix ends with one, so no part's prefix holds another's files.
    faults = (name_fault(_prefix(landing, "0", part).removesuffix("/")) for part in parts or ("",))
    return next((fault for fault in faults if fault), None)


def name_fault(name: str, *, room: int = _KEY_BYTES) -> str | None:
    """Why a relative name is not safe, in words; None where it is. `room` is in bytes of UTF-8.

    Names are never decoded: `%2e` stays what it is. A name that would be unsafe if somebody
    decoded it is refused all the same.
    """
    if _has_unseen(name):
        return "it has a control or invisible character"
    if len(name.encode()) > room:
        return f"it is longer than {room} bytes"
    while True:
        if fault := _path_fault(name):
            return fault
        if "%" not in name or (decoded := unquote(name)) == name:
            return None
        name = decoded


def _has_unseen(name: str) -> bool:
    if name.isascii():
        return not name.isprintable()
    return any(unicodedata.category(c) in _UNSEEN for c in name)


def _path_fault(name: str) -> str | None:
    if _has_unseen(name):
        return "it hides a control character behind percent-encoding"
    if "\\" in name:
        return "it has a backslash"
    if "://" in name or name.startswith("/"):
        return "it is absolute"
    if not _NO_PARTS.isdisjoint(name.split("/")):
        return "it has an empty part, or a part that is . or .."
    return None


def quoted(text: str) -> str:
    """Foreign text as it may stand in a message: one line, nothing invisible, not endless."""
    shown = repr(text if len(text) <= 120 else text[:117] + "...")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown)


def landing_at(prefix: str, datasets: "Iterable[Dataset]", bucket: str) -> Landing:
    """Whose landing prefix this is (s3://bucket/…); raises PrefixUnknown."""
    home = f"s3://{bucket}/"
    wanted = prefix.removesuffix("/") + "/"
    for dataset in datasets:
        if batch := _batch_in(dataset, wanted.removeprefix(home)):
            for landing in landings_of(dataset, batch, bucket):
                if home + landing.prefix == wanted:
                    return landing
    raise PrefixUnknown(
        f"{quoted(prefix)} is no dataset's landing prefix",
        hint="It is [dataset.NAME] landing in lakewarden.toml, with the batch put in"
        " (and the part, where it has parts).",
    )


def batch_of(dataset: "Dataset", key: str) -> str | None:
    """The batch whose delivery an object belongs to; None where it belongs to none."""
    batch = _batch_in(dataset, key)
    if batch is None:
        return None
    try:
        landings = landings_of(dataset, batch, "")
    except BatchKeyInvalid:  # the 31st of February
        return None
    return batch if any(key.startswith(one.prefix) for one in landings) else None


def roots_of(dataset: "Dataset") -> tuple[str, ...]:
    """The prefixes under which all batches of a dataset land."""
    shapes = shapes_of(dataset.landing, dataset.key_form, dataset.parts)
    return tuple(dict.fromkeys(shape.partition(_DIGIT)[0] for shape in shapes))


def _batch_in(dataset: "Dataset", prefix: str) -> str | None:
    """What stands for {batch} in a prefix, where it has the form of the dataset's keys."""
    before = dataset.landing.partition("{batch}")[0]
    start = r"[^/]+".join(re.escape(text) for text in before.split("{part}"))
    key = _FORMS[dataset.key_form][0].pattern
    found = re.match(f"{start}({key})", prefix)
    return found[1] if found else None
