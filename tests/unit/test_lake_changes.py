from hypothesis import given
from hypothesis import strategies as st

from lakewarden.lake.changes import moved_tables, rebased, table_changes
from lakewarden.lake.model import TableChange

names = st.sampled_from(["raw.a", "raw.b", "raw.c", "marts.d"])
state = st.dictionaries(names, st.sampled_from(["v1", "v2", "v3"]))


def test_new_moved_and_dropped_tables_are_changes_and_others_are_not() -> None:
    base = {"same": "1", "moved": "1", "dropped": "1"}
    branch = {"same": "1", "moved": "2", "new": "1"}
    assert table_changes(base, branch) == {
        "dropped": TableChange("1", None),
        "moved": TableChange("1", "2"),
        "new": TableChange(None, "1"),
    }


@given(state, state)
def test_the_changes_made_to_the_base_are_the_branch(
    base: dict[str, str], branch: dict[str, str]
) -> None:
    made = {**base, **{name: one.after for name, one in table_changes(base, branch).items()}}
    assert {name: location for name, location in made.items() if location} == branch


@given(st.sets(names), state, state)
def test_a_table_moved_unless_it_is_where_it_was(
    asked: set[str], base: dict[str, str], now: dict[str, str]
) -> None:
    assert set(moved_tables(asked, base, now)) == {
        name for name in asked if base.get(name) != now.get(name)
    }


@given(state, state)
def test_properties_rebased_on_an_unmoved_main_are_the_branch(
    base: dict[str, str], branch: dict[str, str]
) -> None:
    assert rebased(base, branch, base) == branch


@given(state, state)
def test_a_branch_without_edits_leaves_main_as_it_is(
    base: dict[str, str], main: dict[str, str]
) -> None:
    assert rebased(base, base, main) == main
