"""Where a lake under test lives. A catalog is added to the contract by one line in KINDS."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from lakewarden.lake.model import Lake
from lakewarden.lake.sql import SqlLake
from tests.postgres import Postgres, postgres

__all__ = ["postgres"]  # pytest finds the fixture here

SQL_KINDS = ("sqlite", "postgresql")
KINDS = SQL_KINDS
_database = count()


@dataclass(frozen=True)
class Place:
    """An empty catalog and a warehouse. It can be sent to another process, which opens its own."""

    kind: str
    uri: str
    warehouse: str

    def open(self) -> Lake:
        """A client of its own: what another process on another machine would have."""
        return SqlLake(self.uri, self.warehouse, {})


@pytest.fixture(params=KINDS)
def new_place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Place]]:
    kind: str = request.param
    server: Postgres | None = request.getfixturevalue("postgres") if kind == "postgresql" else None
    with ExitStack() as stack:

        def make() -> Place:
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
