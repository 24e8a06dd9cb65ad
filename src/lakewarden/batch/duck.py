"""DuckDB sessions: extensions loaded from wheels, one S3 secret, bounded memory, no telemetry."""

import importlib.util
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lakewarden.checkup import Answer
from lakewarden.errors import Failed

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# avro before iceberg: iceberg reads its manifests with it.
EXTENSIONS = ("httpfs", "avro", "iceberg")
# For every COPY that others read: 1.5.5 hashes -0.0 otherwise than 0.0, and whoever asks for one by
# the filter does not find the other.
NO_BLOOM_FILTER = "WRITE_BLOOM_FILTER false"


# DuckDB's names of spilled files are the same in every session, and it locks none of them: two
# sessions with one folder would read each other's rows. It makes its folder, and removes it.
_SPILLED = "spilled-"
_LEFT_SECONDS = 24 * 3600  # a folder that has not changed since is of a session that was killed


class ExtensionMissing(Failed):
    """A DuckDB extension wheel is not installed for the running version of DuckDB."""


@dataclass(frozen=True)
class DuckConfig:
    """How DuckDB may use this machine, and how it reaches S3 (endpoint None: AWS itself)."""

    temp: Path  # where it may spill; a session in memory has a folder of its own in it
    memory_limit: str = "1GB"
    threads: int = 2
    endpoint: str | None = None
    region: str = "us-east-1"
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)


def literal(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def connect(
    config: DuckConfig, database: str = ":memory:", *, extensions: Iterable[str] = ()
) -> "DuckDBPyConnection":
    """Open a session; `extensions` are those of EXTENSIONS that it needs (loading costs 0.3 s)."""
    import duckdb

    config.temp.mkdir(parents=True, exist_ok=True)
    used = config
    if database == ":memory:":
        _remove_left(config.temp)
        used = replace(config, temp=config.temp / f"{_SPILLED}{secrets.token_hex(8)}")
    connection = duckdb.connect(database, config=dict(options(used)))
    # Iceberg's times are in UTC, and so are hours and days of partitions.
    connection.execute("SET TimeZone = 'UTC'")
    prepare(connection, config, extensions)
    return connection


def _remove_left(temp: Path) -> None:
    """What killed sessions spilled."""
    os.utime(temp)
    now = temp.stat().st_mtime  # by the clock that the others' times are of
    for folder in temp.glob(f"{_SPILLED}*"):
        with suppress(FileNotFoundError):  # its session has just ended
            if folder.stat().st_mtime < now - _LEFT_SECONDS:
                shutil.rmtree(folder)


def check_duck() -> Answer:
    """Open a session with all extensions. Raises ExtensionMissing."""
    import duckdb

    with (
        tempfile.TemporaryDirectory(prefix="lakewarden-") as folder,
        connect(DuckConfig(Path(folder)), extensions=EXTENSIONS),
    ):
        return Answer(f"DuckDB {duckdb.__version__} with {', '.join(EXTENSIONS)}")


def options(config: DuckConfig) -> Mapping[str, str]:
    """What a database file is opened with. Who opens the same file again in this process gets the
    same database, its extensions and its secrets, and has to open it with equal options."""
    return {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "memory_limit": config.memory_limit,
        "threads": str(config.threads),
        "temp_directory": str(config.temp),
    }


def prepare(
    connection: "DuckDBPyConnection", config: DuckConfig, extensions: Iterable[str]
) -> None:
    """Load extensions into a session that somebody else opened (dbt), and give it the S3 secret."""
    wanted = set(extensions)
    for name in EXTENSIONS:
        if name in wanted:
            connection.execute(f"LOAD {literal(str(_extension(name)))}")
    if config.endpoint:  # what is on this machine is not asked for through somebody's proxy
        connection.execute("SET http_proxy = ''")
    if "httpfs" in wanted and config.access_key is not None:
        connection.execute(_CREATE_S3_ACCESS, _secret_parameters(config))


def _extension(name: str) -> Path:
    import duckdb

    spec = importlib.util.find_spec(f"duckdb_extension_{name}")
    for root in (spec.submodule_search_locations or []) if spec else []:
        path = Path(root, "extensions", f"v{duckdb.__version__}", f"{name}.duckdb_extension")
        if path.exists():
            return path
    raise ExtensionMissing(
        f"DuckDB {duckdb.__version__} has no extension '{name}' in this environment",
        hint=f"pip install 'duckdb-extension-{name}=={duckdb.__version__}'",
    )


_CREATE_S3_ACCESS = """
    CREATE OR REPLACE TEMPORARY SECRET lakewarden (
        TYPE s3, KEY_ID $key, SECRET $secret, SESSION_TOKEN $token, REGION $region,
        ENDPOINT $endpoint, URL_STYLE $style, USE_SSL $ssl
    )
"""


def _secret_parameters(config: DuckConfig) -> dict[str, object]:
    url = urlsplit(config.endpoint or f"https://s3.{config.region}.amazonaws.com")
    return {
        "key": config.access_key,
        "secret": config.secret_key or "",
        "token": config.session_token or "",
        "region": config.region,
        "endpoint": url.netloc,
        "style": "path" if config.endpoint else "vhost",
        "ssl": url.scheme == "https",
    }
