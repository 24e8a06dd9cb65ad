"""Tables, models and tests of a project, as assets and checks. Pure.

A table that a dataset loads is made by that dataset's runs. So is a model downstream of it; one
downstream of several datasets is made by the runs of each of them, and belongs to the first of
them, in the order of lakewarden.toml: then no dataset's assets need those of a later one and lead
back to it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from lakewarden.batch.models.selection import Graph, Kind, Node

Key = tuple[str, ...]
CONSERVATION = "conservation"
_MODELS = "models"  # where models are that go to no table: the database that dbt runs in
_ELSEWHERE = "sources"  # tables that are not of the lake
_BUILT = (Kind.MODEL, Kind.SEED)


@dataclass(frozen=True)
class Asset:
    """One asset. `dataset`: whose runs make it; None: nobody's. `table`: of the lake, where it is
    one. `model`: dbt's name, where dbt makes it."""

    key: Key
    dataset: str | None
    deps: tuple[Key, ...] = ()
    table: str | None = None
    model: str | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether deliveries fill it."""
        return self.dataset is not None and self.model is None


@dataclass(frozen=True)
class Check:
    """One check of one asset. `test`: dbt's name; None: ours, that no record is lost."""

    key: Key
    name: str
    test: str | None = None
    others: tuple[Key, ...] = ()  # assets that it reads as well


@dataclass(frozen=True)
class Lineage:
    """Assets stand after those that they are made from."""

    assets: Sequence[Asset]
    checks: Sequence[Check]

    @cached_property
    def by_key(self) -> Mapping[Key, Asset]:
        return {asset.key: asset for asset in self.assets}

    def of(self, dataset: str | None) -> Sequence[Asset]:
        """The assets that are a dataset's, or nobody's."""
        return [asset for asset in self.assets if asset.dataset == dataset]

    def checks_of(self, dataset: str) -> Sequence[Check]:
        return [one for one in self.checks if self.by_key[one.key].dataset == dataset]


def lineage(datasets: Mapping[str, Sequence[str]], graph: Graph) -> Lineage:
    """datasets: the tables that each fills, in the order of lakewarden.toml."""
    drawn = _Drawing(datasets, graph)
    loaded = {_of_table(table) for tables in datasets.values() for table in tables}
    assets = [
        *(
            Asset(_of_table(table), name, table=table)
            for name, tables in datasets.items()
            for table in tables
        ),
        *(a for a in map(drawn.asset, drawn.shown) if a.key not in loaded),
    ]
    found = {asset.key: asset for asset in assets}
    conserved = [Check(a.key, CONSERVATION) for a in assets if a.is_loaded]
    tests = [one for one in drawn.checks() if found[one.key].dataset is not None]
    return Lineage(tuple(found.values()), (*conserved, *tests))


@dataclass
class _Drawing:
    datasets: Mapping[str, Sequence[str]]
    graph: Graph

    @cached_property
    def shown(self) -> Sequence[Node]:
        """Nodes that are assets, what they are made from first; what is ephemeral is part of
        those that use it."""
        kinds = (*_BUILT, Kind.SOURCE)
        return sorted(
            (n for n in self.graph.values() if n.kind in kinds and not n.inlined),
            key=self._rank,
        )

    def asset(self, node: Node) -> Asset:
        key = _key(node)
        if node.kind is Kind.SOURCE:
            return Asset(key, None, table=node.table if node.schema else None)
        table = node.mark.table if node.mark else None
        deps = tuple(dict.fromkeys(_key(one) for one in self._parents(node) if _key(one) != key))
        return Asset(key, self._owner(node), deps, table, node.name)

    def checks(self) -> Iterator[Check]:
        for node in sorted(self.graph.values(), key=lambda one: one.id):
            if node.kind is not Kind.TEST:
                continue
            read = list(dict.fromkeys(self._parents(node)))
            if not read:
                continue
            subject = self._subject(node, read)
            others = tuple(dict.fromkeys(_key(one) for one in read if one is not subject))
            yield Check(_key(subject), re.sub(r"\W", "_", node.name), node.name, others)

    def _subject(self, test: Node, read: Sequence[Node]) -> Node:
        """The node beside which a test stands; else what is made last of all that it reads."""
        for one in read:
            if one.id == test.about:
                return one
        return max(read, key=self._rank)

    def _rank(self, node: Node) -> tuple[int, str]:
        """Rises along the graph: what is made from a node has that one as an ancestor more."""
        return len(self._ancestors(node)), node.id

    def _parents(self, node: Node) -> Iterator[Node]:
        for parent in node.parents:
            found = self.graph.get(parent)
            if found is None:
                continue
            if found.inlined:
                yield from self._parents(found)
            elif found.kind in (*_BUILT, Kind.SOURCE):
                yield found

    def _owner(self, node: Node) -> str | None:
        tables = {one.table for one in self._ancestors(node) if one.kind is Kind.SOURCE}
        return next((name for name, own in self.datasets.items() if tables & set(own)), None)

    def _ancestors(self, node: Node) -> Sequence[Node]:
        found: dict[str, Node] = {}
        waiting = list(self._parents(node))
        while waiting:
            one = waiting.pop()
            if one.id not in found:
                found[one.id] = one
                waiting.extend(self._parents(one))
        return list(found.values())


def _key(node: Node) -> Key:
    if node.kind is Kind.SOURCE:
        return (node.schema, node.relation) if node.schema else (_ELSEWHERE, node.relation)
    return _of_table(node.mark.table) if node.mark else (_MODELS, node.name)


def _of_table(table: str) -> Key:
    return tuple(table.split("."))
