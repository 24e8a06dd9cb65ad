"""The survey as a whole: catalog, landings and dbt project, read and brought together."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lakewarden.adoption.catalogs import CatalogAddress, Listed, open_catalog
from lakewarden.adoption.dbt import survey_dbt
from lakewarden.adoption.landing import list_keys, split_prefix
from lakewarden.adoption.layouts import survey_landing
from lakewarden.adoption.model import Adopted, LandingElsewhere, LandingSurvey, Place, Survey
from lakewarden.adoption.tables import survey_table

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from pyiceberg.table.metadata import TableMetadata


@dataclass(frozen=True)
class Wanted:
    """What is to be surveyed. `bucket`: the project's; None: that of the landings, or of most
    tables."""

    project: str
    env: str
    account: str
    region: str
    bucket: str | None
    catalog: CatalogAddress
    landings: Sequence[str] = ()  # s3://bucket/prefix
    dbt: Path | None = None


def survey(
    wanted: Wanted,
    *,
    client: "S3Client",
    file_io: Mapping[str, str],
    tell: Callable[[str], None] = lambda what: None,
) -> Survey:
    """Read all of it; nothing is written.

    file_io: PyIceberg's `s3.*`. tell: is told of each table and prefix as it is looked at. Raises
    CatalogUnreadable, CatalogKindUnknown, LandingElsewhere, DbtProjectUnreadable,
    StorageUnavailable."""
    from pyiceberg.io.pyarrow import PyArrowFileIO

    io = PyArrowFileIO(dict(file_io))
    prefixes = [split_prefix(one) for one in wanted.landings]
    bucket = _landing_bucket(wanted.bucket, prefixes)
    with open_catalog(wanted.catalog, io, file_io) as (catalog, listed):
        entries = [_remembering(one) for one in listed]
        bucket = bucket or _bucket_of(entries)
        tables = []
        for entry in entries:
            tell(entry.name)
            tables.append(survey_table(entry, io, bucket=bucket))
    adopted = [one for one in tables if isinstance(one, Adopted)]
    landings = [*_landings(client, bucket, prefixes, adopted, tell)]
    dbt = survey_dbt(wanted.dbt, [one.table for one in tables]) if wanted.dbt else None
    place = Place(
        wanted.project,
        wanted.env,
        wanted.account,
        wanted.region,
        bucket,
        _warehouse(entries, bucket, [prefix for _, prefix in prefixes]),
    )
    return Survey(place, catalog, tables, landings, dbt)


def _landing_bucket(bucket: str | None, prefixes: Sequence[tuple[str, str]]) -> str | None:
    for found, _ in prefixes:
        if bucket is not None and found != bucket:
            raise LandingElsewhere(
                f"deliveries lie in {found}, and the project is in {bucket}",
                hint="A project has one bucket. Survey the others on their own.",
            )
        bucket = found
    return bucket


def _remembering(listed: Listed) -> Listed:
    """Metadata are read once."""
    if listed.read is None:
        return listed
    read = listed.read
    kept: list[TableMetadata] = []

    def once() -> "TableMetadata":
        if not kept:
            kept.append(read())
        return kept[0]

    return replace(listed, read=once)


def _locations(entries: Sequence[Listed]) -> Iterator[tuple[str, str]]:
    for one in entries:
        try:
            location = one.read().location if one.read else ""
        except Exception:  # noqa: S112  # told of the table itself, see survey_table
            continue
        if location.startswith("s3://"):
            yield one.name, location.removeprefix("s3://").rstrip("/")


def _bucket_of(entries: Sequence[Listed]) -> str:
    """The bucket of most tables."""
    found = Counter(location.partition("/")[0] for _, location in _locations(entries))
    if not found:
        raise LandingElsewhere(
            "no table of the catalog lies in a bucket, and no landing prefix was named",
            hint="Name the project's bucket by --landing s3://bucket/prefix/",
        )
    return found.most_common(1)[0][0]


def _warehouse(entries: Sequence[Listed], bucket: str, landings: Sequence[str]) -> str:
    """The prefix under which most tables lie as namespace/table, if it is apart from deliveries;
    new tables go there."""
    found: Counter[str] = Counter()
    for name, location in _locations(entries):
        prefix = location.removeprefix(f"{bucket}/")
        above = prefix.rpartition("/")[0]
        space = name.rpartition(".")[0]
        for folder in (space, f"{space}.db"):
            if prefix != location and above.endswith(f"/{folder}"):
                found[above.removesuffix(f"/{folder}")] += 1
    for warehouse, _ in found.most_common():
        apart = not any(
            one.startswith(f"{warehouse}/") or f"{warehouse}/".startswith(one) for one in landings
        )
        if warehouse and apart:
            return warehouse
    return "warehouse"


def _landings(
    client: "S3Client",
    bucket: str,
    prefixes: Sequence[tuple[str, str]],
    tables: Sequence[Adopted],
    tell: Callable[[str], None],
) -> Iterator[LandingSurvey]:
    taken: set[str] = set()
    for _, prefix in prefixes:
        tell(f"s3://{bucket}/{prefix}")
        keys, cut_off = list_keys(client, bucket, prefix)
        found = survey_landing(
            f"s3://{bucket}/{prefix}", keys, tables, taken=taken, cut_off=cut_off
        )
        taken.update(one.name for one in found.proposals)
        yield found
