"""Sets of batches, batches taken out again, models alone, and mends: what a person sees of them."""

from pathlib import Path

import pytest

from lakewarden.batch.diff import TableDiff
from lakewarden.batch.mending import Correction, MendDoesNotFit, RecordNotQuarantined
from lakewarden.batch.mends import NothingMended
from lakewarden.batch.models.selection import ModelUnknown
from lakewarden.batch.receive import BatchUnknown
from lakewarden.batch.unpublish import ModelsGone, NotPublished
from lakewarden.errors import Refused
from tests.local.shop import DATASET, DAY, MARTS, MISFITS, TABLES, Shop, new_shop
from tests.stack import LocalStack

pytestmark = pytest.mark.timeout(120)

DAYS = (DAY, "2024-03-02", "2024-03-03", "2024-03-04")
LAST = "2024-03-05"


@pytest.fixture
def shop(local_stack: LocalStack, tmp_path: Path) -> Shop:
    return new_shop(local_stack, tmp_path / "shop")


def strict(shop: Shop) -> None:
    """No record that does not fit is allowed."""
    settings = shop.root / "lakewarden.toml"
    settings.write_text(settings.read_text().replace("max_share = 0.5", "max_share = 0.0"))


def orders_by_batch(shop: Shop) -> dict[object, int]:
    found: dict[object, int] = {}
    for row in shop.rows()["raw.orders"]:
        found[row[4]] = found.get(row[4], 0) + 1
    return found


# ── sets ────────────────────────────────────────────────────────────────────────────────────────


def test_a_set_is_published_in_groups_and_goes_on_where_it_stopped(shop: Shop) -> None:
    for number, day in enumerate(DAYS):
        shop.deliver(1, day, orders=number + 1)
    done = shop.project.run_set(DATASET, DAYS, group=3)
    assert next(done).status == "published"
    del done  # as if it had been cut off
    assert orders_by_batch(shop) == {DAYS[0]: 1, DAYS[1]: 2, DAYS[2]: 3}
    assert {one.version for one in shop.project.lake.publications(DATASET)} == {1}

    there = shop.project.delivered(DATASET, f"2024-02-28..{DAYS[-1]}")
    assert tuple(there.batches) == DAYS
    again = list(shop.project.run_set(DATASET, there.batches, group=3))
    assert [outcome.status for outcome in again] == ["unchanged", "published"]
    assert orders_by_batch(shop)[DAYS[3]] == 4
    counts = {
        one.contribution.batch: one.contribution.counts["in"] for one in
        shop.project.lake.publications(DATASET)
    }  # fmt: skip
    assert counts == {day: 3 * (number + 1) for number, day in enumerate(DAYS)}
    assert shop.leftovers() == {}
    assert shop.check_receipts() == 3


def test_what_is_wrong_with_one_batch_concerns_no_other(shop: Shop) -> None:
    strict(shop)
    for number, day in enumerate(DAYS[:4]):
        shop.deliver(1, day, damaged=number == 1)
    shop.project.objects.put(f"ops/mends/{DATASET}/{DAYS[3]}.jsonl", b"no mends\n")
    (outcome,) = shop.project.run_set(DATASET, [*DAYS, LAST])  # of which nothing was delivered
    assert outcome.status == "published"
    assert [(one.batch, one.error.code) for one in outcome.left_out] == [
        (DAYS[3], "mends-unreadable"),
        (LAST, "batch-unknown"),
        (DAYS[1], "too-many-misfits"),
    ]
    assert set(orders_by_batch(shop)) == {DAYS[0], DAYS[2]}
    (run,) = shop.project.runs(DATASET)
    assert {one.batch: one.error for one in run.batches} == {
        DAYS[0]: None,
        DAYS[1]: "too-many-misfits",
        DAYS[2]: None,
        DAYS[3]: "mends-unreadable",
        LAST: "batch-unknown",
    }
    shop.deliver(1, DAYS[1])
    (outcome,) = shop.project.run_set(DATASET, DAYS[:3])
    assert outcome.loaded is not None
    assert outcome.loaded.keys == (DAYS[1],)
    assert set(orders_by_batch(shop)) == set(DAYS[:3])


def test_the_models_of_a_set_are_built_once(local_stack: LocalStack, tmp_path: Path) -> None:
    shop = new_shop(local_stack, tmp_path / "shop", models=True)
    for day in DAYS[:3]:
        shop.deliver(1, day, orders=2)
    stages: list[str] = []
    list(shop.project.run_set(DATASET, DAYS[:3], tell=lambda done: stages.append(done.stage)))
    assert stages == ["receive", "load", "transform", "audit", "publish"]
    assert [row[0] for row in shop.rows()["marts.daily"]] == list(DAYS[:3])


def test_a_range_of_which_nothing_was_delivered(shop: Shop) -> None:
    with pytest.raises(BatchUnknown):
        shop.project.delivered(DATASET, "2024-03-01..2024-03-31")


# ── taken out, and models alone ─────────────────────────────────────────────────────────────────


def test_unpublish_is_as_if_the_batch_had_never_run(
    local_stack: LocalStack, tmp_path: Path
) -> None:
    shop = new_shop(local_stack, tmp_path / "shop", models=True)
    shop.deliver(1, DAYS[1], orders=3)
    assert shop.project.run(DATASET, DAYS[1]).status == "published"
    expected = shop.rows()
    shop.deliver(2, DAYS[0], orders=5)
    assert shop.project.run(DATASET, DAYS[0]).status == "published"
    whole = shop.rows()

    seen = shop.project.unpublish(DATASET, [DAYS[0]], publish=False)
    assert seen.status == "left"
    assert seen.branch is not None
    assert shop.rows() == whole
    tables = {one.table: one for one in shop.project.diff_of_branch(seen.branch)}
    assert tables["raw.orders"] == TableDiff("raw.orders", 8, 3, 0, 5, 0)
    shop.project.lake.discard(seen.branch)

    out = shop.project.unpublish(DATASET, [DAYS[0]], reason="doubled")
    assert out.status == "published"
    assert shop.rows() == expected
    newest = shop.project.lake.publications(DATASET)[0]
    assert (newest.contribution.withdrawn, newest.contribution.summary) == (True, "doubled")
    assert shop.project.unpublish(DATASET, [DAYS[0]]).status == "unchanged"
    states = {one.batch: one.state for one in shop.project.overview(DATASET)}
    assert states == {DAYS[0]: "unpublished", DAYS[1]: "published"}

    # A set leaves it out; by its name it comes back.
    there = shop.project.delivered(DATASET, f"{DAYS[0]}..{DAYS[1]}")
    assert (there.batches, there.withdrawn) == ([DAYS[1]], [DAYS[0]])
    assert shop.project.run(DATASET, DAYS[0]).status == "published"
    assert shop.rows() == whole
    with pytest.raises(NotPublished):
        shop.project.unpublish(DATASET, [DAYS[2]])
    (shop.root / "transform").rename(shop.root / "elsewhere")
    with pytest.raises(ModelsGone):
        shop.project.unpublish(DATASET, [DAYS[0]])
    assert shop.leftovers() == {}


def test_a_model_is_built_again_and_nothing_is_loaded(
    local_stack: LocalStack, tmp_path: Path
) -> None:
    shop = new_shop(local_stack, tmp_path / "shop", models=True)
    shop.deliver(1, orders=3)
    shop.project.run(DATASET, DAY)
    model = shop.root / "transform" / "models" / "items.sql"
    model.write_text(model.read_text().replace("count(*) as lines", "10 * count(*) as lines"))
    before = shop.project.pin().tables
    assert shop.project.rebuild(DATASET, [DAY], ["items"]).status == "published"
    after = shop.project.pin().tables
    assert {name for name in after if after[name] != before[name]} == {"marts.items"}
    assert {row[2] for row in shop.rows()["marts.items"]} == {20}
    assert {*after} == {*TABLES, *MARTS}
    with pytest.raises(ModelUnknown):
        shop.project.rebuild(DATASET, [DAY], ["nope"])
    assert shop.leftovers() == {}


def test_what_a_redelivery_changed(shop: Shop) -> None:
    shop.deliver(1, orders=4)
    shop.deliver(1, DAYS[1], orders=9)
    list(shop.project.run_set(DATASET, DAYS[:2]))
    shop.deliver(2, orders=3)
    publication = shop.project.run(DATASET, DAY).publication
    assert publication is not None
    found = {one.table: one for one in shop.project.diff(publication)}
    # Every row is of another generation, and the last record is gone.
    assert found["raw.orders"] == TableDiff("raw.orders", 4, 3, 0, 1, 3)
    assert found["raw.lines"] == TableDiff("raw.lines", 8, 6, 0, 2, 6)


# ── mends ───────────────────────────────────────────────────────────────────────────────────────


def test_mended_records_are_read_so_and_the_delivery_stays(shop: Shop) -> None:
    strict(shop)
    shop.deliver(1, orders=3, damaged=True)
    with pytest.raises(Refused):
        shop.project.run(DATASET, DAY)
    with pytest.raises(NothingMended):
        shop.project.replay(DATASET, DAY)
    objects = shop.project.objects
    delivered = {one.key: one.version_id for one in objects.list("raw/")}
    with pytest.raises(MendDoesNotFit):
        shop.project.mend(DATASET, DAY, [Correction(5, values={"amount": "much more"})])
    with pytest.raises(MendDoesNotFit):
        shop.project.mend(DATASET, DAY, [Correction(5, raw="1,2\n3,4")])
    with pytest.raises(RecordNotQuarantined):
        shop.project.mend(DATASET, DAY, [Correction(2, values={"amount": "1.00"})])
    assert list(objects.list("ops/mends/")) == []

    assert len(shop.project.mend(DATASET, DAY, [Correction(5, values={"amount": "7.50"})])) == 1
    with pytest.raises(Refused):  # one of two is mended
        shop.project.replay(DATASET, DAY)
    # The second thought counts, also of a record that is in quarantine no more.
    shop.project.mend(DATASET, DAY, [Correction(5, values={"amount": "8.50"})])
    shop.project.mend(DATASET, DAY, [Correction(6, raw='1001,1,2024-03-01,"9.50"\n')])
    assert shop.project.mend(DATASET, DAY, [Correction(5, values={"amount": "8.50"})]) == []
    outcome = shop.project.replay(DATASET, DAY)
    assert outcome.status == "published"
    assert outcome.counts is not None
    assert (outcome.counts.records_in, outcome.counts.quarantined) == (3 + MISFITS + 6, 0)
    mended = {row[-1]: str(row[3]) for row in shop.rows()["raw.orders"] if row[0] in (1000, 1001)}
    assert mended == {5: "8.50", 6: "9.50"}
    assert shop.project.replay(DATASET, DAY).status == "unchanged"
    assert {one.key: one.version_id for one in objects.list("raw/")} == delivered

    # A delivery with other bytes has nothing of it.
    shop.deliver(2, orders=3, damaged=True)
    with pytest.raises(Refused):
        shop.project.replay(DATASET, DAY)
