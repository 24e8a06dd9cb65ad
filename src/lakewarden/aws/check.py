"""Who we are at AWS, and whether the bucket is as it has to be. Nothing is changed.

Whether objects may be written is asked with a write that cannot succeed: one that is to replace an
object which does not exist (If-Match). Who may not write is refused for that first.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lakewarden.aws.clients import (
    LOCAL_ACCOUNT,
    Connection,
    Patience,
    check_account,
    identity,
    s3_client,
)
from lakewarden.aws.retry import (
    Attempts,
    BucketMissing,
    StorageDenied,
    StorageFailed,
    is_code,
    is_missing,
)
from lakewarden.checkup import Answer

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_NO_ETAG = '"00000000000000000000000000000000"'
_BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


@dataclass(frozen=True)
class Prefix:
    """A part of the bucket, and what we need to do there."""

    name: str
    key: str  # ends with a slash
    read: bool = True
    write: bool = True


@dataclass(frozen=True)
class Access:
    """What may be done below a prefix; None: that cannot be known."""

    prefix: Prefix
    list: bool | None
    read: bool | None
    write: bool | None


@dataclass(frozen=True)
class BucketFacts:
    """What the bucket says of itself; None: it does not say so to us."""

    region: str | None
    versioned: bool | None
    public_blocked: bool | None
    locked: bool | None  # Object Lock


def check_identity(connection: Connection) -> Answer:
    """Who STS says we are. Raises as `check_account` does."""
    check_account(connection)
    begun = time.monotonic()
    found = identity(connection)
    latency = time.monotonic() - begun
    return Answer(f"account {found['Account']}", who=found["Arn"], latency=latency)


def check_bucket(
    connection: Connection, bucket: str, prefixes: Sequence[Prefix], probe: str
) -> Answer:
    """What the bucket is, and what we may do in it. probe: a name that no object has. Raises
    BucketMissing, StorageDenied, StorageUnavailable, and as `check_account` does."""
    client = s3_client(connection, attempts=2)
    attempts = Attempts(connection.patience, f"could not look at s3://{bucket}")
    begun = time.monotonic()
    region = attempts.call_once(lambda: _head(client, bucket))
    latency = time.monotonic() - begun
    local = connection.account == LOCAL_ACCOUNT
    facts = BucketFacts(
        region=region,
        versioned=_known(lambda: _versioned(client, bucket)),
        public_blocked=True if local else _known(lambda: _public_blocked(client, bucket)),
        locked=_known(lambda: _locked(client, bucket)),
    )
    access = [_access(client, bucket, prefix, probe) for prefix in prefixes]
    return replace(judge(connection.region, bucket, facts, access), latency=latency)


def judge(region: str, bucket: str, facts: BucketFacts, access: Sequence[Access]) -> Answer:
    """What is missing of a bucket that has these properties, where we may do this."""
    missing: list[str] = []
    unknown: list[str] = []
    told = [f"bucket {bucket}", facts.region or region]
    if facts.region not in (None, region):
        missing.append(f"the bucket is in {facts.region}, the settings say {region}")
    for holds, what in (
        (facts.versioned, "the bucket keeps versions"),
        (facts.public_blocked, "public access is blocked"),
    ):
        if holds is None:
            unknown.append(f"whether {what}")
        elif not holds:
            missing.append(f"not so: {what}")
    if facts.versioned:
        told.append("keeps versions")
    if facts.locked:
        told.append("Object Lock")
    for one in access:
        may = {"list": one.list}
        may |= {"read": one.read} if one.prefix.read else {}
        may |= {"write": one.write} if one.prefix.write else {}
        for verb, allowed in may.items():
            if allowed is None:
                unknown.append(f"whether we may {verb} {one.prefix.key} ({one.prefix.name})")
            elif not allowed:
                missing.append(f"we may not {verb} {one.prefix.key} ({one.prefix.name})")
    hint = "The bucket's properties, the policy of who we are, and the bucket's own policy."
    return Answer(
        ", ".join(told),
        missing=tuple(missing),
        unknown=tuple(unknown),
        hint=hint if missing else None,
    )


def _access(client: "S3Client", bucket: str, prefix: Prefix, probe: str) -> Access:
    key = f"{prefix.key}{probe}"
    listed = _allowed(lambda: bool(client.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)))
    read = _may_read(client, bucket, key) if prefix.read else None
    if not listed and not read:
        read = None  # who may not list is told the same of what does not exist
    return Access(prefix, listed, read, _may_write(client, bucket, key) if prefix.write else None)


def _may_read(client: "S3Client", bucket: str, key: str) -> bool | None:
    return _allowed(lambda: bool(client.head_object(Bucket=bucket, Key=key)), "404", "NoSuchKey")


def _may_write(client: "S3Client", bucket: str, key: str) -> bool | None:
    def write() -> bool:
        answer = client.put_object(Bucket=bucket, Key=key, Body=b"", IfMatch=_NO_ETAG)
        # A store that does not know conditions: what it wrote is taken away again.
        version = answer.get("VersionId")
        if version:
            client.delete_object(Bucket=bucket, Key=key, VersionId=version)
        else:
            client.delete_object(Bucket=bucket, Key=key)
        return True

    return _allowed(write, "PreconditionFailed", "412", "NoSuchKey", "404")


def _head(client: "S3Client", bucket: str) -> str | None:
    """The bucket's region, where the store tells it."""
    try:
        return client.head_bucket(Bucket=bucket).get("BucketRegion")
    except Exception as error:
        if is_missing(error):
            raise BucketMissing(
                f"there is no bucket {bucket}", hint="Create it, or correct its name."
            ) from error
        raise


def _versioned(client: "S3Client", bucket: str) -> bool:
    return client.get_bucket_versioning(Bucket=bucket).get("Status") == "Enabled"


def _public_blocked(client: "S3Client", bucket: str) -> bool:
    try:
        found = client.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    except Exception as error:
        if is_code(error, "NoSuchPublicAccessBlockConfiguration"):
            return False
        raise
    return all(found.get(name) for name in _BLOCKS)


def _locked(client: "S3Client", bucket: str) -> bool:
    try:
        found = client.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"]
    except Exception as error:
        if is_code(error, "ObjectLockConfigurationNotFoundError"):
            return False
        raise
    return found.get("ObjectLockEnabled") == "Enabled"


def _known(ask: Callable[[], bool]) -> bool | None:
    """What is answered; None: not to us, or the store does not know the question. Raises
    StorageUnavailable where nobody answers."""
    try:
        return _asked(ask)
    except (StorageDenied, StorageFailed):
        return None


def _allowed(ask: Callable[[], bool], *yes: str) -> bool | None:
    """Whether it is done, or answered with one of these error codes; False: we are denied it;
    None: the store answers something else. Raises StorageUnavailable where nobody answers."""

    def ask_or_yes() -> bool:
        try:
            return ask()
        except Exception as error:
            if is_code(error, *yes):
                return True
            raise

    try:
        return _asked(ask_or_yes)
    except StorageDenied:
        return False
    except StorageFailed:
        return None


def _asked(ask: Callable[[], bool]) -> bool:
    return Attempts(Patience(), "could not look at the bucket").call_once(ask)
