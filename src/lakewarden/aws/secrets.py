"""References to secrets, and what they lead to. A value is never in a file, a log or an error.

A setting that is a secret is written as where it is kept:

    { env = "NAME" }                                    a variable
    { secretsmanager = "name-or-arn", key = "password" }    AWS Secrets Manager; `key`: of its JSON
    { ssm = "/path" }                                   a parameter of AWS Systems Manager
"""

import json
import re
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from lakewarden.aws.clients import Connection, control_client
from lakewarden.errors import Failed, LakewardenError, TryAgain, WrongUsage


class SecretMissing(WrongUsage):
    """What a setting refers to is not there: no such variable, secret, key or parameter."""


class SecretUnusable(WrongUsage):
    """What a secret holds cannot be what it is used for."""


class SecretDenied(Failed):
    """Who we are may not read, or decrypt, a secret."""


class SecretUnavailable(TryAgain):
    """Where a secret is kept did not answer."""


class Reference(BaseModel):
    """Where a secret is kept. Its text is the reference, which is no secret."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Variable(Reference):
    """A variable of the process's environment."""

    env: str = Field(min_length=1)

    def __str__(self) -> str:
        return f"the variable {self.env}"


class ManagedSecret(Reference):
    """A secret of AWS Secrets Manager: all of its text, or one key of its JSON."""

    secretsmanager: str = Field(min_length=1)
    key: str | None = None

    def __str__(self) -> str:
        of = f"key {self.key} of " if self.key else ""
        return f"{of}the secret {self.secretsmanager} (Secrets Manager)"


class Parameter(Reference):
    """A parameter of AWS Systems Manager, decrypted."""

    ssm: str = Field(min_length=1)

    def __str__(self) -> str:
        return f"the parameter {self.ssm} (Systems Manager)"


AnyReference = Variable | ManagedSecret | Parameter

_MISSING = {"ResourceNotFoundException", "ParameterNotFound", "ParameterVersionNotFound"}
_AWAY = {"InternalServiceError", "InternalServerError", "ThrottlingException"}


class Secrets:
    """Looks secrets up when they are first needed, and remembers them as long as it lives.

    connection: asked for when the first one of AWS is needed. May be shared by threads."""

    def __init__(self, connection: Callable[[], Connection], environ: Mapping[str, str]) -> None:
        self._connection = connection
        self._environ = environ
        self._known: dict[AnyReference, str] = {}
        self._lock = Lock()

    def value(self, reference: AnyReference) -> str:
        """What it refers to. Raises SecretMissing, SecretDenied and SecretUnavailable, and as
        `control_client` does."""
        with self._lock:
            if reference not in self._known:
                self._known[reference] = self._look_up(reference)
            return self._known[reference]

    def _look_up(self, reference: AnyReference) -> str:
        match reference:
            case Variable(env=name):
                return self._variable(name)
            case ManagedSecret():
                return _managed(self._connection(), reference)
            case Parameter():
                return _parameter(self._connection(), reference)

    def _variable(self, name: str) -> str:
        found = self._environ.get(name)
        if not found:
            raise SecretMissing(
                f"the variable {name} is not set, or empty",
                hint=f"The settings refer to it as {{ env = {json.dumps(name)} }}: set it.",
            )
        return found


def bearer(token: str) -> str:
    """A token as it is sent: files and editors leave a line end behind it. Raises SecretUnusable:
    who sends anything else tells all of it in his error."""
    kept = token.strip()
    if not kept or re.search(r"[^\x21-\x7e]", kept):
        raise SecretUnusable(
            "the catalog's token holds what no token does: nothing, spaces, or other signs",
            hint="Store the token alone, on one line.",
        )
    return kept


def _managed(connection: Connection, reference: ManagedSecret) -> str:
    client = control_client(connection, "secretsmanager")
    answer = _asked(reference, lambda: client.get_secret_value(SecretId=reference.secretsmanager))
    text = answer.get("SecretString")
    if not isinstance(text, str) or not text:
        raise SecretMissing(f"{reference} holds no text", hint="Store it as text.")
    return text if reference.key is None else _of_json(text, reference.key, reference)


def _of_json(text: str, key: str, reference: ManagedSecret) -> str:
    # Whatever is wrong: neither the text nor a part of it is told, nor chained.
    try:
        found = json.loads(text)[key]
    except (ValueError, KeyError, TypeError):
        found = None
    if not isinstance(found, str) or not found:
        raise SecretMissing(
            f"{reference} is not there",
            hint="`key` is a key of the secret's JSON object, and its value is text.",
        )
    return found


def _parameter(connection: Connection, reference: Parameter) -> str:
    client = control_client(connection, "ssm")
    answer = _asked(
        reference, lambda: client.get_parameter(Name=reference.ssm, WithDecryption=True)
    )
    return str(answer["Parameter"]["Value"])


def _asked(reference: Reference, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The answer as botocore gives it, or an error in our words."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return ask()
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        raise _refused(reference, error.response["Error"]["Code"], status) from error
    except BotoCoreError as error:
        raise SecretUnavailable(f"{reference} could not be read: {error}", hint=_AGAIN) from error


def _refused(reference: Reference, code: str, status: int) -> LakewardenError:
    """What an error's code means. Its text is left out: it quotes the request."""
    if code in _MISSING:
        return SecretMissing(
            f"{reference} is not there",
            hint="Create it in this account and region, or correct the reference.",
        )
    if code in _AWAY or status >= 500:
        return SecretUnavailable(f"{reference} could not be read: {code}", hint=_AGAIN)
    return SecretDenied(
        f"{reference} may not be read: {code}",
        hint="Whoever runs this needs the right to read it, and to use the key that encrypts it.",
    )


_AGAIN = "Check the network, then try again: lakewarden doctor"
