"""What botocore's errors mean to us, and which of them are worth another attempt."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from lakewarden.aws.clients import Patience
from lakewarden.aws.objects import ObjectMissing, StorageUnavailable
from lakewarden.errors import Failed, LakewardenError

if TYPE_CHECKING:
    from botocore.exceptions import ClientError
    from tenacity import RetryCallState

T = TypeVar("T")

ENOUGH = 64 << 10  # bytes that count as progress

_MISSING = {"NoSuchKey", "NoSuchVersion", "404", "NotFound"}
_TRANSIENT = {
    "ConditionalRequestConflict",  # 409: two conditional writes met; the retry learns who won
    "OperationAborted",
    "RequestTimeout",
    "RequestTimeTooSkewed",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "TooManyRequests",
    "InternalError",
    "ServiceUnavailable",
}
_DENIED = {
    "AccessDenied",
    "AllAccessDisabled",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "401",
    "403",
}


class StorageDenied(Failed):
    """The object store knows us and says no, or does not know us."""


class BucketMissing(Failed):
    """There is no such bucket."""


class StorageFailed(Failed):
    """The object store answered in a way that waiting will not change."""


@dataclass
class Attempts:
    """One call: its retries, and its errors in our words."""

    patience: Patience
    what: str  # the operation and its target, for the message
    _since: float = field(default_factory=time.monotonic)
    _arrived: int = 0

    def progress(self, arrived: int) -> None:
        """So many bytes arrived: the time starts anew with every ENOUGH of them. Raises
        StorageUnavailable when it has run out: a trickle is a stall."""
        self._arrived += arrived
        if self._arrived >= ENOUGH:
            self._arrived, self._since = 0, time.monotonic()
        elif time.monotonic() - self._since > self.patience.total:
            raise StorageUnavailable(f"{self.what}: the object store stalled", hint=_HINT_AWAY)

    def call(self, function: Callable[[], T]) -> T:
        """The function's result; its errors in our words, after the retries that they deserve."""
        from tenacity import Retrying, retry_if_exception, wait_random_exponential

        retrying = Retrying(
            retry=retry_if_exception(is_transient),
            wait=wait_random_exponential(multiplier=0.1, max=4.0),
            stop=self._given_up,
            reraise=True,
        )
        return self.call_once(lambda: retrying(function))

    def call_once(self, function: Callable[[], T]) -> T:
        """The function's result, or its error in our words."""
        try:
            return function()
        except LakewardenError:
            raise
        except Exception as error:
            translated = translate(error, self.what)
            if translated is error:
                raise
            raise translated from error

    def _given_up(self, state: "RetryCallState") -> bool:
        error = state.outcome.exception() if state.outcome else None
        limit = self.patience.refused if _is_refused(error) else self.patience.total
        return time.monotonic() - self._since >= limit


_HINT_AWAY = (
    "Is the object store up and reachable (locally: `lakewarden local status`)? Then try again."
)


def is_transient(error: BaseException) -> bool:
    """Worth another attempt: nobody answered, or the answer was "not now"."""
    from botocore.exceptions import (
        ClientError,
        HTTPClientError,
        IncompleteReadError,
        ResponseStreamingError,
    )
    from botocore.exceptions import ConnectionError as NotConnected
    from urllib3.exceptions import HTTPError

    if isinstance(error, ClientError):
        return _status(error) in {429} or _status(error) >= 500 or _code(error) in _TRANSIENT
    return isinstance(
        error,
        NotConnected  # refused, or the name does not resolve, or nobody answers
        | HTTPClientError
        | IncompleteReadError
        | ResponseStreamingError
        | HTTPError
        | ConnectionError
        | TimeoutError,
    )


def translate(error: Exception, what: str) -> Exception:
    """The error as ours; one that is not the object store's stays as it is (a full disk, a bug)."""
    from botocore.exceptions import BotoCoreError, ClientError

    if is_transient(error):
        return StorageUnavailable(f"{what}: {error}", hint=_HINT_AWAY)
    if isinstance(error, ClientError):
        return _translate_answer(error, what)
    if isinstance(error, BotoCoreError):
        return StorageFailed(f"{what}: {error}", hint="Check the connection's settings.")
    return error


def is_code(error: BaseException | None, *codes: str) -> bool:
    """Whether the store answered with one of these error codes (HEAD answers only a number)."""
    from botocore.exceptions import ClientError

    return isinstance(error, ClientError) and _code(error) in codes


def is_missing(error: BaseException) -> bool:
    return is_code(error, *_MISSING)


def _translate_answer(error: "ClientError", what: str) -> LakewardenError:
    code = _code(error)
    if code == "NoSuchBucket":
        return BucketMissing(
            f"{what}: there is no such bucket", hint="Create it, or correct its name."
        )
    if code in _MISSING:
        return ObjectMissing(f"{what}: there is no such object or version")
    if code in _DENIED:
        return StorageDenied(
            f"{what}: {code}", hint="Check the credentials and the bucket's policy."
        )
    return StorageFailed(f"{what}: {error}")


def _is_refused(error: BaseException | None) -> bool:
    from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError

    return isinstance(error, EndpointConnectionError) and not isinstance(error, ConnectTimeoutError)


def _code(error: "ClientError") -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: "ClientError") -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
