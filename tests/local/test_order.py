"""The order in which batches come, are repeated, mended, taken out and brought back is of no
consequence: the same deliveries give the same tables."""

import csv
import io
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from importlib import resources
from pathlib import Path
from textwrap import dedent

import pytest

from lakewarden.batch.published import newest_of_each
from tests.local.shop import Rows, Shop, connect_project
from tests.stack import LocalStack

pytestmark = pytest.mark.timeout(600)

DATASET = "accounts"
FIRST = date(2024, 1, 30)

_FILES = {
    "lakewarden.toml": """
        project = "ledger"

        [env.dev]
        account = "local"
        bucket = "ledger-dev"
        catalog = { type = "sql", uri = "sqlite:///.lakewarden/catalog.db" }

        [dataset.accounts]
        batch = "date"
        landing = "raw/accounts/{batch}/"
        tables = { accounts = "accounts*.csv" }
        """,
    "tables/accounts.yaml": """
        name: accounts
        namespace: raw
        load: {dataset: accounts}
        source: {format: csv}
        columns:
          - {name: id, type: long, required: true}
          - {name: owner, type: string}
          - {name: credit, type: "decimal(9,2)"}
          - {name: closed, type: boolean, required: true}
        partition_spec:
          - {column: id, transform: "bucket[2]"}
        """,
    "tables/accounts_now.yaml": """
        name: accounts_now
        namespace: marts
        columns:
          - {name: id, type: long, required: true}
          - {name: owner, type: string}
          - {name: credit, type: "decimal(9,2)"}
        """,
    "tables/accounts_history.yaml": """
        name: accounts_history
        namespace: marts
        columns:
          - {name: surrogate_key, type: long, required: true}
          - {name: id, type: long, required: true}
          - {name: owner, type: string}
          - {name: credit, type: "decimal(9,2)"}
          - {name: effective_from, type: timestamptz, required: true}
          - {name: effective_to, type: timestamptz}
          - {name: is_current, type: boolean, required: true}
        """,
    "tables/by_day.yaml": """
        name: by_day
        namespace: marts
        columns:
          - {name: _batch, type: string, required: true}
          - {name: accounts, type: long, required: true}
          - {name: credit, type: "decimal(12,2)"}
        """,
    "transform/dbt_project.yml": """
        name: ledger
        version: "1.0"
        models: {ledger: {+materialized: table}}
        """,
    "transform/models/models.yml": """
        sources:
          - name: raw
            tables: [{name: accounts}]
        models:
          - name: accounts_now
            config: {meta: {lake: {table: marts.accounts_now, write: all}}}
            columns: [{name: id, data_tests: [not_null, unique]}]
          - name: accounts_history
            config: {meta: {lake: {table: marts.accounts_history, write: all}}}
            columns: [{name: surrogate_key, data_tests: [not_null, unique]}]
          - name: by_day
            config: {meta: {lake: {table: marts.by_day, write: batch}}}
        """,
    "transform/models/accounts_now.sql": """
        select id, owner, credit
        from ({{ upsert(source('raw', 'accounts'), key='id', deleted='closed') }})
        """,
    "transform/models/accounts_history.sql": """
        {{ scd2(source('raw', 'accounts'), key='id', tracked=['owner', 'credit'],
                deleted='closed') }}
        """,
    "transform/models/by_day.sql": """
        select _batch, count(*) as accounts, sum(credit) as credit
        from {{ source('raw', 'accounts') }}
        where list_contains({{ var('batches') }}, _batch)
        group by _batch
        """,
}


@dataclass
class Ledger:
    """A project of its own, and what was delivered to it last."""

    shop: Shop
    delivered: dict[str, str] = field(default_factory=dict)

    def deliver(self, batch: str, content: str) -> None:
        folder = self.shop.root / "delivery"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "accounts.csv").write_text(content)
        self.shop.project.deliver(DATASET, batch, folder)
        self.delivered[batch] = content

    def run(self, batch: str) -> str:
        return self.shop.project.run(DATASET, batch).status

    def run_set(self, batches: Sequence[str], *, group: int = 31) -> Sequence[str]:
        done = self.shop.project.run_set(DATASET, batches, group=group)
        return [outcome.status for outcome in done]

    def unpublish(self, *batches: str) -> str:
        return self.shop.project.unpublish(DATASET, batches).status

    def rows(self) -> Mapping[str, Rows]:
        return self.shop.rows()


def make_ledger(stack: LocalStack, root: Path) -> Ledger:
    for name, text in _FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text).lstrip())
    macros = resources.files("lakewarden") / "examples" / "macros"
    with resources.as_file(macros) as folder:
        shutil.copytree(folder, root / "transform" / "macros")
    connect_project(root, stack.connection, stack.bucket())
    return Ledger(Shop(root))


def day(number: int) -> str:
    return str(FIRST + timedelta(days=number))


def content(chance: random.Random, *, most: int = 6) -> str:
    """Changes of a few accounts; the same one may change twice a day."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "owner", "credit", "closed"])
    for _ in range(chance.randint(1, most)):
        owner = chance.choice(["ada", "bob", "", "Zoë"])
        credit = chance.choice(["", "0.00", f"{chance.randint(1, 3)}.50"])
        writer.writerow([chance.randint(1, 4), owner, credit, str(chance.random() < 0.2).lower()])
    return text.getvalue()


def shrunken(text: str) -> str:
    """The header and the first record."""
    return "".join(text.splitlines(keepends=True)[:2])


@pytest.fixture(scope="module")
def reference(local_stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """Where every state of deliveries is brought about in the plainest way: all at once."""
    return make_ledger(local_stack, tmp_path_factory.mktemp("reference"))


def plainly(reference: Ledger, deliveries: Mapping[str, str]) -> Mapping[str, Rows]:
    """The tables that these deliveries give."""
    publications = reference.shop.project.lake.publications(DATASET)
    out = sorted(newest_of_each(publications).keys() - deliveries.keys())
    if out:
        reference.unpublish(*out)
    for batch, text in deliveries.items():
        reference.deliver(batch, text)
    reference.run_set(sorted(deliveries), group=100)
    return reference.rows()


@pytest.mark.parametrize("seed", range(4))
def test_random_orders_give_equal_tables(
    seed: int, reference: Ledger, local_stack: LocalStack, tmp_path: Path
) -> None:
    """Runs, repeats, corrected and shrunken deliveries, older after newer ones, batches taken out
    and brought back: at the end only what is delivered and published counts."""
    chance = random.Random(seed)  # noqa: S311 # the same each time
    ledger = make_ledger(local_stack, tmp_path)
    days = [day(number) for number in range(5)]
    chance.shuffle(days)
    published: set[str] = set()
    for batch in days:
        ledger.deliver(batch, content(chance))
        if chance.random() < 0.7:
            ledger.run(batch)
            published.add(batch)
    for _ in range(6):
        batch = chance.choice(days)
        match chance.choice(["again", "corrected", "shrunken", "unpublish", "set"]):
            case "again":
                assert ledger.run(batch) == ("unchanged" if batch in published else "published")
                published.add(batch)
            case "corrected":
                ledger.deliver(batch, content(chance))
                ledger.run(batch)
                published.add(batch)
            case "shrunken":
                ledger.deliver(batch, shrunken(ledger.delivered[batch]))
                ledger.run(batch)
                published.add(batch)
            case "unpublish" if batch in published:
                assert ledger.unpublish(batch) == "published"
                assert ledger.unpublish(batch) == "unchanged"
                published.remove(batch)
            case "set":
                some = sorted(chance.sample(days, 3))
                ledger.run_set(some, group=2)
                published |= set(some)
    left = {batch: ledger.delivered[batch] for batch in sorted(published)}
    assert ledger.rows() == plainly(reference, left)
    assert ledger.shop.leftovers() == {}


def test_sixty_batches_at_once_and_one_by_one(
    reference: Ledger, local_stack: LocalStack, tmp_path: Path
) -> None:
    chance = random.Random(60)  # noqa: S311 # the same each time
    deliveries = {day(number): content(chance) for number in range(60)}
    one_by_one = make_ledger(local_stack, tmp_path)
    for batch, text in deliveries.items():
        one_by_one.deliver(batch, text)
    days = list(deliveries)
    chance.shuffle(days)
    assert {one_by_one.run(batch) for batch in days} == {"published"}
    assert one_by_one.rows() == plainly(reference, deliveries)
