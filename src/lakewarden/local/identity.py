"""The stack's one identity: made once, kept in a file that only its owner may read."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from lakewarden.local.layout import Layout, write_private
from lakewarden.local.overlay import ADMIN, ADMIN_ACTIONS


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
        return _make(layout, token)
    credential = stored.identities[0].credentials[0]
    return Keys(credential.access_key, credential.secret_key)


def _make(layout: Layout, token: Callable[[int], str]) -> Keys:
    made = Keys(f"LOCAL{token(8).upper()}", token(24))
    credential = _Credential(access_key=made.access_key, secret_key=made.secret_key)
    identity = _Identity(name=ADMIN, credentials=[credential], actions=list(ADMIN_ACTIONS))
    content = _Identities(identities=[identity])
    write_private(layout.identities, content.model_dump(mode="json", by_alias=True))
    return made
