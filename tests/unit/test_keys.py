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
    landing_of,
    parse_key,
    quoted,
)
from lakewarden.batch.model import Dataset

FLIGHTS = Dataset("flights", "date", "raw/flights/{batch}/", {"ops.flights": "*.csv"}, 0.0, 1 << 30)
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
