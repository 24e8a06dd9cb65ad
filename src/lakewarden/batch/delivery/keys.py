"""Batch keys, and where a batch lands: the only two things that object keys are made of.

A key's text is made from a date and a landing name is checked before it is joined to the prefix,
so no key that this module gives can lead outside of its delivery.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from urllib.parse import unquote

from lakewarden.batch.model import Dataset
from lakewarden.errors import WrongUsage

_FORMS = {
    "date": (re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}"), "YYYY-MM-DD", "2013-01-31"),
    "month": (re.compile(r"[0-9]{4}-[0-9]{2}"), "YYYY-MM", "2013-01"),
}
_KEY_BYTES = 1024  # S3: "Naming Amazon S3 objects", the length of a key in UTF-8
_NO_PARTS = frozenset({"", ".", ".."})
# Unicode's classes of controls, of invisible marks (also those that turn text around), of half
# characters and of line separators.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


class BatchKeyInvalid(WrongUsage):
    """The batch key is not of its dataset's form, or no such day or month exists."""


class LandingInvalid(WrongUsage):
    """A dataset's `landing` in lakewarden.toml cannot hold one batch apart from the others."""


class PrefixUnknown(WrongUsage):
    """No dataset lands there."""


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


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


@dataclass(frozen=True)
class Landing:
    """Where one batch of one dataset is delivered. `prefix` ends with a slash."""

    bucket: str
    prefix: str
    dataset: str
    batch: str

    def key(self, name: str) -> str:
        """The object key of a file of the delivery; raises NameUnsafe."""
        if fault := self.fault(name):
            raise NameUnsafe(f"{quoted(name)}: {fault}")
        return self.prefix + name

    def name(self, key: str) -> str:
        """The name of an object that lies under the prefix, relative to it."""
        return key.removeprefix(self.prefix)

    def fault(self, name: str) -> str | None:
        """Why a name cannot be a file of this delivery, in words; None where it can."""
        return name_fault(name, room=_KEY_BYTES - len(self.prefix.encode()))


def landing_of(dataset: Dataset, batch: str, bucket: str) -> Landing:
    """Where a batch of this dataset lands; raises BatchKeyInvalid, LandingInvalid."""
    key = str(parse_key(dataset.key_form, batch))
    prefix = dataset.landing.replace("{batch}", key)
    fault = name_fault(prefix.removesuffix("/"))
    if "{batch}" not in dataset.landing:
        fault = "it does not contain {batch}"
    elif not prefix.endswith("/"):
        fault = "it does not end with a slash"
    elif "{" in prefix or "}" in prefix:
        fault = "it has a placeholder other than {batch}"
    if fault:
        raise LandingInvalid(
            f"dataset {dataset.name}: landing {quoted(dataset.landing)} cannot be used: {fault}",
            hint='Write it like landing = "raw/flights/{batch}/" in lakewarden.toml.',
        )
    return Landing(bucket, prefix, dataset.name, key)


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


def landing_at(prefix: str, datasets: Iterable[Dataset], bucket: str) -> Landing:
    """Whose landing prefix this is (s3://bucket/…); raises PrefixUnknown."""
    wanted = prefix.removesuffix("/") + "/"
    for dataset in datasets:
        before, _, after = dataset.landing.partition("{batch}")
        start = f"s3://{bucket}/{before}"
        if not (wanted.startswith(start) and wanted.endswith(after)):
            continue
        batch = wanted[len(start) : len(wanted) - len(after)]
        if _FORMS[dataset.key_form][0].fullmatch(batch):
            return landing_of(dataset, batch, bucket)
    raise PrefixUnknown(
        f"{quoted(prefix)} is no dataset's landing prefix",
        hint="It is [dataset.NAME] landing in lakewarden.toml, with the batch put in.",
    )
