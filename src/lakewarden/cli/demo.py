"""lakewarden demo: the main job on real data, and bad deliveries being refused."""

import csv
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from lakewarden.cli.demo_folder import make_project, record
from lakewarden.cli.options import AsJson
from lakewarden.cli.output import begin, console, plural, say, show_json, show_table
from lakewarden.errors import Failed, Refused

if TYPE_CHECKING:
    from lakewarden.batch.conductor import Outcome, StageDone
    from lakewarden.batch.model import Misfit
    from lakewarden.lake.model import Pin
    from lakewarden.wiring import Project

_GOOD_DAYS = (date(2013, 1, 1), date(2013, 1, 2), date(2013, 1, 3))
_FOLDER = Path("lakewarden-demo")
_BROKEN = "flights_leave_on_the_day_of_their_batch"  # the dbt test that the last delivery breaks


class DemoBroken(Failed):
    """The demonstration did not do what it tells."""


@dataclass(frozen=True)
class _Trouble:
    """One bad delivery: what is wrong with it, in words, and who makes it so."""

    day: date
    title: str
    spoil: Callable[[Path], None]
    go_on: str


def demo(
    folder: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="Where its project is made.")
    ] = _FOLDER,
    as_json: AsJson = False,
) -> None:
    """Watch it: real flights are published whole, bad deliveries are refused, and rows that did
    not fit are mended. Under a minute.

    Example: lakewarden demo
    """
    begin(as_json=as_json, quiet=True)
    began = time.perf_counter()
    make_project(folder)
    try:
        with _stack(folder) as project:
            story = _Story(project, folder, silent=as_json)
            story.publish_good_days()
            for trouble in _troubles():
                story.refuse(trouble)
            story.mend(_troubles()[2])
            story.show_marts()
            result = story.result()
    finally:
        record(folder)  # also of one that was stopped: its deliveries are no one else's
    if as_json:
        show_json({**result, "seconds": round(time.perf_counter() - began, 1)})
    else:
        _farewell(folder, time.perf_counter() - began)


def _troubles() -> Sequence[_Trouble]:
    from lakewarden.cli import flights_damage as damage

    fourth, fifth = date(2013, 1, 4), date(2013, 1, 5)
    again = f"lakewarden batch deliver flights {fourth} DIR"
    look = f"lakewarden quarantine show flights {fourth}"
    keep = f"lakewarden batch run flights {fifth} --no-publish --accept {_BROKEN} --reason TEXT"
    return (
        _Trouble(fourth, "a file that was cut off on its way", damage.cut_off, again),
        _Trouble(fourth, "a record less than the manifest says", damage.lose_a_record, again),
        _Trouble(fourth, "three rows that do not fit their columns", damage.misspell, look),
        _Trouble(fifth, "it loads, and breaks a dbt test", damage.mix_days, keep),
    )


class _Story:
    """The demonstration, chapter by chapter."""

    def __init__(self, project: "Project", folder: Path, *, silent: bool) -> None:
        self._project = project
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

    def refuse(self, trouble: _Trouble) -> None:
        """A bad delivery: why it is refused, and that nothing published has changed."""
        from lakewarden.cli.flights_data import write_delivery

        self._title(f"{trouble.day}: {trouble.title}")
        folder = self._delivery(str(trouble.day))
        write_delivery(trouble.day, folder)
        self._project.write_manifest_of_folder(folder, "flights", str(trouble.day))
        trouble.spoil(folder)
        before = self._project.pin()
        try:
            self._run("flights", str(trouble.day), folder)
        except Refused as error:
            self._refused.append(
                {
                    "batch": str(trouble.day),
                    "what": trouble.title,
                    "code": error.code,
                    "next": trouble.go_on,
                }
            )
            self._tell("yellow", "refused", error.message)
        else:
            raise DemoBroken(f"{trouble.title}: it was published all the same")
        self._check_unchanged(before)
        self._tell("green", "to go on", trouble.go_on)

    def mend(self, trouble: _Trouble) -> None:
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
        with console.status(f"flights {day}: replay"):
            outcome = self._project.replay("flights", day)
        self._tell_published(outcome)

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

    def _tell_published(self, outcome: "Outcome") -> None:
        run = outcome.run
        if outcome.publication is None or outcome.counts is None:
            raise DemoBroken(f"{run.dataset} {run.span} was not published")
        if not self._silent:
            console.print(
                f"[green]✓[/] {run.dataset:<9} {run.span:<10}  {outcome.counts.loaded:>5,} rows,"
                f" {plural(len(outcome.publication.tables), 'table')} in one step:"
                f" version {outcome.publication.version}"
            )

    def _run(self, dataset: str, batch: str, folder: Path) -> "Outcome":
        """Deliver and run, with a line that says where it is."""
        with console.status(f"{dataset} {batch}: deliver") as status:

            def tell(done: "StageDone") -> None:
                status.update(f"{dataset} {batch}: {_NEXT[done.stage]}")

            self._project.deliver(dataset, batch, folder)
            status.update(f"{dataset} {batch}: receive")
            return self._project.run(dataset, batch, tell=tell)

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


_NEXT = {
    "receive": "load",
    "load": "transform and test",
    "transform": "audit",
    "audit": "publish",
    "publish": "done",
}


@contextmanager
def _stack(folder: Path) -> "Iterator[Project]":
    """The project with its local stack up; nothing is left running."""
    from lakewarden.local.stack import StackConfig, down, up
    from lakewarden.wiring import open_project

    project = open_project(folder)
    config = StackConfig(project.root, project.env.bucket, project.env.region)
    with console.status("starting the local stack"):
        info = up(config)
    try:
        say(f"The local stack is up: a real S3 at {info.connection.endpoint}, in {folder}.")
        yield project
    finally:
        down(config)


def _bar(value: float, most: float) -> str:
    return "█" * max(1, round(30 * value / most))


def _farewell(folder: Path, seconds: float) -> None:
    say()
    say(f"Done in {seconds:.0f} s; nothing is left running. The project stays in {folder}. Next:")
    for line in (
        *to_have_the_command(),
        f"cd {shlex.quote(str(folder))} && lakewarden local up",
        "lakewarden status",
        "lakewarden batch diff flights 2013-01-04",
        'lakewarden query "SELECT * FROM marts.route_performance LIMIT 10"',
        "lakewarden batch unpublish flights 2013-01-04",
        "lakewarden init ../my-lake       (your own; its README.md says how)",
        "lakewarden local down",
    ):
        say(f"  {line}")


def to_have_the_command() -> Sequence[str]:
    """What to type first where the shell does not find `lakewarden`."""
    if shutil.which("lakewarden"):
        return []
    programs, here = Path(sys.executable).parent, Path.cwd()
    activate = programs / "activate"
    if not activate.is_file():
        return [f'PATH={shlex.quote(str(programs))}{os.pathsep}"$PATH"']
    near = activate.relative_to(here) if activate.is_relative_to(here) else activate
    return [f". {shlex.quote(str(near))}"]
