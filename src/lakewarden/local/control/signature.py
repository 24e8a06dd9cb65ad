"""AWS's Signature Version 4, as the one who is asked checks it. Pure.

Its rules are those of "Create a signed AWS API request" in the IAM User Guide, for services other
than S3: the path is encoded twice, the payload is hashed by us.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote

SKEW = timedelta(minutes=15)

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/,\s]+)/(\d{8})/([a-z0-9-]+)/([a-z0-9-]+)/aws4_request,\s*"
    r"SignedHeaders=([a-z0-9;-]+),\s*Signature=([0-9a-f]{64})"
)


@dataclass(frozen=True)
class Request:
    """One request as it arrived."""

    method: str
    target: str  # path and query, as sent
    headers: Sequence[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str:
        found = [value for key, value in self.headers if key.lower() == name]
        return ",".join(" ".join(value.split()) for value in found)


@dataclass(frozen=True)
class Refusal:
    """AWS's own code, and what it says."""

    code: str
    message: str


def refusal(request: Request, secrets: Mapping[str, str], now: datetime) -> Refusal | None:
    """Why the request is not taken; None where it is signed rightly by one of the keys.

    `secrets`: the secret of each access key."""
    said = _AUTHORIZATION.fullmatch(request.header("authorization").strip())
    if said is None:
        return Refusal("MissingAuthenticationToken", "Request is missing Authentication Token")
    key, day, region, service, signed, signature = said.groups()
    secret = secrets.get(key)
    if secret is None:
        return Refusal("UnrecognizedClientException", "The security token is not valid.")
    names = signed.split(";")
    if "host" not in names:
        return Refusal("IncompleteSignatureException", "'Host' must be a signed header.")
    moment = _moment(request.header("x-amz-date"))
    if moment is None or f"{moment:%Y%m%d}" != day or abs(now - moment) > SKEW:
        return Refusal("RequestExpired", "Signature expired or not yet current.")
    scope = f"{day}/{region}/{service}/aws4_request"
    canonical = hashlib.sha256(_canonical(request, names).encode()).hexdigest()
    to_sign = f"AWS4-HMAC-SHA256\n{moment:%Y%m%dT%H%M%SZ}\n{scope}\n{canonical}"
    expected = _signature(secret, (day, region, service), to_sign)
    if not hmac.compare_digest(expected, signature):
        return Refusal(
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided.",
        )
    return None


def _moment(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def _canonical(request: Request, names: Sequence[str]) -> str:
    path, _, query = request.target.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    encoded = sorted((_quote(name), _quote(value)) for name, value in pairs)
    return "\n".join(
        [
            request.method,
            quote(path or "/", safe="/-_.~"),  # already encoded once by who sent it
            "&".join(f"{name}={value}" for name, value in encoded),
            *(f"{name}:{request.header(name)}" for name in names),
            "",
            ";".join(names),
            hashlib.sha256(request.body).hexdigest(),
        ]
    )


def _quote(text: str) -> str:
    return quote(text, safe="-_.~")


def _signature(secret: str, scope: tuple[str, str, str], to_sign: str) -> str:
    key = f"AWS4{secret}".encode()
    for part in (*scope, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.new(key, to_sign.encode(), "sha256").hexdigest()
