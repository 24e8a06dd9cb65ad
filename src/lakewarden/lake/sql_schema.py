"""Our tables beside PyIceberg's `iceberg_tables` and `iceberg_namespace_properties`.

A branch is main's rows of those two, copied under the branch's name as `catalog_name`. Ours hold
what makes a publish one step: the head, branches, fences, versions and what each version brought.
"""

from pyiceberg.catalog.sql import SqlCatalogBaseTable
from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    insert,
    inspect,
    select,
    text,
)

from lakewarden.lake.model import CatalogFormatUnknown

FORMAT = 1  # of the tables below; raised when they change
NAME = 255  # characters: the width of PyIceberg's catalog_name

metadata = MetaData()

# One row. Its lock serialises everything that decides a run's fate: a version's order is the
# order in which publishes were committed.
head = Table(
    "lakewarden_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("format", Integer, nullable=False),
    Column("version", Integer, nullable=False),
)

# Rows stay for ever, so that a name is never used again; `base` is emptied when the branch ends.
branches = Table(
    "lakewarden_branches",
    metadata,
    Column("name", String(NAME), primary_key=True),
    Column("run", String(NAME), nullable=False, index=True),
    Column("state", String(16), nullable=False),  # open | published | discarded | taken-over
    Column("created_at", String(40), nullable=False),  # ISO 8601, UTC
    Column("base_version", Integer, nullable=False),
    Column("base", Text),  # JSON {tables: {name: location}, namespaces: [[name, key, value]]}
)

# One row a version of main. Version 0 is a catalog that nothing was published to.
versions = Table(
    "lakewarden_versions",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("run", String(NAME), nullable=False, unique=True),
    Column("at", String(40), nullable=False),  # ISO 8601, UTC
)

# The outcome of a run. The key lets exactly one of publish and take-over win.
fences = Table(
    "lakewarden_fences",
    metadata,
    Column("run", String(NAME), primary_key=True),
    Column("version", Integer, ForeignKey("lakewarden_versions.version")),  # null: taken over
    Column("by", String(NAME)),  # who took it over
    Column("at", String(40), nullable=False),
)

# The batches that a version brought, in the order in which they were given.
publications = Table(
    "lakewarden_publications",
    metadata,
    Column("version", Integer, ForeignKey("lakewarden_versions.version"), primary_key=True),
    Column("ordinal", Integer, primary_key=True, autoincrement=False),
    Column("dataset", String(NAME)),
    Column("batch", String(NAME)),
    Column("contribution", Text, nullable=False),  # JSON, see sql_history
    UniqueConstraint("version", "dataset", "batch"),
    Index("lakewarden_publications_batch", "dataset", "batch"),
)

# What a version knew of each table that it wrote or read; before = after for one only read.
changes = Table(
    "lakewarden_changes",
    metadata,
    Column("version", Integer, ForeignKey("lakewarden_versions.version"), primary_key=True),
    Column("table", String(2 * NAME + 1), primary_key=True),
    Column("before", String(1000)),  # metadata location; null where there was no table
    Column("after", String(1000)),
    Index("lakewarden_changes_table", "table", "version"),
)


def is_prepared(connection: Connection) -> bool:
    """Whether the tables are there, so that a reader needs no right to write. The head's row is
    made last, so it stands for all of them; raises CatalogFormatUnknown."""
    if not inspect(connection).has_table(head.name):
        return False
    found = connection.execute(select(head.c.format)).scalar()
    if found is not None and found != FORMAT:
        raise CatalogFormatUnknown(
            f"the catalog's tables have format {found}; this release reads format {FORMAT}",
            hint="Use the release of lakewarden that wrote it, or a newer one.",
        )
    return found is not None


def prepare(connection: Connection) -> None:
    """Make what is missing of PyIceberg's tables and ours. The caller holds the write lock."""
    if is_prepared(connection):
        return  # another process was faster
    SqlCatalogBaseTable.metadata.create_all(connection)
    metadata.create_all(connection)
    _let_views_be_told_apart(connection)
    connection.execute(insert(head).values(id=1, format=FORMAT, version=0))


def _let_views_be_told_apart(connection: Connection) -> None:
    """Catalogs made before PyIceberg 0.11 lack the nullable column `iceberg_type`."""
    columns = {column["name"] for column in inspect(connection).get_columns("iceberg_tables")}
    if "iceberg_type" not in columns:
        connection.execute(text("ALTER TABLE iceberg_tables ADD COLUMN iceberg_type VARCHAR(5)"))
