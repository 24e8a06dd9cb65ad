"""Connections, and the check of the account."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewarden.aws.clients import (
    Connection,
    ControlPlaneMissing,
    WrongAccount,
    check_account,
    control_client,
    credentials,
    is_loopback,
    s3_client,
)


@pytest.mark.parametrize(
    "endpoint",
    ["http://127.0.0.1:8333", "http://localhost:1", "http://[::1]:8333", "https://127.8.9.1/x"],
)
def test_this_machine(endpoint: str) -> None:
    assert is_loopback(endpoint)


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://s3.eu-west-1.amazonaws.com",
        "http://192.168.1.5:8333",
        "http://0.0.0.0:8333",
        "http://127.0.0.1.example.com",
        "http://127.0.0.1@example.com",
        "http://localhost.example.com",
        "http://example.com\\@127.0.0.1:9/",
        "http://somebody@127.0.0.1:8333",
        "http://127.0.0.1:8333 /",
        "http://127.0.0.1:8333/\n",
        "127.0.0.1:8333",
        "",
    ],
)
def test_not_this_machine(endpoint: str) -> None:
    assert not is_loopback(endpoint)
    with pytest.raises(WrongAccount, match="on this machine"):
        check_account(Connection("local", "us-east-1", endpoint, "key", "secret"))


def test_local_needs_an_endpoint() -> None:
    with pytest.raises(WrongAccount, match="on this machine"):
        check_account(Connection("local", "us-east-1"))


def test_a_control_plane_elsewhere_is_not_local() -> None:
    here, there = "http://127.0.0.1:8333", "https://sns.eu-west-1.amazonaws.com"
    with pytest.raises(WrongAccount, match="on this machine"):
        check_account(Connection("local", "us-east-1", here, "key", "secret", there))


def test_a_stack_with_s3_only_has_no_other_service() -> None:
    with pytest.raises(ControlPlaneMissing, match="sns"):
        control_client(Connection("local", "us-east-1", "http://127.0.0.1:1", "a", "b"), "sns")


@given(st.text().filter(lambda text: text != "local" and not text.isdecimal()))
def test_a_pin_is_local_or_twelve_digits(account: str) -> None:
    with pytest.raises(WrongAccount, match="12 digits"):
        check_account(Connection(account, "us-east-1", None, "key", "secret"))


def test_a_secret_is_not_shown() -> None:
    connection = Connection("local", "us-east-1", "http://127.0.0.1:1", "key", "very secret")
    assert "very secret" not in repr(connection)
    assert "very secret" not in str(connection)
    assert credentials(connection) == ("key", "very secret", None)


def test_an_endpoint_is_addressed_by_path_and_only_it_is_asked() -> None:
    connection = Connection("local", "us-east-1", "http://127.0.0.1:1", "key", "secret")
    url = s3_client(connection).generate_presigned_url(
        "get_object", Params={"Bucket": "lake", "Key": "a b/c"}
    )
    assert url.startswith("http://127.0.0.1:1/lake/a%20b/c?")
