"""What a touched table sets in motion: built, shown from the lake, tested, or left alone."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewarden.batch.models.selection import (
    Graph,
    Kind,
    LakeMark,
    ModelMarkInvalid,
    ModelUnknown,
    Node,
    Selection,
    SnapshotUnsupported,
    View,
    Write,
    check_marks,
    select,
    settled,
)
from lakewarden.tables.template import Column, Template


def source(name: str) -> Node:
    return Node(f"source.{name}", name, Kind.SOURCE, schema="raw", relation=name)


def model(name: str, *parents: str, table: str | None = None, write: Write = Write.ALL) -> Node:
    mark = LakeMark(table, write) if table else None
    return Node(f"model.{name}", name, Kind.MODEL, parents, "main", name, mark=mark)


def check(name: str, *parents: str) -> Node:
    return Node(f"test.{name}", name, Kind.TEST, parents)


def graph(*nodes: Node) -> Graph:
    return {node.id: node for node in nodes}


def names(nodes: tuple[Node, ...]) -> list[str]:
    return [node.name for node in nodes]


def tables(selection: Selection) -> list[str]:
    return sorted(view.table for view in selection.views)


SHOP = graph(
    source("orders"),
    source("customers"),
    model("stg_orders", "source.orders"),
    model("stg_customers", "source.customers"),
    model("dim_customer", "model.stg_customers", table="marts.dim_customer"),
    model("sales", "model.stg_orders", "model.dim_customer", table="marts.sales"),
    model("unrelated", "model.stg_customers", table="marts.unrelated"),
    check("orders_have_ids", "source.orders"),
    check("customers_have_ids", "source.customers"),
    check("orders_of_customers", "model.stg_orders", "model.stg_customers"),
    check("sales_are_positive", "model.sales"),
    check("customers_are_unique", "model.dim_customer"),
)
RAW = frozenset({"raw.orders", "raw.customers"})
MARTS = frozenset({"marts.sales", "marts.dim_customer", "marts.unrelated"})


def test_only_what_is_downstream_is_written_and_tested() -> None:
    found = select(SHOP, touched={"raw.orders"}, present=RAW | MARTS, described=RAW | MARTS)
    assert [mark.table for _, mark in found.writes] == ["marts.sales"]
    # stg_customers is built for the test that compares both.
    assert names(found.build) == ["stg_customers", "stg_orders", "sales"]
    assert names(found.tests) == ["orders_have_ids", "orders_of_customers", "sales_are_positive"]


def test_a_marked_model_that_is_not_downstream_is_shown_from_the_lake() -> None:
    found = select(SHOP, touched={"raw.orders"}, present=RAW | MARTS, described=RAW | MARTS)
    assert View("main", "dim_customer", "marts.dim_customer") in found.views
    assert found.reads == {"raw.orders", "raw.customers", "marts.dim_customer"}


def test_a_marked_model_that_the_lake_lacks_is_built_written_and_tested() -> None:
    found = select(SHOP, touched={"raw.orders"}, present=RAW, described=RAW | MARTS)
    assert {mark.table for _, mark in found.writes} == {"marts.sales", "marts.dim_customer"}
    assert "customers_are_unique" in names(found.tests)
    assert "customers_have_ids" not in names(found.tests)


def test_nothing_downstream_is_nothing_to_do() -> None:
    found = select(SHOP, touched={"raw.other"}, present=RAW | MARTS, described=RAW | MARTS)
    assert found == Selection((), (), ())


def test_a_touched_source_is_tested_without_any_model() -> None:
    lonely = graph(source("orders"), check("orders_have_ids", "source.orders"))
    found = select(lonely, touched={"raw.orders"}, present=RAW, described=RAW)
    assert (names(found.build), names(found.tests)) == ([], ["orders_have_ids"])
    assert found.reads == {"raw.orders"}


def test_a_source_without_rows_yet_is_shown_and_a_strange_one_is_left_alone() -> None:
    nodes = graph(
        source("orders"),
        source("elsewhere"),
        source("later"),
        model("m", "source.orders", "source.elsewhere", "source.later"),
    )
    found = select(
        nodes,
        touched={"raw.orders"},
        present={"raw.orders"},
        described={"raw.orders", "raw.later"},
    )
    assert tables(found) == ["raw.later", "raw.orders"]


def test_both_sources_of_a_table_are_shown() -> None:
    twin = replace(source("orders"), id="source.package.orders")
    nodes = graph(source("orders"), twin, model("m", "source.orders"), model("n", twin.id))
    found = select(nodes, touched={"raw.orders"}, present=RAW, described=RAW)
    assert names(found.build) == ["m", "n"]
    assert found.views == (View("raw", "orders", "raw.orders"),)


def test_a_snapshot_is_refused_only_where_it_is_needed() -> None:
    kept = Node("snapshot.s", "s", Kind.SNAPSHOT, ("model.stg_orders",), "main", "s")
    nodes = {**SHOP, kept.id: kept}
    select(nodes, touched={"raw.customers"}, present=RAW | MARTS, described=RAW | MARTS)
    with pytest.raises(SnapshotUnsupported, match="snapshot s"):
        select(nodes, touched={"raw.orders"}, present=RAW | MARTS, described=RAW | MARTS)


@st.composite
def projects(draw: st.DrawFn) -> tuple[Graph, frozenset[str], frozenset[str]]:
    """A random project, the tables that were touched, and those that exist."""
    nodes = [source(f"s{n}") for n in range(draw(st.integers(1, 3)))]
    for n in range(draw(st.integers(0, 8))):
        parents = draw(st.lists(st.sampled_from([p.id for p in nodes]), max_size=3, unique=True))
        table = f"marts.m{n}" if draw(st.booleans()) else None
        write = draw(st.sampled_from(Write))
        made = model(f"m{n}", *parents, table=table, write=write)
        nodes.append(replace(made, inlined=table is None and draw(st.booleans())))
    relations = [node.id for node in nodes]
    for n in range(draw(st.integers(0, 4))):
        over = draw(st.lists(st.sampled_from(relations), min_size=1, max_size=2, unique=True))
        nodes.append(check(f"t{n}", *over))
    draw(st.randoms()).shuffle(nodes)
    sources = sorted(node.table for node in nodes if node.kind is Kind.SOURCE)
    marts = sorted(node.mark.table for node in nodes if node.mark)
    touched = frozenset(draw(st.lists(st.sampled_from(sources))))
    present = frozenset(sources) | set(draw(st.lists(st.sampled_from(marts or sources))))
    return graph(*nodes), touched, present


def ancestors(nodes: Mapping[str, Node], id: str) -> set[str]:
    return {id}.union(*(ancestors(nodes, parent) for parent in nodes[id].parents))


@given(projects())
def test_a_selection_is_complete_ordered_and_no_larger_than_it_must_be(
    case: tuple[Graph, frozenset[str], frozenset[str]],
) -> None:
    nodes, touched, present = case
    found = select(nodes, touched=touched, present=present, described=present)
    built = [node.id for node in found.build]
    shown = {(view.schema, view.relation) for view in found.views}
    there = {node.id for node in nodes.values() if (node.schema, node.relation) in shown}
    assert not there & set(built)
    # Whatever runs finds its parents: built before it, or shown from the lake.
    for position, id in enumerate(built):
        assert set(nodes[id].parents) <= there | set(built[:position])
    for test in found.tests:
        assert set(test.parents) <= there | set(built)
    # All that is made from a touched table is built, and all of its tests run.
    starts = {node.id for node in nodes.values() if node.kind is Kind.SOURCE} & {
        f"source.{table.removeprefix('raw.')}" for table in touched
    }
    changed = {
        id
        for id, node in nodes.items()
        if node.kind is Kind.MODEL and ancestors(nodes, id) & starts
    }
    assert changed <= set(built)
    affected = changed | starts
    tests = {id for id, n in nodes.items() if n.kind is Kind.TEST and set(n.parents) & affected}
    assert tests <= {test.id for test in found.tests}
    # A table that exists, and is not made from what was touched, is left as it is.
    written = {mark.table for node, mark in found.writes if node.id not in changed}
    assert not written & present
    marks = {mark.table for _, mark in found.writes}
    assert {mark.table for id in changed if (mark := nodes[id].mark)} <= marks


# ── waves ───────────────────────────────────────────────────────────────────────────────────────


def waves(*nodes: Node) -> list[tuple[list[str], list[str]]]:
    """What each wave builds, and what it writes, after raw.orders was touched."""
    nodes = (source("orders"), *nodes)
    present = RAW | {node.mark.table for node in nodes if node.mark}
    found = select(graph(*nodes), touched={"raw.orders"}, present=present, described=present)
    return [(names(w.build), [node.name for node, _ in w.writes]) for w in found.waves]


DAILY = model("daily", "source.orders", table="marts.daily", write=Write.BATCH)


def test_what_is_made_from_a_model_by_batch_is_built_when_its_whole_table_is_there() -> None:
    """dbt makes the rows of the run's batches; the others are in the lake alone."""
    assert waves(
        DAILY,
        model("mid", "model.daily"),
        model("total", "model.mid", table="marts.total"),
        model("other", "source.orders", table="marts.other"),
    ) == [(["daily", "other"], ["daily"]), (["mid", "total"], ["other", "total"])]


def test_models_by_batch_one_behind_the_other_each_end_a_wave() -> None:
    weekly = model("weekly", "model.daily", table="marts.weekly", write=Write.BATCH)
    top = model("top", "model.weekly", "source.orders", table="marts.top")
    assert waves(DAILY, weekly, top) == [
        (["daily"], ["daily"]),
        (["weekly"], ["weekly"]),
        (["top"], ["top"]),
    ]


def test_one_wave_is_enough_where_no_relation_is_made_from_a_model_by_batch() -> None:
    inlined = replace(model("inlined", "model.daily"), inlined=True)
    total = model("total", "source.orders", table="marts.total")
    assert waves(DAILY, inlined, total) == [(["daily", "total"], ["daily", "total"])]
    user = model("user", "model.inlined")
    assert waves(DAILY, inlined, user) == [(["daily"], ["daily"]), (["inlined", "user"], [])]


def test_the_other_rows_of_a_model_by_batch_count_as_read() -> None:
    """They are not the run's own, so a publish asserts that they are still as they were."""
    total = model("total", "model.daily", table="marts.total")
    present = RAW | {"marts.daily", "marts.total"}
    found = select(
        graph(source("orders"), DAILY, total),
        touched={"raw.orders"},
        present=present,
        described=present,
    )
    assert found.reads == {"raw.orders", "marts.daily"}


@given(projects())
def test_waves_are_whole_in_order_and_as_few_as_can_be(
    case: tuple[Graph, frozenset[str], frozenset[str]],
) -> None:
    nodes, touched, present = case
    found = select(nodes, touched=touched, present=present, described=present)
    built = {node.id: n for n, wave in enumerate(found.waves) for node in wave.build}
    assert sum(len(wave.build) for wave in found.waves) == len(built)
    assert all(node.id in built or node.inlined for node in found.build)
    assert built.keys() <= {node.id for node in found.build}
    written = {node.id: n for n, wave in enumerate(found.waves) for node, _ in wave.writes}
    assert written.keys() == {node.id for node in found.build if node.mark}
    for id, wave in built.items():
        for parent in nodes[id].parents:
            if parent in built:
                mark = nodes[parent].mark
                by_batch = mark is not None and mark.write is Write.BATCH
                assert (written if by_batch else built)[parent] <= wave - by_batch
    # Each but the last one has a model by batch that the next cannot do without.
    for earlier, later in pairwise(found.waves):
        needed = {node.id for node, mark in earlier.writes if mark.write is Write.BATCH}
        assert any(ancestors(nodes, node.id) & needed for node in later.build)


def template(name: str, *columns: str, load: str | None = None) -> Template:
    return Template(
        namespace="marts",
        name=name,
        columns=tuple(Column(column, "string") for column in columns),
        partition_spec=(),
        sort_order=(),
        properties={},
        tags={},
        description="",
        source=None,
        load_dataset=load,
    )


TEMPLATES = {
    "marts.a": template("a", "x"),
    "marts.b": template("b", "x", "_batch"),
    "marts.loaded": template("loaded", "x", load="orders"),
}


def test_good_marks_pass() -> None:
    check_marks(
        graph(
            model("one", table="marts.a"),
            model("two", table="marts.b", write=Write.BATCH),
            model("three"),
        ),
        TEMPLATES,
    )


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        ([model("m", table="marts.none")], "no template"),
        ([model("m", table="marts.loaded")], "loaded from dataset orders"),
        ([model("m", table="marts.a"), model("n", table="marts.a")], "already"),
        ([model("m", table="marts.a", write=Write.BATCH)], "_batch"),
        ([replace(model("m", table="marts.a"), inlined=True)], "ephemeral"),
        (
            [model("m", table="marts.a"), replace(source("a"), schema="marts")],
            "source of this project",
        ),
    ],
)
def test_a_mark_that_cannot_be_followed_is_told(nodes: list[Node], told: str) -> None:
    with pytest.raises(ModelMarkInvalid, match=told):
        check_marks(graph(*nodes), TEMPLATES)


# ── models by name, and what an earlier attempt has done ────────────────────────────────────────


def test_a_model_that_is_named_is_built_with_what_is_made_from_it() -> None:
    found = select(
        SHOP, touched=set(), present=RAW | MARTS, described=RAW | MARTS, models=["dim_customer"]
    )
    assert [mark.table for _, mark in found.writes] == ["marts.dim_customer", "marts.sales"]
    assert names(found.tests) == ["customers_are_unique", "sales_are_positive"]


def test_a_model_that_nobody_knows_is_wrong_usage() -> None:
    with pytest.raises(ModelUnknown, match="nope"):
        select(SHOP, touched=set(), present=RAW, described=RAW, models=["nope"])


TWO = graph(
    source("east"),
    source("west"),
    model("own", "source.east", table="marts.own"),
    model("top", "model.own", table="marts.top"),
    model("every", "source.east", "source.west", table="marts.every"),
    check("own_is_right", "model.own"),
    check("every_is_right", "model.every"),
)
ALL = frozenset({"raw.east", "raw.west", "marts.own", "marts.top", "marts.every"})


def test_only_what_a_move_concerns_is_done_again() -> None:
    """Another run published west and the mart over both; ours, of east, is staged again."""
    kept = settled(TWO, {"raw.west", "marts.every"})
    found = select(TWO, touched={"raw.east"}, present=ALL, described=ALL, settled=kept)
    assert [mark.table for _, mark in found.writes] == ["marts.every"]
    assert names(found.tests) == ["every_is_right"]


def test_a_test_that_looks_at_what_moved_is_run_again() -> None:
    """Orders of ours, customers of somebody else's: it passed, and main has other customers now."""
    orders = graph(
        source("orders"),
        source("customers"),
        model("sales", "source.orders", table="marts.sales"),
        check("customers_are_known", "source.orders", "source.customers"),
        check("sales_have_customers", "model.sales", "source.customers"),
        check("sales_are_positive", "model.sales"),
    )
    tables = frozenset({"raw.orders", "raw.customers", "marts.sales"})
    kept = settled(orders, {"raw.customers"})
    found = select(orders, touched={"raw.orders"}, present=tables, described=tables, settled=kept)
    assert names(found.tests) == ["customers_are_known", "sales_have_customers"]
    assert found.writes == []
    assert found.reads == tables


def test_what_is_made_from_a_moved_mart_is_done_again_too() -> None:
    """Its rows of other batches are other ones now."""
    kept = settled(TWO, {"marts.own"})
    found = select(TWO, touched={"raw.east"}, present=ALL, described=ALL, settled=kept)
    assert [mark.table for _, mark in found.writes] == ["marts.own", "marts.top"]


def test_where_the_raw_table_itself_moved_all_is_done_again() -> None:
    assert {TWO[node].name for node in settled(TWO, {"raw.east"})} & {
        "own",
        "top",
        "every",
    } == set()
    assert settled(TWO, set()) == TWO.keys()
