"""Batch keys and landing names: what is accepted, how it is ordered, what can never be named."""

from dataclasses import replace
from datetime import date
from posixpath import normpath
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lakewarden.batch.delivery.keys import (
    BatchKey,
    BatchKeyInvalid,
    LandingInvalid,
    NameUnsafe,
    PartUnknown,
    PrefixUnknown,
    landing_at,
    landing_of,
    landings_of,
    meet,
    parse_key,
    quoted,
    shapes_of,
)
from lakewarden.batch.model import Dataset

FLIGHTS = Dataset("flights", "date", "raw/flights/{batch}/", {"ops.flights": "*.csv"}, 0.0, 1 << 30)
DPC = replace(
    FLIGHTS, name="dpc", key_form="month", landing="raw/yyyymm={batch}/{part}/", parts=("y1", "d")
)
LANDING = landing_of(FLIGHTS, "2013-01-02", "lake")


@pytest.mark.parametrize(
    ("form", "text", "first_day"),
    [
        ("date", "2013-01-31", date(2013, 1, 31)),
        ("date", "2012-02-29", date(2012, 2, 29)),
        ("month", "2024-04", date(2024, 4, 1)),
    ],
)
def test_a_key_of_its_form_is_read_and_shown_as_written(
    form: str, text: str, first_day: date
) -> None:
    key = parse_key(form, text)
    assert key == BatchKey(first_day, form)
    assert str(key) == text


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("date", "2013-02-29"),
        ("date", "2013-1-2"),
        ("date", "20130102"),
        ("date", "2013-W01-1"),
        ("date", "2013-01"),
        ("date", "2013-01-02\n"),
        ("date", " 2013-01-02"),
        ("date", "2013-01-02T00:00"),
        ("date", "２０１３-０１-０２"),
        ("date", "../../etc"),
        ("date", "0000-01-01"),
        ("date", ""),
        ("month", "2013-13"),
        ("month", "2013-01-02"),
        ("week", "2013-01"),
    ],
)
def test_any_other_key_is_wrong_usage_with_an_example(form: str, text: str) -> None:
    with pytest.raises(BatchKeyInvalid) as caught:
        parse_key(form, text)
    assert caught.value.exit_code == 2
    assert caught.value.hint


@given(st.dates(), st.dates(), st.sampled_from(["date", "month"]))
def test_keys_are_ordered_by_time_and_so_are_their_texts(one: date, other: date, form: str) -> None:
    def key(day: date) -> BatchKey:
        return parse_key(form, str(BatchKey(day, form)))

    assert (key(one) < key(other)) == (str(key(one)) < str(key(other)))
    assert (one < other) or not (key(one) < key(other))


@given(st.text(), st.sampled_from(["date", "month"]))
def test_what_is_accepted_as_a_key_is_digits_and_hyphens(text: str, form: str) -> None:
    try:
        key = str(parse_key(form, text))
    except BatchKeyInvalid as error:
        assert error.message.isprintable()
    else:
        assert key == text
        assert set(key) <= set("0123456789-")


@pytest.mark.parametrize(
    "landing",
    ["raw/flights/", "raw/{batch}", "/raw/{batch}/", "../{batch}/", "raw/{batch}/{part}/", ""],
)
def test_a_landing_that_mixes_batches_or_leads_out_is_wrong_usage(landing: str) -> None:
    with pytest.raises(LandingInvalid):
        landing_of(replace(FLIGHTS, landing=landing), "2013-01-02", "lake")


@pytest.mark.parametrize(
    "landing", ["raw/{batch}/", "raw/{part}/", "raw/{batch}/{part}", "{part}/../{batch}/"]
)
def test_a_landing_that_mixes_parts_or_leads_out_is_wrong_usage(landing: str) -> None:
    with pytest.raises(LandingInvalid):
        landings_of(replace(DPC, landing=landing), "2024-04", "lake")


def test_each_part_has_a_place_of_its_own_and_its_files_are_told_apart() -> None:
    y1, d = landings_of(DPC, "2024-04", "lake")
    assert (y1.prefix, d.prefix) == ("raw/yyyymm=2024-04/y1/", "raw/yyyymm=2024-04/d/")
    assert y1.key("a.txt") == "raw/yyyymm=2024-04/y1/a.txt"
    assert (y1.in_batch("a.txt"), d.in_batch("a.txt")) == ("y1/a.txt", "d/a.txt")
    assert landing_of(DPC, "2024-04", "lake", "d") == d
    assert LANDING.in_batch("a.txt") == "a.txt"


@given(
    st.lists(st.from_regex(r"[a-z][a-z0-9_-]*", fullmatch=True), min_size=2, unique=True),
    st.sampled_from(["{batch}/{part}/", "{part}/{batch}/", "x{part}y/{batch}/", "{batch}-{part}/"]),
)
def test_no_part_lies_within_another(parts: list[str], landing: str) -> None:
    found = landings_of(replace(DPC, parts=tuple(parts), landing=landing), "2024-04", "lake")
    for one in found:
        assert sum(other.prefix.startswith(one.prefix) for other in found) == 1
        assert (
            landing_at(
                f"s3://lake/{one.prefix}",
                [replace(DPC, parts=tuple(parts), landing=landing)],
                "lake",
            )
            == one
        )


@pytest.mark.parametrize(("dataset", "part"), [(DPC, None), (DPC, "y3"), (FLIGHTS, "y1")])
def test_a_part_is_named_where_there_are_parts_and_only_there(
    dataset: Dataset, part: str | None
) -> None:
    with pytest.raises(PartUnknown) as caught:
        landing_of(dataset, "2024-04-01"[: 7 if dataset is DPC else 10], "lake", part)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_landing_prefix_is_known_again(slash: str) -> None:
    found = landing_at(f"s3://lake/raw/yyyymm=2024-04/d{slash}", [FLIGHTS, DPC], "lake")
    assert (found.dataset, found.batch, found.part) == ("dpc", "2024-04", "d")
    whole = landing_at(f"s3://lake/raw/flights/2013-01-02{slash}", [DPC, FLIGHTS], "lake")
    assert whole == LANDING


@pytest.mark.parametrize(
    "prefix",
    [
        "s3://lake/raw/yyyymm=2024-04/",
        "s3://lake/raw/yyyymm=2024-04/y3/",
        "s3://lake/raw/yyyymm=2024-4/y1/",
        "s3://lake/raw/yyyymm=2024-04/y1/sub/",
        "s3://lake/raw/flights/2013-01/",
        "s3://lake/raw/flights/2013-01-021/",
        "s3://other/raw/flights/2013-01-02/",
        "raw/flights/2013-01-02/",
        "s3://lake/",
    ],
)
def test_any_other_prefix_is_wrong_usage(prefix: str) -> None:
    with pytest.raises(PrefixUnknown):
        landing_at(prefix, [FLIGHTS, DPC], "lake")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../x.csv",
        "a/../../x.csv",
        "a//x.csv",
        "./x.csv",
        "/x.csv",
        "a/",
        "a\\..\\x.csv",
        "x\0.csv",
        "x\n.csv",
        "\u202ex.csv",
        "\ud800.csv",
        "%2e%2e/x.csv",
        "..%2fx.csv",
        "%252e%252e%252fx.csv",
        "x%00.csv",
        "a%5c..%5cx.csv",
        "s3://lake/x.csv",
        "x" * 1020,
    ],
)
def test_a_name_that_could_lead_out_never_becomes_a_key(name: str) -> None:
    assert LANDING.fault(name)
    with pytest.raises(NameUnsafe):
        LANDING.key(name)


@pytest.mark.parametrize("name", ["flights.csv", "a/b.csv.gz", "100%.csv", "a b.csv", "様式1.txt"])
def test_plain_names_are_left_as_they_are(name: str) -> None:
    assert LANDING.key(name) == f"raw/flights/2013-01-02/{name}"
    assert LANDING.name(LANDING.key(name)) == name


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("./%25efcC\\:")), max_size=40))
@example("%2E%2E/%2e%2e/x")
def test_no_name_leads_out_of_the_prefix_as_it_is_or_decoded(name: str) -> None:
    if LANDING.fault(name):
        return
    for _ in range(4):
        assert normpath(f"{LANDING.prefix}{name}").startswith(LANDING.prefix)
        name = unquote(name)


@given(st.text(max_size=500))
def test_foreign_text_in_a_message_is_one_short_printable_line(text: str) -> None:
    shown = quoted(text)
    assert shown.isprintable()
    assert len(shown) < 1300


def meeting(one: Dataset, other: Dataset) -> bool:
    shapes = [shapes_of(each.landing, each.key_form, each.parts) for each in (one, other)]
    return any(meet(a, b) for a in shapes[0] for b in shapes[1])


MONTHLY = replace(FLIGHTS, key_form="month")


@pytest.mark.parametrize(
    ("one", "other", "met"),
    [
        (FLIGHTS, replace(FLIGHTS, landing="raw/trains/{batch}/"), False),
        (FLIGHTS, replace(FLIGHTS, landing="raw/flights2/{batch}/"), False),
        (FLIGHTS, DPC, False),
        (FLIGHTS, FLIGHTS, True),
        (FLIGHTS, MONTHLY, False),  # no day's folder is named like a month's
        (FLIGHTS, replace(MONTHLY, landing="raw/flights/{batch}-01/"), True),
        (FLIGHTS, replace(FLIGHTS, landing="raw/flights/{batch}/late/"), True),
        (FLIGHTS, replace(FLIGHTS, landing="raw/{batch}/"), False),
        (FLIGHTS, replace(FLIGHTS, landing="raw/flights/2024-01-01/{batch}/"), True),
        (DPC, replace(DPC, parts=("k",)), False),
        (DPC, replace(DPC, parts=("k", "d")), True),
        (DPC, replace(MONTHLY, landing="raw/yyyymm={batch}/"), True),
        (DPC, replace(MONTHLY, landing="raw/yyyymm={batch}/y1/late/"), True),
        (DPC, replace(MONTHLY, landing="raw/yyyymm={batch}/y3/"), False),
    ],
)
def test_datasets_that_would_land_in_each_other_are_known(
    one: Dataset, other: Dataset, met: bool
) -> None:
    assert meeting(one, other) == meeting(other, one) == met


PIECES = st.sampled_from(["a", "1", "2013-01", "-", "/", "{batch}", "{part}"])
LANDINGS = st.lists(PIECES, max_size=5).map(lambda pieces: "".join(pieces) + "{batch}/")


@given(LANDINGS, LANDINGS, st.sampled_from(["date", "month"]), st.dates(), st.dates())
def test_no_two_prefixes_meet_whose_shapes_do_not(
    one: str, other: str, form: str, day: date, another: date
) -> None:
    keys = (str(BatchKey(day, "date")), str(BatchKey(another, form)))
    prefixes = [
        landing.replace("{batch}", key).replace("{part}", "a")
        for landing, key in zip((one, other), keys, strict=True)
    ]
    if prefixes[0].startswith(prefixes[1]) or prefixes[1].startswith(prefixes[0]):
        assert meeting(
            replace(FLIGHTS, landing=one, parts=("a",)),
            replace(FLIGHTS, landing=other, key_form=form, parts=("a",)),
        )
