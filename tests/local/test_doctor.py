"""lakewarden doctor on a real stack: what is well, what is missing, and that nothing is changed."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lakewarden.aws.check import Prefix, check_bucket, check_identity
from lakewarden.aws.clients import Connection, WrongAccount, s3_client
from lakewarden.aws.objects import StorageUnavailable
from lakewarden.aws.retry import BucketMissing
from tests.faults import FINE, Fault, FaultyProxy, Request, faulty_proxy
from tests.local.shop import make_shop
from tests.local.test_cli import Answer, lakewarden
from tests.stack import LocalStack

PROBE = "lakewarden-doctor-0123456789abcdef"
PREFIXES = [Prefix("deliveries", "raw/sales/"), Prefix("operations", "ops/")]


def versions(connection: Connection, bucket: str) -> list[object]:
    found = s3_client(connection).list_object_versions(Bucket=bucket)
    return [*found.get("Versions", []), *found.get("DeleteMarkers", [])]


# ── the bucket ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def proxy(local_stack: LocalStack) -> Iterator[FaultyProxy]:
    with faulty_proxy(local_stack.connection.endpoint or "") as proxy:
        yield proxy


def test_a_bucket_that_is_as_it_has_to_be(local_stack: LocalStack) -> None:
    bucket = local_stack.bucket()
    answer = check_bucket(local_stack.connection, bucket, PREFIXES, PROBE)
    assert (answer.missing, answer.unknown) == ((), ())
    assert "keeps versions" in answer.told
    assert answer.latency is not None
    assert versions(local_stack.connection, bucket) == []  # asking to write leaves nothing


def test_a_bucket_without_versions(local_stack: LocalStack) -> None:
    s3_client(local_stack.connection).create_bucket(Bucket="keeps-nothing")
    answer = check_bucket(local_stack.connection, "keeps-nothing", PREFIXES, PROBE)
    assert answer.missing == ("not so: the bucket keeps versions",)
    assert versions(local_stack.connection, "keeps-nothing") == []


def test_a_bucket_that_is_not_there(local_stack: LocalStack) -> None:
    with pytest.raises(BucketMissing, match="nowhere"):
        check_bucket(local_stack.connection, "nowhere", PREFIXES, PROBE)


@pytest.mark.parametrize(
    ("method", "where", "missing"),
    [
        ("PUT", "/ops/", "we may not write ops/ (operations)"),
        ("PUT", "/raw/sales/", "we may not write raw/sales/ (deliveries)"),
        ("GET", "prefix=ops", "we may not list ops/ (operations)"),
        ("HEAD", "/ops/", "we may not read ops/ (operations)"),
    ],
)
def test_what_we_may_not_do_is_named(
    local_stack: LocalStack, proxy: FaultyProxy, method: str, where: str, missing: str
) -> None:
    def plan(request: Request) -> Fault:
        denied = request.method == method and where in request.path
        return Fault(status=403, code="AccessDenied") if denied else FINE

    proxy.plan = plan
    through = replace(local_stack.connection, endpoint=proxy.endpoint)
    answer = check_bucket(through, local_stack.bucket(), PREFIXES, PROBE)
    assert answer.missing == (missing,)


def test_properties_that_we_may_not_read_are_not_called_missing(
    local_stack: LocalStack, proxy: FaultyProxy
) -> None:
    proxy.plan = lambda request: (
        Fault(status=403, code="AccessDenied") if "versioning" in request.path else FINE
    )
    through = replace(local_stack.connection, endpoint=proxy.endpoint)
    answer = check_bucket(through, local_stack.bucket(), PREFIXES, PROBE)
    assert answer.missing == ()
    assert answer.unknown == ("whether the bucket keeps versions",)


def test_a_store_that_is_away_is_told_as_that(local_stack: LocalStack, proxy: FaultyProxy) -> None:
    proxy.always(Fault(status=503, code="SlowDown"))
    through = replace(local_stack.connection, endpoint=proxy.endpoint)
    with pytest.raises(StorageUnavailable):
        check_bucket(through, local_stack.bucket(), PREFIXES, PROBE)


def test_the_stack_says_who_we_are(local_stack: LocalStack) -> None:
    answer = check_identity(local_stack.connection)
    assert answer.told == "account 000000000000"
    assert answer.who
    with pytest.raises(WrongAccount, match="000000000000"):
        check_identity(replace(local_stack.connection, account="123456789012"))


# ── the command ─────────────────────────────────────────────────────────────────────────────────

PROD = """
[env.prod]
account = "local"
bucket = "shop-prod"
catalog = { uri = "postgresql+psycopg://shop@127.0.0.1:1/shop", password = { env = "NO_SUCH" } }
"""


@pytest.fixture
def shop(local_stack: LocalStack, tmp_path: Path) -> Path:
    root = make_shop(tmp_path / "shop", local_stack.connection, local_stack.bucket(), models=True)
    settings = root / "lakewarden.toml"
    settings.write_text(settings.read_text().replace("[dataset", f"{PROD}\n[dataset", 1))
    return root


def parts(answer: Answer, env: str) -> dict[str, dict[str, object]]:
    (found,) = [one for one in answer.json["environments"] if one["env"] == env]
    return {part["name"]: part for part in found["parts"]}


def test_a_project_that_is_well(shop: Path) -> None:
    before = sorted(path for path in shop.rglob("*") if "cache" not in path.parts)
    answer = lakewarden("doctor", "--json", at=shop)
    found = parts(answer, "dev")
    # The stack was started by the tests, in a folder of its own.
    assert [name for name, part in found.items() if not part["well"]] == ["stack"]
    assert list(found) == [
        "stack",
        "credentials",
        "bucket",
        "catalog",
        "tables",
        "duckdb",
        "models",
    ]
    assert "no tables yet" in str(found["catalog"]["told"])
    assert "2 written to the lake" in str(found["models"]["told"])
    assert sorted(path for path in shop.rglob("*") if "cache" not in path.parts) == before


def test_what_is_wrong_in_one_part_hides_no_other(shop: Path) -> None:
    (shop / "tables" / "orders.yaml").write_text("name: [")
    (shop / "transform" / "models" / "daily.sql").write_text("{{ ref('nowhere') }}")
    answer = lakewarden("doctor", "--all", "--json", at=shop)
    assert answer.code == 1
    for env in ("dev", "prod"):
        found = parts(answer, env)
        assert {name for name, part in found.items() if part["well"]} >= {"credentials", "duckdb"}
        assert "orders.yaml" in json.dumps(found["tables"]["missing"])
        assert "nowhere" in json.dumps(found["models"]["missing"])
    found = parts(answer, "prod")
    assert found["secrets"]["missing"] == [
        "catalog.password: the variable NO_SUCH is not set, or empty"
    ]
    assert "no bucket shop-prod" in json.dumps(found["bucket"]["missing"])
    assert not found["catalog"]["well"]


def test_it_is_one_calm_screen(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_SUCH", "hunter2-geheim")
    answer = lakewarden("doctor", "--env", "prod", at=shop)
    lines = answer.out.splitlines()
    assert answer.code == 1
    assert lines[0].startswith("shop, prod (on this machine): ")
    assert any(line.startswith("✓ secrets") for line in lines)
    assert any(line.startswith("✗ catalog") for line in lines)
    assert any(line.startswith("Next: ") for line in lines)
    assert len(lines) < 24
    assert "hunter2-geheim" not in answer.out + answer.err
    assert answer.err == ""
