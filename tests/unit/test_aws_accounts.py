"""Every road to AWS asks first whose account it leads to."""

import ast
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lakewarden.aws import clients
from lakewarden.aws.clients import (
    Connection,
    ProfileUnknown,
    WrongAccount,
    control_client,
    credentials,
    identity,
    s3_client,
)
from lakewarden.aws.s3 import S3Objects
from lakewarden.aws.topics import publish
from tests.fakes.control_plane import FakeControlPlane, fake_control_plane

PINNED, OTHER = "111111111111", "222222222222"
PACKAGE = Path(clients.__file__).parents[1]

ROADS: dict[str, Callable[[Connection], object]] = {
    "an S3 client": s3_client,
    "objects": lambda connection: S3Objects(connection, "lake").head("k"),
    "another client": lambda connection: control_client(connection, "ssm"),
    "keys for DuckDB and PyIceberg": credentials,
}


@pytest.fixture
def plane() -> Iterator[FakeControlPlane]:
    with fake_control_plane() as plane:
        plane.accounts.update(ours=PINNED, theirs=OTHER)
        yield plane


def connection(plane: FakeControlPlane, key: str) -> Connection:
    return Connection(PINNED, "eu-west-1", plane.endpoint, key, "secret", plane.endpoint)


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("key", ["theirs", "nobodys"])
def test_no_road_leads_to_another_account(plane: FakeControlPlane, road: str, key: str) -> None:
    with pytest.raises(WrongAccount, match=PINNED):
        ROADS[road](connection(plane, key))
    assert {operation for _, operation in plane.calls} == {"GetCallerIdentity"}


def test_the_account_is_asked_for_once(plane: FakeControlPlane) -> None:
    ours = connection(plane, "ours")
    for _ in range(3):
        s3_client(ours)
        control_client(ours, "ssm")
    assert credentials(ours) == ("ours", "secret", None)
    assert plane.asked("GetCallerIdentity") == 1


@pytest.mark.parametrize("road", ROADS)
def test_what_is_local_leads_nowhere_else(road: str) -> None:
    elsewhere = Connection("local", "us-east-1", "https://s3.example.invalid", "key", "secret")
    elsewhere = replace(elsewhere, control="http://127.0.0.1:1")
    with pytest.raises(WrongAccount, match="on this machine"):
        ROADS[road](elsewhere)


# ── profiles and roles ──────────────────────────────────────────────────────────────────────────


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two accounts on one machine, as a person on call has them."""
    told = "".join(
        f"[{name}]\naws_access_key_id = {key}\naws_secret_access_key = s\n"
        for name, key in {"mine": "ours", "elsewhere": "theirs"}.items()
    )
    (tmp_path / "credentials").write_text(told)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for made in (clients._session, clients._in_role, clients._caller):
        made.cache_clear()


@pytest.mark.usefixtures("profiles")
def test_a_profile_says_who_we_are(plane: FakeControlPlane) -> None:
    by_profile = replace(connection(plane, ""), access_key=None, secret_key=None, profile="mine")
    assert identity(by_profile)["Arn"] == f"arn:aws:iam::{PINNED}:user/ours"
    assert credentials(by_profile) == ("ours", "s", None)
    with pytest.raises(WrongAccount, match=OTHER):
        s3_client(replace(by_profile, profile="elsewhere"))
    with pytest.raises(ProfileUnknown, match="nobody"):
        s3_client(replace(by_profile, profile="nobody"))


@pytest.mark.usefixtures("profiles")
def test_what_we_name_is_in_our_own_partition(plane: FakeControlPlane) -> None:
    plane.partition = "aws-cn"
    publish(connection(plane, "ours"), "told", "subject", "message")
    assert plane.sent[0][0].startswith("arn:aws-cn:sns:")


@pytest.mark.usefixtures("profiles")
def test_what_is_on_this_machine_is_not_asked_for_through_a_proxy(
    plane: FakeControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert identity(connection(plane, "ours"))["Account"] == PINNED


@pytest.mark.usefixtures("profiles")
def test_a_role_is_taken_with_the_profile(plane: FakeControlPlane) -> None:
    role = f"arn:aws:iam::{PINNED}:role/writer"
    in_role = replace(
        connection(plane, ""),
        access_key=None,
        secret_key=None,
        profile="elsewhere",
        role_arn=role,
    )
    assert identity(in_role)["Arn"].endswith("assumed-role/writer/lakewarden")
    assert credentials(in_role) == ("IN-ROLE", "s", "t")
    assert plane.calls[0] == ("theirs", "AssumeRole")
    assert plane.asked("AssumeRole") == 1


@pytest.mark.usefixtures("profiles")
def test_a_role_that_may_not_be_taken_is_told(plane: FakeControlPlane) -> None:
    plane.denied.add("AssumeRole")
    role = f"arn:aws:iam::{PINNED}:role/writer"
    bare = replace(connection(plane, ""), access_key=None, secret_key=None)
    in_role = replace(bare, profile="mine", role_arn=role)
    with pytest.raises(WrongAccount, match="AssumeRole"):
        s3_client(in_role)


# ── the house ───────────────────────────────────────────────────────────────────────────────────


def test_nobody_else_makes_clients() -> None:
    """What is imported to make one: boto3 and botocore's session, and Arrow's own S3."""
    makers = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if _makes_clients(node)
    }
    assert makers == {"aws/clients.py"}


def _makes_clients(node: ast.AST) -> bool:
    match node:
        case ast.Import(names=names):
            return any(
                one.name in ("boto3", "aiobotocore", "s3fs")
                or one.name.startswith(("botocore.session", "boto3.session"))
                for one in names
            )
        case ast.ImportFrom(module="boto3" | "boto3.session" | "botocore.session" | "botocore"):
            return True
        case ast.Attribute(attr="S3FileSystem") | ast.Name(id="S3FileSystem"):
            return True
    return False
