"""The pipeline on Step Functions, on an emulator of AWS, with its tasks as real processes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from lakewarden.aws.clients import Connection
from lakewarden.aws.objects import ObjectVersion
from lakewarden.aws.s3 import S3Objects
from lakewarden.batch.export import read_export
from lakewarden.batch.history import runs
from lakewarden.local.health import make_bucket
from tests.local.pipeline_site import Execution, Site, pipeline_site, wait_for
from tests.local.shop import DATASET, DAY, Shop, make_shop, rows_of, write_delivery
from tests.local.test_cloud_ecs import is_gone

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
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """One shop for all tests, each with a day of its own."""
    root = tmp_path_factory.mktemp("shop")
    make_shop(root, Connection("local", "us-east-1"), "shop-dev", models=True)
    with pipeline_site(root, "shop") as site:
        yield Pipeline(Shop(root), site)


def test_a_delivery_is_published_exported_and_told(pipeline: Pipeline) -> None:
    pipeline.shop.deliver(1)
    execution = pipeline.run()
    ended = execution.end()
    assert ended["status"] == "SUCCEEDED", pipeline.site.log()
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


def test_a_delivery_comes_from_its_producers_bucket(pipeline: Pipeline, tmp_path: Path) -> None:
    day, connection = "2024-03-02", pipeline.shop.project.connection
    make_bucket(connection, "shop-producer")
    producer = S3Objects(connection, "shop-producer")
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
    run = runs(pipeline.shop.project.objects, pipeline.shop.project.lake, DATASET, leases=dict)[
        0
    ].run
    kept = pipeline.shop.project.receipts_prefix(DATASET, run) + "dbt/test_results.json"
    assert pipeline.shop.project.objects.head(kept) is not None
    wait_for(lambda: kept in pipeline.site.log())


def _paused(pipeline: Pipeline, day: str) -> tuple[Execution, psutil.Process]:
    """An execution whose runner stands still, with the batch loaded and nothing published."""
    objects = pipeline.shop.project.objects
    execution, process = pipeline.site.halt(objects, DATASET, day, "load")
    assert pipeline.shop.publications(day) == ()
    return execution, process


def test_a_runner_that_was_killed_is_put_away_and_the_same_payload_publishes(
    pipeline: Pipeline,
) -> None:
    day = "2024-03-06"
    pipeline.shop.deliver(6, day)
    before = pipeline.shop.rows()
    execution, process = _paused(pipeline, day)
    assert pipeline.shop.leftovers() != {}
    process.kill()
    ended = execution.end()
    assert (ended["status"], ended["error"]) == ("FAILED", "RunnerKilled")
    assert execution.states()[-3:] == UNDONE
    (notice,) = pipeline.site.notices()
    assert (notice["outcome"], len(notice["fenced_runs"])) == ("failed", 1)
    assert pipeline.shop.rows() == before
    assert pipeline.shop.leftovers() == {}
    assert pipeline.run(day).end()["status"] == "SUCCEEDED"
    assert len(pipeline.shop.publications(day)) == 1
    pipeline.site.notices()


def test_an_execution_that_is_stopped_by_hand_does_not_publish(pipeline: Pipeline) -> None:
    """Nothing rolls back behind it: its runner finds that nobody waits, and the next run of the
    same payload puts away what it left."""
    day = "2024-03-07"
    pipeline.shop.deliver(7, day)
    execution, process = _paused(pipeline, day)
    pipeline.site.client("stepfunctions").stop_execution(executionArn=execution.arn)
    process.resume()
    wait_for(lambda: is_gone(process.pid), 90)
    assert execution.end()["status"] == "ABORTED"
    assert execution.states()[-1] == "RunDbtTransformations"
    assert pipeline.shop.publications(day) == ()
    assert pipeline.run(day).end()["status"] == "SUCCEEDED"
    assert len(pipeline.shop.publications(day)) == 1
    assert pipeline.shop.leftovers() == {}
    pipeline.site.notices()


def test_a_runner_that_hangs_is_given_up_and_stopped(pipeline: Pipeline) -> None:
    day = "2024-03-11"
    pipeline.shop.deliver(11, day)
    execution, process = _paused(pipeline, day)
    _end_of_failed(pipeline, execution, "RunDbtTransformations", "HeartbeatTimeout")
    wait_for(lambda: is_gone(process.pid), 90)


def test_a_runner_that_is_told_to_end_says_so(pipeline: Pipeline) -> None:
    day = "2024-03-08"
    pipeline.shop.deliver(8, day)
    execution, process = _paused(pipeline, day)
    process.terminate()
    process.resume()
    _end_of_failed(pipeline, execution, "RunDbtTransformations", "Stopped")


def test_published_and_not_exported_is_told_as_that_and_goes_on(pipeline: Pipeline) -> None:
    day, objects = "2024-03-09", pipeline.shop.project.objects
    pipeline.shop.deliver(9, day)
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


def test_what_arrived_whole_is_started_once_and_again_where_that_failed(pipeline: Pipeline) -> None:
    day, project = "2024-03-12", pipeline.shop.project
    pipeline.shop.deliver(12, day)
    function = pipeline.site.names.check_deliveries

    def arrived(name: str, sequencer: str = "0055AED6DCD90281E5") -> list[str]:
        written = {"key": f"raw/sales/{day}/{name}", "sequencer": sequencer}
        detail = {"bucket": {"name": project.env.bucket}, "object": written}
        event = {"source": "aws.s3", "detail-type": "Object Created", "detail": detail}
        return list(pipeline.site.call(function, event)["started"])

    def execution(name: str) -> Execution:
        arn = pipeline.site.machine.replace(":stateMachine:", ":execution:")
        return Execution(pipeline.site, f"{arn}:{name}")

    assert arrived("lines.csv") == []
    (first,) = arrived("_manifest.json")
    assert arrived("_manifest.json") == [first]
    stop = pipeline.site.client("stepfunctions").stop_execution
    stop(executionArn=execution(first).arn)
    (name,) = arrived("_manifest.json", "0055AED6DCD90281E6")
    assert name == f"{first}-0055AED6DCD90281E6"
    assert execution(name).end()["status"] == "SUCCEEDED"
    assert arrived("_manifest.json", "0055AED6DCD90281E6") == [name]
    assert len(pipeline.shop.publications(day)) == 1
    assert pipeline.site.call(function, {"kind": "check"}) == {"started": [], "missing": []}
