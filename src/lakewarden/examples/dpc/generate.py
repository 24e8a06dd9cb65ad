"""Monthly files of hospitals that do not exist, about patients who do not exist.

One folder a month, with one subfolder a part and the older manifest beside each file, as
`lakewarden batch deliver dpc 2024-04 deliveries/2024-04` takes them. The same arguments give the
same bytes. A defect is planted by its name into the files of one hospital and month.

    python generate.py deliveries --facilities 3 --months 2024-04..2024-06
    python generate.py deliveries --plant ZERO_COST_CASE@2/2024-05

It needs nothing but Python: hospitals that want to look at it can.
"""

import argparse
import csv
import hashlib
import io
import json
import random  # noqa: TID251 # seeded: the same seed gives the same hospitals
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

STILL_HERE = "00000000"
COMMA = ("k",)
PARTS = ("y1", "y3", "ef_in", "d", "h", "k")
Records = dict[str, list[bytes]]  # by part; without line ends

# ── what is done to patients, and what it costs ─────────────────────────────────────────────────
# The names hold what a careless reader of Shift_JIS breaks: NEC's and IBM's own signs, wave dash
# and minus, half-width kana, and characters whose second byte is a backslash (表, ソ, 十, 能, 貼).


@dataclass(frozen=True)
class Service:
    """One line of the national tariff. `price` of a unit is in yen or in points of ten yen."""

    code: str
    tariff: str
    name: str
    unit: str  # code of the unit
    price: int
    in_yen: bool = False


def _procedures() -> Iterator[Service]:
    listed = (
        ("111000110", "A000", "初診料", 288),
        ("190117710", "A100", "一般病棟入院基本料（急性期一般入院料１）", 1650),
        ("113001810", "B001", "特定薬剤治療管理料１", 470),
        ("130000510", "G001", "静脈内注射（表層血管・十字路）", 37),
        ("130003810", "G004", "点滴注射（①５００ｍＬ以上）", 102),
        ("140000610", "J000", "創傷処置（１００平方㌢未満）", 52),
        ("140005610", "J024", "酸素吸入（ソフトマスク・２～３Ｌ）", 65),
        ("150011310", "K046", "骨折観血的手術（髙位・下腿）", 18370),
        ("150294810", "K672", "腹腔鏡下胆嚢摘出術", 21500),
        ("150153910", "K546", "経皮的冠動脈形成術（急性心筋梗塞－Ⅱ型）", 36000),
        ("150332510", "L008", "閉鎖循環式全身麻酔５", 6000),
        ("160000310", "D000", "尿一般検査", 26),
        ("160008010", "D005", "末梢血液一般検査（Ｈｂ㌘・Ｈｔ）", 21),
        ("160022510", "D007", "生化学的検査（Ⅰ）ｱﾙﾌﾞﾐﾝ・ﾋﾞﾘﾙﾋﾞﾝ", 103),
        ("160068410", "D208", "心電図検査（四肢単極誘導及び胸部誘導を含む最低十二誘導）", 130),
        ("170000410", "E001", "単純撮影（胸部）診断", 85),
        ("170011810", "E200", "ＣＴ撮影（６４列以上の機種・申込欄）", 1000),
        ("180027410", "H000", "心大血管疾患リハビリテーション料（Ⅰ）能力評価", 205),
    )
    for code, tariff, name, points in listed:
        yield Service(code, tariff, name, "", points)
    yield Service("197000470", "食事", "入院時食事療養（Ⅰ）１食につき", "", 670, in_yen=True)


def _goods() -> Iterator[Service]:
    listed = (
        ("620007329", "維持輸液「ソ３号」　５００ｍＬ", "015", 176),
        ("620003472", "セフトリアキソンＮａ静注用１ｇ「㈱サンプル」", "015", 447),
        ("610432031", "ロキソプロフェンＮａ錠６０㎎「十全」", "016", 10),
        ("622038101", "アムロジピンＯＤ錠５㎎", "016", 11),
        ("620000237", "生理食塩液　１００ｍＬ～", "015", 123),
        ("640453061", "ヘパリンＮａロック用シリンジ１０単位／ｍＬ", "015", 124),
        ("620009174", "ﾌﾛｾﾐﾄﾞ錠40mg(表示変更)", "016", 6),
        ("620005915", "ワルファリンＫ錠１㎎ №２", "016", 10),
        ("662640443", "貼付剤ケトプロフェン２０㎎（７枚入－袋）", "033", 13),
        ("710010063", "血管内留置カテーテル（髙橋式・Ⅲ型）", "001", 2720),
        ("710010891", "吸引留置カテーテル②", "001", 1530),
        ("730300000", "酸素ボンベ　大型（３Ｌ～７Ｌ）", "029", 42),
        ("710011033", "人工骨（顆粒・予備能ソケット用）", "001", 6700),
    )
    for code, name, unit, yen in listed:
        yield Service(code, "", name, unit, yen, in_yen=True)


PROCEDURES = tuple(_procedures())
GOODS = tuple(_goods())
CATEGORY = {"A": "90", "B": "13", "G": "33", "J": "40", "K": "50", "L": "54", "D": "60"}
CATEGORY |= {"E": "70", "H": "80", "食": "97"}
WITH_GOODS = "GJKL"  # chapters of the tariff whose procedures use drugs and materials

DIAGNOSES = (
    ("I219", "急性心筋梗塞（前壁・Ⅱ度）"),
    ("I500", "うっ血性心不全"),
    ("J189", "肺炎"),
    ("J690", "誤嚥性肺炎～反復性"),
    ("K800", "胆石症・急性胆嚢炎①"),
    ("S7200", "大腿骨頚部骨折（髙エネルギー）"),
    ("I633", "アテローム血栓性脳梗塞－急性期"),
    ("C169", "胃癌（ﾎﾞｰﾙﾏﾝ3型）"),
    ("E119", "２型糖尿病　合併症なし"),
    ("N390", "尿路感染症（表在性・十二指腸瘻後）"),
)
OPERATIONS = tuple(service for service in PROCEDURES if service.tariff.startswith("K"))
DPC_CODES = (
    "050050xx99000x",
    "050130xx9900xx",
    "040080x099x0xx",
    "060335xx02000x",
    "160800xx01xxxx",
)
PREFECTURES = (
    ("01", "北海道", "札幌市"),
    ("02", "青森県", "弘前市"),
    ("04", "宮城県", "仙台市"),
    ("07", "福島県", "郡山市"),
    ("09", "栃木県", "宇都宮市"),
    ("13", "東京都", "葛飾区"),
    ("27", "大阪府", "堺市"),
)


# ── hospitals, months, patients ─────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Plan:
    """What to make. `cases` are new patients a hospital and month; they come back besides."""

    facilities: int
    months: Sequence[str]  # YYYY-MM, one after another
    cases: int = 20
    seed: int = 1


@dataclass(frozen=True)
class Stay:
    """One stay of a patient in one hospital (`facility` counts from 1)."""

    patient: int
    facility: int
    admitted: date
    discharged: date
    common_id: str  # empty where no insurer knows the patient

    @property
    def data_id(self) -> str:
        """The hospital's own number of the patient: the same again when they come back."""
        return f"{(self.patient * 7919 + self.facility * 104_729) % 10**8:010d}"

    @property
    def born(self) -> date:
        return date(1925, 1, 1) + timedelta(days=self.patient * 7907 % 32_000)

    @property
    def sex(self) -> str:
        return str(1 + self.patient * 31 % 7 % 2)


def facility_code(facility: int) -> str:
    """Nine digits, of which the first are the prefecture's."""
    return f"{PREFECTURES[facility % len(PREFECTURES)][0]}{facility * 10_007 % 10**7:07d}"


def first_day(month: str) -> date:
    return date.fromisoformat(f"{month}-01")


def last_day(month: str) -> date:
    return (first_day(month) + timedelta(days=31)).replace(day=1) - timedelta(days=1)


def months_between(first: str, last: str) -> list[str]:
    """YYYY-MM from one month to another, both included."""
    found = [first]
    while found[-1] < last:
        found.append((last_day(found[-1]) + timedelta(days=1)).isoformat()[:7])
    return found


def all_stays(plan: Plan) -> list[Stay]:
    """Every stay that begins within the months; some end after them."""
    end = last_day(plan.months[-1])
    found: list[Stay] = []
    for facility in range(1, plan.facilities + 1):
        chance = random.Random(f"{plan.seed} patients {facility}")  # noqa: S311 # not a secret
        for number in range(plan.cases * len(plan.months)):
            patient = facility + number * plan.facilities
            month = plan.months[number % len(plan.months)]
            come = first_day(month) + timedelta(days=chance.randrange(last_day(month).day))
            found += [
                s for s in _history(plan, patient, facility, come, chance) if s.admitted <= end
            ]
    return found


def _history(
    plan: Plan, patient: int, facility: int, come: date, chance: random.Random
) -> Iterator[Stay]:
    """A patient's stays from the first on. They return on the same day, within 30 days, on the
    30th and the 31st and later, to any hospital; some lie in two hospitals at once."""
    known = chance.random() > 0.03
    name = hashlib.sha256(f"{plan.seed} {patient}".encode()).hexdigest() if known else ""
    last: dict[int, Stay] = {}  # by hospital
    while True:
        before = last.get(facility)
        if before:  # nobody is admitted where they lie, nor twice on a day
            come = max(come, before.discharged, before.admitted + timedelta(days=1))
        days = 0 if chance.random() < 0.15 else min(60, int(chance.expovariate(1 / 8)))
        stay = Stay(patient, facility, come, come + timedelta(days=days), name)
        yield stay
        last[facility] = stay
        if chance.random() > 0.4:
            return
        gap = chance.choice((0, 0, 1, 7, 14, 29, 30, 31, 45, 80))
        come = stay.discharged + timedelta(days=gap)
        if plan.facilities > 1 and chance.random() < 0.4:
            facility = 1 + (facility + chance.randrange(plan.facilities - 1)) % plan.facilities
            if chance.random() < 0.2:
                come = stay.admitted + timedelta(days=days // 2)


# ── the records of one stay in one month ────────────────────────────────────────────────────────


def _text(day: date) -> str:
    return f"{day:%Y%m%d}"


def _discharge(stay: Stay, month: str) -> str:
    return _text(stay.discharged) if stay.discharged <= last_day(month) else STILL_HERE


def _line(*fields: str) -> bytes:
    return "\t".join(fields).encode("cp932")


def _y1(stay: Stay, month: str) -> Iterator[bytes]:
    """Form 1: a record for each thing that is known of the stay."""
    chance = random.Random(f"{stay.patient} {stay.admitted} form 1")  # noqa: S311 # not a secret
    admitted, discharged = _text(stay.admitted), _discharge(stay, month)

    def record(code: str, *payloads: str, number: int = 1, summary: str = "0") -> bytes:
        key = (facility_code(stay.facility), stay.data_id, admitted, "0", summary)
        empty = [""] * (9 - len(payloads))
        return _line(*key, code, "20240401", str(number), *payloads, *empty)

    def diagnosis(code: str, number: int = 1) -> bytes:
        icd10, name = chance.choice(DIAGNOSES)
        return record(code, "", icd10, "", "", "", "", "", "", name, number=number)

    urgent = chance.random() < 0.4
    yield record("A000010", _text(stay.born), stay.sex, f"{stay.patient * 97 % 10**7:07d}")
    how = ("1", "0", "1", "300" if urgent else "100", "1" if urgent else "0")
    yield record("A000020", admitted, *how)
    if discharged == STILL_HERE:
        yield record("A000030", discharged)
    else:
        yield record("A000030", discharged, "1", chance.choice("1239"), "0")
    yield record("A001010", "", str(chance.randint(140, 190)), f"{chance.randint(350, 1100) / 10}")
    for code in ("A006010", "A006020", "A006030"):
        yield diagnosis(code)
    for number in range(1, chance.randint(1, 3)):
        yield diagnosis("A006040", number)
    if chance.random() < 0.3:
        done = chance.choice(OPERATIONS)
        names = ("", "", "", "", "", "", done.name)
        yield record("A007010", admitted, done.tariff, *names)
    if chance.random() < 0.04:  # two stays that were merged into this one
        for summary in "AB":
            yield record("A000020", admitted, *how, summary=summary)
            yield record("A000030", discharged, "1", "1", "0", summary=summary)


def _k(stay: Stay, month: str) -> bytes:
    dates = (_text(stay.admitted), _discharge(stay, month), month.replace("-", ""))
    symbol = ("", "０１", "協会・表十", "ｿｳﾑ①")[stay.patient % 4]
    insured = (
        "06130012",
        symbol,
        f"{stay.patient * 13 % 10**6:06d}",
        f"{stay.patient % 3 + 1:02d}",
    )
    key = (facility_code(stay.facility), stay.data_id)
    fields = (*key, *dates, f"{stay.born:%Y%m}", stay.common_id, *insured)
    return ",".join(fields).encode("cp932")


def _h(stay: Stay, month: str, days: Sequence[date]) -> Iterator[bytes]:
    """How severely ill the patient was, day by day."""
    chance = random.Random(f"{stay.patient} {stay.admitted} {month} severity")  # noqa: S311 # not a secret
    code, dates = facility_code(stay.facility), (_discharge(stay, month), _text(stay.admitted))
    for day in days:
        key = (code, "W0000000A1", stay.data_id, *dates, _text(day))
        yield _line(*key, "TAR0010", "20240401", "0", "1", *[""] * 9)
        scores = [chance.choice("0012") for _ in range(7)]
        yield _line(*key, "ASS0013", "20240401", "0", *scores, *[""] * 3)
        scores = [chance.choice("0001") for _ in range(7)]
        yield _line(*key, "ASS0021", "20240401", "0", *scores, *[""] * 3)


def _d(stay: Stay, month: str, days: Sequence[date]) -> Iterator[bytes]:
    """What is paid inclusively: so many points a day, adjusted at the end; and why not, if not."""
    chance = random.Random(f"{stay.patient} {stay.admitted} {month} inclusive")  # noqa: S311 # not a secret
    dpc, coefficient = DPC_CODES[stay.patient % len(DPC_CODES)], "1.2345"
    key = (
        facility_code(stay.facility),
        stay.data_id,
        _discharge(stay, month),
        _text(stay.admitted),
    )

    def record(category: str, code: str, name: str, points: int, count: int) -> bytes:
        what = (category, "0001", "", code, "", name, f"{points:08d}", "00000000", "00000000")
        asked = (
            "0",
            f"{count:03d}",
            "06130012",
            "1112",
            _text(days[-1]),
            "10",
            "010",
            "0000000123",
        )
        where = ("W0000000A1", "1", "0", "111")
        period = (_text(days[0]), _text(days[-1]), _text(stay.admitted))
        return _line(*key, *what, *asked, *where, *period, dpc, coefficient)

    daily = chance.randint(1800, 3200)
    yield record("93", "193000110", "診断群分類による包括評価（Ⅰ～Ⅱ）", daily, len(days))
    if chance.random() < 0.3:
        yield record("94", "193000210", "包括評価調整点数①", chance.randint(1, 900), 1)
    if chance.random() < 0.05:
        yield record("01", "193000310", "出来高算定の理由（治験・十）", 0, 0)


@dataclass(frozen=True)
class _Act:
    """A procedure with what it uses, as the middle of its records: from the item's number to the
    number of times. Rendered once, since millions of records are made of them."""

    category: bytes
    items: tuple[bytes, ...]


def _acts() -> Iterator[_Act]:
    for number, procedure in enumerate(PROCEDURES):
        with_goods = procedure.tariff[0] in WITH_GOODS
        goods = [GOODS[(number * 3 + n) % len(GOODS)] for n in range(4)] if with_goods else []
        used = [(one, 1 + n) for n, one in enumerate(goods)]
        yen = {kind: sum(g.price * n for g, n in used if g.code[0] == kind) for kind in "67"}
        own = 0 if procedure.in_yen else procedure.price
        points = (own, round(yen["6"] / 10), round(yen["7"] / 10))
        items = [_item(0, procedure, 0, 0, points), _item(1, procedure, 1, procedure.price)]
        items += [_item(2 + i, one, n, one.price * n) for i, (one, n) in enumerate(used)]
        yield _Act(CATEGORY[procedure.tariff[0]].encode(), tuple(items))


def _item(
    number: int, one: Service, quantity: int, cost: int, points: tuple[int, int, int] = (0, 0, 0)
) -> bytes:
    what = (f"{number:03d}", f"H{one.code}", one.code, one.tariff, one.name)
    much = (f"{quantity:07d}.000", one.unit, f"{cost:012d}", "1" if one.in_yen else "0")
    flags = ("00000000", "0" * 12)
    return _line(*what, *much, *flags, *(f"{n:08d}" for n in points), "001")


ACTS = tuple(_acts())
_EVERY_DAY = tuple(act for act in ACTS if act.category in (b"90", b"97"))
_SOME_DAYS = tuple(act for act in ACTS if act.category not in (b"90", b"97"))


def _ef(stay: Stay, month: str, days: Sequence[date]) -> Iterator[bytes]:
    """Everything that was done: one E record (item 000) an act, its F records after it."""
    chance = random.Random(f"{stay.patient} {stay.admitted} {month} services")  # noqa: S311 # not a secret
    key = (
        facility_code(stay.facility),
        stay.data_id,
        _discharge(stay, month),
        _text(stay.admitted),
    )
    begin = _line(*key)
    doctor = f"{stay.patient % 40:010d}"
    count: Counter[bytes] = Counter()
    for day in days:
        who = ("06130012", "1112", _text(day), "10", "010", doctor, "W0000000A1", "1", "0", "111")
        end = b"\t" + _line(*who)
        for act in (*_EVERY_DAY, *chance.choices(_SOME_DAYS, k=3)):
            count[act.category] += 1
            head = b"%b\t%b\t%04d\t" % (begin, act.category, count[act.category])
            for item in act.items:
                yield head + item + end


def _y3(facility: int, month: str) -> list[bytes]:
    _, prefecture, city = PREFECTURES[facility % len(PREFECTURES)]
    row = [facility_code(facility), month[:4], f"第{facility}架空病院（㈱髙橋記念・表町）"]
    row += ["急性期", "DPC標準病院群", prefecture, city]
    head = "facility_cd,report_year,facility_name,bed_function,facility_group,prefecture,city"
    return [head.encode(), ",".join(row).encode()]


def records_of(stays: Sequence[Stay], facility: int, month: str) -> Records:
    """The records of one hospital and month, by part. A stay that goes on is told as far as it
    got, without a discharge, and again in the next month."""
    first, last = first_day(month), last_day(month)
    here = [s for s in stays if s.facility == facility and s.admitted <= last]
    found: Records = {part: [] for part in PARTS}
    found["y3"] = _y3(facility, month)
    for stay in here:
        if stay.discharged < first:
            continue
        begin, end = max(stay.admitted, first), min(stay.discharged, last)
        days = [begin + timedelta(days=n) for n in range((end - begin).days + 1)]
        found["y1"] += _y1(stay, month)
        found["ef_in"] += _ef(stay, month, days)
        found["d"] += _d(stay, month, days)
        found["h"] += _h(stay, month, days)
        found["k"].append(_k(stay, month))
    return found


# ── defects ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Plant:
    """One defect, in the files of one hospital (counted from 1) and month."""

    defect: str
    facility: int
    month: str


def _change(records: list[bytes], number: int, column: int, value: str) -> None:
    fields = records[number].split(b"\t")
    fields[column] = value.encode("cp932")
    records[number] = b"\t".join(fields)


def _repeat_case(found: Records) -> None:
    case = found["y1"][0].split(b"\t")[:5]
    found["y1"] += [one for one in found["y1"] if one.split(b"\t")[:5] == case]


def _repeat_service(found: Records) -> None:
    found["ef_in"].append(found["ef_in"][1])


def _repeat_payment(found: Records) -> None:
    found["d"].append(found["d"][0])


def _leave_before_coming(found: Records) -> None:
    for number, record in enumerate(found["y1"]):
        fields = record.split(b"\t")
        if fields[4] == b"0" and fields[5] == b"A000030" and fields[8] != STILL_HERE.encode():
            came = date.fromisoformat(fields[2].decode())
            return _change(found["y1"], number, 8, _text(came - timedelta(days=1)))
    raise ValueError("nobody was discharged from this hospital in this month: plan more cases")


def _lose_common_id(found: Records) -> None:
    found["k"].pop()


def _wrong_unit_of_money(found: Records) -> None:
    flag = found["ef_in"][1].split(b"\t")[14]
    _change(found["ef_in"], 1, 14, "0" if flag == b"1" else "1")


def _unknown_service(found: Records) -> None:
    _change(found["ef_in"], 1, 8, "199999999")


def _free_case(found: Records) -> None:
    case = [found["ef_in"][0].split(b"\t")[n] for n in (1, 3)]
    for part, columns in {"ef_in": (13, 17, 18, 19), "d": (10, 11, 12)}.items():
        for number, record in enumerate(found[part]):
            if [record.split(b"\t")[n] for n in (1, 3)] == case:
                for column in columns:
                    _change(found[part], number, column, "0")


def _letter_in_a_number(found: Records) -> None:
    _change(found["ef_in"], 1, 11, "000000l.000")


DEFECTS: Mapping[str, Callable[[Records], None]] = {
    "PK_DUPLICATE_Y1": _repeat_case,
    "PK_DUPLICATE_EF": _repeat_service,
    "PK_DUPLICATE_D": _repeat_payment,
    "DATE_INCONSISTENCY": _leave_before_coming,
    "CASE_K_COUNT_MISMATCH": _lose_common_id,
    "VALUE_UNREADABLE": _letter_in_a_number,
    "YEN_POINT_FLAG_MISMATCH": _wrong_unit_of_money,
    "SERVICE_CODE_NOT_FOUND": _unknown_service,
    "ZERO_COST_CASE": _free_case,
}


def parse_plant(text: str) -> Plant:
    """DEFECT@FACILITY/MONTH, such as ZERO_COST_CASE@2/2024-05."""
    found = re.fullmatch(r"(\w+)@(\d+)/(\d{4}-\d\d)", text)
    if not found or found[1] not in DEFECTS:
        known = ", ".join(DEFECTS)
        raise argparse.ArgumentTypeError(f"expected DEFECT@FACILITY/MONTH, with one of: {known}")
    return Plant(found[1], int(found[2]), found[3])


# ── files ───────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Written:
    """What lies in the folder of one month."""

    month: str
    files: int
    records: Mapping[str, int]  # by part
    bytes: int


def generate(folder: Path, plan: Plan, plants: Sequence[Plant] = ()) -> Iterator[Written]:
    """Write each month into `folder/YYYY-MM/part/`; yields it when it is done.

    Raises ValueError where a plant names a hospital or a month that is not planned."""
    for plant in plants:
        if not 1 <= plant.facility <= plan.facilities or plant.month not in plan.months:
            raise ValueError(
                f"{plant.defect}: hospital {plant.facility}, {plant.month} not planned"
            )
    stays: dict[int, list[Stay]] = {n: [] for n in range(1, plan.facilities + 1)}
    for stay in all_stays(plan):
        stays[stay.facility].append(stay)
    for month in plan.months:
        counts: Counter[str] = Counter()
        size = 0
        for facility in stays:
            found = records_of(stays[facility], facility, month)
            for plant in plants:
                if (plant.facility, plant.month) == (facility, month):
                    DEFECTS[plant.defect](found)
            for part, records in found.items():
                size += write_file(folder / month / part, facility, month, part, records)
                counts[part] += len(records) - (part == "y3")
        yield Written(month, plan.facilities * len(PARTS), dict(counts), size)


def write_file(folder: Path, facility: int, month: str, part: str, records: list[bytes]) -> int:
    """One file and its manifest; returns the file's bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    header = part == "y3"
    stem = f"{facility_code(facility)}_{month.replace('-', '')}_{part}_001"
    body = b"".join(record + b"\r\n" for record in records)
    (folder / f"{stem}{'.csv' if header or part in COMMA else '.txt'}").write_bytes(body)
    # Half of the hospitals have an old program.
    algorithm = "MD5" if facility % 2 == 0 else "SHA256"
    digest = hashlib.new(algorithm.lower(), body, usedforsecurity=False).hexdigest()
    manifest = {
        "yyyymm": month,
        "file_type": part,
        "facility_cd": facility_code(facility),
        "records": len(records) - header,
        "hash": {"algorithm": algorithm, "value": digest},
        "created_at": f"{last_day(month) + timedelta(days=10)}T01:30:00+09:00",
    }
    (folder / f"{stem}_manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return len(body)


def service_codes() -> str:
    """The master of services, as the CSV that the models take for the national one."""
    output = io.StringIO()
    rows = csv.writer(output, lineterminator="\n")
    rows.writerow(("service_code", "service_name", "yen_flag"))
    for one in sorted((*PROCEDURES, *GOODS), key=lambda one: one.code):
        rows.writerow((one.code, one.name, "1" if one.in_yen else "0"))
    return output.getvalue()


def _months(text: str) -> list[str]:
    found = re.fullmatch(r"(\d{4}-\d\d)(?:\.\.(\d{4}-\d\d))?", text)
    if not found:
        raise argparse.ArgumentTypeError("expected YYYY-MM, or YYYY-MM..YYYY-MM")
    return months_between(found[1], found[2] or found[1])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description="Write monthly hospital files of patients who do not exist.",
        epilog=f"Defects: {', '.join(DEFECTS)}.",
    )
    parser.add_argument("folder", type=Path, help="gets one folder a month")
    parser.add_argument("--facilities", type=int, default=3, metavar="N", help="hospitals (3)")
    parser.add_argument(
        "--months", type=_months, default=_months("2024-04..2024-06"), help="2024-04..2024-06"
    )
    parser.add_argument(
        "--cases", type=int, default=20, metavar="N", help="new patients a hospital and month (20)"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="another, other patients")
    parser.add_argument(
        "--plant",
        type=parse_plant,
        action="append",
        default=[],
        metavar="DEFECT@FACILITY/MONTH",
        help="may be given often; hospitals count from 1",
    )
    parser.add_argument("--service-codes", type=Path, metavar="FILE", help="write the master too")
    given = parser.parse_args(arguments)
    plan = Plan(given.facilities, given.months, given.cases, given.seed)
    if given.service_codes:
        given.service_codes.write_text(service_codes(), encoding="utf-8")
    try:
        for done in generate(given.folder, plan, given.plant):
            told = ", ".join(f"{part} {count:,}" for part, count in done.records.items())
            sys.stdout.write(
                f"{done.month}  {done.files} files, {done.bytes / 1e6:.1f} MB: {told}\n"
            )
    except ValueError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
