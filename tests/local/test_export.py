"""What is published, as Parquet for those who do not read Iceberg."""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from lakewarden.aws.objects import ObjectVersion
from lakewarden.aws.s3 import S3Objects
from lakewarden.batch.export import Export, Exported, ExportForeign, ExportUnreadable, read_export
from lakewarden.batch.rollback import roll_back
from lakewarden.errors import Failed
from lakewarden.lake.model import Branch, Contribution
from lakewarden.lake.sql import SqlLake
from lakewarden.records.lease import acquire, this_process
from lakewarden.wiring import now, open_project
from tests.local.shop import DATASET, DAY, Shop, new_shop
from tests.local.test_cli import lakewarden
from tests.stack import LocalStack

pytestmark = [pytest.mark.slow]


@pytest.fixture
def shop(local_stack: LocalStack, tmp_path: Path) -> Shop:
    found = new_shop(local_stack, tmp_path, models=True)
    found.deliver(1)
    found.project.run(DATASET, DAY)
    return found


def exported(shop: Shop) -> Export:
    found, _ = read_export(shop.project.objects, "processed/")
    assert found is not None
    return found


def rows(shop: Shop, table: str) -> list[tuple[object, ...]]:
    files = [f"s3://{shop.project.env.bucket}/{f.key}" for f in exported(shop).tables[table].files]
    with shop.project.session(shop.project.pin()) as connection:
        select = "SELECT * FROM read_parquet(?) ORDER BY ALL"
        return connection.execute(select, [files]).fetchall()


def kept(shop: Shop) -> Mapping[str, str]:
    return {v.key: v.version_id for v in shop.project.objects.list("processed/")}


def test_marts_are_exported_once_a_version(shop: Shop) -> None:
    first = shop.project.export()
    assert first.changed == ("marts.daily", "marts.items")
    assert {name: tuple(rows(shop, name)) for name in first.export.tables} == {
        name: found for name, found in shop.rows().items() if name.startswith("marts.")
    }
    assert first.export.version == shop.publications()[0].version
    before = kept(shop)
    assert all(
        key.startswith(("processed/daily/v", "processed/items/v")) or "_man" in key
        for key in before
    )
    assert shop.project.export().changed is None
    assert kept(shop) == before
    assert shop.leftovers() == {}


def test_files_of_the_version_before_stay_for_their_readers_and_older_ones_go(shop: Shop) -> None:
    keys = []
    for generation in range(1, 4):
        if generation > 1:
            shop.deliver(generation, orders=10 + generation)
            shop.project.run(DATASET, DAY)
        shop.project.export()
        keys.append({f.key for table in exported(shop).tables.values() for f in table.files})
    there = set(kept(shop))
    assert keys[2] | keys[1] <= there
    assert not (keys[0] - keys[1] - keys[2]) & there


@pytest.mark.parametrize("restricted", [False, True], ids=["equal", "with other columns"])
def test_two_exports_of_a_version_at_once_leave_the_version_before_to_its_readers(
    shop: Shop, restricted: bool
) -> None:
    shop.project.export()
    before = [key for key in kept(shop) if key.endswith(".parquet")]
    shop.deliver(2, orders=12)
    shop.project.run(DATASET, DAY)

    class Slow(S3Objects):
        """Before its first file lies there, another export of the same version is done."""

        others: list[Exported] = []  # noqa: RUF012 - of this test

        def upload(self, key: str, path: Path) -> ObjectVersion:
            if not self.others:
                self.others.append(open_project(shop.root).export())
            return super().upload(key, path)

    slow = open_project(shop.root)
    assert slow.templates  # as they are now
    if restricted:
        hidden = shop.root / "tables" / "items.yaml"
        column = "{name: item, type: string, required: true"
        hidden.write_text(hidden.read_text().replace(column, f"{column}, access_level: restricted"))
    slow.__dict__["objects"] = Slow(slow.connection, slow.env.bucket)
    made = slow.export()
    (other,) = Slow.others
    assert made.export.version == other.export.version
    assert (made.changed is None) == (not restricted)
    assert set(before) <= set(kept(shop))


def test_restricted_columns_stay_at_home_unless_they_are_asked_for(shop: Shop) -> None:
    root = shop.root
    template = root / "tables" / "items.yaml"
    marked = template.read_text().replace(
        "{name: item, type: string, required: true}",
        "{name: item, type: string, required: true, access_level: restricted}",
    )
    assert marked != template.read_text()
    template.write_text(marked)
    found = open_project(root).export().export.tables["marts.items"]
    assert (found.columns, found.left_out) == (("days", "lines"), ("item",))
    assert len(rows(shop, "marts.items")[0]) == 2
    settings = root / "lakewarden.toml"
    settings.write_text(
        f'{settings.read_text()}\n[export]\nrestricted = true\ntables = ["*.items"]\n'
    )
    again = open_project(root).export()  # of the same version, with other columns
    assert again.changed == ("marts.items",)
    assert again.export.tables.keys() == {"marts.items"}
    assert again.export.tables["marts.items"].left_out == ()


def test_an_older_export_does_not_replace_a_newer_one(shop: Shop) -> None:
    class Slow(S3Objects):
        """Before its first file lies there, a newer version is published and exported."""

        newer: list[Exported] = []  # noqa: RUF012 - of this test

        def upload(self, key: str, path: Path) -> ObjectVersion:
            if not self.newer:
                shop.deliver(2, orders=12)
                shop.project.run(DATASET, DAY)
                self.newer.append(shop.project.export())
            return super().upload(key, path)

    slow = open_project(shop.root)
    slow.__dict__["objects"] = Slow(slow.connection, slow.env.bucket)
    assert slow.export().changed is None
    (newer,) = Slow.newer
    assert exported(shop) == newer.export
    assert newer.export.version == 2


@pytest.mark.parametrize(
    "theirs", [{"version": 40}, {"run": "another"}, {"version": 40, "run": None}], ids=str
)
def test_a_manifest_of_another_catalog_is_told(shop: Shop, theirs: dict[str, object]) -> None:
    """Versions of a catalog that is made anew begin at 1: by their numbers alone, what lies there
    would be newer for ever."""
    shop.project.export()
    other = exported(shop).model_copy(update=theirs)
    shop.project.objects.put("processed/_manifest.json", other.model_dump_json().encode())
    with pytest.raises(ExportForeign, match="another catalog"):
        shop.project.export()
    assert exported(shop) == other


def test_a_manifest_of_before_runs_were_kept_in_it_counts(shop: Shop) -> None:
    shop.project.export()
    assert exported(shop).run == shop.publications()[0].run
    older = exported(shop).model_dump(mode="json", exclude={"run"})
    shop.project.objects.put("processed/_manifest.json", json.dumps(older).encode())
    assert shop.project.export().changed is None


def test_what_others_keep_beside_the_exports_stays(shop: Shop) -> None:
    theirs = [
        "processed/team/v0/part.parquet",
        "processed/team/sales/v0/00000-0123456789abcdef.parquet",
        "processed/v0/00000-0123456789abcdef.parquet",
    ]
    for key in theirs:
        shop.project.objects.put(key, b"theirs")
    assert shop.project.export().changed
    assert {one.key for one in shop.project.objects.list("processed/")} >= set(theirs)


def test_what_is_not_ours_is_not_written_over(shop: Shop) -> None:
    shop.project.objects.put("processed/_manifest.json", b"theirs")
    with pytest.raises(ExportUnreadable):
        shop.project.export()
    assert shop.project.objects.get("processed/_manifest.json").body == b"theirs"


def test_the_command_exports(shop: Shop) -> None:
    answer = lakewarden("export", "--json", at=shop.root)
    assert answer.code == 0
    assert answer.json["changed"] == ["marts.daily", "marts.items"]
    assert answer.json["export"] == json.loads(
        shop.project.objects.get("processed/_manifest.json").body
    )
    again = lakewarden("export", at=shop.root)
    assert (again.code, "Nothing to do" in again.out) == (0, True)


class NotWanted(Failed):
    """Nobody waits."""


def test_a_run_that_may_not_publish_leaves_nothing(shop: Shop) -> None:
    before = shop.rows()
    shop.deliver(2)

    def refuse() -> None:
        raise NotWanted("nobody waits")

    with pytest.raises(NotWanted):
        shop.project.run(DATASET, DAY, may_publish=refuse)
    assert shop.rows() == before
    assert shop.leftovers() == {}


def test_a_roll_back_takes_only_what_is_marked(shop: Shop) -> None:
    project, at = shop.project, now()
    other = this_process("20260101T000000000-aaaaaa-xother", host="elsewhere", since=at)
    acquire(project.objects, f"ops/leases/{DATASET}/{DAY}.json", other, now=at)
    project.lake.begin("batch/sales/dead.1", "dead-xmine", at)
    done = project.roll_back(DATASET, DAY, "-xmine")
    assert done.fenced == ("dead-xmine",)
    assert list(shop.leftovers()) == ["leases"]  # of somebody else's
    assert project.roll_back(DATASET, DAY, "-xmine").fenced == ()  # safe to repeat
    run = shop.publications()[0].run
    holder = this_process("r", host="here", since=at)
    found = roll_back(project.lake, project.objects, shop.root, DATASET, DAY, run, holder, at)
    assert found.publication == shop.publications()[0]


def test_a_roll_back_tells_what_was_published_while_it_looked(shop: Shop) -> None:
    project, at = shop.project, now()
    branch = project.lake.begin("batch/sales/late", "late-xmine", at)

    class Late(SqlLake):
        def branches(self) -> Sequence[Branch]:
            mine = Contribution(DATASET, DAY, "hash", {})
            project.lake.publish(branch, [mine], reads=frozenset(), at=at)
            return super().branches()

    lake = Late(project.catalog_uri(), "s3://unused", {})
    holder = this_process("r", host="here", since=at)
    found = roll_back(lake, project.objects, shop.root, DATASET, DAY, "-xmine", holder, at)
    assert found.publication is not None
    assert found.publication.run == "late-xmine"


def test_a_roll_back_leaves_another_execution_that_took_over_meanwhile_alone(shop: Shop) -> None:
    """Its run is alive and has the lease, which remembers the dead one that is rolled back."""
    project, at = shop.project, now()
    lease, long_ago = f"ops/leases/{DATASET}/{DAY}.json", at - timedelta(minutes=10)
    dead = this_process("20260101T000000000-aaaaaa-xmine", host="gone", since=long_ago)
    acquire(project.objects, lease, dead, now=long_ago)
    other = this_process("20260101T000100000-bbbbbb-xother", host="elsewhere", since=at)
    held = acquire(project.objects, lease, other, now=at)
    done = project.roll_back(DATASET, DAY, "-xmine")
    assert done.fenced == (dead.run,)
    assert project.lake.outcome(other.run) is None
    held.renew(at)
    assert not held.lost
    held.release()
