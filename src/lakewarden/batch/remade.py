"""Whether main still holds what a batch was published with. Pure.

A batch whose inputs are the same is left alone; but models may have been made again since, by
another dbt project than the one at hand, and then main is not what would come out now.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lakewarden.lake.model import Publication


@dataclass(frozen=True)
class Remade:
    """Versions of main. `tables`: of those that another project wrote last, when that was;
    `alone`: when another project last made models alone, of batches that nobody can name now."""

    tables: Mapping[str, int] = field(default_factory=dict)
    alone: int = 0

    def since(self, published: Publication) -> bool:
        """Whether anything was that this publication wrote."""
        newest = (self.tables.get(table, 0) for table in published.tables)
        return max(self.alone, *newest, 0) > published.version


def remade(publications: Iterable[Publication], project: str | None) -> Remade:
    """What other dbt projects than ours (`project`: its digest) have made.

    publications: of all datasets, newest first. Whole models of another project count until ours
    writes their tables again; without models of our own nothing counts."""
    if project is None:
        return Remade()
    seen: set[str] = set()
    tables: dict[str, int] = {}
    alone = 0
    for one in publications:
        made = one.contribution
        if made.dataset is None and not made.models:
            continue  # a change of tables, which no model made
        if made.project != project:
            tables |= {name: one.version for name in one.tables if name not in seen}
            alone = alone or (one.version if made.models else 0)
        seen.update(one.tables)
    return Remade(tables, alone)
