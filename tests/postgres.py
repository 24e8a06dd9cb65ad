"""A PostgreSQL of the tests' own: a Unix socket in a temporary folder, no network, gone at the end.

PostgreSQL refuses to run as root; who is root starts it as an unprivileged user.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import needs

START = 60  # seconds that a loaded machine may take


@dataclass(frozen=True)
class Postgres:
    """A running server; `uri` is SQLAlchemy's."""

    socket: Path

    def uri(self, database: str) -> str:
        return f"postgresql+psycopg://lakewarden@/{database}?host={self.socket}"

    def create(self, database: str) -> str:
        """An empty database; returns its uri."""
        self._execute(f'CREATE DATABASE "{database}"')
        return self.uri(database)

    def drop(self, database: str) -> None:
        """Whoever is still connected is thrown out."""
        self._execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')

    def _execute(self, statement: str) -> None:
        import psycopg

        where = f"host={self.socket} user=lakewarden dbname=postgres"
        with psycopg.connect(where, autocommit=True) as connection:
            connection.execute(statement)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    programs = needs.postgresql()
    pytest.importorskip("psycopg", reason="needs the extra `postgres`")
    # Not under pytest's own folder, which nobody else may enter; short, as sockets' paths are.
    folder = Path(tempfile.mkdtemp(prefix="lakewarden-pg-"))
    owner = _unprivileged()
    if owner:
        shutil.chown(folder, owner, pwd.getpwnam(owner).pw_gid)
    try:
        yield from _serve(programs, folder, owner)
    finally:
        shutil.rmtree(folder)


def _serve(programs: Path, folder: Path, owner: str | None) -> Iterator[Postgres]:
    data, log = folder / "data", folder / "log"
    group = pwd.getpwnam(owner).pw_gid if owner else None
    groups: list[str | int] | None = [] if owner else None
    environment = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
    make = ("-U", "lakewarden", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
    initdb: list[str | Path] = [programs / "initdb", "-D", data, *make]
    options = ("-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=200")
    serve: list[str | Path] = [programs / "postgres", "-D", data, "-k", folder, *options]
    subprocess.run(
        initdb,
        check=True,
        capture_output=True,
        cwd=folder,
        env=environment,
        timeout=START,
        user=owner,
        group=group,
        extra_groups=groups,
    )
    with log.open("wb") as out:
        server = subprocess.Popen(
            serve,
            stdout=out,
            stderr=out,
            cwd=folder,
            env=environment,
            user=owner,
            group=group,
            extra_groups=groups,
        )
    try:
        _wait(server, folder, log)
        yield Postgres(folder)
    finally:
        server.send_signal(signal.SIGINT)  # "fast shutdown": it disconnects everybody
        server.wait(START)


def _wait(server: subprocess.Popen[bytes], socket: Path, log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + START
    while True:
        try:
            psycopg.connect(f"host={socket} user=lakewarden dbname=postgres").close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"PostgreSQL did not start: {log.read_text()[-2000:]}")
            time.sleep(0.05)


def _unprivileged() -> str | None:
    """Whom to run it as; None is whoever we are."""
    if os.geteuid() != 0:
        return None
    users = {user.pw_name for user in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in users:
            return name
    pytest.skip("needs postgresql: we are root, and there is no user `postgres` or `nobody`")
