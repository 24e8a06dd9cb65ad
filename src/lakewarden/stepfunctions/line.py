"""The line to Step Functions: a task's token, and what is said with it."""

from typing import TYPE_CHECKING

from pydantic import BaseModel, SecretStr

from lakewarden.stepfunctions.pulse import TokenLost
from lakewarden.stepfunctions.words import thrown_name, told

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions import SFNClient

_LOST = {"TaskTimedOut", "TaskDoesNotExist", "InvalidToken"}


class TokenLine:
    """One task's. Raises TokenLost where nobody waits, and botocore's errors."""

    def __init__(self, client: "SFNClient", token: SecretStr) -> None:
        self._client = client
        self._token = token

    def beat(self) -> None:
        with _Told():
            self._client.send_task_heartbeat(taskToken=self._token.get_secret_value())

    def succeed(self, answer: BaseModel) -> None:
        with _Told():
            self._client.send_task_success(
                taskToken=self._token.get_secret_value(), output=answer.model_dump_json()
            )

    def fail(self, error: BaseException, *, name: str | None = None) -> None:
        with _Told():
            self._client.send_task_failure(
                taskToken=self._token.get_secret_value(),
                error=name or thrown_name(error),
                cause=told(error).model_dump_json(),
            )


class _Told:
    """Step Functions' words for a token that is worth nothing any more."""

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        from botocore.exceptions import ClientError

        if isinstance(error, ClientError) and error.response["Error"]["Code"] in _LOST:
            raise TokenLost(
                "nobody waits for this task any more: its execution timed out or was stopped",
                hint="What it was to do is done when the execution is started again.",
            ) from None
