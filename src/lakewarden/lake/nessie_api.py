"""Nessie's REST API v2, as far as a lake needs it: typed answers, time-outs, errors in our words.

A read is asked once more when the connection breaks; a write never is: whether it was done has to
be looked up by who knows what it wrote. The token goes into one header and nowhere else.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar
from urllib.parse import quote, urlencode, urlsplit

import urllib3
from pydantic import JsonValue, ValidationError
from urllib3.exceptions import HTTPError

from lakewarden.errors import Failed, WrongUsage
from lakewarden.lake.model import CatalogUnavailable
from lakewarden.lake.nessie_model import (
    Answer,
    Commit,
    Committed,
    Config,
    Content,
    Contents,
    Delete,
    Difference,
    Differences,
    Entries,
    Entry,
    IcebergProblem,
    Key,
    Log,
    Operation,
    Page,
    Problem,
    Put,
    Reference,
    References,
    Referred,
    Unchanged,
)

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
_AGAIN = "Run the same command again."
_PAGE = 500
_SAID = 300  # characters of the server's own words in an error

_A = TypeVar("_A", bound=Answer)
_P = TypeVar("_P", bound=Page)


class CatalogDenied(Failed):
    """The catalog does not know who asks, or does not let them."""


class CatalogRefused(Failed):
    """The catalog answered in a way that waiting will not change."""


class KeyMoved(CatalogUnavailable):
    """Something in the catalog was changed by somebody else while it was used."""


class ReferenceMissing(CatalogUnavailable):
    """A branch, or a commit of its history, went away from the catalog while it was used."""


class NessieApi:
    """One server. May be shared by threads."""

    def __init__(self, uri: str, token: str | None) -> None:
        self.uri = _checked(uri)
        self._token = token
        self._pool = urllib3.PoolManager(
            maxsize=16,
            retries=False,
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
        )

    def __repr__(self) -> str:
        return f"NessieApi({self.uri!r})"

    def close(self) -> None:
        self._pool.clear()

    def reference(self, name: str) -> Reference | None:
        """Where a branch is; None where there is none of that name."""
        try:
            return self._get(Referred, f"trees/{_at(name)}").reference
        except ReferenceMissing:
            return None

    def references(self) -> Iterator[Reference]:
        for page in self._pages(References, "trees", {}):
            yield from page.references

    def create_branch(self, name: str, at: str) -> None:
        """A new branch at this hash; raises KeyMoved where the name is in use."""
        source: JsonValue = {"type": "DETACHED", "hash": at}
        self._write("POST", "trees", source, {"name": name, "type": "BRANCH"})

    def delete_branch(self, reference: Reference) -> None:
        """Raises KeyMoved where it is elsewhere by now, ReferenceMissing where it is gone."""
        where = f"trees/{_at(reference.name, reference.hash)}"
        self._write("DELETE", where, None, {"type": "BRANCH"})

    def warehouse(self, name: str, warehouse: str) -> str | None:
        """Where the tables that clients make through Iceberg REST come to lie; None where Nessie
        has no warehouse of that name."""
        path, query = f"{_at(name)}/v1/config", {"warehouse": warehouse}
        try:
            answer = self._ask("GET", path, None, query, again=True, under="iceberg")
        except CatalogUnavailable as error:
            if "is not known" in error.message:  # told as an error of the server, 500
                return None
            raise
        return self._read(Config, answer).defaults.get("warehouse")

    def entries(
        self, name: str, at: str | None = None, *, only: str | None = None, below: Key = ()
    ) -> tuple[Reference, Sequence[Entry]]:
        """What a reference holds, all of one hash, and which; `only` this type of content, `below`
        this key."""
        query = {"content": "true", "max-records": str(_PAGE)}
        if only is not None:
            query["filter"] = f"entry.contentType == '{only}'"
        if below:
            query["prefix-key"] = ".".join(below)
        first = self._get(Entries, f"trees/{_at(name, at)}/entries", query)
        found, page = list(first.entries), first
        where = first.effective_reference
        while page.has_more and page.token:
            # By its hash: the reference may have moved since the first page.
            path = f"trees/{_at(name, where.hash)}/entries"
            page = self._get(Entries, path, {**query, "page-token": page.token})
            found += page.entries
        return where, found

    def contents(self, name: str, at: str | None, keys: Iterable[Key]) -> dict[Key, Content]:
        """What these keys hold, at a hash; those that hold nothing are left out."""
        wanted: list[JsonValue] = [{"elements": list(key)} for key in dict.fromkeys(keys)]
        found: dict[Key, Content] = {}
        for start in range(0, len(wanted), _PAGE):
            body: JsonValue = {"requestedKeys": wanted[start : start + _PAGE]}
            answer = self._ask("POST", f"trees/{_at(name, at)}/contents", body, {}, again=True)
            told = self._read(Contents, answer).contents
            found |= {one.key: one.content for one in told}
        return found

    def differences(self, base: str, name: str) -> Sequence[Difference]:
        """What a branch holds otherwise than it did at `base`."""
        query = {"max-records": str(_PAGE)}
        at = self._get(Referred, f"trees/{_at(name)}").reference.hash
        path = f"trees/{_at('', base)}/diff/{_at(name, at)}"
        return [one for page in self._pages(Differences, path, query) for one in page.diffs]

    def history(
        self, name: str, at: str | None, accept: str, most: int | None = None
    ) -> Iterator[Commit]:
        """Commits that the CEL expression `accept` takes, newest first."""
        query = {"filter": accept, "max-records": str(most or 250)}
        found = 0
        for page in self._pages(Log, f"trees/{_at(name, at)}/history", query):
            for one in page.log_entries:
                yield one.commit_meta
                found += 1
                if found == most:
                    return

    def commit(
        self,
        branch: Reference,
        operations: Sequence[Operation],
        *,
        message: str,
        author: str,
        properties: Mapping[str, Sequence[str]],
    ) -> str:
        """One commit, made only where every key that it names is still what it was at the
        reference's hash; raises KeyMoved. Returns the new hash. CatalogUnavailable leaves open
        whether it was made, or will be."""
        body: dict[str, JsonValue] = {
            "commitMeta": {
                "message": message,
                "authors": [author],
                "allProperties": {name: list(values) for name, values in properties.items()},
            },
            "operations": [_told(one) for one in operations],
        }
        path = f"trees/{_at(branch.name, branch.hash)}/history/commit"
        return self._read(Committed, self._write("POST", path, body)).target_branch.hash

    def _pages(self, model: type[_P], path: str, query: Mapping[str, str]) -> Iterator[_P]:
        page = self._get(model, path, query)
        yield page
        while page.has_more and page.token:
            page = self._get(model, path, {**query, "page-token": page.token})
            yield page

    def _get(self, model: type[_A], path: str, query: Mapping[str, str] | None = None) -> _A:
        return self._read(model, self._ask("GET", path, None, query or {}, again=True))

    def _write(
        self, method: str, path: str, body: JsonValue, query: Mapping[str, str] | None = None
    ) -> bytes:
        return self._ask(method, path, body, query or {}, again=False)

    def _ask(
        self,
        method: str,
        path: str,
        body: JsonValue,
        query: Mapping[str, str],
        *,
        again: bool,
        under: str = "api/v2",
    ) -> bytes:
        """The body of a good answer. `again`: asked once more where the connection breaks."""
        url = f"{self.uri}/{under}/{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        sent = None if body is None else json.dumps(body).encode()
        for last in (not again, True):
            try:
                answer = self._pool.request(method, url, body=sent, headers=headers, redirect=False)
                break
            except HTTPError as error:
                if last:
                    raise self._away(_connection_said(error)) from error
        return self._checked_answer(answer.status, answer.data)

    def _checked_answer(self, status: int, data: bytes) -> bytes:
        if status < 300:
            return data
        said = said_by_nessie(data)
        if said is None and status == 404:
            raise self._no_nessie()
        said = said or f"HTTP {status}"
        match status:
            case 401 | 403:
                raise denied(self.uri, status, given=self._token is not None)
            case 404:
                raise ReferenceMissing(self._told(said), hint=_AGAIN)
            case 409:
                raise KeyMoved(self._told(said), hint=_AGAIN)
            case 408 | 429 | 500 | 502 | 503 | 504:
                raise self._away(said)
        raise CatalogRefused(
            f"the catalog at {self.uri} answered HTTP {status}: {said}",
            hint="Is `uri` of the catalog that of a Nessie 0.108 or newer?",
        )

    def _read(self, model: type[_A], data: bytes) -> _A:
        try:
            return model.model_validate_json(data)
        except ValidationError:  # not told: its text quotes what came
            raise self._no_nessie() from None

    def _no_nessie(self) -> CatalogRefused:
        return CatalogRefused(
            f"what answers at {self.uri} is not a Nessie: its answer cannot be read",
            hint="Correct `uri` of the catalog: http://host:19120, without a path.",
        )

    def _told(self, said: str) -> str:
        return f"the catalog at {self.uri} was changed meanwhile: {said}"

    def _away(self, said: str) -> CatalogUnavailable:
        return away(self.uri, said)


def away(uri: str, said: str) -> CatalogUnavailable:
    return CatalogUnavailable(
        f"the catalog at {uri} did not do what it was asked: {said}",
        hint="Look whether Nessie is up and its store reachable, then run the same command again.",
    )


def denied(uri: str, status: int, *, given: bool) -> CatalogDenied:
    """`given`: whether a token was sent."""
    if status == 403:
        what = "does not allow this to the token" if given else "does not allow this"
    else:
        what = (
            "does not accept the token: it is expired or foreign" if given else "asks for a token"
        )
    return CatalogDenied(
        f"the catalog at {uri} {what} (HTTP {status})",
        hint="Give `token` of the catalog in lakewarden.toml, one that is still good.",
    )


def _checked(uri: str) -> str:
    parts = urlsplit(uri)
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.username is not None
        or parts.query
        or parts.fragment
    ):
        raise WrongUsage(  # not quoted: it may hold a password
            "the catalog's uri is not that of a Nessie",
            hint='Write uri = "http://host:19120", and the token apart from it.',
        )
    return uri.rstrip("/").removesuffix("/api/v2").removesuffix("/iceberg")


def _at(name: str, at: str | None = None) -> str:
    """A reference in a path: `main`, `main@hash`, `@hash`."""
    return quote(name, safe="") + (f"@{at}" if at is not None else "")


def _told(operation: Operation) -> dict[str, JsonValue]:
    key: JsonValue = {"elements": list(operation.key)}
    match operation:
        case Put(_, content, content_id):
            return {"type": "PUT", "key": key, "content": content.body(content_id)}
        case Delete():
            return {"type": "DELETE", "key": key}
        case Unchanged():
            return {"type": "UNCHANGED", "key": key}


def said_by_nessie(data: bytes) -> str | None:
    """Its own words for what is wrong, in one short line; None where somebody else answered."""
    for model in (Problem, IcebergProblem):
        with suppress(ValidationError):
            return " ".join(model.model_validate_json(data).text.split())[:_SAID]
    return None


def _connection_said(error: HTTPError) -> str:
    return " ".join(str(error).split())[:_SAID] or type(error).__name__
