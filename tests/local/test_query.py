"""What a query is made of, before there is a table to ask; and the sessions that ask."""

import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import duckdb
import pytest

from lakewarden.aws.s3 import S3Objects
from lakewarden.batch.duck import DuckConfig, connect
from lakewarden.batch.query import QueryInvalid, ask
from tests.local.test_cli import LAKEWARDEN, SETTINGS, folder_with
from tests.stack import LocalStack


@pytest.mark.parametrize("sql", ["SELECT 1 --\udcff", "SELECT '\ud800'", "SELECT 1 \0; SELECT 2"])
def test_what_is_no_text_is_refused(sql: str) -> None:
    with duckdb.connect() as connection, pytest.raises(QueryInvalid) as refused:
        ask(connection, sql)
    assert refused.value.hint


def test_what_is_no_text_is_refused_on_standard_input_too(tmp_path: Path) -> None:
    folder_with(tmp_path, {"lakewarden.toml": SETTINGS})
    answer = subprocess.run(
        [LAKEWARDEN, "query", "-", "--json"],
        cwd=tmp_path,
        input=b"SELECT 1 --\xff",
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
        check=False,
    )
    assert (answer.returncode, answer.stderr) == (2, b"")
    assert json.loads(answer.stdout)["error"]["code"] == "query-invalid"


def test_sessions_that_spill_at_once_do_not_read_each_others_rows(tmp_path: Path) -> None:
    """DuckDB calls its spilled files the same in every session."""
    config = DuckConfig(tmp_path, memory_limit="64MB", threads=1)
    both = Barrier(2, timeout=60)
    rows = 12_000_000  # of 8 bytes

    def total(first: int) -> int:
        with connect(config) as connection:
            select = f"SELECT range AS n FROM range({first}, {first + rows})"
            connection.execute(f"CREATE TABLE spilled AS {select}")
            both.wait()
            assert any(file.is_file() for file in tmp_path.rglob("*"))
            found = connection.execute("SELECT sum(n)::BIGINT FROM spilled").fetchone()
            both.wait()
        return int(found[0]) if found else 0

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(total, (0, rows)))
    assert found == [sum(range(rows)), sum(range(rows, 2 * rows))]
    assert list(tmp_path.iterdir()) == []


def test_a_store_on_this_machine_is_not_asked_through_a_proxy(
    local_stack: LocalStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By HTTP_PROXY, which DuckDB itself reads; of http_proxy see docs/local-stack.md."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    stack, bucket = local_stack.connection, local_stack.bucket()
    S3Objects(stack, bucket).put("x.csv", b"a\n1\n")
    config = DuckConfig(
        tmp_path,
        endpoint=stack.endpoint,
        region=stack.region,
        access_key=stack.access_key,
        secret_key=stack.secret_key,
    )
    with connect(config, extensions=["httpfs"]) as connection:
        found = connection.execute("SELECT a FROM read_csv(?)", [f"s3://{bucket}/x.csv"])
        assert found.fetchall() == [(1,)]


def test_what_killed_sessions_spilled_is_removed_after_a_day(tmp_path: Path) -> None:
    left, fresh = tmp_path / "spilled-left", tmp_path / "spilled-fresh"
    for folder in (left, fresh):
        folder.mkdir()
        (folder / "duckdb_temp_storage_DEFAULT-0.tmp").write_bytes(b"rows")
    long_ago = time.time() - 25 * 3600
    os.utime(left, (long_ago, long_ago))
    with connect(DuckConfig(tmp_path)):
        assert list(tmp_path.iterdir()) == [fresh]
