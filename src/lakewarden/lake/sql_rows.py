"""PyIceberg's rows of one catalog name: main's (whatever it is called), or a branch's copy."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from pyiceberg.catalog.sql import IcebergNamespaceProperties, IcebergTables
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    delete,
    insert,
    inspect,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import IntegrityError

from lakewarden.lake.model import TableChange

T = TypeVar("T")

_CHUNK = 400  # tables named in one statement: SQLite allows 999 parameters in older builds

LOCATED = (
    IcebergTables.table_namespace,
    IcebergTables.table_name,
    IcebergTables.metadata_location,
)
"""The columns that `by_name` reads."""


def tables_of(catalog: str) -> ColumnElement[bool]:
    """A catalog's tables. Views stand in the same rows, and are none of ours."""
    row = IcebergTables
    is_table = or_(row.iceberg_type == "TABLE", row.iceberg_type.is_(None))
    return and_(row.catalog_name == catalog, is_table)


def by_name(rows: Iterable[Row[Any]]) -> dict[str, str]:
    """Metadata location by "namespace.table"; rows without a table are left out."""
    return {
        f"{row.table_namespace}.{row.table_name}": row.metadata_location
        for row in rows
        if row.metadata_location is not None
    }


def split(table: str) -> tuple[str, str]:
    """ "a.b.name" as PyIceberg's columns hold it: ("a.b", "name")."""
    namespace, _, name = table.rpartition(".")
    return namespace, name


def copy(connection: Connection, main: str, to: str) -> None:
    """Main's rows under another name, without passing through this process."""
    tables = ("table_namespace", "table_name", "metadata_location", "previous_metadata_location")
    for row, names in (
        (IcebergTables, (*tables, "iceberg_type")),
        (IcebergNamespaceProperties, ("namespace", "property_key", "property_value")),
    ):
        columns = [getattr(row, name) for name in names]
        connection.execute(
            insert(row).from_select(
                ["catalog_name", *names],
                select(literal(to), *columns).where(row.catalog_name == main),
            )
        )


def remove(connection: Connection, catalogs: Collection[str]) -> None:
    """Forget branches; the tables' files stay."""
    for row in (IcebergTables, IcebergNamespaceProperties):
        connection.execute(delete(row).where(row.catalog_name.in_(catalogs)))


def tables(connection: Connection, catalog: str, *, lock: bool = False) -> dict[str, str]:
    """Metadata locations by table. With `lock` no other writer moves them before we commit."""
    rows = select(*LOCATED).where(tables_of(catalog))
    return by_name(connection.execute(rows.with_for_update() if lock else rows))


def exist(connection: Connection) -> bool:
    """Whether PyIceberg has made its tables."""
    return inspect(connection).has_table(IcebergTables.__tablename__)


def found(connection: Connection, catalog: str) -> dict[str, str]:
    """As `tables`, in a catalog that nothing of ours has prepared: made before PyIceberg 0.11 it
    cannot tell views, and has none."""
    columns = inspect(connection).get_columns(IcebergTables.__tablename__)
    if any(column["name"] == "iceberg_type" for column in columns):
        return tables(connection, catalog)
    rows = select(*LOCATED).where(IcebergTables.catalog_name == catalog)
    return by_name(connection.execute(rows))


def lock_main(connection: Connection, main: str, names: Iterable[str]) -> dict[str, str]:
    """Where the named tables of main stand; none of those found moves before we commit.

    An absent one cannot be locked: its insert collides instead (for a table that is written), or
    another writer's creation comes after ours in the order of things (for one only read)."""
    found: dict[str, str] = {}
    keys = tuple_(IcebergTables.table_namespace, IcebergTables.table_name)
    for chunk in _chunks(sorted(names)):
        rows = (
            select(*LOCATED)
            .where(tables_of(main), keys.in_([split(name) for name in chunk]))
            .order_by(IcebergTables.table_namespace, IcebergTables.table_name)
            .with_for_update()
        )
        found |= by_name(connection.execute(rows))
    return found


def move_main(
    connection: Connection, main: str, changes: Mapping[str, TableChange]
) -> tuple[str, ...]:
    """Compare and set, table by table. Returns those that were not where they should be, and
    stops at the first collision; the caller then rolls back."""
    for table, change in changes.items():
        namespace, name = split(table)
        here = and_(
            IcebergTables.catalog_name == main,
            IcebergTables.table_namespace == namespace,
            IcebergTables.table_name == name,
        )
        if change.before is None:
            new = insert(IcebergTables).values(
                catalog_name=main,
                table_namespace=namespace,
                table_name=name,
                metadata_location=change.after,
                previous_metadata_location=None,
                iceberg_type="TABLE",
            )
            try:
                connection.execute(new)
            except IntegrityError:
                return (table,)
            continue
        stood = and_(here, IcebergTables.metadata_location == change.before)
        statement = (
            delete(IcebergTables).where(stood)
            if change.after is None
            else update(IcebergTables)
            .where(stood)
            .values(metadata_location=change.after, previous_metadata_location=change.before)
        )
        if connection.execute(statement).rowcount != 1:
            return (table,)
    return ()


Namespaces = dict[tuple[str, str], str]
"""Value by (namespace, property key)."""


def namespaces(connection: Connection, catalog: str) -> Namespaces:
    row = IcebergNamespaceProperties
    found = connection.execute(
        select(row.namespace, row.property_key, row.property_value).where(
            row.catalog_name == catalog
        )
    )
    return {(one.namespace, one.property_key): one.property_value for one in found}


def set_namespaces(
    connection: Connection, main: str, before: Namespaces, after: Namespaces
) -> None:
    """Write main's namespace properties, as far as they differ."""
    row = IcebergNamespaceProperties
    keys = tuple_(row.namespace, row.property_key)
    gone = [key for key, value in before.items() if after.get(key) != value]
    for chunk in _chunks(gone):
        connection.execute(delete(row).where(row.catalog_name == main, keys.in_(chunk)))
    new = [
        {"catalog_name": main, "namespace": key[0], "property_key": key[1], "property_value": value}
        for key, value in after.items()
        if before.get(key) != value
    ]
    if new:
        connection.execute(insert(row), new)


def _chunks(items: Sequence[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk
