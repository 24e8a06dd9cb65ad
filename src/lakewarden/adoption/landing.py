"""The keys under a landing prefix, read: names only, no object is opened."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lakewarden.adoption.model import LandingElsewhere
from lakewarden.aws.objects import StorageUnavailable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MOST_KEYS = 100_000

_PREFIX = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(/(?P<prefix>.*))?")


def split_prefix(landing: str) -> tuple[str, str]:
    """Bucket and prefix of s3://bucket/prefix; a prefix that is not empty ends with a slash."""
    found = _PREFIX.fullmatch(landing)
    if found is None:
        raise LandingElsewhere(
            f"{landing!r} is no landing prefix", hint="Write it as s3://bucket/prefix/"
        )
    prefix = found["prefix"] or ""
    return found["bucket"], prefix if not prefix or prefix.endswith("/") else f"{prefix}/"


def list_keys(
    client: "S3Client", bucket: str, prefix: str, *, most: int = MOST_KEYS
) -> tuple[Sequence[str], bool]:
    """Keys in S3's order, and whether there are more. Raises StorageUnavailable."""
    from botocore.exceptions import BotoCoreError, ClientError

    keys: list[str] = []
    try:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for page in pages:
            keys += [each["Key"] for each in page.get("Contents", [])]
            if len(keys) > most:
                return keys[:most], True
    except (ClientError, BotoCoreError) as error:
        raise StorageUnavailable(
            f"s3://{bucket}/{prefix} could not be listed: {type(error).__name__}",
            hint="Does the bucket exist, and may these credentials list it?",
        ) from error
    return [key for key in keys if not key.endswith("/")], False
