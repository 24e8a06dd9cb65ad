"""Objects on S3 through boto3: real S3, or the local stack's."""

import base64
import secrets
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cached_property, partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, TypeVar

from lakewarden.aws.clients import Connection, s3_client
from lakewarden.aws.objects import (
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    Objects,
    ObjectVersion,
    StorageUnavailable,
    Stored,
)
from lakewarden.aws.retry import Attempts, is_code, is_missing
from lakewarden.errors import LakewardenError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import (
        CopySourceTypeDef,
        ListObjectsV2OutputTypeDef,
        PutObjectOutputTypeDef,
    )

T = TypeVar("T")

_READERS = 3  # ranges of one stream that are under way or waiting: what bounds its memory
_LOOKERS = 8  # objects of a long listing that are looked at at once
_FIRST_PIECE = 4 << 10  # bytes read from a socket at once: few at first, to notice a trickle;
_PIECE = 64 << 10  # not many more later, as what was read of a piece is lost when it breaks
_PART = 16 << 20  # bytes of an upload's part
_COPIED_WHOLE = 5 << 30  # S3: "Copying, moving, and renaming objects"
_COPIED_PART = 512 << 20
_MARK = "lakewarden-write"  # metadata that tells our own write from another's


class S3Objects:
    """One versioned bucket. Safe to use from several threads."""

    def __init__(self, connection: Connection, bucket: str) -> None:
        self._connection = connection
        self._bucket = bucket

    @property
    def bucket(self) -> str:
        return self._bucket

    @cached_property
    def _client(self) -> "S3Client":
        return s3_client(self._connection)

    def put(self, key: str, body: bytes) -> ObjectVersion:
        def write() -> ObjectVersion:
            answer = self._client.put_object(Bucket=self._bucket, Key=key, Body=body)
            return _written(key, len(body), answer)

        return self._attempts("write", key).call(write)

    def create(self, key: str, body: bytes) -> ObjectVersion:
        def write(mark: str) -> ObjectVersion:
            answer = self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=body,
                IfNoneMatch="*",
                Metadata={_MARK: mark},
            )
            return _written(key, len(body), answer)

        lost = ObjectExists(f"{self._name(key)} exists already")
        return self._write_if("create", key, write, lost)

    def replace(self, key: str, body: bytes, *, etag: str) -> ObjectVersion:
        def write(mark: str) -> ObjectVersion:
            answer = self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=body,
                IfMatch=f'"{etag}"',
                Metadata={_MARK: mark},
            )
            return _written(key, len(body), answer)

        lost = ObjectChanged(f"{self._name(key)} is no longer the object that was read")
        return self._write_if("replace", key, write, lost)

    def upload(self, key: str, path: Path) -> ObjectVersion:
        from boto3.s3.transfer import TransferConfig

        size = path.stat().st_size
        answers: list[dict[str, Any]] = []  # boto3's transfer tells nobody which version it wrote
        client = s3_client(self._connection, attempts=4)  # per part; its own, for its listeners
        for operation in ("PutObject", "CompleteMultipartUpload"):
            client.meta.events.register(
                f"after-call.s3.{operation}", lambda parsed, **_: answers.append(parsed)
            )
        config = TransferConfig(
            multipart_threshold=2 * _PART, multipart_chunksize=_PART, max_concurrency=4
        )

        def send() -> ObjectVersion:
            with path.open("rb") as file:
                client.upload_fileobj(file, self._bucket, key, Config=config)
            return _written(key, size, answers[-1])

        return self._attempts("upload to", key).call_once(send)

    def copy(self, source: Objects, version: ObjectVersion, key: str) -> ObjectVersion:
        def write() -> ObjectVersion:
            try:
                return self._copy(source.bucket, version, key)
            except Exception as error:
                # The managed copy looks at the object first, and a HEAD tells only the number.
                if is_code(error, "PreconditionFailed", "412"):
                    raise ObjectChanged(
                        f"s3://{source.bucket}/{version.key} was replaced while it was copied",
                        hint="Give the same command again.",
                    ) from error
                raise

        return self._attempts(f"copy s3://{source.bucket}/{version.key} to", key).call(write)

    def _copy(self, bucket: str, version: ObjectVersion, key: str) -> ObjectVersion:
        """In one call up to what S3 takes, in parts above it (boto3's managed copy)."""
        from boto3.s3.transfer import TransferConfig

        answers: list[dict[str, Any]] = []  # as in `upload`
        client = s3_client(self._connection, attempts=4)
        for operation in ("CopyObject", "CompleteMultipartUpload"):
            client.meta.events.register(
                f"after-call.s3.{operation}", lambda parsed, **_: answers.append(parsed)
            )
        origin: CopySourceTypeDef = {"Bucket": bucket, "Key": version.key}
        if version.version_id != "null":  # then the entity tag alone has to do
            origin["VersionId"] = version.version_id
        client.copy(
            origin,
            self._bucket,
            key,
            ExtraArgs={"CopySourceIfMatch": f'"{version.etag}"'},
            Config=TransferConfig(
                multipart_threshold=_COPIED_WHOLE, multipart_chunksize=_COPIED_PART
            ),
        )
        answer = dict(answers[-1])
        answer["ETag"] = answer.get("CopyObjectResult", answer)["ETag"]
        return _written(key, version.size, answer)

    def sha256(self, version: ObjectVersion) -> str | None:
        def look() -> str | None:
            answer = self._client.head_object(
                Bucket=self._bucket,
                Key=version.key,
                VersionId=version.version_id,
                ChecksumMode="ENABLED",
            )
            kept = answer.get("ChecksumSHA256", "")
            # Of an upload in parts it is a hash of hashes, with their number behind it.
            if not kept or "-" in kept or answer.get("ChecksumType") == "COMPOSITE":
                return None
            return base64.b64decode(kept).hex()

        return self._attempts("look at", version.key).call(look)

    def head(self, key: str, version_id: str | None = None) -> ObjectVersion | None:
        try:
            return self._attempts("look at", key).call(lambda: self._head(key, version_id)[0])
        except ObjectMissing:
            return None

    def get(self, key: str, version_id: str | None = None) -> Stored:
        def read() -> Stored:
            if version_id is None:
                answer = self._client.get_object(Bucket=self._bucket, Key=key)
            else:
                answer = self._client.get_object(Bucket=self._bucket, Key=key, VersionId=version_id)
            body = answer["Body"].read()
            version = ObjectVersion(
                key,
                answer.get("VersionId", "null"),
                _bare(answer["ETag"]),
                len(body),
                answer["LastModified"],
            )
            return Stored(version, body)

        return self._attempts("read", key).call(read)

    def stream(self, version: ObjectVersion, *, chunk_bytes: int = 16 << 20) -> Iterator[bytes]:
        if version.size == 0:
            found, _ = self._attempts("read", version.key).call(
                lambda: self._head(version.key, version.version_id)
            )
            if found.etag != version.etag:
                raise self._replaced(version)
            return
        starts = iter(range(0, version.size, chunk_bytes))
        left = Event()
        pool = ThreadPoolExecutor(_READERS, thread_name_prefix="lakewarden-read")
        ahead: deque[Future[bytes]] = deque()
        try:
            while True:
                while len(ahead) < _READERS and (start := next(starts, None)) is not None:
                    end = min(start + chunk_bytes, version.size)
                    ahead.append(pool.submit(self._read_range, version, start, end, left))
                if not ahead:
                    return
                yield ahead.popleft().result()
        finally:
            left.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def list(self, prefix: str) -> Iterator[ObjectVersion]:
        # One page of versions tells all about a short listing. A longer one is read by keys, and
        # each key looked at: a page of versions that is followed by another has left out keys
        # on SeaweedFS, and is long with old versions on S3.
        page = self._attempts("list", prefix).call(
            lambda: self._client.list_object_versions(Bucket=self._bucket, Prefix=prefix)
        )
        if page.get("IsTruncated"):
            yield from self._list_long(prefix)
            return
        found = [each for each in page.get("Versions", []) if each["IsLatest"]]
        for each in sorted(found, key=lambda each: each["Key"]):
            yield ObjectVersion(
                each["Key"],
                each["VersionId"],
                _bare(each["ETag"]),
                each["Size"],
                each["LastModified"],
            )

    def _list_long(self, prefix: str) -> Iterator[ObjectVersion]:
        keys = sorted(self._keys(prefix))  # SeaweedFS orders by folder
        with ThreadPoolExecutor(_LOOKERS, thread_name_prefix="lakewarden-look") as pool:
            for start in range(0, len(keys), 50 * _LOOKERS):
                for version in pool.map(self.head, keys[start : start + 50 * _LOOKERS]):
                    if version is not None:  # deleted meanwhile
                        yield version

    def _keys(self, prefix: str) -> Iterator[str]:
        token: str | None = None
        while True:
            page = self._attempts("list", prefix).call(partial(self._page, prefix, token))
            yield from (each["Key"] for each in page.get("Contents", []))
            token = page.get("NextContinuationToken")
            if token is None:
                return

    def _page(self, prefix: str, token: str | None) -> "ListObjectsV2OutputTypeDef":
        if token is None:
            return self._client.list_objects_v2(Bucket=self._bucket, Prefix=prefix)
        return self._client.list_objects_v2(
            Bucket=self._bucket, Prefix=prefix, ContinuationToken=token
        )

    def delete(self, key: str, *, etag: str | None = None) -> None:
        def remove() -> None:
            if etag is None:
                self._client.delete_object(Bucket=self._bucket, Key=key)
                return
            try:
                self._client.delete_object(Bucket=self._bucket, Key=key, IfMatch=f'"{etag}"')
            except Exception as error:
                if is_missing(error):
                    return
                if not is_code(error, "PreconditionFailed"):
                    raise
                if self._there(key):  # SeaweedFS says the same of nothing
                    raise ObjectChanged(f"{self._name(key)} is another object by now") from error

        self._attempts("delete", key).call(remove)

    def _write_if(
        self,
        verb: str,
        key: str,
        write: Callable[[str], ObjectVersion],
        lost: LakewardenError,
    ) -> ObjectVersion:
        """A conditional write. When an answer was lost, the next attempt is refused because of
        our own write: the mark that it carries tells."""
        mark = secrets.token_hex(8)
        doubt = False

        def attempt() -> ObjectVersion:
            nonlocal doubt
            try:
                return write(mark)
            except Exception as error:
                if not (is_code(error, "PreconditionFailed") or is_missing(error)):
                    doubt = True
                    raise
                ours = self._ours(key, mark) if doubt else None
                if ours is None:
                    raise lost from error
                return ours

        return self._attempts(verb, key).call(attempt)

    def _ours(self, key: str, mark: str) -> ObjectVersion | None:
        try:
            version, metadata = self._head(key, None)
        except Exception as error:
            if is_missing(error):
                return None
            raise
        return version if metadata.get(_MARK) == mark else None

    def _there(self, key: str) -> bool:
        try:
            self._head(key, None)
        except Exception as error:
            if is_missing(error):
                return False
            raise
        return True

    def _head(self, key: str, version_id: str | None) -> tuple[ObjectVersion, dict[str, str]]:
        if version_id is None:
            answer = self._client.head_object(Bucket=self._bucket, Key=key)
        else:
            answer = self._client.head_object(Bucket=self._bucket, Key=key, VersionId=version_id)
        version = ObjectVersion(
            key,
            answer.get("VersionId", "null"),
            _bare(answer["ETag"]),
            answer["ContentLength"],
            answer["LastModified"],
        )
        return version, answer["Metadata"]

    def _read_range(self, version: ObjectVersion, start: int, end: int, left: Event) -> bytes:
        """Bytes start to end (excluded); after a broken connection, the rest of them."""
        buffer = bytearray()
        attempts = self._attempts("read", version.key)

        def read() -> bytes:
            if left.is_set():
                raise StorageUnavailable("the reader of the stream went away")
            try:
                body = self._client.get_object(
                    Bucket=self._bucket,
                    Key=version.key,
                    VersionId=version.version_id,
                    # A bucket that keeps no versions calls every one of them `null`.
                    IfMatch=f'"{version.etag}"',
                    Range=f"bytes={start + len(buffer)}-{end - 1}",
                )["Body"]
            except Exception as error:
                # After a replacement by something shorter the range may be what is refused first.
                if is_code(error, "PreconditionFailed", "InvalidRange"):
                    raise self._replaced(version) from error
                raise
            size = _FIRST_PIECE
            while piece := body.read(size):
                buffer.extend(piece)
                attempts.progress(len(piece))
                size = min(2 * size, _PIECE)
            if len(buffer) < end - start:
                raise ConnectionError("the connection ended early")
            return bytes(buffer)

        return attempts.call(read)

    def _replaced(self, version: ObjectVersion) -> ObjectChanged:
        return ObjectChanged(
            f"{self._name(version.key)} was replaced while it was read",
            hint="Give the same command again; the bucket should keep versions.",
        )

    def _attempts(self, verb: str, key: str) -> Attempts:
        return Attempts(self._connection.patience, f"could not {verb} {self._name(key)}")

    def _name(self, key: str) -> str:
        return f"s3://{self._bucket}/{key}"


def _written(
    key: str, size: int, answer: "PutObjectOutputTypeDef | dict[str, Any]"
) -> ObjectVersion:
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    written_at: datetime = parsedate_to_datetime(headers["date"])  # a PUT answers no other time
    return ObjectVersion(
        key, answer.get("VersionId", "null"), _bare(answer["ETag"]), size, written_at
    )


def _bare(etag: str) -> str:
    return etag.strip('"')
