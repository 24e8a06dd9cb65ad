"""The model of readmissions on stays that lie as awkwardly as they can."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.local.hospitals import EXAMPLE, KnownStay, following

FIRST = date(2024, 4, 1)
MODEL = (EXAMPLE / "transform" / "models" / "marts" / "readmissions.sql").read_text()


@dataclass(frozen=True)
class Told:
    """What one month says of a stay; `days` None: still in hospital."""

    month: int
    facility: str
    admitted: int  # days after the first
    days: int | None
    patient: str | None


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE stays (_batch TEXT, facility_cd TEXT, data_id TEXT, admission_date DATE,"
            " discharge_date DATE, common_patient_id TEXT)"
        )
        yield connection


def model(database: duckdb.DuckDBPyConnection, told: Sequence[Told]) -> set[tuple[object, ...]]:
    database.execute("DELETE FROM stays")
    database.executemany(
        "INSERT INTO stays VALUES (?, ?, 'x', ?, ?, ?)",
        [
            (
                f"2024-{4 + one.month:02d}",
                one.facility,
                FIRST + timedelta(days=one.admitted),
                None if one.days is None else FIRST + timedelta(days=one.admitted + one.days),
                one.patient,
            )
            for one in told
        ],
    )
    rows = database.execute(MODEL.replace("{{ ref('stg_k_common_id') }}", "stays")).fetchall()
    return {(row[0], row[1], row[3], row[5], row[7], row[8], row[9]) for row in rows}


def plainly(told: Sequence[Told]) -> set[tuple[object, ...]]:
    stays: dict[tuple[str, int], KnownStay] = {}
    for one in sorted(told, key=lambda one: one.month):
        admitted = FIRST + timedelta(days=one.admitted)
        discharged = date.max if one.days is None else admitted + timedelta(days=one.days)
        # Without a common id each is a patient of their own.
        patient = one.patient or f"{one.facility} {one.admitted}"
        stays[one.facility, one.admitted] = KnownStay(
            admitted, discharged, one.facility, "x", patient
        )
    return {
        (
            *(stay.common_id, stay.facility, stay.admitted),
            *(before.facility, before.admitted, before.discharged),
            (stay.admitted - before.discharged).days,
        )
        for stay, before in following(stays.values())
    }


told = st.builds(
    Told,
    month=st.integers(0, 2),
    facility=st.sampled_from("ABC"),
    admitted=st.sampled_from([0, 1, 2, 5, 30, 31, 32, 60]),
    days=st.sampled_from([None, 0, 0, 1, 3, 29, 30, 31]),
    patient=st.sampled_from([None, "P", "P", "Q"]),
)


@given(
    st.lists(
        told, min_size=1, max_size=12, unique_by=lambda one: (one.month, one.facility, one.admitted)
    ),
)
@settings(max_examples=150, deadline=None)
def test_it_is_what_a_plain_calculation_says(
    database: duckdb.DuckDBPyConnection, stays: list[Told]
) -> None:
    assert model(database, stays) == plainly(stays)


@pytest.mark.parametrize(
    ("stays", "days"),
    [
        ([(0, "A", 0, 3, "P"), (0, "B", 3, 1, "P")], [0]),  # from one to the other on a day
        ([(0, "A", 0, 3, "P"), (1, "A", 33, 1, "P")], [30]),
        ([(0, "A", 0, 3, "P"), (1, "A", 34, 1, "P")], []),  # a day too late
        ([(0, "A", 0, None, "P"), (0, "B", 5, 1, "P")], []),  # still in the first
        ([(0, "A", 0, 20, "P"), (0, "B", 5, 1, "P")], []),  # the same, and discharged since
        ([(0, "A", 0, None, "P"), (1, "A", 0, 3, "P"), (1, "B", 5, 1, "P")], [2]),  # later word
        ([(0, "A", 0, 0, "P"), (0, "B", 0, 0, "P")], [0]),  # two visits, one is the other's
        ([(0, "A", 0, 9, "P"), (0, "B", 1, 1, "P"), (0, "C", 12, 1, "P")], [3]),  # the latest
        ([(0, "A", 0, 1, None), (0, "B", 2, 1, None)], []),  # nobody knows who they are
        ([(0, "A", 0, 1, "P"), (0, "B", 2, 1, "Q")], []),
    ],
)
def test_by_hand(
    database: duckdb.DuckDBPyConnection,
    stays: list[tuple[int, str, int, int | None, str | None]],
    days: list[int],
) -> None:
    found = model(database, [Told(*one) for one in stays])
    assert sorted(str(row[-1]) for row in found) == sorted(map(str, days))
