"""The object store as PyIceberg reaches data files: through Arrow, whose errors have no types."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from lakewarden.aws.objects import StorageUnavailable

# Arrow names what the AWS SDK for C++ calls the error (S3Errors, CoreErrors in its headers).
_AWAY = re.compile(
    r"AWS Error (NETWORK_CONNECTION|INTERNAL_FAILURE|REQUEST_TIMEOUT|SERVICE_UNAVAILABLE"
    r"|SLOW_DOWN|THROTTLING|UNKNOWN \(HTTP status (5\d\d|429)\))"
)


@contextmanager
def store_errors() -> Iterator[None]:
    """Tell a store that is away as everyone else does: StorageUnavailable. Other errors stay."""
    try:
        yield
    except OSError as error:
        if not _AWAY.search(str(error)):
            raise
        raise StorageUnavailable(
            f"the object store did not answer: {error}",
            hint="Is the object store up and reachable (locally: `lakewarden local status`)? "
            "Then try again.",
        ) from error
