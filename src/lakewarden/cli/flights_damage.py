"""What goes wrong with deliveries, done to the real ones: for the demonstration.

Each function takes a folder that holds one good delivery of flights and spoils it in its own way.
"""

import csv
import io
from collections.abc import Callable
from pathlib import Path

from lakewarden.batch.delivery.manifest import MANIFEST


def cut_off(folder: Path) -> None:
    """The file ends in the middle, as after a broken transfer; its manifest is whole."""
    path = _file(folder)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def lose_a_record(folder: Path) -> None:
    """The manifest promises one record more than the file holds."""
    manifest = folder / MANIFEST
    text = manifest.read_text()
    records = len(_file(folder).read_text().splitlines()) - 1
    manifest.write_text(
        text.replace(f'"record_count": {records}', f'"record_count": {records + 1}')
    )


def misspell(folder: Path) -> None:
    """Three rows whose values are not what their columns hold. There is no manifest to compare."""
    (folder / MANIFEST).unlink()

    def spoil(number: int, row: dict[str, str]) -> None:
        if number == 10:
            row["dep_delay"] = "late"
        elif number == 20:
            row["distance"] = "1,400 miles"
        elif number == 30:
            row["carrier"] = "NA"

    _rewrite(folder, spoil)


def mix_days(folder: Path) -> None:
    """Two flights of the day after have slipped in: they load, and no reader would notice."""
    (folder / MANIFEST).unlink()

    def spoil(number: int, row: dict[str, str]) -> None:
        if number in (40, 41):
            row["day"] = str(int(row["day"]) + 1)
            row["time_hour"] = f"2013-01-{int(row['day']):02d}{row['time_hour'][10:]}"

    _rewrite(folder, spoil)


def _file(folder: Path) -> Path:
    return next(folder.glob("flights*.csv"))


def _rewrite(folder: Path, spoil: Callable[[int, dict[str, str]], None]) -> None:
    path = _file(folder)
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    for number, row in enumerate(rows, start=1):
        spoil(number, row)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue())
