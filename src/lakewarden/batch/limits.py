"""What stops a load or a model on this machine: a full disk, too little memory, Ctrl-C."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from lakewarden.errors import Failed, TryAgain


class ScratchFull(TryAgain):
    """The disk that holds scratch is full."""


class MemoryLimitTooLow(Failed):
    """DuckDB could not work within its memory limit."""


@contextmanager
def local_trouble(scratch: Path) -> Iterator[None]:
    """Tell a full disk, a memory limit and Ctrl-C by their names."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # "Query interrupted", says DuckDB
            raise error.__cause__ from None
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _full(scratch) from error
    except duckdb.OutOfMemoryException as error:
        raise MemoryLimitTooLow(
            "DuckDB needs more memory than its limit", hint="Raise memory_limit in lakewarden.toml."
        ) from error
    except duckdb.IOException as error:
        if "No space left" not in str(error):
            raise
        raise _full(scratch) from error


def _full(scratch: Path) -> ScratchFull:
    return ScratchFull(
        f"no space left for scratch under {scratch.parent}",
        hint="Make room, then give the same command again.",
    )
