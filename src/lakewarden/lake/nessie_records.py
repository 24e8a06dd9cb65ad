"""The branches that a lake has, and every name that one ever had: kept on a Nessie branch of its
own, so that main's history holds publications only."""

from collections.abc import Iterable, Sequence
from contextlib import suppress

from lakewarden.lake.model import CatalogUnavailable
from lakewarden.lake.nessie_api import KeyMoved, NessieApi, ReferenceMissing
from lakewarden.lake.nessie_keys import (
    NAMES,
    OPEN,
    OpenBranch,
    named,
    open_content,
    opened,
    read_open,
)
from lakewarden.lake.nessie_model import (
    NAMESPACE,
    NO_ANCESTOR,
    Delete,
    Operation,
    Put,
    Reference,
    namespace,
)
from lakewarden.lake.refusals import name_taken
from lakewarden.lake.written import time_to_text

ROUNDS = 200
"""Of somebody else being faster: each time another one's commit was made."""


class Records:
    """The records on Nessie's branch `ref`, which is made when the first name is taken."""

    def __init__(self, api: NessieApi, ref: str, author: str) -> None:
        self._api = api
        self._ref = ref
        self._author = author

    def take(self, branch: OpenBranch) -> None:
        """Use a name, once and for ever; raises BranchNameTaken."""
        for _ in range(ROUNDS):
            at = self._api.reference(self._ref) or self._make()
            wanted = (NAMES, OPEN, named(branch.name))
            found = self._api.contents(at.name, at.hash, wanted)
            if named(branch.name) in found:
                raise name_taken(branch.name)
            told = {"run": branch.run, "at": time_to_text(branch.at)}
            operations = [
                *(Put(key, namespace(key, {}), None) for key in (NAMES, OPEN) if key not in found),
                Put(named(branch.name), namespace(named(branch.name), told), None),
                Put(opened(branch.name), open_content(branch), None),
            ]
            try:
                self._commit(at, operations, f"begin {branch.name}")
            except KeyMoved:
                continue  # somebody took a name, perhaps this one
            return
        raise too_busy(self._api.uri)

    def open(self, name: str) -> OpenBranch | None:
        """The record of a branch that has not ended."""
        at = self._api.reference(self._ref)
        if at is None:
            return None
        found = self._api.contents(at.name, at.hash, [opened(name)])
        return next((read_open(key, one.properties) for key, one in found.items()), None)

    def all_open(self) -> Sequence[OpenBranch]:
        """Oldest first; also those whose branch in Nessie is not made yet, or gone already."""
        if self._api.reference(self._ref) is None:
            return ()
        _, found = self._api.entries(self._ref, only=NAMESPACE, below=OPEN)
        told = [
            read_open(one.name, one.content.properties)
            for one in found
            if one.content and one.name != OPEN
        ]
        return sorted(told, key=lambda one: (one.at, one.name))

    def is_known(self, name: str) -> bool:
        """Whether a branch of ours has this name, or had it."""
        at = self._api.reference(self._ref)
        return at is not None and bool(self._api.contents(at.name, at.hash, [named(name)]))

    def end(self, names: Iterable[str]) -> None:
        """Remove branches of ours from Nessie, and then their records; the names stay used."""
        for name in names:
            self._delete(name)
            self._close(name)

    def forget(self, name: str) -> None:
        """End the record of a branch that was never made, whatever Nessie has by that name."""
        self._close(name)

    def _make(self) -> Reference:
        with suppress(KeyMoved):  # another one was faster
            self._api.create_branch(self._ref, NO_ANCESTOR)
        return self._api.reference(self._ref) or Reference(name=self._ref, hash=NO_ANCESTOR)

    def _delete(self, name: str) -> None:
        for _ in range(ROUNDS):
            at = self._api.reference(name)
            if at is None:
                return
            try:
                self._api.delete_branch(at)
            except KeyMoved:
                continue  # whoever was taken over while it slept goes on writing to it
            except ReferenceMissing:
                pass
            return
        raise too_busy(self._api.uri)

    def _close(self, name: str) -> None:
        for _ in range(ROUNDS):
            at = self._api.reference(self._ref)
            if at is None or not self._api.contents(at.name, at.hash, [opened(name)]):
                return
            try:
                self._commit(at, [Delete(opened(name))], f"end {name}")
            except KeyMoved:
                continue  # somebody else ended it
            return
        raise too_busy(self._api.uri)

    def _commit(self, at: Reference, operations: Sequence[Operation], message: str) -> None:
        self._api.commit(at, operations, message=message, author=self._author, properties={})


def too_busy(uri: str) -> CatalogUnavailable:
    return CatalogUnavailable(
        f"others wrote to the catalog at {uri} at every one of {ROUNDS} attempts",
        hint="Give the same command again when they are done.",
    )
