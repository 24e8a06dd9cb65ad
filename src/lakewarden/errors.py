"""The four kinds of error, by exit code. Each room defines its own on them.

An error says what happened, to what, and what to do next: `str(error)` is the first two,
`error.hint` the last. `error.code` is a stable name that programs and receipts may rely on;
it is the class's name in kebab-case unless the class says otherwise.
"""

import re
from typing import ClassVar


class LakewardenError(Exception):
    """The root of everything that Lakewarden raises on purpose."""

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "code" not in cls.__dict__:
            cls.code = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).lower()


class Failed(LakewardenError):
    """Failed for good: running it again will not help until something is mended (exit 1)."""

    exit_code = 1


class WrongUsage(LakewardenError):
    """The command line or a project file is wrong (exit 2)."""

    exit_code = 2


class Refused(LakewardenError):
    """The data are wrong, or drift was found; nothing was changed (exit 3)."""

    exit_code = 3


class TryAgain(LakewardenError):
    """Something outside was away, busy or moved; the same command may work later (exit 75)."""

    exit_code = 75
