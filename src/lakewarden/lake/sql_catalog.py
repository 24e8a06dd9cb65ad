"""PyIceberg's SqlCatalog as one branch sees it."""

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io import FileIO
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.typedef import Identifier, Properties
from sqlalchemy import Engine

from lakewarden.errors import WrongUsage


class BranchCatalog(SqlCatalog):
    """The public API of a SqlCatalog, on the lake's engine, which never deletes a file that main
    or an older pin may still need."""

    def __init__(self, name: str, engine: Engine, properties: Properties) -> None:
        # The uri that PyIceberg sees has no credentials and is never connected to.
        uri = engine.url.set(username=None, password=None, query={}).render_as_string()
        super().__init__(name, **{**properties, "uri": uri})
        self.engine = engine

    def _init_catalog(self) -> None:
        self._schema_version = "v1"  # the lake has made the tables, see sql_schema.prepare

    def purge_table(self, identifier: str | Identifier) -> None:
        raise WrongUsage(
            "a table is never purged: main and older pins may still read its files",
            hint="Drop it; maintenance removes files that nothing refers to.",
        )

    @staticmethod
    def _delete_old_metadata(io: FileIO, base: TableMetadata, metadata: TableMetadata) -> None:
        """Keep them, whatever `write.metadata.delete-after-commit.enabled` says: a commit on a
        branch would delete the metadata file that main points to."""

    def close(self) -> None:
        """The engine is the lake's, and other branches use it."""
