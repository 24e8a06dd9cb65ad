"""What was published, in the properties of the commits on main, and back."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from lakewarden.errors import Failed
from lakewarden.lake.model import Contribution, Publication, TableChange
from lakewarden.lake.nessie_model import Commit
from lakewarden.lake.written import contribution_of, contribution_to_text, time_to_text

_VERSION = "lakewarden.version"
_RUN = "lakewarden.run"
_AT = "lakewarden.at"
_DATASET = "lakewarden.dataset"
_BATCH = "lakewarden.batch"
_CONTRIBUTION = "lakewarden.contribution"  # JSON, in the order in which they were given
_TABLE = "lakewarden.table"  # JSON {table, before, after}, one a table that changed
_TAKEN_OVER = "lakewarden.taken-over"  # the run, of a commit that only writes its tombstone

NO_TOMBSTONE = f"!('{_TAKEN_OVER}' in commit.allProperties)"
"""Commits after which main may hold something else than before."""


class PublicationUnreadable(Failed):
    """A commit on main says that it is a publication, and cannot be read as one."""


def publication_properties(
    version: int,
    run: str,
    at: datetime,
    contributions: Sequence[Contribution],
    tables: Mapping[str, TableChange],
) -> Mapping[str, Sequence[str]]:
    told = {
        _VERSION: [str(version)],
        _RUN: [run],
        _AT: [time_to_text(at)],
        _DATASET: sorted({one.dataset for one in contributions if one.dataset is not None}),
        _BATCH: sorted({one.batch for one in contributions if one.batch is not None}),
        _CONTRIBUTION: [contribution_to_text(one) for one in contributions],
        _TABLE: [
            json.dumps({"table": name, "before": change.before, "after": change.after})
            for name, change in tables.items()
        ],
    }
    return {name: values for name, values in told.items() if values}


def tombstone_properties(run: str) -> Mapping[str, Sequence[str]]:
    return {_TAKEN_OVER: [run]}


def message_of(version: int, contributions: Sequence[Contribution]) -> str:
    """What a person reads in the log."""
    first = contributions[0]
    what = f"{first.dataset} {first.batch}" if first.batch else first.summary or "a change"
    more = f" and {len(contributions) - 1} more" if len(contributions) > 1 else ""
    return f"version {version}: {what}{more}"


def with_version(version: int) -> str:
    """The CEL expression that takes this publication's commit."""
    return _has(_VERSION, str(version))


def of_run(run: str) -> str:
    """The one that takes the publication of a run."""
    return _has(_RUN, run)


def of_batch(dataset: str | None, batch: str | None) -> str:
    """Those that may be of a batch: of a set, the pairs have to be looked at."""
    wanted = [(_DATASET, dataset), (_BATCH, batch)]
    asked = [_has(name, value) for name, value in wanted if value is not None]
    return " && ".join([f"'{_VERSION}' in commit.allProperties", *asked])


def publications_of(commit: Commit) -> Iterator[Publication]:
    """The contributions of one commit, the last given first. Raises PublicationUnreadable."""
    told = commit.all_properties
    try:
        (version,), (run,), (at,) = told[_VERSION], told[_RUN], told[_AT]
        tables = dict(_change(text) for text in told.get(_TABLE, ()))
        found = [
            Publication(int(version), run, datetime.fromisoformat(at), contribution_of(one), tables)
            for one in told[_CONTRIBUTION]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise PublicationUnreadable(
            f"commit {commit.hash} on main has properties of a publication that cannot be read",
            hint="Somebody else wrote them, or a newer release of lakewarden did.",
        ) from error
    yield from reversed(found)


def _change(text: str) -> tuple[str, TableChange]:
    told = json.loads(text)
    return told["table"], TableChange(told["before"], told["after"])


def _has(name: str, value: str) -> str:
    """Whether a commit's property has this value among others. Without the first half the first
    commit that lacks the property is an error; JSON's strings are CEL's too."""
    text = json.dumps(value, ensure_ascii=False)
    return f"'{name}' in commit.allProperties && {text} in commit.allProperties['{name}']"
