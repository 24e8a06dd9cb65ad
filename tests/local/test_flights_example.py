"""The example project on its real data: its models and tests hold, and catch what they are for."""

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

import lakewarden
from lakewarden.batch.model import TestResult
from lakewarden.batch.models.project import DbtProject
from lakewarden.batch.sql_types import duckdb_type
from lakewarden.cli.flights_data import write_delivery, write_reference
from lakewarden.tables.template_file import read_templates
from lakewarden.tables.types import iceberg_type
from tests.local.transform_site import Site, make_site
from tests.stack import LocalStack

EXAMPLE = Path(lakewarden.__file__).parent / "examples" / "flights"
LISTS = ("airlines", "airports", "planes", "weather")
KNOWN_WARNINGS = {
    "relationships_stg_flights_dest__faa__ref_stg_airports_",
    "relationships_stg_flights_tailnum__tailnum__ref_stg_planes_",
    "relationships_stg_flights_weather_key__weather_key__ref_stg_weather_",
}


@pytest.fixture
def site(local_stack: LocalStack, tmp_path: Path) -> Site:
    project = DbtProject(EXAMPLE / "transform", tmp_path / "cache")
    return make_site(local_stack, tmp_path, read_templates(EXAMPLE / "tables"), project)


def read(site: Site, table: str, path: Path, batch: str) -> str:
    """SQL for a delivered file, by the table's template; `batch` is an SQL expression."""
    template = site.templates[table]
    assert template.source is not None
    columns = ", ".join(
        f"'{c.name}': '{duckdb_type(iceberg_type(c.type))}'" for c in template.columns
    )
    options = template.source.csv_options
    nulls = ", ".join(f"'{text}'" for text in options.null_strings)
    return (
        f"SELECT *, {batch} AS _batch FROM read_csv('{path}', header = {options.header},"
        f" delim = '{options.delimiter}', nullstr = [{nulls}], columns = {{{columns}}})"
    )


def reference(site: Site, month: str, folder: Path) -> dict[str, str]:
    write_reference(month, folder)
    return {
        f"raw.{name}": read(site, f"raw.{name}", folder / f"{name}.csv", f"'{month}'")
        for name in LISTS
    }


def flights(site: Site, path: Path, batch: str) -> dict[str, str]:
    return {"raw.flights": read(site, "raw.flights", path, f"'{batch}'")}


def by_status(tests: tuple[TestResult, ...] | object, *statuses: str) -> set[str]:
    assert isinstance(tests, tuple)
    return {test.name for test in tests if test.status in statuses}


def test_a_day_runs_without_reference_and_later_with_it(site: Site, tmp_path: Path) -> None:
    first = write_delivery(date(2013, 1, 1), tmp_path / "first")
    done = site.run("flights", "2013-01-01", flights(site, first, "2013-01-01"))
    assert by_status(done.tests, "fail", "error") == set()
    assert by_status(done.tests, "warn") == KNOWN_WARNINGS
    delays = site.rows("marts.daily_delays")
    assert sum(row[3] for row in delays if isinstance(row[3], int)) == 842
    assert {row[2] for row in delays} == {None}

    done = site.run("reference", "2013-01", reference(site, "2013-01", tmp_path / "lists"))
    assert by_status(done.tests, "fail", "error") == set()
    second = write_delivery(date(2013, 1, 2), tmp_path / "second")
    done = site.run("flights", "2013-01-02", flights(site, second, "2013-01-02"))
    assert by_status(done.tests, "fail", "error") == set()
    assert by_status(done.tests, "warn") <= KNOWN_WARNINGS
    delays = site.rows("marts.daily_delays")
    assert sum(row[3] for row in delays if isinstance(row[3], int)) == 842 + 943
    assert (date(2013, 1, 2), "AA", "American Airlines Inc.") in {row[:3] for row in delays}
    assert any(row[11] for row in site.rows("marts.route_performance"))  # flights in bad weather


def test_all_days_of_the_year_hold(site: Site, tmp_path: Path) -> None:
    days = [date.fromordinal(date(2013, 1, 1).toordinal() + n) for n in range(365)]
    for day in days:
        write_delivery(day, tmp_path / "year")
    batch = "strftime(make_date(year, month, day), '%Y-%m-%d')"
    year = read(site, "raw.flights", tmp_path / "year" / "*.csv", batch)
    lists = reference(site, "2013-12", tmp_path / "lists")
    done = site.transform(site.deliver("flights", "2013", {"raw.flights": year, **lists}))
    assert by_status(done.tests, "fail", "error") == set()
    # Of the whole year one observation of the weather is beyond belief.
    assert by_status(done.tests, "warn") == {*KNOWN_WARNINGS, "weather_is_plausible"}
    assert {"daily_delays", "route_performance"} <= set(done.models)


Row = list[str]


def _day(row: Row) -> None:
    row[2] = "4"


def _late(row: Row) -> None:
    row[5] = str(int(row[5]) + 1)


def _minute(row: Row) -> None:
    row[3] = row[3][:-2] + "75"


def _carrier(row: Row) -> None:
    row[9] = "XX"


def _origin(row: Row) -> None:
    row[12] = "BOS"


def _cancelled(row: Row) -> None:
    row[3] = "NA"


def _same(row: Row) -> None:
    """The row comes twice."""


DAMAGE: dict[str, Callable[[Row], None]] = {
    "flights_leave_on_the_day_of_their_batch": _day,
    "delays_agree_with_times": _late,
    "times_are_times": _minute,
    "carriers_are_known": _carrier,
    "accepted_values_stg_flights_origin__EWR__JFK__LGA": _origin,
    "cancelled_flights_have_no_times": _cancelled,
    "unique_stg_flights_flight_key": _same,
}


def test_each_kind_of_trouble_breaks_its_test(site: Site, tmp_path: Path) -> None:
    path = write_delivery(date(2013, 1, 3), tmp_path / "day")
    header, *lines = path.read_text().splitlines()
    departed = [line.split(",") for line in lines if ",NA," not in line]
    for row, (name, damage) in zip(departed, DAMAGE.items(), strict=False):
        damage(row)
        if name.startswith("unique"):
            departed.append(list(row))
    path.write_text("\n".join([header, *(",".join(row) for row in departed)]) + "\n")
    rows = {
        **reference(site, "2013-01", tmp_path / "lists"),
        **flights(site, path, "2013-01-03"),
    }
    done = site.transform(site.deliver("flights", "2013-01-03", rows))
    broken = by_status(done.tests, "fail", "error")
    assert set(DAMAGE) <= broken
    # Whatever else breaks follows from the same rows.
    assert broken - set(DAMAGE) <= {"accepted_values_route_performance_origin__EWR__JFK__LGA"}


def test_a_day_that_was_cut_short_is_a_warning(site: Site, tmp_path: Path) -> None:
    for day in (date(2013, 1, 1), date(2013, 1, 2)):
        path = write_delivery(day, tmp_path / "days")
        site.run("flights", str(day), flights(site, path, str(day)))
    path = write_delivery(date(2013, 1, 3), tmp_path / "days")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:100]))
    loaded = site.deliver("flights", "2013-01-03", flights(site, path, "2013-01-03"))
    done = site.transform(loaded)
    assert by_status(done.tests, "fail", "error") == set()
    assert "days_look_whole" in by_status(done.tests, "warn")
