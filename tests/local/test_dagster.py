"""Dagster as a front end, on the real stack: what it runs, sees and says."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import dagster as dg
import pytest

from lakewarden.cli.flights_damage import misspell, mix_days
from lakewarden.errors import Refused
from tests.local.dagster_site import FlightsSite, flights_site
from tests.stack import LocalStack

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
    assert by_dagster.rows() == plain.rows()
    assert by_dagster.receipts() == plain.receipts()


def test_a_batch_is_told_as_assets_and_checks(site: FlightsSite) -> None:
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
    assert raw["rows"].value == raw["loaded"].value == raw["records"].value == 842
    assert raw["quarantined"].value == 0
    assert raw["version"].value == int(pin.version)
    assert raw["metadata_location"].value == pin.tables["raw.flights"]
    assert "| 2013-01-01 | 842 | ██████" in str(raw["rows_by_batch"].value)
    checks = checked(result)
    assert checks["conservation"].passed
    assert checks["unique_stg_flights_flight_key"].passed
    unmet = checks["relationships_stg_flights_tailnum__tailnum__ref_stg_planes_"]
    assert not unmet.passed and unmet.severity is dg.AssetCheckSeverity.WARN

    again = site.materialize("2013-01-01")
    assert again.success
    assert {one.metadata["status"].value for one in materialized(again).values()} == {"unchanged"}
    assert {n: c.passed for n, c in checked(again).items()} == {
        name: one.passed for name, one in checks.items()
    }


def test_tests_that_fail_are_checks_that_fail(site: FlightsSite) -> None:
    site.deliver("2013-01-02", mix_days)
    checks = checked(site.materialize("2013-01-02"))
    broken = checks["flights_leave_on_the_day_of_their_batch"]
    assert not broken.passed and broken.severity is dg.AssetCheckSeverity.ERROR
    assert checks["unique_stg_flights_flight_key"].passed


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


def keys(requests: Sequence[dg.RunRequest] | None) -> list[str | None]:
    return [one.partition_key for one in requests or []]
