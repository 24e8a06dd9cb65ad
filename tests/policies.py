"""IAM, as far as our own policies go: what a request over the wire asks for, and who allows it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from urllib.parse import parse_qs, unquote, urlsplit

from tests.faults import Request

# What Terraform fills in; for the tests.
PLACES = {
    "Partition": "aws",
    "Region": "eu-west-1",
    "Account": "123456789012",
    "Project": "shop",
    "Env": "dev",
    "Bucket": "lake",
    "SourceBucket": "producer",
    "Raw": "raw/",
    "Warehouse": "warehouse/",
    "Processed": "processed/",
    "SecretPrefix": "shop/dev/",
    "KeyArn": "arn:aws:kms:eu-west-1:123456789012:key/1",
    "Pipeline": "shop-pipeline",
    "Topic": "shop-learning-alerts",
    "Cluster": "shop-dev",
    "ValidateManifest": "shop-validate-manifest",
    "CopyRaw": "shop-copy-raw",
    "Notify": "shop-notify",
    "CheckDeliveries": "shop-check-deliveries",
}
_BUCKET = {
    "versions": "s3:ListBucketVersions",
    "versioning": "s3:GetBucketVersioning",
    "publicAccessBlock": "s3:GetBucketPublicAccessBlock",
    "object-lock": "s3:GetBucketObjectLockConfiguration",
    "location": "s3:GetBucketLocation",
}


@dataclass(frozen=True)
class Ask:
    """One action on one resource."""

    action: str
    resource: str


@dataclass(frozen=True)
class Statement:
    sid: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditioned: bool

    def allows(self, ask: Ask) -> bool:
        """Whether it does; conditions are taken to hold."""
        return any(fnmatchcase(ask.action, one) for one in self.actions) and any(
            fnmatchcase(ask.resource, one) for one in self.resources
        )


def policy_names() -> list[str]:
    folder = files("lakewarden").joinpath("definitions", "policies")
    return sorted(file.name.removesuffix(".json") for file in folder.iterdir())


@cache
def text_of(name: str) -> str:
    return (
        files("lakewarden").joinpath("definitions", "policies", f"{name}.json").read_text("utf-8")
    )


@cache
def policy(name: str) -> tuple[Statement, ...]:
    """A policy with its places filled in."""
    text = text_of(name)
    for place, value in PLACES.items():
        text = text.replace(f"${{{place}}}", value)
    return tuple(
        Statement(
            one["Sid"], tuple(one["Action"]), tuple(one["Resource"]), conditioned="Condition" in one
        )
        for one in json.loads(text)["Statement"]
    )


def refused(name: str, asks: Iterable[Ask]) -> set[Ask]:
    """What the policy does not allow of it."""
    return {ask for ask in asks if not any(one.allows(ask) for one in policy(name))}


def asked_of_s3(requests: Iterable[Request], bucket: str) -> set[Ask]:
    """What these requests need, as if the bucket were PLACES["Bucket"]; STS needs nothing."""
    found = (_asked(request, bucket) for request in requests)
    return {ask for ask in found if ask is not None}


def _asked(request: Request, bucket: str) -> Ask | None:
    url = urlsplit(request.path)
    path = unquote(url.path)
    query: Mapping[str, list[str]] = parse_qs(url.query, keep_blank_values=True)
    if path == "/":
        return None
    assert path.removeprefix("/").startswith(bucket), request
    key = path.removeprefix(f"/{bucket}").lstrip("/")
    home = f"arn:aws:s3:::{PLACES['Bucket']}"
    if not key:
        return Ask(_of_bucket(request.method, query), home)
    return Ask(_of_object(request.method, query), f"{home}/{key}")


def _of_bucket(method: str, query: Mapping[str, list[str]]) -> str:
    for name, action in _BUCKET.items():
        if name in query:
            return action
    if method == "POST" and "delete" in query:
        return "s3:DeleteObject"
    assert method in ("GET", "HEAD"), (method, query)
    return "s3:ListBucket"


def _of_object(method: str, query: Mapping[str, list[str]]) -> str:
    version = "Version" if "versionId" in query else ""
    match method:
        case "GET" | "HEAD":
            return f"s3:GetObject{version}"
        case "DELETE":
            return "s3:AbortMultipartUpload" if "uploadId" in query else f"s3:DeleteObject{version}"
        case "PUT" | "POST":
            return "s3:PutObject"
    raise AssertionError(f"no action is known for {method} {query}")
