"""Dagster as a front end, on the real stack: what it runs, sees and says."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from lakewarden.aws.clients import check_account
from lakewarden.aws.topics import TopicUnavailable
from lakewarden.cli.flights_damage import misspell, mix_days
from lakewarden.cli.flights_data import write_reference
from lakewarden.errors import Refused, TryAgain
from lakewarden.lake.evolve import DriftUnknown
from tests.fakes.control_plane import FakeControlPlane, fake_control_plane
from tests.local.dagster_site import JOB, FlightsSite, flights_site
from tests.stack import LocalStack

pytestmark = pytest.mark.slow

# Values that the damage puts into deliveries: none of them may reach Dagster.
PLANTED = ("1,400 miles",)


@pytest.fixture
def site(local_stack: LocalStack, tmp_path: Path) -> FlightsSite:
    return flights_site(local_stack, tmp_path / "flights")


def materialized(
    result: dg.ExecuteInProcessResult,
) -> Mapping[tuple[str, str | None], dg.AssetMaterialization]:
    events = [
        event.step_materialization_data.materialization
        for event in result.all_events
        if event.is_step_materialization
    ]
    return {(one.asset_key.to_user_string(), one.partition): one for one in events}


def told(result: dg.ExecuteInProcessResult) -> Mapping[str, object]:
    """What the step that failed said."""
    (event,) = [event for event in result.all_events if event.is_step_failure]
    failure = event.step_failure_data.user_failure_data
    assert failure is not None
    return {name: value.value for name, value in failure.metadata.items()}


def everything(site: FlightsSite, result: dg.ExecuteInProcessResult) -> str:
    return "\n".join(map(repr, site.instance.all_logs(result.run_id)))


def checked(result: dg.ExecuteInProcessResult) -> Mapping[str, dg.AssetCheckEvaluation]:
    return {one.check_name: one for one in result.get_asset_check_evaluations()}


def test_runs_by_dagster_are_the_plain_runs(local_stack: LocalStack, tmp_path: Path) -> None:
    plain = flights_site(local_stack, tmp_path / "plain" / "flights")
    by_dagster = flights_site(local_stack, tmp_path / "dagster" / "flights")
    deliveries = {
        "2013-01-01": None,
        "2013-01-02": mix_days,  # breaks a test of the models
        "2013-01-03": misspell,  # three records that do not fit
        "2013-01-04": None,
    }
    for day, damage in deliveries.items():
        plain.deliver(day, damage)
        by_dagster.deliver(day, damage)
        result = by_dagster.materialize(day)
        assert result.success == (damage is None)
        try:
            plain.project.run("flights", day)
        except Refused as error:
            said = told(result)
            assert said["code"] == error.code
            assert said["message"] == error.message
            assert said["hint"] == error.hint
            assert said["dataset"] == "flights" and said["batch"] == day
            assert not [
                e for e in result.all_events if e.is_step_restarted or e.is_step_up_for_retry
            ]
            assert materialized(result) == {}
            for value in PLANTED:
                assert value not in everything(by_dagster, result)
        else:
            assert damage is None
        if damage is mix_days:
            checks = checked(result)
            broken = checks["flights_leave_on_the_day_of_their_batch"]
            assert not broken.passed and broken.severity is dg.AssetCheckSeverity.ERROR
            assert checks["unique_stg_flights_flight_key"].passed
    assert by_dagster.rows() == plain.rows()
    assert by_dagster.receipts() == plain.receipts()


def test_a_batch_is_told_as_assets_and_checks(site: FlightsSite, tmp_path: Path) -> None:
    site.deliver("2013-01-01")
    result = site.materialize("2013-01-01")
    found = materialized(result)
    assert {key for key, _ in found} == {
        "raw/flights",
        "models/stg_flights",
        "marts/daily_delays",
        "marts/route_performance",
        # Made on the way, of a dataset that has no delivery yet.
        "models/stg_airlines",
        "models/stg_airports",
        "models/stg_planes",
        "models/stg_weather",
    }
    raw = found["raw/flights", "2013-01-01"].metadata
    pin = site.project.pin()
    assert raw["rows"].value == raw["records"].value == 842
    assert raw["quarantined"].value == 0
    assert raw["version"].value == int(pin.version)
    assert raw["metadata_location"].value == pin.tables["raw.flights"]
    assert "| 2013-01-01 | 842 | ██████" in str(raw["rows_by_batch"].value)
    checks = checked(result)
    assert checks["conservation"].passed
    assert checks["unique_stg_flights_flight_key"].passed
    unmet = checks["relationships_stg_flights_tailnum__tailnum__ref_stg_planes_"]
    assert not unmet.passed and unmet.severity is dg.AssetCheckSeverity.WARN

    same = site.materialize("2013-01-01")
    assert same.success
    assert {one.metadata["status"].value for one in materialized(same).values()} == {"unchanged"}
    assert {n: c.passed for n, c in checked(same).items()} == {
        name: one.passed for name, one in checks.items()
    }

    # Another dataset's batch makes the models again that are made from both.
    write_reference("2013-01", tmp_path / "lists")
    site.project.deliver("reference", "2013-01", tmp_path / "lists")
    job = site.defs.resolve_job_def("lakewarden_reference_batches")
    made = materialized(job.execute_in_process(instance=site.instance, partition_key="2013-01"))
    assert made["raw/planes", "2013-01"].metadata["rows"].value == 3322
    again = made["marts/daily_delays", None]
    assert again.metadata["version"].value == int(site.project.pin().version)


def test_a_range_is_one_run_and_tells_of_each_batch(site: FlightsSite) -> None:
    for day, damage in {"2013-01-01": None, "2013-01-02": misspell, "2013-01-03": None}.items():
        site.deliver(day, damage)
    result = site.materialize("2013-01-01", "2013-01-03")
    assert not result.success
    said = told(result)
    assert said["code"] == "too-many-misfits" and said["batch"] == "2013-01-02"
    days = {day: one for (key, day), one in materialized(result).items() if key == "raw/flights"}
    assert set(days) == {"2013-01-01", "2013-01-03"}
    assert days["2013-01-03"].metadata["rows"].value == 914
    versions = {one.version for one in site.project.lake.publications("flights")}
    assert len(versions) == 1  # published in one step

    site.deliver("2013-01-02")
    result = site.materialize("2013-01-01", "2013-01-03")
    assert result.success
    status = {
        day: one.metadata["status"].value
        for (key, day), one in materialized(result).items()
        if key == "raw/flights"
    }
    assert status == {
        "2013-01-01": "unchanged",
        "2013-01-02": "published",
        "2013-01-03": "unchanged",
    }

    site.project.unpublish("flights", ["2013-01-02"], reason="not wanted")
    result = site.materialize("2013-01-01", "2013-01-03")
    assert told(result)["code"] == "batch-withdrawn"  # a range does not bring it back
    assert {day for _, day in materialized(result)} == {"2013-01-01", "2013-01-03"}
    assert site.materialize("2013-01-02").success


# ── sensors ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def topic(site: FlightsSite) -> Iterator[FakeControlPlane]:
    """What stands in for SNS, as the control plane of the site's stack."""
    with fake_control_plane() as found:
        found.accounts[site.project.connection.access_key or ""] = "000000000000"
        site.with_control(found.endpoint)
        yield found


def bodies(topic: FakeControlPlane) -> Sequence[Mapping[str, object]]:
    return [json.loads(message) for _, _, message in topic.sent]


class Ticks:
    """One sensor, evaluated as the daemon does: its cursor is kept, unless it fails; and of a run
    key that it requested before nothing comes."""

    def __init__(self, site: FlightsSite, name: str) -> None:
        self.site, self.name = site, name
        self.cursor: str | None = None
        self.requested: set[str | None] = set()
        self.said = ""

    def __call__(self) -> list[str | None]:
        """The partitions of which runs are requested."""
        sensor = self.site.defs.resolve_sensor_def(self.name)
        context = dg.build_sensor_context(
            instance=self.site.instance, cursor=self.cursor, definitions=self.site.defs
        )
        data = sensor.evaluate_tick(context)
        self.cursor, self.said = data.cursor, data.skip_message or ""
        new = [one for one in data.run_requests or [] if one.run_key not in self.requested]
        self.requested |= {one.run_key for one in new}
        return [one.partition_key for one in new]


def test_a_delivery_is_requested_once_and_a_corrected_one_again(site: FlightsSite) -> None:
    tick = Ticks(site, "lakewarden_flights_deliveries")
    assert tick() == []
    site.deliver("2013-01-01")
    site.deliver("2013-01-02", mix_days)
    assert tick() == ["2013-01-01", "2013-01-02"]
    assert tick() == []
    assert site.materialize("2013-01-01").success
    assert not site.materialize("2013-01-02").success
    assert tick() == []  # what was refused is not tried again
    site.deliver("2013-01-02")
    assert tick() == ["2013-01-02"]
    assert site.materialize("2013-01-02").success
    # One that forgot all, or is new, knows from the catalog what is published.
    assert Ticks(site, "lakewarden_flights_deliveries")() == []
    site.project.unpublish("flights", ["2013-01-02"], reason="not wanted")
    assert Ticks(site, "lakewarden_flights_deliveries")() == []


def test_a_delivery_on_its_way_is_waited_for(site: FlightsSite) -> None:
    tick = Ticks(site, "lakewarden_flights_deliveries")
    objects = site.project.objects
    objects.put("raw/flights/2013-01-05/flights.csv", b"year,month\n")
    objects.put("raw/flights/2013-02-31/flights.csv", b"no such day")
    objects.put("raw/flights/2012-12-31/flights.csv", b"before all partitions")
    assert tick() == []
    assert "on its way: 2013-01-05" in tick.said
    site.deliver("2013-01-05")
    assert tick() == ["2013-01-05"]


def test_what_cannot_be_reached_fails_the_tick_and_is_no_answer(site: FlightsSite) -> None:
    site.deliver("2013-01-01")
    deliveries = Ticks(site, "lakewarden_flights_deliveries")
    drift = Ticks(site, "schema_drift_sensor")
    endpoint = site.root / ".lakewarden" / "local" / "endpoint.json"
    was = endpoint.read_text()
    endpoint.unlink()
    assert site.defs.resolve_all_job_defs()  # the location loads all the same
    for tick in (deliveries, drift):
        with pytest.raises(TryAgain):
            tick()
    endpoint.write_text(was)
    assert deliveries() == ["2013-01-01"]


def test_drift_is_told_once_a_change(site: FlightsSite, topic: FakeControlPlane) -> None:
    tick = Ticks(site, "schema_drift_sensor")
    site.project.apply_tables()
    tick()
    assert topic.sent == [] and "no change" in tick.said
    template = site.root / "tables" / "planes.yaml"
    right = template.read_text()
    template.write_text(right.replace("name: engines", "name: engine_count"))
    topic.away = {"Publish"}
    with pytest.raises(TopicUnavailable):
        tick()
    topic.away = set()
    for _ in range(3):
        tick()
    ((arn, subject, _),) = topic.sent
    assert arn == "arn:aws:sns:us-east-1:000000000000:flights-learning-alerts"
    assert subject == "flights: 1 table drifted"
    assert "engine_count" in str(bodies(topic)[0]["findings"])
    # The catalog is away: neither drift nor the end of it.
    with catalog_away(site), pytest.raises(DriftUnknown):
        tick()
    template.write_text(right)
    tick()
    tick()
    assert [subject for _, subject, _ in topic.sent[1:]] == ["flights: no table drifts any more"]


@contextmanager
def catalog_away(site: FlightsSite) -> Iterator[None]:
    """A folder stands where its file was."""
    catalog, away = site.root / ".lakewarden" / "catalog.db", site.root / "away"
    away.mkdir()
    for file in catalog.parent.glob("catalog.db*"):
        file.rename(away / file.name)
    catalog.mkdir()
    try:
        yield
    finally:
        catalog.rmdir()
        for file in away.iterdir():
            file.rename(catalog.parent / file.name)


def test_failures_are_told_and_none_is_lost(site: FlightsSite, topic: FakeControlPlane) -> None:
    tick = Ticks(site, "lakewarden_failures")
    tick()
    check_account(site.project.connection)  # so that it is SNS alone that is away
    site.deliver("2013-01-02", mix_days)
    refused = site.materialize("2013-01-02")
    site.materialize("2013-01-03")  # nothing was delivered
    somebody_elses_failure(site.instance)
    topic.away = {"Publish"}
    with pytest.raises(TopicUnavailable):
        tick()
    topic.away = set()
    tick()
    tick()
    assert [(one["batch"], one["error"]) for one in bodies(topic)] == [
        ("2013-01-02", "tests-failed"),
        ("2013-01-03", "batch-unknown"),
    ]
    first = bodies(topic)[0]
    assert first["dataset"] == "flights" and first["job"] == JOB
    assert first["run"] == refused.run_id
    assert "Deliver the batch mended" in str(first["hint"])


def somebody_elses_failure(instance: dg.DagsterInstance) -> None:
    @dg.asset
    def theirs() -> None:
        raise ValueError("not ours")

    assert not dg.materialize([theirs], instance=instance, raise_on_error=False).success


def test_an_outage_is_tried_again_and_told_in_the_end(site: FlightsSite) -> None:
    endpoint = site.root / ".lakewarden" / "local" / "endpoint.json"
    endpoint.unlink()
    result = site.materialize("2013-01-01")
    assert not result.success
    assert len([e for e in result.all_events if e.is_step_restarted]) == 2
    assert told(result)["code"] == "local-stack-down"


# ── the schedule ────────────────────────────────────────────────────────────────────────────────


def test_what_is_due_is_run_if_it_is_there(site: FlightsSite) -> None:
    settings = site.root / "lakewarden.toml"
    due = 'due = { at = "06:00", zone = "Asia/Tokyo", weekdays = ["tue"] }\n[dataset.reference]\n'
    settings.write_text(settings.read_text().replace("[dataset.reference]\n", due))
    (schedule,) = site.defs.schedules or []
    assert isinstance(schedule, dg.ScheduleDefinition)

    def tick(day: int) -> str | None:
        """The batch that is requested, or why none is."""
        at = datetime(2013, 1, day, 6, tzinfo=ZoneInfo("Asia/Tokyo"))
        context = dg.build_schedule_context(
            instance=site.instance,
            scheduled_execution_time=at,
            repository_def=site.defs.get_repository_def(),
        )
        data = schedule.evaluate_tick(context)
        return next((one.partition_key for one in data.run_requests or []), data.skip_message)

    assert tick(3) == "no batch is due"  # a Wednesday's
    assert tick(2) == "batch 2013-01-01 is due, and not delivered yet"
    site.deliver("2013-01-01")
    assert tick(2) == "2013-01-01"
    endpoint = site.root / ".lakewarden" / "local" / "endpoint.json"
    was = endpoint.read_text()
    endpoint.unlink()
    assert tick(2) == "2013-01-01"  # a run is what waits for the store
    endpoint.write_text(was)
    assert site.materialize("2013-01-01").success
    assert tick(2) == "batch 2013-01-01 is published already"
