"""The made-up hospitals: the same seed, the same bytes, in the layouts that hospitals submit."""

import hashlib
import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests.local.hospitals import CRITICAL, EXAMPLE, PARTS, WARNINGS, load_generator

generator = load_generator()
MONTHS = ("2024-04", "2024-05")
# Characters a field, as the survey describes them; of Form 1 and H the payloads are free.
WIDTHS: Mapping[str, tuple[int, ...]] = {
    "y1": (9, 10, 8, 1, 1, 7, 8, 1, *[254] * 9),
    "ef_in": (
        *(9, 10, 8, 8, 2, 4, 3, 12, 9, 8, 254, 11, 3, 12, 1, 8, 12, 8, 8, 8, 3, 8, 4, 8, 2, 3),
        *(10, 10, 1, 1, 3),
    ),
    "d": (
        *(9, 10, 8, 8, 2, 4, 12, 9, 8, 254, 8, 8, 8, 1, 3, 8, 4, 8, 2, 3, 10, 10, 1, 1, 3),
        *(8, 8, 8, 14, 6),
    ),
    "h": (9, 10, 10, 8, 8, 8, 7, 8, 1, *[254] * 10),
    "k": (9, 10, 8, 8, 6, 6, 64, 8, 254, 254, 2),
}
KEYS = {"y1": 2, "ef_in": 3, "d": 3, "h": 4, "k": 2}  # where the admission stands
# Bytes that a careless reader of Shift_JIS takes for something else.
HARD = "①②㈱髙～－Ⅰ㎎№ｱﾄﾞ表ソ十能貼・"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    return made(tmp_path_factory.mktemp("files"))


def made(folder: Path, *plants: Any, seed: int = 1, facilities: int = 3) -> Mapping[str, bytes]:
    list(generator.generate(folder, generator.Plan(facilities, MONTHS, 8, seed), plants))
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def of_part(files: Mapping[str, bytes], part: str) -> list[list[str]]:
    delimiter = "," if part == "k" else "\t"
    return [
        line.split(delimiter)
        for name, body in files.items()
        if name.split("/")[1] == part and not name.endswith(".json")
        for line in body.decode("cp932").removesuffix("\r\n").split("\r\n")
    ]


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(
    files: Mapping[str, bytes], tmp_path: Path
) -> None:
    assert made(tmp_path / "again") == files
    assert made(tmp_path / "other", seed=2) != files


@pytest.mark.parametrize("part", WIDTHS)
def test_records_have_the_layout_of_their_part(files: Mapping[str, bytes], part: str) -> None:
    for record in of_part(files, part):
        assert len(record) == len(WIDTHS[part])
        assert all(len(f) <= w for f, w in zip(record, WIDTHS[part], strict=True)), record
        assert len(record[0]) == 9
        admitted = record[KEYS[part]]
        assert f"{date.fromisoformat(admitted):%Y%m%d}" == admitted


def test_codes_have_leading_zeros_and_open_stays_no_discharge(files: Mapping[str, bytes]) -> None:
    records = of_part(files, "k")
    assert {record[0][0] for record in records} == {"0"}
    assert {record[1][0] for record in records} == {"0"}
    assert any(record[3] == "00000000" for record in records)


def test_texts_survive_cp932_and_hold_what_is_hard_in_it(files: Mapping[str, bytes]) -> None:
    names = "".join("".join(record) for part in WIDTHS for record in of_part(files, part))
    assert set(HARD) <= set(names)
    second = {b for name in set(names) if len(b := name.encode("cp932")) == 2 and b[1] == 0x5C}
    assert len(second) >= 5
    assert names.encode("cp932").decode("cp932") == names


def test_manifests_tell_the_truth(files: Mapping[str, bytes]) -> None:
    manifests = {name: body for name, body in files.items() if name.endswith(".json")}
    assert len(manifests) == len(files) / 2 == len(MONTHS) * 3 * len(PARTS)
    algorithms = set()
    for name, body in manifests.items():
        told = json.loads(body)
        stem = name.removesuffix("_manifest.json")
        data = next(b for n, b in files.items() if n.startswith(stem) and n != name)
        month, part, file = stem.split("/")
        assert (told["yyyymm"], told["file_type"]) == (month, part)
        assert file == f"{told['facility_cd']}_{month.replace('-', '')}_{part}_001"
        assert told["records"] == data.count(b"\r\n") - (part == "y3")
        digest = hashlib.new(told["hash"]["algorithm"], data, usedforsecurity=False)
        assert told["hash"]["value"] == digest.hexdigest()
        algorithms.add(told["hash"]["algorithm"])
    assert algorithms == {"MD5", "SHA256"}


@pytest.mark.parametrize("part", KEYS)
def test_keys_come_once_within_hospital_and_month(files: Mapping[str, bytes], part: str) -> None:
    key = {"y1": 8, "ef_in": 7, "d": 6, "h": 9, "k": 3}[part]
    for name, body in files.items():
        if name.split("/")[1] == part and not name.endswith(".json"):
            records = of_part({name: body}, part)
            assert len({tuple(record[:key]) for record in records}) == len(records)


def test_patients_come_back() -> None:
    stays = generator.all_stays(generator.Plan(3, generator.months_between("2024-01", "2024-06")))
    at: dict[tuple[int, int], list[Any]] = {}
    gaps = set()
    for stay in stays:
        for before in at.setdefault((stay.patient, stay.facility), []):
            assert stay.admitted >= before.discharged
            assert stay.admitted > before.admitted
        at[stay.patient, stay.facility].append(stay)
        gaps |= {
            ((stay.admitted - one.discharged).days, stay.facility == one.facility)
            for one in stays
            if one.patient == stay.patient and one is not stay
        }
    assert {(0, True), (0, False), (30, True), (31, True)} <= gaps
    assert any(days < 0 and not same for days, same in gaps)
    assert any(not stay.common_id for stay in stays)
    assert len({(s.facility, s.data_id) for s in stays}) == len(
        {(s.facility, s.patient) for s in stays}
    )


@pytest.mark.parametrize("defect", [*CRITICAL, *WARNINGS])
def test_a_defect_changes_the_files_of_its_hospital_and_month_alone(
    files: Mapping[str, bytes], tmp_path: Path, defect: str
) -> None:
    planted = made(tmp_path, generator.parse_plant(f"{defect}@2/2024-05"))
    assert planted.keys() == files.keys()
    changed = {name for name, body in planted.items() if body != files[name]}
    assert changed
    here = f"{generator.facility_code(2)}_202405_"
    assert all(name.rpartition("/")[2].startswith(here) for name in changed)


def test_every_rule_has_its_defect() -> None:
    assert set(generator.DEFECTS) == {*CRITICAL, *WARNINGS}


@pytest.mark.parametrize("text", ["PK@1/2024-04", "ZERO_COST_CASE@1", "ZERO_COST_CASE@x/2024-04"])
def test_a_plant_that_cannot_be_read_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        generator.main([str(tmp_path), "--plant", text])


def test_a_plant_outside_of_the_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        generator.main([str(tmp_path), "--plant", "ZERO_COST_CASE@9/2024-04"])
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_months_and_the_master_of_services(tmp_path: Path) -> None:
    master = tmp_path / "codes.csv"
    months = ["--months", "2023-12..2024-01", "--facilities", "1", "--cases", "2"]
    assert generator.main([str(tmp_path / "out"), *months, "--service-codes", str(master)]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["2023-12", "2024-01"]
    assert {path.name for path in (tmp_path / "out" / "2024-01").iterdir()} == set(PARTS)
    shipped = EXAMPLE / "transform" / "seeds" / "service_codes.csv"
    assert master.read_bytes() == shipped.read_bytes()
