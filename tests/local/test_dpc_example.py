"""The example of hospitals: what was generated is what is published, and each defect is found."""

from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from lakewarden.batch.audit import TestsFailed
from lakewarden.batch.delivery.inventory import PartMissing
from tests.local.hospitals import (
    CRITICAL,
    DATASET,
    PARTS,
    WARNINGS,
    Hospitals,
    load_generator,
    new_hospitals,
    readmissions,
    records,
)
from tests.stack import LocalStack

pytestmark = pytest.mark.slow

generator = load_generator()
MONTHS = ("2024-04", "2024-05", "2024-06")


@pytest.fixture(scope="module")
def sound(local_stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Hospitals:
    """Three hospitals and three months, which came in another order."""
    found = new_hospitals(local_stack, tmp_path_factory.mktemp("hospitals") / "sound")
    list(generator.generate(deliveries(found), generator.Plan(3, MONTHS, 12, seed=4)))
    for month in ("2024-04", "2024-06", "2024-05"):
        found.deliver(month, deliveries(found) / month)
        assert found.run(month) == "published"
        assert found.judged() == {}
    return found


@pytest.fixture(scope="module")
def damaged(local_stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Hospitals:
    """Where the defects are tried."""
    return new_hospitals(local_stack, tmp_path_factory.mktemp("hospitals") / "damaged")


def deliveries(hospitals: Hospitals) -> Path:
    return hospitals.root / "deliveries"


@pytest.mark.parametrize("part", PARTS)
def test_every_field_is_as_it_was_delivered(sound: Hospitals, part: str) -> None:
    expected = [
        (*record.fields, record.month, record.file, record.number)
        for record in records(deliveries(sound), part)
    ]
    found = sound.rows(f"SELECT * FROM raw.{part} ORDER BY _batch, _file, _line")
    assert len(found) > len(MONTHS)
    assert found == sorted(expected, key=lambda row: row[-3:])


def test_the_case_summary_adds_up_what_the_files_say(sound: Hospitals) -> None:
    found = sound.rows(
        "SELECT _batch, facility_cd, data_id, admission_date, discharge_date, common_patient_id,"
        " sex_code, main_icd10, services, service_points, inclusive_points, adjust_points,"
        " judged_days, has_surgery, is_emergency FROM marts.fact_case_summary ORDER BY ALL"
    )
    assert found == summaries(deliveries(sound))


def summaries(folder: Path) -> list[tuple[Any, ...]]:
    """The case summary in plain Python, sorted."""
    counts: dict[tuple[str, ...], Counter[str]] = {}
    facts: dict[tuple[str, ...], dict[str, str]] = {}
    for part, place in {"y1": 2, "ef_in": 3, "d": 3, "h": 4, "k": 2}.items():
        for record in records(folder, part):
            f = [field or "" for field in record.fields]
            key = (record.month, f[0], f[2 if part == "h" else 1], f[place])
            count, fact = counts.setdefault(key, Counter()), facts.setdefault(key, {})
            if part == "y1" and f[4] == "0":
                fact |= {f"{f[5]} {n}": text for n, text in enumerate(f[8:], start=1)}
            elif part == "ef_in" and f[6] == "000":
                count["services"] += 1
                count["points"] += int(f[20]) * sum(int(f[n]) for n in (17, 18, 19))
            elif part == "d":
                count[f[4]] += int(f[10]) * int(f[14])
            elif part == "h" and f[6] == "TAR0010":
                count["judged"] += 1
            elif part == "k":
                fact["common"] = f[6]
    return sorted(
        (
            month,
            facility,
            data_id,
            date.fromisoformat(admitted),
            None if fact["A000030 1"] == "00000000" else date.fromisoformat(fact["A000030 1"]),
            fact["common"] or None,
            fact["A000010 2"],
            fact["A006010 2"],
            *(count[what] for what in ("services", "points", "93", "94", "judged")),
            "A007010 1" in fact,
            fact["A000020 5"][0] in "23",
        )
        for (month, facility, data_id, admitted), count in counts.items()
        for fact in (facts[month, facility, data_id, admitted],)
    )


def test_readmissions_are_those_of_a_plain_calculation(sound: Hospitals) -> None:
    found = sound.rows(
        "SELECT facility_cd, data_id, admission_date, common_patient_id, from_facility_cd,"
        " from_data_id, from_admission_date, discharge_date, days, is_same_facility, month"
        " FROM marts.readmissions ORDER BY ALL"
    )
    expected = readmissions(deliveries(sound))
    assert found == sorted(
        (
            stay.facility,
            stay.data_id,
            stay.admitted,
            stay.common_id,
            before.facility,
            before.data_id,
            before.admitted,
            before.discharged,
            (stay.admitted - before.discharged).days,
            stay.facility == before.facility,
            f"{stay.admitted:%Y-%m}",
        )
        for stay, before in expected
    )
    # There is something of everything to be right about.
    days = {row[8] for row in found}
    assert days >= {0, 30}
    assert max(days) == 30
    assert {row[9] for row in found} == {True, False}
    assert any(row[2].month != row[7].month for row in found)


def test_months_at_once_and_one_taken_out_again_give_the_same(
    sound: Hospitals, local_stack: LocalStack, tmp_path: Path
) -> None:
    others = new_hospitals(local_stack, tmp_path / "others")
    for month in MONTHS:
        others.deliver(month, deliveries(sound) / month)
    list(others.project.run_set(DATASET, MONTHS))
    assert marts(others) == marts(sound)

    others.project.unpublish(DATASET, [MONTHS[1]])
    for month in (MONTHS[0], MONTHS[2]):
        (tmp_path / "left").mkdir(exist_ok=True)
        (tmp_path / "left" / month).symlink_to(deliveries(sound) / month)
    cases = "SELECT DISTINCT _batch FROM marts.fact_case_summary ORDER BY _batch"
    assert others.rows(cases) == [(MONTHS[0],), (MONTHS[2],)]
    left = readmissions(tmp_path / "left")
    assert others.rows("SELECT count(*) FROM marts.readmissions") == [(len(left),)]

    assert others.run(MONTHS[1]) == "published"
    assert marts(others) == marts(sound)


def marts(hospitals: Hospitals) -> dict[str, list[tuple[Any, ...]]]:
    names = ("fact_case_summary", "readmissions", "dim_facility", "dq_findings")
    return {name: hospitals.rows(f"FROM marts.{name} ORDER BY ALL") for name in names}


def test_each_hospital_is_there_once_as_it_was_last_described(sound: Hospitals) -> None:
    found = sound.rows("SELECT facility_cd, facility_name, last_month FROM marts.dim_facility")
    assert sorted(found) == sorted(
        (generator.facility_code(n), f"第{n}架空病院（㈱髙橋記念・表町）", MONTHS[-1])
        for n in (1, 2, 3)
    )


def plant(hospitals: Hospitals, month: str, *defects: str) -> Path:
    """A month with each defect in a hospital of its own; returns the delivery."""
    plan = generator.Plan(3, ("2024-04", "2024-05"), 6, seed=9)
    plants = [generator.Plant(name, 1 + n, month) for n, name in enumerate(defects)]
    folder = deliveries(hospitals) / "-".join(defects)
    list(generator.generate(folder, plan, plants))
    return Path(folder / month)


@pytest.mark.parametrize("defect", CRITICAL)
def test_a_critical_defect_is_refused_by_its_own_rule(damaged: Hospitals, defect: str) -> None:
    damaged.deliver("2024-05", plant(damaged, "2024-05", defect))
    with pytest.raises(TestsFailed, match=rf"\b{defect.lower()} \(1 row\)$"):
        damaged.run("2024-05")
    assert damaged.judged() == {defect.lower(): 1}


def test_warnings_are_listed_and_are_those_of_their_month(damaged: Hospitals) -> None:
    damaged.deliver("2024-04", plant(damaged, "2024-04", *WARNINGS))
    assert damaged.run("2024-04") == "published"
    assert damaged.judged() == {rule.lower(): 1 for rule in WARNINGS}
    counted = "SELECT _batch, facility_cd, rule, findings FROM marts.dq_findings ORDER BY ALL"
    expected = sorted(
        ("2024-04", generator.facility_code(1 + n), rule, 1) for n, rule in enumerate(WARNINGS)
    )
    assert damaged.rows(counted) == expected
    # The next month is without fault, and is not blamed for this one.
    damaged.deliver("2024-05", plant(damaged, "2024-05"))
    assert damaged.run("2024-05") == "published"
    assert damaged.judged() == {}
    assert damaged.rows(counted) == expected


def test_files_of_another_program_load_as_well(damaged: Hospitals, tmp_path: Path) -> None:
    """Line feeds, none at the end, records in another order, quotes in K."""
    folder = tmp_path / "by hand"
    for name, text in BY_HAND.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8" if name.startswith("y3/") else "cp932"))
    damaged.deliver("2024-07", folder)
    assert damaged.run("2024-07") == "published"
    assert damaged.judged() == {}
    case = damaged.rows(
        "SELECT data_id, admission_date, discharge_date, days, sex_code, age, dpc_code,"
        " main_icd10, is_emergency, height_cm::text, weight_kg::text, services, service_points,"
        " inclusive_points, judged_days, top_severity"
        " FROM marts.fact_case_summary WHERE _batch = '2024-07'"
    )
    assert case == [
        (
            *("0000000042", date(2024, 7, 1), date(2024, 7, 3), 3, "2", 78, "040080x099x0xx"),
            *("J189", True, "151.0", "48.5", 2, 1938, 7200, 1, 3),
        )
    ]
    names = damaged.rows(
        "SELECT item_name FROM raw.ef_in WHERE _batch = '2024-07' ORDER BY data_category, item_no"
    )
    assert [name for (name,) in names] == ["初診料", "点滴～①－㈱", "点滴～①－㈱"]


_KEY = "010000001\t0000000042\t20240701"
_EF = "010000001\t0000000042\t20240703\t20240701"
_AFTER = "06130012\t1112\t20240701\t10\t010\t0000000007\tW1\t1\t0\t111"
BY_HAND = {
    "y1/010000001_202407_y1_001.tsv": "\n".join(
        [
            f"{_KEY}\t0\t0\tA006010\t20240401\t1\t\tJ189\t\t\t\t\t\t\t肺炎",
            f"{_KEY}\t0\t0\tA000030\t20240401\t1\t20240703\t1\t1\t0\t\t\t\t\t",
            f"{_KEY}\t0\t0\tA001010\t20240401\t1\t\t151\t48.5\t\t\t\t\t\t",
            f"{_KEY}\t0\t0\tA000020\t20240401\t1\t20240701\t1\t0\t1\t300\t1\t\t\t",
            f"{_KEY}\t0\t0\tA000010\t20240401\t1\t19450702\t2\t0600001\t\t\t\t\t\t",
        ]
    ),
    "y3/010000001_202407_y3_001.csv": (
        "city,facility_cd,report_year,facility_name,bed_function,facility_group,prefecture\n"
        "札幌市,010000001,2024,手書き病院,急性期,DPC標準病院群,北海道"
    ),
    "ef_in/010000001_202407_ef_in_001.tsv": "\n".join(
        [
            f"{_EF}\t33\t0001\t001\tH1\t130003810\tG004\t点滴～①－㈱\t0000001.000\t\t102\t0"
            f"\t0\t0\t0\t0\t0\t1\t{_AFTER}",
            f"{_EF}\t33\t0001\t000\tH1\t130003810\tG004\t点滴～①－㈱\t0\t\t0\t0"
            f"\t0\t0\t00000102\t0\t0\t1\t{_AFTER}",
            f"{_EF}\t11\t0001\t000\tH2\t111000110\tA000\t初診料\t0\t\t0\t0"
            f"\t0\t0\t00000288\t00001548\t0\t1\t{_AFTER}",
        ]
    ),
    "d/010000001_202407_d_001.tsv": (
        f"{_EF}\t93\t0001\t\t193000110\t\t包括\t2400\t0\t0\t0\t3\t06130012\t1112\t20240703\t10\t010"
        "\t0000000007\tW1\t1\t0\t111\t20240701\t20240703\t20240701\t040080x099x0xx\t1.2345"
    ),
    "h/010000001_202407_h_001.tsv": "\n".join(
        f"010000001\tW1\t0000000042\t20240703\t20240701\t20240702\t{code}\t20240401\t0\t{payloads}"
        for code, payloads in {
            "ASS0021": "1\t0\t0\t0\t0\t0\t0\t\t\t",
            "ASS0013": "2\t0\t0\t0\t0\t0\t0\t\t\t",
            "TAR0010": "1\t\t\t\t\t\t\t\t\t",
        }.items()
    ),
    "k/010000001_202407_k_001.csv": (
        '"010000001","0000000042","20240701","20240703","202407","194507","","06130012","十",'
        '"000042","02"'
    ),
}


def test_no_part_may_be_missing(damaged: Hospitals) -> None:
    """A month is whole when all six parts of it are."""
    folder = plant(damaged, "2024-05")
    for path in (folder / "k").iterdir():
        path.unlink()
    (folder / "k").rmdir()
    with pytest.raises(PartMissing):
        damaged.deliver("2024-05", folder)
