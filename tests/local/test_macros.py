"""The macros that every example has, against a plain model: dbt renders them, DuckDB runs them.

The relation is a raw log, made at random: late batches, repeats, deletions, several changes of one
key in one batch, times that do not rise.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import lakewarden
from lakewarden.batch.duck import DuckConfig
from lakewarden.batch.models.runner import DbtProjectInvalid, invoke, prepare_site

MACROS = Path(lakewarden.__file__).parent / "examples" / "macros"
START = datetime(2024, 1, 1, tzinfo=UTC)
BATCHES = tuple(str((START + timedelta(days=n)).date()) for n in range(5))
MODELS = {
    "newest": "{{ upsert('log', key=['id', 'part'], deleted=\"op = 'delete'\") }}",
    "newest_by_time": "{{ upsert('log', key='id', order='changed_at') }}",
    "history": """{{ scd2('log', key=['id', 'part'], tracked=['name', 'score'],
        effective_from='changed_at', keep=['op', '_batch'], deleted="op = 'delete'") }}""",
    "history_by_time": """{{ scd2('log', key='id', tracked='name', effective_from='changed_at',
        order=['changed_at']) }}""",
    "snapshots": "{{ scd2('log', key=['id', 'part'], tracked='name', snapshot=true) }}",
    "snapshots_with_marks": """{{ scd2('log', key='id', tracked='name', keep='_batch',
        deleted="op = 'delete'", snapshot=true) }}""",
}


@dataclass(frozen=True)
class Row:
    """One row of the log."""

    id: str | None
    part: int | None
    name: str | None
    score: float | None
    op: str | None
    changed_at: datetime
    batch: str
    file: str
    line: int

    @property
    def place(self) -> tuple[str, str, int]:
        return self.batch, self.file, self.line


@dataclass(frozen=True)
class Stated:
    """What a row of the log says of its key: how it is from a time on. No state: it is gone."""

    at: datetime
    state: tuple[object, ...] | None
    kept: tuple[object, ...] = ()


Key = tuple[object, ...]
Found = list[tuple[object, ...]]


# ── the model ───────────────────────────────────────────────────────────────────────────────────


def newest(rows: Iterable[Row], key: Callable[[Row], Key]) -> Mapping[Key, Row]:
    return {key(row): row for row in rows}


def timelines(said: Iterable[tuple[Key, Stated]]) -> Mapping[Key, list[Stated]]:
    """The states of each key in the order of time, equal ones merged; what is said later wins."""
    lines: dict[Key, list[Stated]] = {}
    for key, stated in said:
        line = lines.setdefault(key, [])
        while line and line[-1].at >= stated.at:
            line.pop()
        line.append(stated)
    return {
        key: [one for n, one in enumerate(line) if n == 0 or line[n - 1].state != one.state]
        for key, line in lines.items()
    }


def history(said: Iterable[tuple[Key, Stated]]) -> Found:
    """The rows that scd2 is to give."""
    found: Found = []
    for key, line in timelines(said).items():
        for one, after in zip(line, [*line[1:], None], strict=True):
            if one.state is not None:
                end = after.at if after else None
                found.append(
                    (surrogate(key, one.at), *key, *one.state, *one.kept, one.at, end, end is None)
                )
    return in_order(found)


def with_absences(
    rows: Sequence[Row], key: Callable[[Row], Key], say: Callable[[Row], Stated]
) -> Iterator[tuple[Key, Stated]]:
    """Each batch is the whole list: who was seen before and is not in it is gone."""
    seen: set[Key] = set()
    for batch in sorted({row.batch for row in rows}):
        here = [(key(row), say(row)) for row in rows if row.batch == batch]
        yield from here
        yield from ((one, Stated(day_of(batch), None)) for one in seen - {k for k, _ in here})
        seen |= {k for k, _ in here}


def day_of(batch: str) -> datetime:
    return datetime.fromisoformat(batch).replace(tzinfo=UTC)


def surrogate(key: Key, at: datetime) -> int:
    parts = [*key, (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)]
    texts = ["-" if p is None else f"{len(str(p).encode())}:{p}" for p in parts]
    return (
        int(hashlib.md5("".join(texts).encode(), usedforsecurity=False).hexdigest()[:16], 16) >> 1
    )


def in_order(found: Iterable[tuple[object, ...]]) -> Found:
    return sorted(found, key=repr)


def by_id(row: Row) -> Key:
    return (row.id,)


def by_id_and_part(row: Row) -> Key:
    return (row.id, row.part)


# ── the macros ──────────────────────────────────────────────────────────────────────────────────


def render(folder: Path, models: Mapping[str, str]) -> Mapping[str, str]:
    """Each model's SQL, as dbt renders it."""
    project = folder / "project"
    shutil.copytree(MACROS, project / "macros")
    (project / "dbt_project.yml").write_text('name: macros\nversion: "1.0"\n')
    (project / "models").mkdir()
    for name, text in models.items():
        (project / "models" / f"{name}.sql").write_text(text)
    site = prepare_site(project, folder / "dbt", DuckConfig(temp=folder / "temp"))
    compiled: Any = invoke(site, "compile", variables={}).result  # what it is, only dbt knows
    return {str(one.node.name): str(one.node.compiled_code) for one in compiled.results}


@dataclass(frozen=True, repr=False)
class Lab:
    """The raw log as a table of DuckDB, and the macros' SQL over it, by the model's name."""

    duck: duckdb.DuckDBPyConnection
    sql: Mapping[str, str]

    def clear(self) -> None:
        self.duck.execute("DELETE FROM log")

    def withdraw(self, batch: str) -> None:
        self.duck.execute("DELETE FROM log WHERE _batch = ?", [batch])

    def add(self, rows: Sequence[Row]) -> None:
        if rows:
            values = [value for row in rows for value in vars(row).values()]
            places = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?, ?)"] * len(rows))
            self.duck.execute(f"INSERT INTO log VALUES {places}", values)

    def fill(self, rows: Sequence[Row]) -> None:
        self.clear()
        self.add(rows)

    def deliver(self, batch: str, rows: Sequence[Row]) -> None:
        self.withdraw(batch)
        self.add([replace(row, batch=batch) for row in rows])

    def run(self, model: str) -> Found:
        return in_order(
            tuple(v.astimezone(UTC) if isinstance(v, datetime) else v for v in row)
            for row in self.duck.execute(self.sql[model]).fetchall()
        )


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    sql = render(tmp_path_factory.mktemp("macros"), MODELS)
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            "CREATE TABLE log (id VARCHAR, part INT, name VARCHAR, score DOUBLE, op VARCHAR,"
            " changed_at TIMESTAMPTZ, _batch VARCHAR, _file VARCHAR, _line BIGINT)"
        )
        yield Lab(connection, sql)


# ── random logs ─────────────────────────────────────────────────────────────────────────────────

times = st.integers(0, 6).map(lambda hours: START + timedelta(hours=hours))
rows = st.builds(
    Row,
    id=st.sampled_from(["a", "a", "é:b", None]),
    part=st.sampled_from([1, 1, None]),
    name=st.sampled_from(["x", "y", None]),
    score=st.sampled_from([1.0, float("inf"), None]),
    op=st.sampled_from(["put", "put", "delete", None]),
    changed_at=times,
    batch=st.sampled_from(BATCHES),
    file=st.sampled_from(["one.csv", "two.csv"]),
    line=st.integers(1, 20),
)
logs = st.lists(rows, max_size=14, unique_by=lambda row: row.place)
PUT = Row("a", 1, "x", 1.0, "put", START, BATCHES[0], "one.csv", 1)
quiet = settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def placed(found: Iterable[Row]) -> list[Row]:
    return sorted(found, key=lambda row: row.place)


def timed(found: Iterable[Row]) -> list[Row]:
    return sorted(found, key=lambda row: (row.changed_at, row.place))


def operation(row: Row) -> Stated:
    state = None if row.op == "delete" else (row.name, row.score)
    return Stated(row.changed_at, state, (row.op, row.batch))


def cells(found: Iterable[Row]) -> Found:
    return in_order(tuple(vars(row).values()) for row in found)


@quiet
@given(logs)
def test_upsert_gives_the_newest_row_of_each_key(lab: Lab, drawn: list[Row]) -> None:
    lab.fill(drawn)
    kept = newest(placed(drawn), by_id_and_part).values()
    assert lab.run("newest") == cells(row for row in kept if row.op != "delete")
    assert lab.run("newest_by_time") == cells(newest(timed(drawn), by_id).values())


@quiet
@given(logs)
@example([PUT, replace(PUT, line=2, name="y"), replace(PUT, line=3)])  # all at one time
@example([PUT, replace(PUT, batch=BATCHES[1], op="delete")])  # gone when it began
def test_scd2_gives_the_history_of_each_key(lab: Lab, drawn: list[Row]) -> None:
    lab.fill(drawn)
    said = [(by_id_and_part(row), operation(row)) for row in placed(drawn)]
    found = lab.run("history")
    assert found == history(said)
    by_time = [(by_id(row), Stated(row.changed_at, (row.name,))) for row in timed(drawn)]
    assert lab.run("history_by_time") == history(by_time)
    # Whatever the log: spans have a length, none overlap, the last one agrees with upsert.
    assert len({row[0] for row in found}) == len(found)
    assert all(end is None or start < end for *_, start, end, _ in found)  # type: ignore[operator]  # times
    current = {row[1:3]: row[3:5] for row in found if row[-1]}
    assert current == {row[:2]: row[2:4] for row in lab.run("newest")}


@quiet
@given(logs)
@example([PUT, replace(PUT, batch=BATCHES[1], id="b"), replace(PUT, batch=BATCHES[3])])
def test_a_snapshot_closes_what_it_lacks(lab: Lab, drawn: list[Row]) -> None:
    lab.fill(drawn)
    found = placed(drawn)

    def plain(row: Row) -> Stated:
        return Stated(day_of(row.batch), (row.name,))

    def marked(row: Row) -> Stated:
        state = None if row.op == "delete" else (row.name,)
        return Stated(day_of(row.batch), state, (row.batch,))

    assert lab.run("snapshots") == history(with_absences(found, by_id_and_part, plain))
    assert lab.run("snapshots_with_marks") == history(with_absences(found, by_id, marked))


contents = st.lists(rows, max_size=6, unique_by=lambda row: row.place[1:])


@quiet
@given(
    final=st.dictionaries(st.sampled_from(BATCHES), contents, min_size=1),
    before=st.lists(st.tuples(st.sampled_from(BATCHES), contents), max_size=4),
    repeats=st.lists(st.sampled_from(BATCHES), max_size=3),
    order=st.permutations(BATCHES),
)
def test_only_what_is_in_the_log_counts_and_not_how_it_came_there(
    lab: Lab,
    final: Mapping[str, list[Row]],
    before: list[tuple[str, list[Row]]],
    repeats: list[str],
    order: list[str],
) -> None:
    lab.clear()
    for batch, content in sorted(final.items()):
        lab.deliver(batch, content)
    expected = {model: lab.run(model) for model in MODELS}

    lab.clear()
    for batch, content in before:  # other contents, and batches that are unpublished later
        lab.deliver(batch, content)
    for batch in {*BATCHES} - final.keys():
        lab.withdraw(batch)
    for batch in repeats + order:
        lab.deliver(batch, final.get(batch, []))
    assert {model: lab.run(model) for model in MODELS} == expected


def test_a_month_begins_on_its_first_day(lab: Lab) -> None:
    lab.fill([replace(PUT, batch="2024-02"), replace(PUT, batch="2024-04", name="y")])
    spans = sorted(row[4:] for row in lab.run("snapshots"))
    february, april = day_of("2024-02-01"), day_of("2024-04-01")
    assert spans == [(february, april, False), (april, None, True)]


@pytest.mark.parametrize(
    ("call", "why"),
    [
        ("scd2('log', key='id', tracked='effective_to')", "effective_to"),
        ("scd2('log', key='id', tracked='name', snapshot=true, order='at')", "snapshots"),
    ],
)
def test_what_a_macro_cannot_do_is_said_when_it_is_parsed(
    call: str, why: str, tmp_path: Path
) -> None:
    with pytest.raises(DbtProjectInvalid, match=why):
        render(tmp_path, {"wrong": f"{{{{ {call} }}}}"})
