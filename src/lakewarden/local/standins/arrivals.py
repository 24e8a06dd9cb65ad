"""Stands in for S3's event "Object Created", which SeaweedFS does not send.

The landing prefixes are listed, and what is new or has another version is told to the default bus
from SOURCE, since nobody but AWS may say aws.s3. Rules name both. The form: "EventBridge event
message structure" in the S3 User Guide.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lakewarden.aws.clients import Connection, s3_client
from lakewarden.local.config import CloudConfig
from lakewarden.local.layout import write_private
from lakewarden.local.overlay import SOURCE

_SEEN = TypeAdapter(dict[str, str])
_AT_ONCE = 10  # entries of one PutEvents


class Arrivals:
    def __init__(
        self, config: CloudConfig, connection: Connection, seen: Path, client: Callable[[str], Any]
    ) -> None:
        self._config = config
        self._connection = connection
        self._path = seen
        self._client = client
        self._seen = _read(seen)

    def look(self) -> None:
        """Tell what arrived since the last look. The very first look only remembers."""
        found = self._list()
        if self._seen is not None:
            new = [key for key, tag in found.items() if self._seen.get(key) != tag]
            for start in range(0, len(new), _AT_ONCE):
                self._tell(new[start : start + _AT_ONCE], found)
        if found != self._seen:
            self._seen = found
            write_private(self._path, dict(found))

    def _list(self) -> dict[str, str]:
        pages = s3_client(self._connection).get_paginator("list_objects_v2")
        return {
            each["Key"]: f"{each['ETag']} {each['LastModified'].isoformat()} {each['Size']}"
            for prefix in self._config.landings
            for page in pages.paginate(Bucket=self._config.bucket, Prefix=prefix)
            for each in page.get("Contents", [])
        }

    def _tell(self, keys: Iterable[str], found: Mapping[str, str]) -> None:
        entries = [
            {
                "Source": SOURCE,
                "DetailType": "Object Created",
                "Detail": json.dumps(detail_of(self._config.bucket, key, found[key])),
                "Resources": [f"arn:aws:s3:::{self._config.bucket}"],
            }
            for key in keys
        ]
        self._client("events").put_events(Entries=entries)


def detail_of(bucket: str, key: str, tag: str) -> dict[str, object]:
    etag, at, size = tag.split(" ")
    told = {"key": key, "size": int(size), "etag": etag.strip('"')}
    return {
        "version": "0",
        "bucket": {"name": bucket},
        "object": {**told, "sequencer": "".join(filter(str.isdigit, at))},
        "reason": "PutObject",
    }


def _read(path: Path) -> dict[str, str] | None:
    try:
        return _SEEN.validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
