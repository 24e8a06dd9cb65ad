"""What a query is made of, before there is a table to ask."""

import json
import os
import subprocess
from pathlib import Path

import duckdb
import pytest

from lakewarden.batch.query import QueryInvalid, ask
from tests.local.test_cli import LAKEWARDEN, SETTINGS, folder_with


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
