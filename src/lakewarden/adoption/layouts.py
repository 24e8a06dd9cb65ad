"""Keys under a landing prefix → how deliveries lie there, and which datasets they could be. Pure.

A layout is recognised by the first part of a key that is, or ends with, a day or a month: `dt=2024-
01-01/`, `2024-01/`. Days over several folders, dates without hyphens and dates in the names of
files are recognised, and told to be nothing that `landing` can say.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import PurePosixPath

from lakewarden.adoption.model import Adopted, LandingSurvey, Layout, Proposal
from lakewarden.tables.template import FileFormat, Level

_SHOWN = 5  # strange keys
_MOST_GLOBS = 50
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.=-]*")
_KEY = r"(?P<y>[0-9]{4})-(?P<m>[0-9]{2})(-(?P<d>[0-9]{2}))?"
_FOLDER = re.compile(rf"(?P<before>([A-Za-z0-9_]+=)?){_KEY}")
_COMPACT = re.compile(r"([A-Za-z0-9_]+=)?(?P<y>[0-9]{4})(?P<m>[0-9]{2})(?P<d>[0-9]{2})?")
_YEAR = re.compile(r"([A-Za-z]+=)?(?P<y>[0-9]{4})")
_TWO = re.compile(r"([A-Za-z]+=)?(?P<n>[0-9]{1,2})")
_IN_NAME = re.compile(r"(?<![0-9])([0-9]{4}-?[0-9]{2}(-?[0-9]{2})?)(?![0-9])")
_DIGITS = re.compile(r"[0-9]+")
_MARKERS = ("_SUCCESS", "_COMPLETE", "_DONE")
_MANIFEST = "_manifest.json"
_PACKED = frozenset({".gz", ".zst"})
_FORMATS = {
    ".csv": FileFormat.CSV,
    ".txt": FileFormat.CSV,
    ".tsv": FileFormat.CSV,
    ".json": FileFormat.JSON,
    ".jsonl": FileFormat.JSON,
    ".ndjson": FileFormat.JSON,
    ".parquet": FileFormat.PARQUET,
}


@dataclass(frozen=True)
class Found:
    """One key, taken apart. `place` is the same for all deliveries of a layout."""

    place: str
    form: str | None
    landing: str | None
    batch: str
    name: str  # within the delivery
    fault: str | None = None


def take_apart(key: str) -> Found | None:
    """Where the batch stands in a key; None where there is none."""
    *folders, name = key.split("/")
    if not all(_SAFE.fullmatch(folder) for folder in folders) or not name:
        return None
    for at, folder in enumerate(folders):
        found = (
            _plain(folders, at, name)
            or _over_folders(folders, at, name)
            or _without_hyphens(folder, folders, at, name)
        )
        if found:
            return found
    dated = _IN_NAME.search(name)
    if dated and folders and _is_date(dated[1].replace("-", "")):
        place = "".join(f"{folder}/" for folder in folders)
        fault = "the date is in the names of files, not in a folder of its own"
        return Found(place, None, None, dated[1], name, fault)
    return None


def _plain(folders: Sequence[str], at: int, name: str) -> Found | None:
    match = _FOLDER.fullmatch(folders[at])
    if match is None or not _is_date(match["y"] + match["m"] + (match["d"] or "")):
        return None
    form = "date" if match["d"] else "month"
    before = "".join(f"{folder}/" for folder in folders[:at])
    landing = f"{before}{match['before']}{{batch}}/"
    batch = folders[at].removeprefix(match["before"])
    return Found(landing, form, landing, batch, "/".join((*folders[at + 1 :], name)))


def _over_folders(folders: Sequence[str], at: int, name: str) -> Found | None:
    year = _YEAR.fullmatch(folders[at])
    numbers = [_TWO.fullmatch(folder) for folder in folders[at + 1 : at + 3]]
    if year is None or not numbers or numbers[0] is None:
        return None
    parts = [match["n"].zfill(2) for match in numbers if match]
    if not _is_date(year["y"] + "".join(parts)):
        return None
    before = "".join(f"{folder}/" for folder in folders[:at])
    form, shape = ("date", "YYYY/MM/DD/") if len(parts) == 2 else ("month", "YYYY/MM/")
    rest = (*folders[at + 1 + len(parts) :], name)
    fault = f"the {'day' if form == 'date' else 'month'} stands in {len(parts) + 1} folders"
    batch = "-".join((year["y"], *parts))
    return Found(f"{before}{shape}", form, None, batch, "/".join(rest), fault)


def _without_hyphens(folder: str, folders: Sequence[str], at: int, name: str) -> Found | None:
    match = _COMPACT.fullmatch(folder)
    if match is None or not _is_date(match["y"] + match["m"] + (match["d"] or "")):
        return None
    form = "date" if match["d"] else "month"
    before = "".join(f"{one}/" for one in folders[:at]) + (match[1] or "")
    shape = "YYYYMMDD" if match["d"] else "YYYYMM"
    written = "YYYY-MM-DD" if match["d"] else "YYYY-MM"
    fault = f"a {form} without hyphens; a batch key is written {written}"
    batch = "-".join(filter(None, (match["y"], match["m"], match["d"])))
    rest = "/".join((*folders[at + 1 :], name))
    return Found(f"{before}{shape}/", form, None, batch, rest, fault)


def _is_date(digits: str) -> bool:
    """YYYYMM or YYYYMMDD of a day that there was, after 1900."""
    if len(digits) == 6:
        digits += "01"
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:])).year > 1900
    except ValueError:
        return False


def layouts(keys: Iterable[str]) -> tuple[Sequence[Layout], Sequence[str]]:
    """The layouts of keys, by place, and the keys that are of none."""
    by_place: dict[tuple[str, str | None], list[Found]] = {}
    strange = []
    for key in keys:
        found = take_apart(key)
        if found is None:
            strange.append(key)
        else:
            by_place.setdefault((found.place, found.form), []).append(found)
    return [
        _layout(place, found) for (place, _), found in sorted(by_place.items(), key=_by_place)
    ], strange


def _by_place(item: tuple[tuple[str, str | None], list[Found]]) -> tuple[str, str]:
    place, form = item[0]
    return place, form or ""


def _layout(place: str, found: Sequence[Found]) -> Layout:
    batches = sorted({one.batch for one in found})
    names = Counter(one.name for one in found)
    one = found[0]
    globs = _globs(found)
    fault = one.fault
    if len(globs) > _MOST_GLOBS:
        fault = fault or f"its files have {len(globs)} kinds of names"
        globs = globs[:_MOST_GLOBS]
    return Layout(
        place=place,
        form=one.form,
        landing=None if fault else one.landing,
        globs=globs,
        batches=len(batches),
        files=len(found),
        first=batches[0],
        last=batches[-1],
        complete=_complete(names, len(batches)),
        fault=fault,
    )


def _complete(names: Mapping[str, int], batches: int) -> str:
    """By what every delivery has; else by lying still."""
    if names.get(_MANIFEST) == batches:
        return "manifest"
    for marker in _MARKERS:
        if names.get(marker) == batches:
            return f"marker:{marker}"
    return "settled:15m"


def _globs(found: Sequence[Found]) -> Sequence[str]:
    """Names with `*` for the batch and for every number."""
    globs = {
        glob_of(one.name, one.batch)
        for one in found
        if not PurePosixPath(one.name).name.startswith(("_", "."))
    }
    return sorted(globs)


def glob_of(name: str, batch: str) -> str:
    """The pattern of a file's name that fits it, and its likes in other deliveries."""
    for text in (batch, batch.replace("-", ""), batch.replace("-", "_")):
        name = name.replace(text, "\0")
    spelled = "".join(f"[{char}]" if char in "[*?" else char for char in name)
    return re.sub(r"\*+", "*", _DIGITS.sub("*", spelled.replace("\0", "*")))


def format_of(glob: str) -> FileFormat | None:
    """What the files of a glob hold, by how its name ends."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(glob).suffixes]
    while suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    return _FORMATS.get(suffixes[-1]) if suffixes else None


def survey_landing(
    prefix: str,
    keys: Collection[str],
    tables: Sequence[Adopted],
    *,
    taken: Collection[str] = (),
    cut_off: bool = False,
) -> LandingSurvey:
    """What lies under a prefix, and which of the tables it could fill. keys: of the bucket. taken:
    names that other datasets have."""
    found, strange = layouts(keys)
    proposals: list[Proposal] = []
    unfit: list[tuple[Layout, str]] = []
    for layout in found:
        made = _propose(layout, tables, {*taken, *(one.name for one in proposals)})
        if isinstance(made, Proposal):
            proposals.append(made)
        else:
            unfit.append((layout, made))
    return LandingSurvey(prefix, proposals, unfit, strange[:_SHOWN], len(strange), cut_off)


def _propose(layout: Layout, tables: Sequence[Adopted], taken: Collection[str]) -> Proposal | str:
    """A dataset, or why there is none."""
    if layout.landing is None:
        return layout.fault or "it cannot be told which part of a key is the batch"
    if layout.landing.startswith("ops/"):
        return "ops/ is where Lakewarden keeps its own records"
    matched: dict[str, str] = {}
    formats: dict[str, FileFormat] = {}
    notes: list[str] = []
    for glob in layout.globs:
        fitting = [*_named(layout, glob, tables)]
        kind = format_of(glob)
        if len(fitting) != 1:
            notes.append(f"{glob}: {'several tables' if fitting else 'no table'} of that name")
        elif kind is None:
            notes.append(f"{glob}: not CSV, JSON or Parquet by its name")
        elif fitting[0].level is not Level.LOADED:
            why = "; ".join(reason.message for reason in fitting[0].reasons)
            notes.append(f"{glob}: {fitting[0].table} cannot be loaded: {why}")
        elif fitting[0].table in matched:
            notes.append(f"{glob}: a second kind of file for {fitting[0].table}; one glob a table")
        else:
            matched[fitting[0].table], formats[fitting[0].table] = glob, kind
    if not matched:
        return "; ".join(notes) or "no files besides markers"
    if layout.complete.startswith("settled"):
        notes.append("nothing marks a delivery as complete: it counts as such after 15 minutes")
    return Proposal(_dataset_name(layout.landing, taken), layout, matched, formats, notes)


def _named(layout: Layout, glob: str, tables: Sequence[Adopted]) -> Iterator[Adopted]:
    """Tables that are called as the files, or else as the nearest folder."""
    stem = PurePosixPath(glob).name.partition(".")[0]
    folders = [*(layout.landing or "").split("/"), *PurePosixPath(glob).parts[:-1]]
    names = [_plain_name(stem), *(_plain_name(folder) for folder in reversed(folders))]
    for name in names:
        fitting = [one for one in tables if name and one.table.rpartition(".")[2] == name]
        if fitting:
            yield from fitting
            return


def _plain_name(text: str) -> str:
    if "{batch}" in text:
        return ""
    return re.sub(r"[^a-z0-9]+", "_", text.replace("*", " ").lower()).strip("_")


def _dataset_name(landing: str, taken: Collection[str]) -> str:
    """After the nearest folder; with a number where another has it."""
    words = [_plain_name(folder) for folder in landing.split("/")]
    named = [word for word in words if word and word[0].isalpha()]
    name, number = (named or ["landing"])[-1], 2
    plain = name
    while name in taken:
        name, number = f"{plain}_{number}", number + 1
    return name
