"""What a publication changed, or a branch would change: rows by table, as counts, never as rows."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lakewarden.batch.duck import EXTENSIONS, DuckConfig, connect, identifier, literal
from lakewarden.batch.scan import scan
from lakewarden.lake.changes import table_changes
from lakewarden.lake.model import BranchUnknown, Lake, TableChange
from lakewarden.tables.template import BATCH_COLUMN

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True)
class TableDiff:
    """Rows of one table. `changed`: rows with the same key and other values, which are in neither
    of the other two; None where no key is known. `before`, `after`: rows of the whole comparison;
    None where there was no table."""

    table: str
    before: int | None
    after: int | None
    added: int
    removed: int
    changed: int | None


def diff(
    config: DuckConfig,
    changes: Mapping[str, TableChange],
    *,
    keys: Mapping[str, Sequence[str]],
    batches: Collection[str] = (),
) -> Iterator[TableDiff]:
    """Compare each table before and after, row by row.

    keys: the columns that name a row, by table. batches: of tables with `_batch` only their rows
    are compared. Columns that only one side has are left out of the comparison. Raises
    duckdb.IOException."""
    with connect(config, extensions=EXTENSIONS) as connection:
        for table, change in changes.items():
            yield _diff(connection, table, change, keys.get(table, ()), batches)


def changes_on_branch(lake: Lake, name: str) -> Mapping[str, TableChange]:
    """What a branch would change of main as it was when it began; raises BranchUnknown."""
    branch = next((one for one in lake.branches() if one.name == name), None)
    if branch is None:
        raise BranchUnknown(
            f"no branch {name}", hint="`lakewarden lake branches` lists those that exist."
        )
    return table_changes(branch.base.tables, lake.pin(name).tables)


def _diff(
    connection: "DuckDBPyConnection",
    table: str,
    change: TableChange,
    key: Sequence[str],
    batches: Collection[str],
) -> TableDiff:
    sides = {"before": change.before, "after": change.after}
    columns: dict[str, list[str]] = {}
    for side, location in sides.items():
        if location is None:
            continue
        connection.execute(
            f"CREATE OR REPLACE TEMP VIEW {side}_all AS {scan(connection, location)}"
        )
        columns[side] = _columns(connection, f"{side}_all")
        only = _only(columns[side], batches)
        connection.execute(f"CREATE OR REPLACE TEMP VIEW {side} AS FROM {side}_all {only}")
    rows = {side: _count(connection, f"FROM {side}") for side in columns}
    before, after = rows.get("before"), rows.get("after")
    if before is None or after is None:
        return TableDiff(table, before, after, after or 0, before or 0, 0 if key else None)
    common = [name for name in columns["after"] if name in columns["before"]]
    named = key if set(key) <= set(common) else ()
    return _compare(connection, table, (before, after), common, named)


def _compare(
    connection: "DuckDBPyConnection",
    table: str,
    rows: tuple[int, int],
    columns: Iterable[str],
    key: Sequence[str],
) -> TableDiff:
    chosen = ", ".join(map(identifier, columns))
    for name, one, other in (("gained", "after", "before"), ("lost", "before", "after")):
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {name} AS"
            f" SELECT {chosen} FROM {one} EXCEPT ALL SELECT {chosen} FROM {other}"
        )
    gained, lost = _count(connection, "FROM gained"), _count(connection, "FROM lost")
    if not key:
        return TableDiff(table, *rows, gained, lost, None)
    named = ", ".join(map(identifier, key))
    changed = _count(
        connection,
        f"FROM (SELECT {named} FROM gained INTERSECT ALL SELECT {named} FROM lost)",
    )
    return TableDiff(table, *rows, gained - changed, lost - changed, changed)


def _columns(connection: "DuckDBPyConnection", relation: str) -> list[str]:
    return [str(row[0]) for row in connection.execute(f"DESCRIBE {relation}").fetchall()]


def _only(columns: Collection[str], batches: Collection[str]) -> str:
    if not batches or BATCH_COLUMN not in columns:
        return ""
    return f"WHERE {BATCH_COLUMN} IN ({', '.join(map(literal, sorted(batches)))})"


def _count(connection: "DuckDBPyConnection", relation: str) -> int:
    row = connection.execute(f"SELECT count(*) {relation}").fetchone()
    return int(row[0]) if row else 0
