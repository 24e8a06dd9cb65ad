"""When a batch is made again because of models that another dbt project made."""

from datetime import UTC, datetime

from lakewarden.batch.remade import remade
from lakewarden.lake.model import Contribution, Publication, TableChange

OURS, THEIRS = "ours", "theirs"
MODELS = ("marts.daily", "marts.whole")


def published(
    version: int, project: str | None, *tables: str, dataset: str | None = "a", models: bool = False
) -> Publication:
    batch = f"b{version}" if dataset else None
    made = Contribution(dataset, batch, "", {}, models=models, project=project)
    changed = {name: TableChange(None, f"{name}-{version}") for name in tables}
    return Publication(version, f"run-{version}", datetime.now(UTC), made, changed)


FIRST = published(1, OURS, "raw.a", *MODELS)


def is_stale(*later: Publication, project: str | None = OURS) -> bool:
    newest_first = [*reversed(later), FIRST]
    return remade(newest_first, project).since(FIRST)


def test_what_our_project_published_since_changes_nothing() -> None:
    assert not is_stale()
    assert not is_stale(published(2, OURS, "raw.a", *MODELS))


def test_whole_models_of_another_project_count_until_ours_writes_them() -> None:
    theirs = published(2, THEIRS, "raw.a", *MODELS)
    assert is_stale(theirs)
    assert not is_stale(theirs, published(3, OURS, "raw.a", *MODELS))
    # Not a run of ours that has nothing to do with them, nor one of some of them.
    assert is_stale(theirs, published(3, OURS, "raw.c", dataset="c"))
    assert is_stale(theirs, published(3, OURS, "raw.a", MODELS[0]))


def test_of_models_alone_nobody_knows_the_batches() -> None:
    theirs = published(2, THEIRS, *MODELS, dataset=None, models=True)
    assert is_stale(theirs)
    assert is_stale(theirs, published(3, OURS, "raw.a", *MODELS))
    assert not is_stale(published(2, OURS, *MODELS, dataset=None, models=True))
    later = published(3, OURS, "raw.a", *MODELS)
    assert not remade([later, theirs, FIRST], OURS).since(later)


def test_a_run_without_a_project_left_the_models_behind() -> None:
    assert is_stale(published(2, None, "raw.a"))


def test_what_has_nothing_to_do_with_it() -> None:
    assert not is_stale(published(2, THEIRS, "raw.c", "marts.c", dataset="c"))
    assert not is_stale(published(2, None, "raw.a", dataset=None))  # `table apply`
    assert not is_stale(published(2, THEIRS, "raw.a", *MODELS), project=None)
