"""Secrets, wherever they are kept: one suite over every control plane that holds them."""

import json
from collections.abc import Iterator

import pytest

from lakewarden.aws.clients import Connection, ControlPlaneMissing
from lakewarden.aws.secrets import (
    AnyReference,
    ManagedSecret,
    Parameter,
    SecretDenied,
    SecretMissing,
    Secrets,
    SecretUnavailable,
    Variable,
)
from lakewarden.errors import LakewardenError
from tests.fakes.control_plane import FakeControlPlane, fake_control_plane

VALUE = "hunter2-geheim"
STORED = {"whole": VALUE, "json": json.dumps({"password": VALUE, "port": 5432, "empty": ""})}
FOUND: list[AnyReference] = [
    Variable(env="LAKE_PASSWORD"),
    ManagedSecret(secretsmanager="whole"),
    ManagedSecret(secretsmanager="json", key="password"),
    Parameter(ssm="/lake/password"),
]
NOT_THERE: list[AnyReference] = [
    Variable(env="LAKE_PASSWROD"),
    Variable(env="EMPTY"),
    ManagedSecret(secretsmanager="nowhere"),
    ManagedSecret(secretsmanager="json", key="passwrod"),
    ManagedSecret(secretsmanager="json", key="empty"),
    ManagedSecret(secretsmanager="json", key="port"),
    ManagedSecret(secretsmanager="whole", key="password"),
    ManagedSecret(secretsmanager="bytes"),
    Parameter(ssm="/lake/passwrod"),
]
ENVIRON = {"LAKE_PASSWORD": VALUE, "EMPTY": ""}


@pytest.fixture
def plane() -> Iterator[FakeControlPlane]:
    with fake_control_plane() as plane:
        plane.accounts["000000000000"] = "000000000000"
        yield plane


def connected(plane: FakeControlPlane) -> Connection:
    here = plane.endpoint
    return Connection("local", "us-east-1", here, "000000000000", "secret", here)


@pytest.fixture
def secrets(plane: FakeControlPlane) -> Secrets:
    plane.secrets.update(STORED, bytes=b"x")
    plane.parameters["/lake/password"] = VALUE
    return Secrets(lambda: connected(plane), ENVIRON)


def everything_told(error: LakewardenError) -> str:
    told, one = f"{error.hint}", error.__cause__
    while one is not None:
        told, one = f"{told} {one} {one!r}", one.__cause__
    return f"{told} {error} {error!r}"


@pytest.mark.parametrize("reference", FOUND, ids=str)
def test_what_is_there_is_found(secrets: Secrets, reference: AnyReference) -> None:
    assert secrets.value(reference) == VALUE
    assert VALUE not in f"{reference} {reference!r} {secrets} {secrets!r}"


@pytest.mark.parametrize("reference", NOT_THERE, ids=str)
def test_what_is_not_there_is_told_by_its_name(secrets: Secrets, reference: AnyReference) -> None:
    with pytest.raises(SecretMissing) as caught:
        secrets.value(reference)
    name = next(iter(reference.model_dump().values()))
    assert name in caught.value.message
    assert caught.value.hint
    assert VALUE not in everything_told(caught.value)


def test_each_is_asked_for_once(secrets: Secrets, plane: FakeControlPlane) -> None:
    for _ in range(3):
        assert [secrets.value(one) for one in FOUND] == [VALUE] * len(FOUND)
    assert (plane.asked("GetSecretValue"), plane.asked("GetParameter")) == (2, 1)


def test_what_was_missing_is_asked_for_again(secrets: Secrets, plane: FakeControlPlane) -> None:
    late = Parameter(ssm="/late")
    with pytest.raises(SecretMissing):
        secrets.value(late)
    plane.parameters["/late"] = VALUE
    assert secrets.value(late) == VALUE


@pytest.mark.parametrize("reference", FOUND[1:], ids=str)
def test_who_may_not_read_it_is_told(
    secrets: Secrets, plane: FakeControlPlane, reference: AnyReference
) -> None:
    plane.denied.update(("GetSecretValue", "GetParameter"))
    with pytest.raises(SecretDenied, match="AccessDenied") as caught:
        secrets.value(reference)
    assert caught.value.exit_code == 1


def test_a_plane_that_is_away_is_told_as_that(plane: FakeControlPlane) -> None:
    plane.away.add("GetParameter")
    with pytest.raises(SecretUnavailable) as caught:
        Secrets(lambda: connected(plane), {}).value(Parameter(ssm="/lake/password"))
    assert caught.value.exit_code == 75


def test_a_stack_with_s3_only_keeps_no_secrets() -> None:
    s3_only = Connection("local", "us-east-1", "http://127.0.0.1:1", "a", "b")
    secrets = Secrets(lambda: s3_only, ENVIRON)
    assert secrets.value(FOUND[0]) == VALUE
    with pytest.raises(ControlPlaneMissing):
        secrets.value(FOUND[1])
