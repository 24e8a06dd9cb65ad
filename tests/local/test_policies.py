"""What goes over the wire while each part does its work is allowed by that part's policy: also
what DuckDB and Arrow ask for, which no hook of boto3's sees."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults import FaultyProxy, faulty_proxy
from tests.local.shop import DATASET, DAY, make_shop, write_delivery
from tests.local.test_cli import lakewarden
from tests.policies import Ask, asked_of_s3, refused
from tests.stack import LocalStack


@dataclass(frozen=True)
class Site:
    root: Path
    bucket: str
    proxy: FaultyProxy

    def asked(self, *args: object, code: int = 0) -> set[Ask]:
        """What a command asks of the store."""
        self.proxy.requests.clear()
        answer = lakewarden(*args, at=self.root)
        assert answer.code == code, answer
        return asked_of_s3(self.proxy.requests, self.bucket)


@pytest.fixture(scope="module")
def site(local_stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    bucket = local_stack.bucket()
    root = tmp_path_factory.mktemp("policies") / "shop"
    make_shop(root, local_stack.connection, bucket, models=True)
    with faulty_proxy(local_stack.connection.endpoint or "") as proxy:
        endpoint = root / ".lakewarden" / "local" / "endpoint.json"
        told = json.loads(endpoint.read_text())
        endpoint.write_text(json.dumps({**told, "endpoint": proxy.endpoint}))
        yield Site(root, bucket, proxy)


def test_each_part_may_do_its_work_and_no_more_is_asked(site: Site, tmp_path: Path) -> None:
    first = write_delivery(tmp_path / "first", 1, damaged=True)
    second = write_delivery(tmp_path / "second", 2)
    deliver = ("batch", "deliver", DATASET, DAY)

    delivering = site.asked(*deliver, first)
    running = site.asked("batch", "run", DATASET, DAY)
    delivering |= site.asked(*deliver, second)  # takes the first one away
    running |= site.asked("batch", "run", DATASET, DAY)
    running |= site.asked("batch", "unpublish", DATASET, DAY, "--reason", "a test")
    looking: set[Ask] = set()
    for command in (
        ("query", "SELECT count(*) FROM marts.items"),
        ("status",),
        ("lake", "log"),
        ("batch", "list"),
        ("batch", "show", DATASET, DAY),
        ("table", "drift"),
    ):
        looking |= site.asked(*command)
    checking = site.asked("doctor", "--read-only", "--json", code=75)  # the stack is elsewhere

    assert refused("deliverer", delivering) == set()
    assert refused("runner", running) == set()
    assert refused("reader", looking) == set()
    assert refused("operator", checking) == set()
    # And the measure measures: each did what the others may not.
    assert refused("reader", running)
    assert refused("runner", delivering)
    assert refused("notify", looking)
    assert {"s3:PutObject", "s3:DeleteObject"} <= {ask.action for ask in running}
    assert len(running) > 20
