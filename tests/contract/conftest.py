"""Where a lake under test lives. A catalog is added to the contract by one line in KINDS."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from lakewarden.aws.clients import Connection
from lakewarden.aws.s3 import S3Objects
from lakewarden.lake.model import Lake
from lakewarden.lake.nessie import NessieConfig, NessieLake
from lakewarden.lake.sql import SqlLake
from tests.nessie import Nessie, nessie
from tests.postgres import Postgres, postgres

__all__ = ["nessie", "postgres"]  # pytest finds the fixtures here

SQL_KINDS = ("sqlite", "postgresql")
KINDS = (*SQL_KINDS, "nessie")
_database = count()


@dataclass(frozen=True)
class Place:
    """An empty catalog and a warehouse. It can be sent to another process, which opens its own."""

    kind: str
    uri: str
    warehouse: str
    store: Connection | None = None  # of the warehouse, where that is S3

    def open(self) -> Lake:
        """A client of its own: what another process on another machine would have."""
        if self.store is None:
            return SqlLake(self.uri, self.warehouse, {})
        return self.open_nessie(self.uri)

    def open_nessie(self, uri: str, *, token: str | None = None) -> NessieLake:
        """The same Nessie, by another way to it or as somebody else."""
        store, bucket = self.store, self.warehouse.split("/")[2]
        assert store is not None
        file_io = {
            "s3.endpoint": store.endpoint or "",
            "s3.region": store.region,
            "s3.access-key-id": store.access_key or "",
            "s3.secret-access-key": store.secret_key or "",
        }
        objects = S3Objects(store, bucket)
        return NessieLake(NessieConfig(uri), file_io, token=token, objects=lambda: objects)


@pytest.fixture(params=KINDS)
def new_place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Place]]:
    kind: str = request.param
    server: Postgres | None = request.getfixturevalue("postgres") if kind == "postgresql" else None
    there: Nessie | None = request.getfixturevalue("nessie") if kind == "nessie" else None
    with ExitStack() as stack:

        def make() -> Place:
            if there:
                there.empty()
                return Place(kind, there.uri, there.warehouse, there.store)
            folder: Path = tmp_path_factory.mktemp("lake")
            uri = f"sqlite:///{folder}/new/catalog.db"
            if server:
                name = f"lake{next(_database)}"
                uri = server.create(name)
                stack.callback(server.drop, name)
            return Place(kind, uri, f"file://{folder}/warehouse")

        yield make


@pytest.fixture
def place(new_place: Callable[[], Place]) -> Place:
    return new_place()


@pytest.fixture
def lake(place: Place) -> Lake:
    return place.open()
