"""DuckDB alone, doing the same work: typed CSV in, zstd Parquet of the same columns out.

It does not hash, does not count apart, keeps nothing that does not fit, and publishes nothing.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.dataset import BATCH, COLUMNS
from benchmarks.site import BUCKET, MEMORY_LIMIT, REGION, THREADS
from benchmarks.trial import Detail, Job

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_ORDER = "sold_at NULLS FIRST, sale_id NULLS FIRST"
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
    "unnumbered": Form("sale_id", (_FREE,)),
    "unnumbered-ordered": Form("sale_id"),
}


def s3_to_s3(job: Job) -> Callable[[], Detail]:
    """From the delivered object to Parquet beside it."""
    connection = _connect(job)
    form = FORMS[job.form]
    for setting in form.settings:
        connection.execute(setting)
    delivered = f"s3://{BUCKET}/raw/{job.table}/{BATCH}/sales.csv"
    write = {"sales": _plain, "sorted": _sorted, "hourly": _hourly}[job.table]
    tiny = f"s3://{BUCKET}/raw/tiny/{BATCH}/sales.csv"
    _plain(connection, _select(tiny, form), _target(job, "warm"), job)

    def work() -> Detail:
        write(connection, _select(delivered, form), _target(job, job.table), job)
        return {}

    return work


def local_to_local(job: Job) -> Callable[[], Detail]:
    """The floor: no S3 on either side."""
    connection = _connect(job)
    form = FORMS[job.form]
    for setting in form.settings:
        connection.execute(setting)

    def work() -> Detail:
        _plain(connection, _select(job.csv, form), f"{job.root}/floor.parquet", job)
        return {}

    return work


def digest(job: Job) -> Callable[[], Detail]:
    """What it wrote, in two numbers, to be compared with what the batch wrote."""
    connection = _connect(job)

    def work() -> Detail:
        target = _target(job, job.table)
        files = f"{target}/*.parquet" if job.table == "hourly" else target
        return content(connection, f"read_parquet('{files}')")

    return work


def content(connection: "DuckDBPyConnection", relation: str) -> Detail:
    """The rows of a relation, and a digest of their delivered columns, in any order."""
    names = ", ".join(column.name for column in COLUMNS)
    found = connection.execute(
        f"SELECT count(*), bit_xor(hash({names}, _batch, _file)), count(DISTINCT _line)"
        f" FROM {relation}"
    ).fetchone()
    assert found is not None
    return {"rows": found[0], "digest": found[1], "lines": found[2]}


def _connect(job: Job) -> "DuckDBPyConnection":
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
    folder = job.table == "hourly" and name != "warm"
    return f"s3://{BUCKET}/duckdb/{name}" + ("" if folder else f"-{job.form}.parquet")


def _select(path: str, form: Form) -> str:
    columns = ", ".join(f"'{column.name}': '{column.duckdb}'" for column in COLUMNS)
    return (
        f"SELECT *, '{BATCH}' AS _batch, 'sales.csv' AS _file, {form.line} AS _line"
        f" FROM read_csv('{path}', columns = {{{columns}}}, header = true, auto_detect = false,"
        " delim = ',', quote = '\"', escape = '\"', nullstr = '')"
    )


def _plain(connection: "DuckDBPyConnection", select: str, target: str, job: Job) -> None:
    connection.execute(f"COPY ({select}) TO '{target}' ({_PARQUET})")


def _sorted(connection: "DuckDBPyConnection", select: str, target: str, job: Job) -> None:
    connection.execute(f"COPY ({select} ORDER BY {_ORDER}) TO '{target}' ({_PARQUET})")


def _hourly(connection: "DuckDBPyConnection", select: str, target: str, job: Job) -> None:
    """One file an hour, sorted inside: spread over folders, then one COPY each, two at a time.

    (DuckDB's own partitioned COPY does not keep the order inside its files.)"""
    groups = Path(job.root, "duckdb-groups")
    connection.execute(
        f"COPY (SELECT *, hour(sold_at) AS hour FROM ({select})) TO '{groups}'"
        " (FORMAT parquet, COMPRESSION lz4_raw, PARTITION_BY (hour))"
    )

    def write(folder: Path) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                f"COPY (SELECT * FROM read_parquet('{folder}/*.parquet', hive_partitioning = false)"
                f" ORDER BY {_ORDER}) TO '{target}/{folder.name}.parquet' ({_PARQUET})"
            )

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(write, _folders(groups)))
    shutil.rmtree(groups)


def _folders(groups: Path) -> Iterator[Path]:
    return (path for path in sorted(groups.iterdir()) if path.is_dir())
