"""dlt doing the same load; run by the Python of an environment that has dlt, and not us.

`python dlt_alone.py JSON`. The fastest form that dlt's documentation names for files: whole Arrow
tables from a generator (no row passes through Python), the filesystem destination, Iceberg. It
neither sorts, nor partitions, nor numbers records.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

_BLOCK_BYTES = 32 << 20


def main(told: Mapping[str, Any]) -> None:
    """Load once; print seconds, CPU seconds and peak MiB of this process."""
    os.environ.update(
        {
            "DLT_DATA_DIR": told["folder"],
            "RUNTIME__DLTHUB_TELEMETRY": "false",
            "RUNTIME__LOG_LEVEL": "ERROR",
            "NORMALIZE__WORKERS": "1",  # one file: more start processes and gain nothing
            "DATA_WRITER__DISABLE_COMPRESSION": "true",
        }
    )
    import dlt
    import pyarrow as pa
    import pyarrow.csv as pacsv
    import s3fs
    from dlt.destinations import filesystem

    pa.set_cpu_count(told["threads"])
    s3 = s3fs.S3FileSystem(key=told["key"], secret=told["secret"], endpoint_url=told["endpoint"])
    types = {name: _type(pa, kind) for name, kind in told["columns"].items()}

    def rows() -> Iterator[pa.Table]:
        with s3.open(told["source"], "rb", block_size=_BLOCK_BYTES) as file:
            reader = pacsv.open_csv(
                file,
                read_options=pacsv.ReadOptions(block_size=_BLOCK_BYTES),
                parse_options=pacsv.ParseOptions(newlines_in_values=False),
                convert_options=pacsv.ConvertOptions(
                    column_types=types, strings_can_be_null=True, null_values=[""]
                ),
            )
            for batch in reader:
                yield pa.Table.from_batches([batch])

    pipeline = dlt.pipeline(
        pipeline_name="bench",
        pipelines_dir=told["folder"],
        dataset_name=told["dataset"],
        destination=filesystem(
            bucket_url=told["target"],
            credentials={
                "aws_access_key_id": told["key"],
                "aws_secret_access_key": told["secret"],
                "endpoint_url": told["endpoint"],
                "region_name": told["region"],
            },
        ),
    )
    wall, cpu = time.perf_counter(), _cpu()
    given = dlt.resource(
        rows, name=told["table"], table_format="iceberg", write_disposition="append"
    )
    pipeline.run(given, loader_file_format="parquet")
    print(
        json.dumps(
            {
                "seconds": time.perf_counter() - wall,
                "cpu": _cpu() - cpu,
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                / (1 << 20 if sys.platform == "darwin" else 1 << 10),
            }
        )
    )


def _type(pa: Any, iceberg: str) -> Any:  # pyarrow, which is imported late
    if iceberg.startswith("decimal"):
        precision, scale = iceberg.removeprefix("decimal(").removesuffix(")").split(",")
        return pa.decimal128(int(precision), int(scale))
    return {
        "long": pa.int64(),
        "int": pa.int32(),
        "string": pa.string(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us"),
        "timestamptz": pa.timestamp("us", "UTC"),
    }[iceberg]


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
