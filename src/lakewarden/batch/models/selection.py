"""Which models to build and which tests to run, after some tables have changed. Pure.

What is built follows from what the batch touched; what is not downstream of it is taken from the
lake where the lake has it, and built along where it does not.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum

from lakewarden.errors import WrongUsage
from lakewarden.tables.template import BATCH_COLUMN, Template


class ModelMarkInvalid(WrongUsage):
    """`meta.lake` of a model says something that cannot be done."""


class ModelUnknown(WrongUsage):
    """The dbt project has no model of that name."""


class SnapshotUnsupported(WrongUsage):
    """A dbt snapshot keeps its state in the database it runs in; ours is gone after the run."""


class Kind(StrEnum):
    """dbt's resource types, as far as they take part."""

    SOURCE = "source"
    MODEL = "model"
    SEED = "seed"
    SNAPSHOT = "snapshot"
    TEST = "test"


class Write(StrEnum):
    """How a marked model replaces rows of its table: all of them, or those of the batches run."""

    ALL = "all"
    BATCH = "batch"


@dataclass(frozen=True)
class LakeMark:
    """A model's `meta: {lake: {table: namespace.name, write: all | batch}}`."""

    table: str
    write: Write


@dataclass(frozen=True)
class Node:
    """One resource of a dbt project. `schema` and `relation` name it in the database that dbt
    runs in; a source's are those of its lake table."""

    id: str  # dbt's unique id
    name: str
    kind: Kind
    parents: tuple[str, ...] = ()
    schema: str = ""
    relation: str = ""
    inlined: bool = False  # an ephemeral model: part of those that use it, never a relation
    mark: LakeMark | None = None
    about: str | None = None  # of a generic test: the node that it stands beside

    @property
    def table(self) -> str:
        """The lake table that a source stands for."""
        return f"{self.schema}.{self.relation}"


Graph = Mapping[str, Node]


@dataclass(frozen=True)
class View:
    """A relation that shows a lake table as pinned, in place of a source or of a built model."""

    schema: str
    relation: str
    table: str


@dataclass(frozen=True)
class Wave:
    """What one build of dbt makes, and what is written to the lake before the next one."""

    build: tuple[Node, ...]
    writes: tuple[tuple[Node, LakeMark], ...]


@dataclass(frozen=True)
class Selection:
    """What one run of dbt has to do. `build` stands in an order that parents come first."""

    build: tuple[Node, ...]
    tests: tuple[Node, ...]
    views: tuple[View, ...]

    @property
    def writes(self) -> Sequence[tuple[Node, LakeMark]]:
        """Built models that go back to the lake."""
        return [(node, node.mark) for node in self.build if node.mark is not None]

    @property
    def waves(self) -> Sequence[Wave]:
        """`build`, cut where something is made from a model that is written by batch: dbt makes
        its rows of the run's batches, and what is made from it has to see the others too.

        What is written as a whole goes back at the end: it is complete as dbt makes it, and views
        over it may be there already, which do not bear that its types change."""
        by_batch = {node.id for node, mark in self.writes if mark.write is Write.BATCH}
        number: dict[str, int] = {}
        for node in self.build:
            after = (number[p] + (p in by_batch) for p in node.parents if p in number)
            number[node.id] = max(after, default=0)
        # What is inlined is no reason for a build.
        last = max((number[node.id] for node in self.build if not node.inlined), default=-1)

        def is_due(node: Node, wave: int) -> bool:
            return number[node.id] == wave if node.id in by_batch else wave == last

        return [
            Wave(
                tuple(node for node in self.build if number[node.id] == wave),
                tuple((node, mark) for node, mark in self.writes if is_due(node, wave)),
            )
            for wave in range(last + 1)
        ]

    @property
    def reads(self) -> frozenset[str]:
        """Lake tables that something is made from; of one that is written by batch, the rows of
        other batches are."""
        shown = {view.table for view in self.views}
        return frozenset(shown.union(m.table for wave in self.waves[:-1] for _, m in wave.writes))


def check_marks(graph: Graph, templates: Mapping[str, Template]) -> None:
    """Every marked model writes a table of its own that dbt may write; raises ModelMarkInvalid."""
    owners: dict[str, Node] = {}
    sources = {node.table for node in graph.values() if node.kind is Kind.SOURCE}
    for node in graph.values():
        if node.mark is None:
            continue
        table = node.mark.table
        if node.inlined:
            raise _bad_mark(node, "it is ephemeral", "Make it a table or a view.")
        if table not in templates:
            hint = f"Describe {table} in tables/, with the model's columns."
            raise _bad_mark(node, f"{table} has no template", hint)
        if dataset := templates[table].load_dataset:
            hint = "Write to another table, or take `load` out of the template."
            raise _bad_mark(node, f"{table} is loaded from dataset {dataset}", hint)
        if table in sources:
            hint = f"Where other models read {table} as a source, say ref('{node.name}')."
            raise _bad_mark(node, f"{table} is a source of this project too", hint)
        columns = {column.name for column in templates[table].all_columns}
        if node.mark.write is Write.BATCH and BATCH_COLUMN not in columns:
            hint = f"Add {BATCH_COLUMN} to the template and the model, or say `write: all`."
            raise _bad_mark(node, f"`write: batch` needs the column {BATCH_COLUMN}", hint)
        if table in owners:
            raise _bad_mark(node, f"model {owners[table].name} writes {table} already", None)
        owners[table] = node


def select(
    graph: Graph,
    *,
    touched: AbstractSet[str],
    present: AbstractSet[str],
    described: AbstractSet[str],
    models: Collection[str] = (),
    settled: AbstractSet[str] = frozenset(),
) -> Selection:
    """What has to run after `touched` lake tables changed, and to make these `models` again.

    Built: the models, and what is downstream of them and of the touched tables; and, of what these
    and their tests need, all that is not downstream and that the lake cannot show. Tested: what was
    built downstream or is written to the lake, and the touched sources. touched, present,
    described: lake tables that the batch changed, that exist on the branch, and that have a
    template (a source of that name has no rows yet). Other sources are the project's own affair.
    settled: nodes (ids) that are as they should be already. Raises ModelUnknown,
    SnapshotUnsupported.
    """
    children = _children(graph)
    starts = [n.id for n in graph.values() if n.kind is Kind.SOURCE and n.table in touched]
    starts += [_model(graph, name).id for name in models]
    every = _downstream(graph, starts, children)
    active = every - settled
    while True:
        tests = {
            child
            for node in every
            for child in children[node]
            # One that compares what is settled with what is not has to be run again.
            if graph[child].kind is Kind.TEST and not set(graph[child].parents) <= settled
        }
        goals = {a for a in active if graph[a].kind is not Kind.SOURCE} | tests
        needed = _needed(graph, goals, active, present)
        # A table that had to be made is published too, so it is tested as the others are.
        made = {
            n
            for n in needed - active
            if graph[n].mark is not None and not _shown(graph[n], present)
        }
        if not made:
            return _selection(graph, needed - tests, active, tests, present, described)
        active |= made
        every |= made


def settled(graph: Graph, moved: AbstractSet[str]) -> frozenset[str]:
    """The nodes that come out as before where only these lake tables have moved: none of what they
    are made from has. (Tests are judged by their parents, see `select`.)"""
    children = _children(graph)
    starts = [node.id for node in graph.values() if _table_of(node) in moved]
    return frozenset(graph.keys() - _downstream(graph, starts, children))


def _table_of(node: Node) -> str | None:
    """The lake table that shows a node's rows."""
    if node.kind is Kind.SOURCE:
        return node.table
    return node.mark.table if node.mark else None


def _model(graph: Graph, name: str) -> Node:
    found = [n for n in graph.values() if n.name == name and n.kind in (Kind.MODEL, Kind.SEED)]
    if len(found) != 1:
        known = sorted(n.name for n in graph.values() if n.kind is Kind.MODEL)
        raise ModelUnknown(
            f"the dbt project has {'no' if not found else 'more than one'} model {name!r}",
            hint=f"Choose one of: {', '.join(known)}",
        )
    return found[0]


def _selection(
    graph: Graph,
    needed: AbstractSet[str],
    active: AbstractSet[str],
    tests: AbstractSet[str],
    present: AbstractSet[str],
    described: AbstractSet[str],
) -> Selection:
    build: list[Node] = []
    views: list[View] = []
    for node in _in_order(graph, needed):
        if node.kind is Kind.SOURCE:
            if node.table in present | described:
                views.append(View(node.schema, node.relation, node.table))
        elif node.id not in active and node.mark is not None and _shown(node, present):
            views.append(View(node.schema, node.relation, node.mark.table))
        else:
            build.append(node)
    for node in build:
        if node.kind is Kind.SNAPSHOT:
            raise SnapshotUnsupported(
                f"snapshot {node.name} cannot keep its history: models run in a database that is"
                " removed afterwards",
                hint="Write it as a model over the raw table, which is a log of all deliveries.",
            )
    ordered = sorted((graph[test] for test in tests), key=lambda node: node.name)
    # Two packages may name one table as their source.
    return Selection(tuple(build), tuple(ordered), tuple(dict.fromkeys(views)))


def _children(graph: Graph) -> Mapping[str, Sequence[str]]:
    found: dict[str, list[str]] = {id: [] for id in graph}
    for node in graph.values():
        for parent in node.parents:
            if parent in found:
                found[parent].append(node.id)
    return found


def _downstream(
    graph: Graph, starts: Iterable[str], children: Mapping[str, Sequence[str]]
) -> set[str]:
    """The starts and everything that is made from them."""
    found: set[str] = set()
    waiting = list(starts)
    while waiting:
        id = waiting.pop()
        if id not in found:
            found.add(id)
            waiting.extend(c for c in children[id] if graph[c].kind is not Kind.TEST)
    return found


def _shown(node: Node, present: AbstractSet[str]) -> bool:
    """Whether the lake has what this model would make."""
    return node.mark is not None and node.mark.table in present


def _needed(
    graph: Graph, goals: Iterable[str], active: AbstractSet[str], present: AbstractSet[str]
) -> set[str]:
    """The goals and what they are made from, as far as the lake does not have it."""
    found: set[str] = set()
    waiting = list(goals)
    while waiting:
        id = waiting.pop()
        if id in found or id not in graph:
            continue
        found.add(id)
        if id in active or not _shown(graph[id], present):
            waiting.extend(graph[id].parents)
    return found


def _in_order(graph: Graph, ids: AbstractSet[str]) -> Sequence[Node]:
    """Parents first; else by id."""
    done: dict[str, Node] = {}
    waiting = sorted(ids, reverse=True)
    while waiting:
        id = waiting[-1]
        missing = [p for p in sorted(graph[id].parents) if p in ids and p not in done]
        if missing and id not in done:
            waiting.extend(reversed(missing))
        else:
            done.setdefault(waiting.pop(), graph[id])
    return list(done.values())


def _bad_mark(node: Node, why: str, hint: str | None) -> ModelMarkInvalid:
    mark = node.mark.table if node.mark else ""
    return ModelMarkInvalid(f"model {node.name} cannot be written to {mark}: {why}", hint=hint)
