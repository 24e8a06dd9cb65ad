"""DuckDB alone, doing the same work: typed CSV in, zstd Parquet of the same columns out.

It does not hash, does not count apart, keeps nothing that does not fit, and publishes nothing.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.dataset import BATCH, LAYOUTS, Dataset
from benchmarks.site import BUCKET, MEMORY_LIMIT, REGION, THREADS
from benchmarks.trial import Detail, Job

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_PARQUET = "FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 122880"
_FREE = "SET preserve_insertion_order = false"


@dataclass(frozen=True)
class Form:
    """One way to write it. `line`: SQL for `_line`; `settings` come first."""

    line: str
    settings: tuple[str, ...] = ()


# Numbering records needs one thread that sees them all in order, so it is what costs.
FORMS: Mapping[str, Form] = {
    "numbered": Form("row_number() OVER () + 1"),
    "sequence": Form("nextval('lines')", (_FREE, "CREATE SEQUENCE lines START 2")),
    "unnumbered": Form("0", (_FREE,)),
    "unnumbered-ordered": Form("0"),
}


def s3_to_s3(job: Job) -> Callable[[], Detail]:
    """From the delivered object to Parquet beside it."""
    connection = connect_to(job)
    form = FORMS[job.form]
    for setting in form.settings:
        connection.execute(setting)
    layout, tiny = LAYOUTS[job.table], LAYOUTS["tiny"].dataset
    delivered = f"s3://{BUCKET}/raw/{job.table}/{BATCH}/{layout.dataset.file}"
    write = _hourly if layout.hourly else _sorted if layout.sorted else _plain
    small = _select(f"s3://{BUCKET}/raw/tiny/{BATCH}/{tiny.file}", form, tiny)
    _plain(connection, small, _target(job, "warm"), job)

    def work() -> Detail:
        write(connection, _select(delivered, form, layout.dataset), _target(job, job.table), job)
        return {}

    return work


def local_to_local(job: Job) -> Callable[[], Detail]:
    """The floor: no S3 on either side."""
    connection = connect_to(job)
    form = FORMS[job.form]
    for setting in form.settings:
        connection.execute(setting)

    def work() -> Detail:
        select = _select(job.csv, form, LAYOUTS[job.table].dataset)
        _plain(connection, select, f"{job.root}/floor.parquet", job)
        return {}

    return work


def digest(job: Job) -> Callable[[], Detail]:
    """What it wrote, in two numbers, to be compared with what the batch wrote."""
    connection = connect_to(job)

    def work() -> Detail:
        target = _target(job, job.table)
        files = f"{target}/*.parquet" if LAYOUTS[job.table].hourly else target
        paths = [path for (path,) in connection.execute(f"FROM glob('{files}')").fetchall()]
        check_layout(connection, job.table, paths)
        return content(connection, f"read_parquet('{files}')", LAYOUTS[job.table].dataset)

    return work


def content(connection: "DuckDBPyConnection", relation: str, dataset: Dataset) -> Detail:
    """The rows of a relation, and a digest of their delivered columns, in any order."""
    names = ", ".join(column.name for column in dataset.columns)
    found = connection.execute(
        f"SELECT count(*), bit_xor(hash({names}, _batch, _file)), count(DISTINCT _line)"
        f" FROM {relation}"
    ).fetchone()
    assert found is not None
    return {"rows": found[0], "digest": found[1], "lines": found[2]}


def check_layout(connection: "DuckDBPyConnection", table: str, files: Sequence[str]) -> None:
    """Each file is sorted as the table is, and of one hour where the table has a file an hour."""
    layout = LAYOUTS[table]
    moment = layout.dataset.order[0]
    key = f"({', '.join(layout.dataset.order)})"
    for file in files if layout.sorted else ():
        found = connection.execute(
            f"SELECT count(*) FILTER (before > here), count(DISTINCT date_trunc('hour', {moment}))"
            f" FROM (SELECT {moment}, {key} AS here, lag({key}) OVER (ORDER BY file_row_number)"
            f" AS before FROM read_parquet('{file}', file_row_number = true))"
        ).fetchone()
        assert found is not None
        assert found[0] == 0, f"{table}: {found[0]} rows of a file are before their place"
        assert found[1] == 1 or not layout.hourly, f"{table}: a file of {found[1]} hours"


def connect_to(job: Job) -> "DuckDBPyConnection":
    """A session with the limits that a batch has."""
    from lakewarden.batch.duck import DuckConfig, connect
    from lakewarden.settings import local_endpoint

    local = local_endpoint(Path(job.root))
    config = DuckConfig(
        temp=Path(job.root, "duckdb"),
        memory_limit=MEMORY_LIMIT,
        threads=THREADS,
        endpoint=local.endpoint,
        region=REGION,
        access_key=local.access_key,
        secret_key=local.secret_key.get_secret_value(),
    )
    return connect(config, extensions=["httpfs"])


def _target(job: Job, name: str) -> str:
    folder = LAYOUTS[job.table].hourly and name != "warm"
    return f"s3://{BUCKET}/duckdb/{name}-{job.form}" + ("" if folder else ".parquet")


def _select(path: str, form: Form, dataset: Dataset) -> str:
    columns = ", ".join(f"'{column.name}': '{column.duckdb}'" for column in dataset.columns)
    return (
        f"SELECT *, '{BATCH}' AS _batch, '{dataset.file}' AS _file, {form.line} AS _line"
        f" FROM read_csv('{path}', columns = {{{columns}}}, header = true, auto_detect = false,"
        " delim = ',', quote = '\"', escape = '\"', nullstr = '')"
    )


def _plain(connection: "DuckDBPyConnection", select: str, target: str, job: Job) -> None:
    connection.execute(f"COPY ({select}) TO '{target}' ({_PARQUET})")


def _sorted(connection: "DuckDBPyConnection", select: str, target: str, job: Job) -> None:
    connection.execute(f"COPY ({select} ORDER BY {_order(job)}) TO '{target}' ({_PARQUET})")


def _hourly(connection: "DuckDBPyConnection", select: str, target: str, job: Job) -> None:
    """One file an hour, sorted inside: spread over folders, then one COPY each, two at a time.

    (DuckDB's own partitioned COPY does not keep the order inside its files.)"""
    groups = Path(job.root, "duckdb-groups")
    moment = LAYOUTS[job.table].dataset.order[0]
    connection.execute(
        f"COPY (SELECT *, hour({moment}) AS hour FROM ({select})) TO '{groups}'"
        " (FORMAT parquet, COMPRESSION lz4_raw, PARTITION_BY (hour))"
    )

    def write(folder: Path) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                f"COPY (SELECT * FROM read_parquet('{folder}/*.parquet', hive_partitioning = false)"
                f" ORDER BY {_order(job)}) TO '{target}/{folder.name}.parquet' ({_PARQUET})"
            )

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(write, _folders(groups)))
    shutil.rmtree(groups)


def _order(job: Job) -> str:
    return ", ".join(f"{name} NULLS FIRST" for name in LAYOUTS[job.table].dataset.order)


def _folders(groups: Path) -> Iterator[Path]:
    return (path for path in sorted(groups.iterdir()) if path.is_dir())
