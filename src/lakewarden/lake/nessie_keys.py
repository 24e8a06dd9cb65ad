"""Where a lake keeps its own records in Nessie, and what stands in them.

All are namespaces with properties, so that they need no kind of content of our own, and none of
them is a table. On main, in the same commits as the tables:

    _lakewarden                 {format}
    _lakewarden.head            {version}: of the newest publication; every publish writes it
    _lakewarden.runs.<run>      the fence of a run: {outcome: published, version, branch, at}
                                or {outcome: taken-over, by, at}

On a branch of our own, beside main:

    names.<branch>              every name that a branch ever had: {run, at}
    open.<branch>               those that have not ended: {run, at, base, version}

What a publication brought stands in the properties of its commit (nessie_history).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from lakewarden.lake.model import CatalogFormatUnknown, TakenOver
from lakewarden.lake.nessie_model import TABLE, Content, Key, namespace
from lakewarden.lake.written import time_to_text

FORMAT = "1"
ROOT: Key = ("_lakewarden",)
HEAD: Key = (*ROOT, "head")
RUNS: Key = (*ROOT, "runs")
NAMES: Key = ("names",)
OPEN: Key = ("open",)


@dataclass(frozen=True)
class PublishedFence:
    """The fence of a run that has published, from this branch."""

    version: int
    branch: str


@dataclass(frozen=True)
class OpenBranch:
    """The record of a branch. `base`: main's hash where it began; `version`: of that pin."""

    name: str
    run: str
    at: datetime
    base: str
    version: str


def fence(run: str) -> Key:
    return (*RUNS, run)


def named(branch: str) -> Key:
    return (*NAMES, branch)


def opened(branch: str) -> Key:
    return (*OPEN, branch)


def root_content() -> Content:
    return namespace(ROOT, {"format": FORMAT})


def check_format(root: Content | None) -> None:
    """Raises CatalogFormatUnknown; without a root nothing of ours has been written yet."""
    if root is not None and root.properties.get("format") != FORMAT:
        raise CatalogFormatUnknown(
            f"the records in {'.'.join(ROOT)} have format {root.properties.get('format')};"
            f" this release reads format {FORMAT}",
            hint="Use the release of lakewarden that wrote them, or a newer one.",
        )


def version_of(head: Content | None) -> int:
    """Of the newest publication; 0 where there is none."""
    return int(head.properties["version"]) if head else 0


def head_content(version: int) -> Content:
    return namespace(HEAD, {"version": str(version)})


def published_content(run: str, version: int, branch: str, at: datetime) -> Content:
    told = {"outcome": "published", "version": str(version), "branch": branch}
    return namespace(fence(run), {**told, "at": time_to_text(at)})


def taken_over_content(run: str, by: str, at: datetime) -> Content:
    told = {"outcome": "taken-over", "by": by, "at": time_to_text(at)}
    return namespace(fence(run), told)


def read_fence(run: str, content: Content | None) -> PublishedFence | TakenOver | None:
    if content is None:
        return None
    told = content.properties
    if told["outcome"] == "published":
        return PublishedFence(int(told["version"]), told["branch"])
    return TakenOver(run, told["by"], datetime.fromisoformat(told["at"]))


def open_content(branch: OpenBranch) -> Content:
    told = {"run": branch.run, "at": time_to_text(branch.at)}
    return namespace(opened(branch.name), {**told, "base": branch.base, "version": branch.version})


def read_open(key: Key, told: Mapping[str, str]) -> OpenBranch:
    at = datetime.fromisoformat(told["at"])
    return OpenBranch(key[-1], told["run"], at, told["base"], told["version"])


def table_key(name: str) -> Key:
    return tuple(name.split("."))


def table_name(key: Key) -> str:
    return ".".join(key)


def is_table(key: Key, content: Content | None) -> bool:
    """A key with a dot in one of its parts has no name that means it alone: nobody's but
    Nessie's own API can make one, and it is none of ours."""
    return content is not None and content.type == TABLE and not any("." in part for part in key)
