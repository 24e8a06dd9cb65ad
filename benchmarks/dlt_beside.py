"""dlt, in a virtual environment of its own: made once, kept with the data."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import duckdb_alone
from benchmarks.dataset import BATCH, LAYOUTS
from benchmarks.site import BUCKET, REGION, THREADS, cache_folder
from benchmarks.trial import Cost, Detail, Job

_REQUIREMENTS = Path(__file__).with_name("dlt_requirements.txt")
_SCRIPT = Path(__file__).with_name("dlt_alone.py")
_DATASET = "loaded"


class Unavailable(Exception):
    """dlt cannot be installed here; says why."""


def environment() -> Path:
    """Its Python; the environment is made where it is not there yet. Raises Unavailable."""
    pinned = hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()[:12]
    folder = cache_folder() / f"dlt-{pinned}"
    python = folder / "bin" / "python"
    done = folder / "installed"
    if done.exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    install = ["-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(_REQUIREMENTS)]
    tried = subprocess.run([str(python), *install], stderr=subprocess.PIPE, text=True)
    if tried.returncode:
        last = (tried.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise Unavailable(f"its packages could not be installed: {last}")
    done.touch()
    return python


def load(job: Job) -> Callable[[], Detail]:
    """One load into an empty place; what it cost is told by its own process."""
    from lakewarden.settings import local_endpoint

    local, layout = local_endpoint(Path(job.root)), LAYOUTS[job.table]
    folder = Path(job.root, "dlt")
    shutil.rmtree(folder, ignore_errors=True)
    _empty(job)
    told = {
        "folder": str(folder),
        "threads": THREADS,
        "key": local.access_key,
        "secret": local.secret_key.get_secret_value(),
        "endpoint": local.endpoint,
        "region": REGION,
        "columns": {column.name: column.iceberg for column in layout.dataset.columns},
        "source": f"{BUCKET}/raw/{job.table}/{BATCH}/{layout.dataset.file}",
        "target": f"s3://{BUCKET}/dlt",
        "dataset": _DATASET,
        "table": job.table,
    }
    command = [str(environment()), str(_SCRIPT), json.dumps(told)]

    def work() -> Detail:
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found: Detail = json.loads(done.stdout.splitlines()[-1])
        return found

    return work


def cost_of(cost: Cost) -> Cost:
    """What dlt's process told, without its start, which we do not count for ourselves either."""
    told = {name: float(value) for name, value in cost.detail.items() if isinstance(value, float)}
    others = max(0.0, cost.others_cpu - told["cpu"])
    return Cost(told["seconds"], told["cpu"], cost.store_cpu, others, told["peak_mib"])


def digest(job: Job) -> Callable[[], Detail]:
    """What it wrote, in two numbers."""
    connection = duckdb_alone.connect_to(job)
    dataset = LAYOUTS[job.table].dataset
    columns = ", ".join(f"{one.name}::{one.duckdb} AS {one.name}" for one in dataset.columns)

    def work() -> Detail:
        files = f"s3://{BUCKET}/dlt/{_DATASET}/{job.table}/data/*.parquet"
        rows = (
            f"(SELECT {columns}, '{BATCH}' AS _batch, '{dataset.file}' AS _file, 0 AS _line"
            f" FROM read_parquet('{files}'))"
        )
        return duckdb_alone.content(connection, rows, dataset)

    return work


def _empty(job: Job) -> None:
    import lakewarden

    objects = lakewarden.open(job.root).objects
    for found in list(objects.list("dlt/")):
        objects.delete(found.key)
