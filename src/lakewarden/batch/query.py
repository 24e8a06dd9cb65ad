"""SQL over one pinned version of all tables: a reader never sees two."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lakewarden.batch.duck import EXTENSIONS, DuckConfig, connect, identifier, literal
from lakewarden.lake.model import Pin

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@contextmanager
def open_pin(config: DuckConfig, pin: Pin) -> "Iterator[DuckDBPyConnection]":
    """A session with a view for each table of the pin: `namespace.table`, and the bare name where
    only one table has it. Views are made of metadata locations, so nothing is read yet."""
    with connect(config, extensions=EXTENSIONS) as connection:
        bare = Counter(name.rpartition(".")[2] for name in pin.tables)
        for name, location in pin.tables.items():
            namespace, _, table = name.rpartition(".")
            scan = f"SELECT * FROM iceberg_scan({literal(location)})"
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {identifier(namespace)}")
            connection.execute(f"CREATE VIEW {identifier(namespace)}.{identifier(table)} AS {scan}")
            if bare[table] == 1:
                connection.execute(f"CREATE VIEW {identifier(table)} AS {scan}")
        yield connection
