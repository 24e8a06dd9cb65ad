"""What the demonstration tells, chapter by chapter, whichever way a batch goes."""

import csv
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from lakewarden.cli.demo_ways import DemoBroken, Note, Published, Stopped, Way
from lakewarden.cli.output import console, plural, say, show_table

if TYPE_CHECKING:
    from lakewarden.batch.model import Misfit
    from lakewarden.lake.model import Pin
    from lakewarden.wiring import Project

_GOOD_DAYS = (date(2013, 1, 1), date(2013, 1, 2), date(2013, 1, 3))
_BROKEN = "flights_leave_on_the_day_of_their_batch"  # the dbt test that the last delivery breaks
_COLOURS = {"refused": "yellow", "execution": "dim", "told": "dim"}


@dataclass(frozen=True)
class Trouble:
    """One bad delivery: what is wrong with it, in words, who makes it so, and as what it has to be
    refused."""

    day: date
    title: str
    spoil: Callable[[Path], None]
    code: str
    go_on: str


def troubles() -> Sequence[Trouble]:
    from lakewarden.cli import flights_damage as damage

    fourth, fifth = date(2013, 1, 4), date(2013, 1, 5)
    again = f"lakewarden batch deliver flights {fourth} DIR"
    look = f"lakewarden quarantine show flights {fourth}"
    keep = f"lakewarden batch run flights {fifth} --no-publish --accept {_BROKEN} --reason TEXT"
    cut, short = "size-disagrees", "record-count-mismatch"
    misfits, broken = "too-many-misfits", "tests-failed"
    return (
        Trouble(fourth, "a file that was cut off on its way", damage.cut_off, cut, again),
        Trouble(fourth, "a record less than the manifest says", damage.lose_a_record, short, again),
        Trouble(fourth, "three rows that do not fit their columns", damage.misspell, misfits, look),
        Trouble(fifth, "it loads, and breaks a dbt test", damage.mix_days, broken, keep),
    )


class Story:
    """The demonstration, chapter by chapter."""

    def __init__(self, project: "Project", way: Way, folder: Path, *, silent: bool) -> None:
        self._project = project
        self._way = way
        self._folder = folder
        self._silent = silent
        self._refused: list[Mapping[str, object]] = []

    def publish_good_days(self) -> None:
        """Reference tables and three days, each delivered, run and published."""
        from lakewarden.cli.flights_data import write_delivery, write_reference

        self._title("Three real days, and what belongs to them")
        month = f"{_GOOD_DAYS[0]:%Y-%m}"
        self._publish("reference", month, write_reference(month, self._delivery(month)))
        for day in _GOOD_DAYS:
            folder = self._delivery(str(day))
            write_delivery(day, folder)
            self._publish("flights", str(day), folder)
        if not self._silent:
            self._show_log()

    def refuse(self, trouble: Trouble) -> None:
        """A bad delivery: why it is refused, and that nothing published has changed."""
        from lakewarden.cli.flights_data import write_delivery

        self._title(f"{trouble.day}: {trouble.title}")
        folder = self._delivery(str(trouble.day))
        write_delivery(trouble.day, folder)
        self._project.write_manifest_of_folder(folder, "flights", str(trouble.day))
        trouble.spoil(folder)
        before = self._project.pin()
        ended = self._run("flights", str(trouble.day), folder)
        if isinstance(ended, Published):
            raise DemoBroken(f"{trouble.title}: it was published all the same")
        if ended.code != trouble.code:
            raise DemoBroken(f"{trouble.title}: it was refused as {ended.code}: {ended.message}")
        self._refused.append(
            {
                "batch": str(trouble.day),
                "what": trouble.title,
                "code": ended.code,
                "next": trouble.go_on,
            }
        )
        self._note(Note("refused", ended.message), *ended.notes)
        self._check_unchanged(before)
        self._tell("green", "to go on", trouble.go_on)

    def mend(self, trouble: Trouble) -> None:
        """What was quarantined is put right, record by record, and the day is replayed, whole."""
        from lakewarden.batch.mending import Correction
        from lakewarden.cli.flights_data import write_delivery

        day = str(trouble.day)
        self._title(f"{day}: the three rows are mended, and the day is replayed, whole")
        with write_delivery(trouble.day, self._delivery(day)).open() as file:
            true = dict(enumerate(csv.DictReader(file), start=2))
        told = [(one, true[one.line][one.column or ""]) for one in self._quarantined(day)]
        if not self._silent:
            show_table(
                ["record", "column", "why", "mended to"],
                [(one.line, one.column, one.message, value) for one, value in told],
                right=["record", "mended to"],
            )
        self._project.mend(
            "flights",
            day,
            [Correction(one.line, values={one.column or "": value}) for one, value in told],
        )
        with console.status(f"flights {day}: replay") as status:
            ended = self._way.replay(
                "flights", day, lambda where: status.update(f"flights {day}: {where}")
            )
        self._tell_published(ended)

    def show_marts(self) -> None:
        """A query over what is published now."""
        sql = """
            SELECT carrier_name AS carrier, sum(flights) AS flights,
                   round(100.0 * sum(departed_late) / sum(flights), 1) AS "late %"
            FROM marts.daily_delays GROUP BY ALL HAVING sum(flights) >= 50 ORDER BY 3 DESC
        """
        if self._silent:
            return
        self._title("What readers see: departures 15 minutes late or more, by carrier")
        with self._project.session(self._project.pin()) as session:
            rows = session.execute(sql).fetchall()
        most = max(float(row[2]) for row in rows)
        show_table(
            ["carrier", "flights", "late %", ""],
            [(*row[:2], f"{row[2]:.1f}", _bar(float(row[2]), most)) for row in rows],
            right=["flights", "late %"],
        )

    def result(self) -> Mapping[str, object]:
        """What happened, for programs."""
        published = self._project.lake.publications()
        return {
            "published": [
                {
                    "version": one.version,
                    "dataset": one.contribution.dataset,
                    "batch": one.contribution.batch,
                    "counts": dict(one.contribution.counts),
                }
                for one in reversed(published)
            ],
            "refused": self._refused,
            "branches": len(self._project.lake.branches()),
        }

    def _publish(self, dataset: str, batch: str, folder: Path) -> None:
        self._tell_published(self._run(dataset, batch, folder))

    def _tell_published(self, ended: Published | Stopped) -> None:
        if isinstance(ended, Stopped):
            raise DemoBroken(f"what is good was not published: {ended.message}")
        done, of = ended.publication, ended.publication.contribution
        if not self._silent:
            console.print(
                f"[green]✓[/] {of.dataset:<9} {of.batch:<10}  {of.counts['loaded']:>5,} rows,"
                f" {plural(len(done.tables), 'table')} in one step: version {done.version}"
            )
        self._note(*ended.notes)

    def _run(self, dataset: str, batch: str, folder: Path) -> Published | Stopped:
        """Deliver and run, with a line that says where it is."""
        with console.status(f"{dataset} {batch}: deliver") as status:
            self._project.deliver(dataset, batch, folder)
            return self._way.run(
                dataset, batch, lambda where: status.update(f"{dataset} {batch}: {where}")
            )

    def _delivery(self, batch: str) -> Path:
        """An empty folder for one delivery."""
        folder = self._folder / "deliveries" / batch
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def _show_log(self) -> None:
        say()
        show_table(
            ["version", "dataset", "batch", "rows", "tables"],
            [
                (
                    str(one.version),
                    one.contribution.dataset,
                    one.contribution.batch,
                    one.contribution.counts["loaded"],
                    len(one.tables),
                )
                for one in self._project.lake.publications()
            ],
            right=["version", "rows", "tables"],
        )

    def _check_unchanged(self, before: "Pin") -> None:
        after = self._project.pin()
        if after != before:
            raise DemoBroken("a refused batch has changed what is published")
        tables = plural(len(after.tables), "published table")
        version = self._project.lake.publications()[0].version
        self._tell("green", "unchanged", f"{tables}, still version {version}")

    def _note(self, *notes: Note) -> None:
        for note in notes:
            self._tell(_COLOURS[note.word], note.word, note.text)

    def _tell(self, colour: str, word: str, text: str) -> None:
        if not self._silent:
            console.print(f"  [{colour}]{word:<10}[/] {escape(text)}", soft_wrap=True)

    def _quarantined(self, day: str) -> "Sequence[Misfit]":
        from lakewarden.batch.quarantine import newest_quarantine, read

        objects = self._project.objects
        return list(read(objects, newest_quarantine(objects, "flights", day).key))

    def _title(self, text: str) -> None:
        if not self._silent:
            say()
            console.print(f"[bold]{text}[/]")


def _bar(value: float, most: float) -> str:
    return "█" * max(1, round(30 * value / most))
