"""The pipeline on Step Functions, on an emulator of AWS, with its tasks as real processes."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lakewarden.aws.objects import ObjectVersion
from lakewarden.aws.s3 import S3Objects
from lakewarden.batch.export import read_export
from lakewarden.batch.history import runs
from tests.local.pipeline_site import (
    Emulator,
    Execution,
    Site,
    agent,
    emulator,
    make_site,
    wait_for,
)
from tests.local.shop import DATASET, DAY, Shop, new_shop, rows_of, write_delivery
from tests.stack import LocalStack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

WHOLE = [
    "Begin",
    "ValidateManifest",
    "IsManifestValid",
    "CopyRaw",
    "IsRawCopied",
    "RunDbtTransformations",
    "IsPublished",
    "ExportParquet",
    "IsExported",
    "NotifySuccess",
    "Done",
]
UNDONE = ["RollbackStage", "NotifyFailure", "Failed"]


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with emulator(tmp_path_factory.mktemp("control")) as found:
        yield found


@dataclass
class Pipeline:
    shop: Shop
    site: Site

    def run(self, batch: str = DAY, source: str | None = None) -> Execution:
        return self.site.start(DATASET, batch, source)

    def exported(self) -> dict[str, list[tuple[object, ...]]]:
        """Rows of what was exported, by table, as those read them who go by the manifest."""
        project = self.shop.project
        export, _ = read_export(project.objects, "processed/")
        assert export is not None
        found = {}
        with project.session(project.pin()) as connection:
            for name, table in export.tables.items():
                files = [f"s3://{project.env.bucket}/{file.key}" for file in table.files]
                select = "SELECT * FROM read_parquet(?) ORDER BY ALL"
                found[name] = connection.execute(select, [files]).fetchall() if files else []
                assert len(found[name]) == table.rows
        return found


@pytest.fixture(scope="module")
def pipeline(
    local_stack: LocalStack, control: Emulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pipeline]:
    """One shop for all tests, each with a day of its own."""
    shop = new_shop(local_stack, tmp_path_factory.mktemp("shop"), models=True)
    site = make_site(shop.root, control, shop.project.env.bucket)
    with agent(site):
        yield Pipeline(shop, site)


def test_a_delivery_is_published_exported_and_told(pipeline: Pipeline) -> None:
    pipeline.shop.deliver(1)
    execution = pipeline.run()
    ended = execution.end()
    assert ended["status"] == "SUCCEEDED", pipeline.site.logs[-1].read_text()
    assert execution.states() == WHOLE
    marts = {name: rows for name, rows in pipeline.shop.rows().items() if name.startswith("marts")}
    assert {name: tuple(rows) for name, rows in pipeline.exported().items()} == marts
    (notice,) = pipeline.site.notices()
    version = pipeline.shop.publications()[0].version
    assert notice["outcome"] == "published"
    assert (notice["version"], notice["exported"]["version"]) == (version, version)
    assert notice["counts"] == {"in": 36, "loaded": 36, "quarantined": 0}
    assert pipeline.shop.leftovers() == {}

    again = pipeline.run()
    assert again.end()["status"] == "SUCCEEDED"
    (told,) = pipeline.site.notices()
    assert (told["outcome"], told["version"]) == ("unchanged", version)
    assert len(pipeline.shop.publications()) == 1


def test_a_delivery_comes_from_its_producers_bucket(
    pipeline: Pipeline, local_stack: LocalStack, tmp_path: Path
) -> None:
    day, producer = "2024-03-02", S3Objects(local_stack.connection, local_stack.bucket())
    folder = write_delivery(tmp_path / "made", 2)
    pipeline.shop.project.write_manifest_of_folder(folder, DATASET, day)
    for path in folder.iterdir():
        producer.upload(f"out/today/{path.name}", path)
    source = f"s3://{producer.bucket}/out/today/"
    assert pipeline.run(day, source).end()["status"] == "SUCCEEDED"
    mine = rows_of(2, day, orders=12)["raw.orders"]
    assert set(mine) <= set(pipeline.shop.rows()["raw.orders"])
    landed = {one.key: one.version_id for one in _landed(pipeline, day)}
    assert pipeline.run(day, source).end()["status"] == "SUCCEEDED"
    assert {one.key: one.version_id for one in _landed(pipeline, day)} == landed
    assert len(pipeline.shop.publications(day)) == 1
    pipeline.site.notices()


def _landed(pipeline: Pipeline, day: str) -> list[ObjectVersion]:
    return list(pipeline.shop.project.objects.list(f"raw/sales/{day}/"))


def _end_of_failed(pipeline: Pipeline, execution: Execution, step: str, error: str) -> str:
    """It ended in the Fail state, told once; returns its cause."""
    ended = execution.end()
    assert (ended["status"], ended["error"]) == ("FAILED", error)
    assert execution.states()[-3:] == UNDONE
    (notice,) = pipeline.site.notices()
    assert (notice["step"], notice["error"]["name"]) == (step, error)
    assert pipeline.shop.leftovers() == {}
    return str(ended["cause"])


def test_a_delivery_without_one_of_its_files_starts_no_run(pipeline: Pipeline) -> None:
    day = "2024-03-03"
    pipeline.shop.deliver(3, day)
    pipeline.shop.project.objects.delete(f"raw/sales/{day}/lines.csv")
    execution = pipeline.run(day)
    cause = _end_of_failed(pipeline, execution, "ValidateManifest", "FileMissing")
    assert "lines.csv" in cause
    assert "RunDbtTransformations" not in execution.states()
    assert pipeline.shop.publications(day) == ()


def test_what_is_no_payload_is_refused(pipeline: Pipeline) -> None:
    execution = pipeline.site.start(DATASET, "2024-13-40")
    _end_of_failed(pipeline, execution, "ValidateManifest", "BatchKeyInvalid")
    execution = pipeline.site.start("nobody's", "2024-03-03")
    _end_of_failed(pipeline, execution, "ValidateManifest", "DatasetUnknown")


def test_data_that_do_not_fit_are_refused_by_the_run(pipeline: Pipeline) -> None:
    day = "2024-03-04"
    pipeline.shop.deliver(4, day, orders=0, damaged=True)
    before = pipeline.shop.rows()
    _end_of_failed(pipeline, pipeline.run(day), "RunDbtTransformations", "TooManyMisfits")
    assert pipeline.shop.rows() == before
    pipeline.shop.deliver(4, day)
    assert pipeline.run(day).end()["status"] == "SUCCEEDED"
    pipeline.site.notices()


def test_a_failing_dbt_test_keeps_the_batch_out(pipeline: Pipeline) -> None:
    day, project = "2024-03-05", pipeline.shop.root / "transform"
    pipeline.shop.deliver(5, day)
    failing = project / "tests" / "never.sql"
    failing.write_text("select 1 as id from {{ source('raw', 'orders') }} where generation = 5\n")
    try:
        cause = _end_of_failed(pipeline, pipeline.run(day), "RunDbtTransformations", "TestsFailed")
    finally:
        failing.unlink()
    assert "never" in cause
    assert pipeline.shop.publications(day) == ()
    run = runs(pipeline.shop.project.objects, pipeline.shop.project.lake, DATASET, leases={})[0].run
    kept = pipeline.shop.project.receipts_prefix(DATASET, run) + "dbt/test_results.json"
    assert pipeline.shop.project.objects.head(kept) is not None
    log = next(one for one in reversed(pipeline.site.logs) if "run" in one.name).read_text()
    assert kept in log


def _paused(pipeline: Pipeline, day: str) -> tuple[Execution, int]:
    """An execution whose runner stands still, with the batch loaded and nothing published."""
    execution = pipeline.run(day)
    process = wait_for(lambda: pipeline.site.running("run"))
    objects = pipeline.shop.project.objects
    before = {one.key for one in objects.list("ops/batches/") if one.key.endswith("-load.json")}

    def is_loaded() -> bool:
        found = {one.key for one in objects.list("ops/batches/") if one.key.endswith("-load.json")}
        return found > before

    wait_for(is_loaded)
    process.send_signal(signal.SIGSTOP)
    assert pipeline.shop.publications(day) == ()
    return execution, process.pid


def test_a_runner_that_was_killed_is_put_away_and_the_same_payload_publishes(
    pipeline: Pipeline,
) -> None:
    day = "2024-03-06"
    pipeline.shop.deliver(6, day)
    before = pipeline.shop.rows()
    execution, pid = _paused(pipeline, day)
    assert pipeline.shop.leftovers() != {}
    os.kill(pid, signal.SIGKILL)
    ended = execution.end()
    assert (ended["status"], ended["error"]) == ("FAILED", "HeartbeatTimeout")
    assert execution.states()[-3:] == UNDONE
    (notice,) = pipeline.site.notices()
    assert (notice["outcome"], len(notice["fenced_runs"])) == ("failed", 1)
    assert pipeline.shop.rows() == before
    assert pipeline.shop.leftovers() == {}
    assert pipeline.run(day).end()["status"] == "SUCCEEDED"
    assert len(pipeline.shop.publications(day)) == 1
    pipeline.site.notices()


def test_a_runner_that_nobody_waits_for_does_not_publish(pipeline: Pipeline) -> None:
    day = "2024-03-07"
    pipeline.shop.deliver(7, day)
    execution, pid = _paused(pipeline, day)
    arn = next(arn for arn, p in pipeline.site.processes.items() if p.pid == pid)
    pipeline.site.sfn.send_task_failure(
        taskToken=pipeline.site.tokens[arn], error="States.HeartbeatTimeout", cause=""
    )
    os.kill(pid, signal.SIGCONT)
    assert pipeline.site.processes[arn].wait(60) == 1
    log = next(one for one in reversed(pipeline.site.logs) if "run" in one.name).read_text()
    assert "TokenLost" in log or "RunFenced" in log
    _end_of_failed(pipeline, execution, "RunDbtTransformations", "HeartbeatTimeout")
    assert pipeline.shop.publications(day) == ()


def test_a_runner_that_is_told_to_end_says_so(pipeline: Pipeline) -> None:
    day = "2024-03-08"
    pipeline.shop.deliver(8, day)
    execution, pid = _paused(pipeline, day)
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGCONT)
    _end_of_failed(pipeline, execution, "RunDbtTransformations", "Stopped")
    process = next(p for p in pipeline.site.processes.values() if p.pid == pid)
    assert process.wait(60) == 143


def test_published_and_not_exported_is_told_as_that_and_goes_on(pipeline: Pipeline) -> None:
    day, objects = "2024-03-09", pipeline.shop.project.objects
    pipeline.shop.deliver(9, day)
    export, _ = read_export(objects, "processed/")
    objects.put("processed/_manifest.json", b"somebody else's")
    execution = pipeline.run(day)
    ended = execution.end()
    assert (ended["status"], ended["error"]) == ("FAILED", "ExportUnreadable")
    assert "published, not exported" in ended["cause"]
    (notice,) = pipeline.site.notices()
    (publication,) = pipeline.shop.publications(day)
    assert notice["outcome"] == "published, not exported"
    assert notice["version"] == publication.version
    objects.delete("processed/_manifest.json")
    assert pipeline.run(day).end()["status"] == "SUCCEEDED"
    (told,) = pipeline.site.notices()
    assert (told["outcome"], told["exported"]["version"]) == ("unchanged", publication.version)
    assert len(pipeline.shop.publications(day)) == 1
    marts = pipeline.shop.rows()
    assert tuple(pipeline.exported()["marts.daily"]) == marts["marts.daily"]
    assert export is not None


def test_two_executions_of_one_payload_publish_once(pipeline: Pipeline) -> None:
    day = "2024-03-10"
    pipeline.shop.deliver(10, day)
    ends = [each.end() for each in (pipeline.run(day), pipeline.run(day))]
    assert "SUCCEEDED" in {end["status"] for end in ends}
    assert {end.get("error") for end in ends} <= {None, "LeaseHeld"}
    assert len(pipeline.shop.publications(day)) == 1
    pipeline.site.notices()
    assert pipeline.run(day).end()["status"] == "SUCCEEDED"
    assert pipeline.shop.leftovers() == {}
