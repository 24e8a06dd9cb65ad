"""The parts of the work, each alone: how fast bytes come, go, are hashed, decoded and counted."""

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.dataset import BATCH
from benchmarks.site import BUCKET
from benchmarks.trial import Detail, Job

_KEY = f"raw/sales/{BATCH}/sales.csv"
_CHUNK = 8 << 20


def download(job: Job) -> Callable[[], Detail]:
    """boto3, one connection, the bytes thrown away."""
    client = _client(job)

    def work() -> Detail:
        body = client.get_object(Bucket=BUCKET, Key=_KEY)["Body"]
        return _speed(job, sum(len(piece) for piece in iter(partial(body.read, 1 << 20), b"")))

    return work


def stream(job: Job) -> Callable[[], Detail]:
    """The way that a batch reads: ranges side by side, in order."""
    objects = _objects(job)
    version = objects.head(_KEY)

    def work() -> Detail:
        return _speed(job, sum(len(chunk) for chunk in objects.stream(version)))

    return work


def upload(job: Job) -> Callable[[], Detail]:
    """boto3's own transfer, its settings as they come."""
    client = _client(job)

    def work() -> Detail:
        client.upload_file(job.csv, BUCKET, "speed/upload")
        return _speed(job, Path(job.csv).stat().st_size)

    return work


def sha256(job: Job) -> Callable[[], Detail]:
    def work() -> Detail:
        digest = hashlib.sha256()
        for chunk in _chunks(job):
            digest.update(chunk)
        return _speed(job, Path(job.csv).stat().st_size)

    return work


def decode(job: Job) -> Callable[[], Detail]:
    """Checking that text is UTF-8."""
    from lakewarden.batch.parsing.unpack import decoded

    def work() -> Detail:
        return _speed(job, sum(len(chunk) for chunk in decoded(_chunks(job), "utf-8")))

    return work


def count(job: Job) -> Callable[[], Detail]:
    """The records, independently of the parser."""
    from lakewarden.batch.parsing.records import RecordForm
    from lakewarden.batch.parsing.records import count as count_records

    def work() -> Detail:
        found = count_records(_chunks(job), RecordForm())
        assert found == job.rows + 1, f"{found} records counted"
        return _speed(job, Path(job.csv).stat().st_size)

    return work


def _speed(job: Job, size: int) -> Detail:
    assert size == Path(job.csv).stat().st_size, f"{size} bytes passed"
    return {"mb": size / 1e6}


def _chunks(job: Job) -> Iterator[bytes]:
    with Path(job.csv).open("rb") as file:
        yield from iter(partial(file.read, _CHUNK), b"")


def _client(job: Job) -> Any:  # boto3's clients have no type of their own
    import lakewarden
    from lakewarden.aws.clients import s3_client

    return s3_client(lakewarden.open(job.root).connection)


def _objects(job: Job) -> Any:
    import lakewarden

    return lakewarden.open(job.root).objects
