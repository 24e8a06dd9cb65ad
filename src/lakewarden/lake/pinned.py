"""A table as it was pinned, read by its metadata location alone: no catalog is asked."""

from pyiceberg.catalog.noop import NoopCatalog
from pyiceberg.table import StaticTable, Table
from pyiceberg.typedef import Properties

from lakewarden.lake.model import Pin


def load_pinned(pin: Pin, table: str, file_io: Properties) -> Table:
    """To read, not to write; KeyError where the pin has no such table."""
    location = pin.tables[table]
    found = StaticTable.from_metadata(location, file_io)
    return StaticTable(
        identifier=tuple(table.split(".")),
        metadata=found.metadata,
        metadata_location=location,
        io=found.io,
        catalog=NoopCatalog(pin.ref),
    )
