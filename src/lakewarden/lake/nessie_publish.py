"""The one commit that publishes a branch: what it writes, deletes and asserts. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from lakewarden.lake.changes import rebased
from lakewarden.lake.model import TableChange
from lakewarden.lake.nessie_keys import is_table, table_key, table_name
from lakewarden.lake.nessie_model import (
    NAMESPACE,
    Content,
    Delete,
    Difference,
    Key,
    Operation,
    Put,
    Unchanged,
    namespace,
)


@dataclass(frozen=True)
class Staged:
    """What a branch changed since its base, and what the base held of the tables read."""

    differences: Sequence[Difference]
    reads: Mapping[Key, Content | None]

    @property
    def tables(self) -> Mapping[Key, Difference]:
        """By key, where the metadata location is another one."""
        return {
            one.key: one
            for one in self.differences
            if (is_table(one.key, one.before) or is_table(one.key, one.after))
            and _location(one.before) != _location(one.after)
        }

    @property
    def namespaces(self) -> Mapping[Key, Difference]:
        return {
            one.key: one
            for one in self.differences
            if NAMESPACE in {side.type for side in (one.before, one.after) if side}
        }

    @property
    def changes(self) -> dict[str, TableChange]:
        """As a publication tells them, in name order."""
        return {
            table_name(key): TableChange(_location(one.before), _location(one.after))
            for key, one in sorted(self.tables.items())
        }

    @property
    def base(self) -> Mapping[Key, Content | None]:
        """What the branch began from, of every table that has to be there still."""
        return {**self.reads, **{key: one.before for key, one in self.tables.items()}}

    @property
    def above(self) -> AbstractSet[Key]:
        """The namespaces that the tables it holds lie in."""
        return {space for key, one in self.tables.items() if one.after for space in _above(key)}

    @property
    def keys(self) -> AbstractSet[Key]:
        """What has to be known of main."""
        return {*self.base, *self.namespaces, *self.above}


def read_keys(reads: Iterable[str]) -> Sequence[Key]:
    return [table_key(name) for name in sorted(reads)]


def moved(base: Mapping[Key, Content | None], main: Mapping[Key, Content]) -> tuple[str, ...]:
    """Tables that main holds otherwise by now: moved, gone, made, or dropped and made again."""
    return tuple(
        table_name(key) for key, was in sorted(base.items()) if _state(was) != _state(main.get(key))
    )


def operations(
    staged: Staged,
    main: Mapping[Key, Content],
    inhabited: AbstractSet[Key],
    spaces: Mapping[Key, Content],
) -> Iterator[Operation]:
    """For main as it is (`main`: its contents of `staged.keys`; `inhabited`: namespaces under
    which it holds something that the branch does not drop; `spaces`: the branch's own contents of
    the namespaces above its tables)."""
    tables = staged.tables
    wanted = staged.above
    yield from _namespaces(staged, main, inhabited | wanted)
    made = {one for one, told in staged.namespaces.items() if told.after}
    for above in sorted(wanted - made - main.keys()):
        # Somebody dropped it from main since, when it was empty.
        yield Put(above, spaces.get(above) or namespace(above, {}), None)
    for key, one in tables.items():
        yield from _table(key, one.after, main.get(key))
    yield from (Unchanged(key) for key in staged.reads if key not in tables)


def _table(key: Key, after: Content | None, now: Content | None) -> Iterator[Operation]:
    if after is None:
        yield Delete(key)
    elif now is None:
        yield Put(key, after, None)
    elif after.id == now.id:
        yield Put(key, after, now.id)
    else:  # dropped and made again on the branch
        yield Delete(key)
        yield Put(key, after, None)


def _namespaces(
    staged: Staged, main: Mapping[Key, Content], needed: AbstractSet[Key]
) -> Iterator[Operation]:
    """The branch's edits of namespaces, made on main's; one that is needed stays."""
    for key, one in sorted(staged.namespaces.items()):
        now = main.get(key)
        if one.after is None:
            if now is not None and key not in needed:
                yield Delete(key)
            continue
        was = one.before.properties if one.before else {}
        here = now.properties if now else {}
        properties = rebased(was, one.after.properties, here)
        if now is None or properties != here:
            yield Put(key, namespace(key, properties), now.id if now else None)


def _above(key: Key) -> Iterator[Key]:
    """The namespaces that a key lies in."""
    return (key[:depth] for depth in range(1, len(key)))


def _location(content: Content | None) -> str | None:
    return content.metadata_location if content else None


def _state(content: Content | None) -> tuple[str | None, str | None] | None:
    return (content.id, content.metadata_location) if content else None
