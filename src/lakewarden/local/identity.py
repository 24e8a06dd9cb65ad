"""The stack's one identity: made once, kept in a file that only its owner may read."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from lakewarden.local.layout import Layout, write_private
from lakewarden.local.overlay import ACCOUNT_KEY, ADMIN, ADMIN_ACTIONS


@dataclass(frozen=True)
class Keys:
    access_key: str
    secret_key: str = field(repr=False)


class _Credential(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)
    access_key: str = Field(min_length=1)
    secret_key: str = Field(min_length=1)


class _Identity(BaseModel):
    name: str
    credentials: list[_Credential] = Field(min_length=1)
    actions: list[str]


class _Identities(BaseModel):
    identities: list[_Identity] = Field(min_length=1)


def keys(layout: Layout, token: Callable[[int], str] = secrets.token_hex) -> Keys:
    """The stack's keys, made and stored when there are none."""
    try:
        stored = _Identities.model_validate_json(layout.identities.read_bytes())
    except (FileNotFoundError, ValidationError):
        return _store(layout, Keys(f"LOCAL{token(8).upper()}", token(24)))
    credential = stored.identities[0].credentials[0]
    found = Keys(credential.access_key, credential.secret_key)
    if len(stored.identities[0].credentials) == 1:  # of a stack that had S3 only
        _store(layout, found, stored.identities[1:])
    return found


def function_keys(found: Keys) -> Keys:
    """With what Lambda functions sign, here and at S3: ministack tells them that their access key
    is the account's number, and the secret is the stack's own."""
    return Keys(ACCOUNT_KEY, found.secret_key)


def _store(layout: Layout, made: Keys, others: Sequence[_Identity] = ()) -> Keys:
    """`others`: identities that somebody added, which stay."""
    credentials = [
        _Credential(access_key=each.access_key, secret_key=each.secret_key)
        for each in (made, function_keys(made))
    ]
    identity = _Identity(name=ADMIN, credentials=credentials, actions=list(ADMIN_ACTIONS))
    content = _Identities(identities=[identity, *others])
    write_private(layout.identities, content.model_dump(mode="json", by_alias=True))
    return made
