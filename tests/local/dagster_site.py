"""The example `flights` as a project on the stack of the tests, run plainly or by Dagster."""

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path

import dagster as dg

import lakewarden
from lakewarden.batch.duck import EXTENSIONS, connect
from lakewarden.batch.receipts import list_runs, receipts_of
from lakewarden.cli.flights_data import write_delivery
from lakewarden.dagster_defs import definitions
from lakewarden.wiring import Project
from tests.local.shop import connect_project
from tests.stack import LocalStack

EXAMPLE = Path(lakewarden.__file__).parent / "examples" / "flights"
JOB = "lakewarden_flights_batches"
AT_ONCE = dg.RetryPolicy(max_retries=2, delay=0)
Damage = Callable[[Path], None]


@dataclass
class FlightsSite:
    root: Path
    instance: dg.DagsterInstance = field(default_factory=dg.DagsterInstance.ephemeral)

    @property
    def project(self) -> Project:
        return lakewarden.open(self.root)

    @cached_property
    def defs(self) -> dg.Definitions:
        return definitions(self.project, retry=AT_ONCE)

    def with_control(self, url: str) -> None:
        """Let what stands in for AWS's control plane answer there."""
        endpoint = self.root / ".lakewarden" / "local" / "endpoint.json"
        endpoint.write_text(json.dumps({**json.loads(endpoint.read_text()), "control": url}))

    def deliver(self, day: str, damage: Damage | None = None) -> None:
        folder = self.root / "delivery"
        shutil.rmtree(folder, ignore_errors=True)
        write_delivery(date.fromisoformat(day), folder)
        if damage:
            self.project.write_manifest_of_folder(folder, "flights", day)
            damage(folder)
        self.project.deliver("flights", day, folder)

    def materialize(self, first: str, last: str | None = None) -> dg.ExecuteInProcessResult:
        """One batch; or a range, in one run."""
        job = self.defs.resolve_job_def(JOB)
        if last is None:
            return job.execute_in_process(
                instance=self.instance, partition_key=first, raise_on_error=False
            )
        ends = {"start": first, "end": last}
        tags = {f"dagster/asset_partition_range_{name}": key for name, key in ends.items()}
        return job.execute_in_process(instance=self.instance, tags=tags, raise_on_error=False)

    def rows(self) -> Mapping[str, Sequence[tuple[object, ...]]]:
        """All rows of all tables, sorted."""
        project = self.project
        with connect(project.duck, extensions=EXTENSIONS) as connection:
            return {
                table: connection.execute(f"FROM iceberg_scan('{at}') ORDER BY ALL").fetchall()
                for table, at in sorted(project.pin().tables.items())
            }

    def receipts(self) -> Sequence[str]:
        """All receipts of all runs, oldest first, without ids and times."""
        objects = self.project.objects
        return [
            plain(receipt.model_dump_json(exclude={"at", "seconds"}), run.run, objects.bucket)
            for run in reversed(list_runs(objects))
            for receipt in receipts_of(objects, run.dataset, run.run)
        ]


def plain(receipt: str, run: str, bucket: str) -> str:
    text = receipt.replace(run, "RUN").replace(f"s3://{bucket}/", "s3://BUCKET/")
    text = re.sub(r'"version_id":"[^"]*"', '"version_id":"…"', text)
    return re.sub(r"metadata/[^\"]+\.metadata\.json", "metadata/…", text)


def flights_site(stack: LocalStack, root: Path) -> FlightsSite:
    """With a bucket and a catalog of its own."""
    shutil.copytree(EXAMPLE, root)
    connect_project(root, stack.connection, stack.bucket())
    return FlightsSite(root)
