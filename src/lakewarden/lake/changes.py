"""What a branch changed, and whether main still stands where it began. Pure."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from lakewarden.lake.model import TableChange

K = TypeVar("K")


def table_changes(base: Mapping[str, str], branch: Mapping[str, str]) -> dict[str, TableChange]:
    """Tables whose metadata location differs, in name order: new, moved and dropped ones."""
    return {
        name: TableChange(base.get(name), branch.get(name))
        for name in sorted({*base, *branch})
        if base.get(name) != branch.get(name)
    }


def moved_tables(
    names: Iterable[str], base: Mapping[str, str], now: Mapping[str, str]
) -> tuple[str, ...]:
    """Those of `names` that are not where they were; one that was absent must still be absent."""
    return tuple(name for name in sorted(set(names)) if base.get(name) != now.get(name))


def rebased(base: Mapping[K, str], branch: Mapping[K, str], main: Mapping[K, str]) -> dict[K, str]:
    """The branch's own edits of small properties, made on main as it is now.

    Unlike tables, two branches may both add the same namespace: the later publish wins."""
    edited = {key: value for key, value in branch.items() if base.get(key) != value}
    removed = base.keys() - branch.keys()
    return {key: value for key, value in main.items() if key not in removed} | edited
