"""What a catalog says of itself; nothing is made by asking."""

from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text

from lakewarden.errors import WrongUsage
from lakewarden.lake.check import check_sql
from lakewarden.lake.model import CatalogUnavailable
from lakewarden.lake.sql import SqlLake
from tests.postgres import Postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/deep/catalog.db"
    server: Postgres = request.getfixturevalue("postgres")
    server.drop("checked")
    return server.create("checked")


def test_a_catalog_is_not_made_by_asking(uri: str, tmp_path: Path) -> None:
    answer = check_sql(uri)
    assert "no tables yet" in answer.told
    assert answer.missing == ()
    if uri.startswith("sqlite"):
        assert list(tmp_path.iterdir()) == []
    else:
        assert inspect(create_engine(uri)).get_table_names() == []


def test_a_catalog_tells_its_version(uri: str) -> None:
    SqlLake(uri, "s3://unused", {}).pin()
    answer = check_sql(uri)
    assert "version 0" in answer.told
    assert answer.missing == ()
    assert answer.latency is not None
    assert answer.who == ("lakewarden" if uri.startswith("postgresql") else None)


def test_rights_that_are_missing_are_named(postgres: Postgres) -> None:
    postgres.drop("shut")
    uri = postgres.create("shut")
    engine = create_engine(uri)
    readers = uri.replace("lakewarden@", "reader@")
    with engine.begin() as connection:
        connection.execute(text("DROP ROLE IF EXISTS reader"))
        connection.execute(text("CREATE ROLE reader LOGIN"))
    assert check_sql(readers).missing == ("no right to create tables in the schema",)
    SqlLake(uri, "s3://unused", {}).pin()
    with engine.begin() as connection:
        connection.execute(text("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader"))
    answer = check_sql(readers)
    assert answer.who == "reader"
    assert "no right to INSERT, UPDATE, DELETE on lakewarden_head" in answer.missing
    assert len(answer.missing) == 8
    assert check_sql(readers, writes=False).missing == ()
    with engine.begin() as connection:
        connection.execute(text("DROP OWNED BY reader"))
        connection.execute(text("DROP ROLE reader"))


def test_a_catalog_that_is_away() -> None:
    with pytest.raises(CatalogUnavailable) as caught:
        check_sql("postgresql+psycopg://ann:hunter2@127.0.0.1:1/lake")
    assert "hunter2" not in f"{caught.value} {caught.value.__cause__}"
    with pytest.raises(WrongUsage):
        check_sql("mysql://h/d")
