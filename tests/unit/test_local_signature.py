"""Signatures, against botocore's own signing."""

from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from lakewarden.local.control.front import is_of_the_emulator
from lakewarden.local.control.signature import Request, refusal

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SECRETS = {"KEY": "secret"}


def signed(
    path: str = "/", query: str = "", body: bytes = b"{}", *, key: str = "KEY", word: str = "secret"
) -> Request:
    url = f"http://127.0.0.1:1234{path}{'?' if query else ''}{query}"
    request = AWSRequest("POST", url, {"X-Amz-Target": "A.B", "Host": "127.0.0.1:1234"}, body)
    with patch("botocore.auth.get_current_datetime", lambda: NOW.replace(tzinfo=None)):
        SigV4Auth(Credentials(key, word), "states", "us-east-1").add_auth(request)
    return Request(
        "POST", url.removeprefix("http://127.0.0.1:1234"), tuple(request.headers.items()), body
    )


@given(
    st.lists(st.text("abcXYZ019-_.~:", min_size=1, max_size=9), max_size=4),
    st.lists(st.tuples(st.text("abc", min_size=1), st.text("a1-_.~", max_size=9)), max_size=4),
    st.binary(max_size=99),
)
def test_what_botocore_signs_is_taken(
    path: list[str], query: list[tuple[str, str]], body: bytes
) -> None:
    names = [segment for segment in path if set(segment) != {"."}]
    request = signed("/" + "/".join(names), "&".join(f"{a}={b}" for a, b in query), body)
    assert refusal(request, SECRETS, NOW) is None


def test_a_path_that_was_encoded_once_is_encoded_again() -> None:
    assert refusal(signed("/functions/a%3Ab/x"), SECRETS, NOW) is None


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"word": "another"}, "SignatureDoesNotMatch"),
        ({"key": "OTHER"}, "UnrecognizedClientException"),
    ],
)
def test_another_key_is_refused(changed: dict[str, str], code: str) -> None:
    found = refusal(signed(**changed), SECRETS, NOW)  # type: ignore[arg-type] # two of them
    assert found is not None
    assert found.code == code
    assert "another" not in found.message


def test_what_was_changed_on_its_way_is_refused() -> None:
    good = signed("/path", "a=b")
    for bad in (
        Request("GET", good.target, good.headers, good.body),
        Request(good.method, "/other?a=b", good.headers, good.body),
        Request(good.method, "/path?a=c", good.headers, good.body),
        Request(good.method, good.target, good.headers, b"other"),
        Request(
            good.method,
            good.target,
            tuple((k, "A.C" if k == "X-Amz-Target" else v) for k, v in good.headers),
            good.body,
        ),
    ):
        found = refusal(bad, SECRETS, NOW)
        assert found is not None
        assert found.code == "SignatureDoesNotMatch"


@pytest.mark.parametrize("minutes", [-16, 16, 60 * 24])
def test_an_old_signature_is_refused(minutes: int) -> None:
    found = refusal(signed(), SECRETS, NOW + timedelta(minutes=minutes))
    assert found is not None
    assert found.code == "RequestExpired"


@pytest.mark.parametrize(
    "header", ["", "Bearer x", "AWS4-HMAC-SHA256 Credential=KEY", "AWS4-HMAC-SHA256 \n" * 1000]
)
def test_no_signature_is_none(header: str) -> None:
    request = Request("POST", "/", (("Authorization", header),), b"")
    found = refusal(request, SECRETS, NOW)
    assert found is not None
    assert found.code == "MissingAuthenticationToken"


def test_the_host_has_to_be_signed() -> None:
    good = signed()
    headers = tuple(
        (k, v.replace("host;", "")) if k == "Authorization" else (k, v) for k, v in good.headers
    )
    found = refusal(Request(good.method, good.target, headers, good.body), SECRETS, NOW)
    assert found is not None
    assert found.code == "IncompleteSignatureException"


@pytest.mark.parametrize(
    "target",
    [
        "/_ministack/reset",
        "/_ministack/config?a=b",
        "/%5fministack/reset",
        "/_%6Dinistack/reset",
        "//_ministack/reset",
        "http://x/_ministack/reset",
        "/_localstack/health",
    ],
)
def test_the_emulators_own_endpoints_are_known_however_they_are_written(target: str) -> None:
    assert is_of_the_emulator(target)


@pytest.mark.parametrize("target", ["/", "/?a=/_ministack/", "/2015-03-31/functions/_ministack"])
def test_services_are_not_the_emulators_own(target: str) -> None:
    assert not is_of_the_emulator(target)
