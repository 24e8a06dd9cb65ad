"""Everything that a trial can do, by name."""

from collections.abc import Callable, Mapping

from benchmarks import (
    catalogs,
    dlt_beside,
    duckdb_alone,
    lakewarden_batch,
    many_batches,
    many_tables,
    parts,
    pipeline,
)
from benchmarks.trial import Detail, Job

# A job prepares what is not to be measured, and returns what is.
Prepare = Callable[[Job], Callable[[], Detail]]

JOBS: Mapping[str, Prepare] = {
    "deliver": lakewarden_batch.deliver,
    "batch": lakewarden_batch.batch,
    "steps": lakewarden_batch.steps,
    "small": lakewarden_batch.small,
    "command": lakewarden_batch.command,
    "digest": lakewarden_batch.digest,
    "batches": many_batches.run,
    "drift": many_tables.drift,
    "catalogs": catalogs.run,
    "pipeline": pipeline.run,
    "dlt": dlt_beside.load,
    "dlt-digest": dlt_beside.digest,
    "duckdb": duckdb_alone.s3_to_s3,
    "floor": duckdb_alone.local_to_local,
    "duckdb-digest": duckdb_alone.digest,
    "download": parts.download,
    "stream": parts.stream,
    "upload": parts.upload,
    "sha256": parts.sha256,
    "decode": parts.decode,
    "count": parts.count,
}
