"""What is told of a dbt failure: enough to find it, and never a value of the data.

The messages are DuckDB's own, made here; how dbt wraps them is copied from it.
"""

from collections.abc import Callable

import duckdb
import pytest

from lakewarden.batch.models.runner import brief

CANARY = "Zq7 c\"an'ary: 1"

# Expressions over a column `cell` that holds the canary, with how each fails.
OF_DATA = {
    "cell::int": "Conversion Error",
    "cell::date": "Conversion Error",
    "cell::timestamp": "Conversion Error",
    "cell::decimal(9,2)": "Conversion Error",
    "cell::json": "Conversion Error",
    "cell::int[]": "Conversion Error",
    "('O''Brien ' || cell)::double": "Conversion Error",
    "('Binder Error: ' || cell)::uuid": "Conversion Error",
    "from_base64(cell)": "Conversion Error",
    "date_part(cell, date '2020-01-01')": "Conversion Error",
    "strptime(cell, '%Y')": "Invalid Input Error",
    "error(cell)": "Invalid Input Error",
    "error('Binder Error: ' || cell)": "Invalid Input Error",
    "error('\nBinder Error: ' || cell)": "Invalid Input Error",
    "regexp_matches('a', cell || '(')": "Invalid Input Error",
    "timezone(cell, now())": "Not implemented Error",
}
WRAPPERS: dict[str, Callable[[str], str]] = {
    "none": str,
    "model": lambda message: f"Runtime Error in model m (models/m.sql)\n  {indented(message)}",
    "test": lambda message: f"Database Error in test t (tests/t.sql)\n  {indented(message)}",
    "hook": lambda message: f"shop.on-run-start.0 failed, error:\n {message}",
    "macro": lambda message: f"Compilation Error in model m (models/m.sql)\n  {indented(message)}",
}


def indented(message: str) -> str:
    return message.replace("\n", "\n  ")


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    made = duckdb.connect()
    made.execute("CREATE TABLE cells AS SELECT ? AS cell", [CANARY])
    made.execute("CREATE TABLE one (cell VARCHAR PRIMARY KEY)")
    made.execute("INSERT INTO one VALUES (?)", [CANARY])
    return made


def message_of(connection: duckdb.DuckDBPyConnection, statement: str) -> str:
    with pytest.raises(duckdb.Error) as caught:
        connection.execute(statement).fetchall()
    return str(caught.value)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("expression", OF_DATA)
def test_no_value_is_told(
    connection: duckdb.DuckDBPyConnection, expression: str, wrapper: str
) -> None:
    message = message_of(connection, f"SELECT {expression} FROM cells")
    assert CANARY in message
    told = brief(WRAPPERS[wrapper](message))
    assert not any(part in told for part in ("Zq7", "an'ary", "Binder"))
    assert wrapper == "macro" or told.startswith(OF_DATA[expression])


def test_a_broken_constraint_is_told_without_the_key(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    message = message_of(connection, "INSERT INTO one SELECT cell FROM cells")
    assert CANARY in message
    assert "Zq7" not in brief(message)


def test_what_a_python_model_raises_is_not_told() -> None:
    message = (
        "Runtime Error in model m (models/m.py)\n  Python model failed:\n"
        "  Traceback (most recent call last):\n  Binder Error: Zq7\n  ValueError: 'Zq7'\n"
    )
    assert "Zq7" not in brief(message)


@pytest.mark.parametrize("wrapper", ["none", "model", "test", "hook"])
@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("SELECT no_such_column FROM cells", "no_such_column"),
        ("SELECT * FROM no_such_table", "no_such_table"),
        ("SELECT * FROM (selec 1)", "syntax error"),
    ],
)
def test_what_is_wrong_with_the_sql_is_told(
    connection: duckdb.DuckDBPyConnection, statement: str, told: str, wrapper: str
) -> None:
    message = brief(WRAPPERS[wrapper](message_of(connection, statement)))
    assert told in message
    assert "\n" not in message
    assert "LINE" not in message  # a macro may have put values into the SQL


def test_what_dbt_says_of_a_macro_is_told() -> None:
    message = "Compilation Error in model m (models/m.sql)\n  'undefd' is undefined."
    assert brief(message) == "Compilation Error in model m (models/m.sql) 'undefd' is undefined."


def test_a_long_message_is_cut() -> None:
    assert len(brief("Catalog Error: " + "x" * 10_000)) == 500
