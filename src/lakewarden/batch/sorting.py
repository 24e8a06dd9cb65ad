"""A table's order, in SQL; and ranges of it, so that a large batch is sorted piece by piece."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pyiceberg.table import Table
from pyiceberg.table.sorting import NullOrder, SortDirection
from pyiceberg.transforms import IdentityTransform

from lakewarden.batch.duck import identifier, literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# DuckDB makes a key of bytes, or of a whole number where the columns are short ones.
Cut = bytes | int
# Any bytes divide; a key may be as long as a record.
_CUT_BYTES = 1024
# Rows that say well enough where the others are, in little memory.
_SAMPLE = 20_000


def ordered(select: str, table: Table) -> str:
    """The rows in the table's order, where it has one."""
    terms = ", ".join(f"{column} {direction}" for column, direction in _terms(table))
    return f"SELECT * FROM ({select}) ORDER BY {terms}" if terms else select


def find_cuts(
    connection: "DuckDBPyConnection", select: str, table: Table, ranges: int
) -> Sequence[Cut]:
    """Where to cut the table's order so that these rows make so many ranges, about alike; fewer
    where many rows are equal."""
    shares = ", ".join(str(number / ranges) for number in range(1, ranges))
    if not shares:
        return []
    keys = f"SELECT {_key(table)} AS key FROM ({select})"
    sample = f"SELECT * FROM ({keys}) USING SAMPLE reservoir({_SAMPLE} ROWS) REPEATABLE (1)"
    connection.execute(f"SELECT unnest(quantile_disc(key, [{shares}])) FROM ({sample})")
    found = {key for (key,) in connection.fetchall() if key is not None}
    return sorted(key[:_CUT_BYTES] if isinstance(key, bytes) else key for key in found)


def range_number(table: Table, at: Sequence[Cut]) -> str:
    """SQL for the number of the range that a row is in, counting from 0 in the table's order."""
    below = " ".join(
        f"WHEN {_key(table)} < {_literal(cut)} THEN {number}" for number, cut in enumerate(at)
    )
    return f"CASE {below} ELSE {len(at)} END" if below else "0"


def _literal(cut: Cut) -> str:
    return f"unhex({literal(cut.hex())})" if isinstance(cut, bytes) else str(cut)


def _key(table: Table) -> str:
    """SQL for what is ordered as the table is."""
    terms = (f"{column}, {literal(direction)}" for column, direction in _terms(table))
    return f"create_sort_key({', '.join(terms)})"


def _terms(table: Table) -> Sequence[tuple[str, str]]:
    """Each column of the order and how it is sorted by, such as "ASC NULLS FIRST"."""
    terms = []
    for field in table.sort_order().fields:
        column = identifier(table.schema().find_column_name(field.source_id) or "")
        if not isinstance(field.transform, IdentityTransform):
            raise NotImplementedError(f"sort by {field.transform} of {column}")
        direction = "ASC" if field.direction is SortDirection.ASC else "DESC"
        nulls = "FIRST" if field.null_order is NullOrder.NULLS_FIRST else "LAST"
        terms.append((column, f"{direction} NULLS {nulls}"))
    return terms
