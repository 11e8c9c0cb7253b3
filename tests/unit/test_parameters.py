from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from marketflow.adapters.http.parameters import (
    LARGEST_INTEGER,
    SECONDS,
    BadParameter,
    asked_range,
    choice,
    integer,
    names,
    optional_timestamp,
    parameters,
    symbol_names,
    timestamp,
    with_exchange,
)
from marketflow.domain.periods import Range


def test_parameters_come_back_by_name():
    assert parameters([("period", "1m"), ("exchange", "")], ("exchange", "period")) == {
        "period": "1m",
        "exchange": "",
    }


def test_an_unknown_parameter_names_those_allowed():
    with pytest.raises(BadParameter, match="'limt'") as caught:
        parameters([("limt", "5")], ("limit", "start"))
    assert caught.value.kind == "unknown-parameter"
    assert caught.value.allowed == ("limit", "start")


def test_a_repeated_parameter_is_refused_even_with_the_same_value():
    with pytest.raises(BadParameter, match="more than once") as caught:
        parameters([("limit", "5"), ("limit", "5")], ("limit",))
    assert caught.value.kind == "repeated-parameter"


@given(
    st.integers(min_value=0, max_value=LARGEST_INTEGER) | st.sampled_from([SECONDS.start - 1, SECONDS.stop])
)
def test_every_int64_that_is_not_negative_and_no_seconds_is_a_timestamp(number):
    assume(number not in SECONDS)
    assert optional_timestamp("start", str(number)) == number


@pytest.mark.parametrize("number", [SECONDS.start, 1_795_343_351, SECONDS.stop - 1])
def test_a_number_that_can_only_be_seconds_is_refused_with_a_hint(number):
    with pytest.raises(BadParameter, match=f"{number}000") as caught:
        timestamp("end", str(number))
    assert caught.value.kind == "seconds"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-26T10:00:00Z", 1_795_687_200_000),
        ("2026-11-26t10:00:00z", 1_795_687_200_000),
        ("2026-11-26T10:00:00.0129Z", 1_795_687_200_012),
        ("2026-11-26T11:00:00+01:00", 1_795_687_200_000),
        ("2026-11-26T11:00:00 01:00", 1_795_687_200_000),  # a + that was not encoded
        ("2026-11-26T05:00:00-0500", 1_795_687_200_000),
        ("2026-11-26T10:00:00", 1_795_687_200_000),
        ("2026-11-26 10:00", 1_795_687_200_000),
        ("2026-11-26", 1_795_651_200_000),
        ("1969-12-31", 0),
        ("0001-01-01T00:00:00+23:59", 0),
    ],
)
def test_a_time_may_be_written_as_iso_8601(text, expected):
    assert timestamp("start", text) == expected


@pytest.mark.parametrize(
    "text",
    ["2026-13-01", "2026-11-26T25:00:00Z", "2026-11", "20261126T100000Z", "2026-11-26T10:00:00Q", "now"],
)
def test_any_other_text_is_no_time(text):
    with pytest.raises(BadParameter) as caught:
        timestamp("start", text)
    assert caught.value.kind == "bad-start"


def test_lists_of_names_have_commas():
    assert names(None) is symbol_names(None) is None
    assert names("b,a,b") == ("b", "a")
    assert symbol_names("btcusdt,ETHusdt,BTCUSDT") == ("BTCUSDT", "ETHUSDT")
    assert names("") == ("",)
    assert names("a,") == ("a", "")


def test_a_span_has_a_period_or_a_start():
    assert asked_range({}) == Range()
    assert asked_range({"period": "5m", "end": "7"}) == Range("5m", end=7)
    assert asked_range({"start": "5", "end": "7"}) == Range(start=5, end=7)
    with pytest.raises(BadParameter) as caught:
        asked_range({"period": "5m", "start": "5"})
    assert caught.value.kind == "conflicting-span"
    with pytest.raises(BadParameter) as caught:
        asked_range({"start": "8", "end": "7"})
    assert caught.value.kind == "bad-start"


def test_no_text_is_no_timestamp():
    assert optional_timestamp("start", None) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "-1",
        "+1",
        "1.0",
        "1e3",
        "0x10",
        "1_000",
        " 1",
        "1 ",
        "1\n",
        "\u0661",
        "\uff11",
        str(2**63),
        "9" * 5000,
    ],
)
def test_what_is_no_int64_in_ascii_digits_is_refused(text):
    with pytest.raises(BadParameter) as caught:
        integer("start", text, least=0, most=LARGEST_INTEGER)
    assert caught.value.kind == "bad-start"


@given(st.text(max_size=25))
def test_any_text_is_an_integer_within_the_bounds_or_refused(text):
    """No text raises an error other than BadParameter."""
    try:
        number = integer("limit", text, least=1, most=1000)
    except BadParameter:
        return
    assert text.isascii()
    assert text.isdigit()
    assert 1 <= number <= 1000


@pytest.mark.parametrize(("text", "good"), [("0", False), ("1", True), ("1000", True), ("1001", False)])
def test_the_bounds_belong_to_what_is_allowed(text, good):
    if good:
        assert integer("limit", text, least=1, most=1000) == int(text)
    else:
        with pytest.raises(BadParameter, match="from 1 to 1000"):
            integer("limit", text, least=1, most=1000)


def test_a_choice_names_the_others():
    assert choice("interval", "1m", {"1m": 60_000, "1h": 3_600_000}) == "1m"
    with pytest.raises(BadParameter) as caught:
        choice("interval", "1M", {"1m": 60_000, "1h": 3_600_000})
    assert caught.value.kind == "bad-interval"
    assert caught.value.allowed == ("1m", "1h")


@pytest.mark.parametrize(
    ("in_path", "query", "asked", "others"),
    [
        (None, [], None, {}),
        ("a", [], ("a",), {}),
        (None, [("exchange", "a")], ("a",), {}),
        (None, [("exchange", "")], ("",), {}),
        ("a", [("period", "1m")], ("a",), {"period": "1m"}),
        ("a,b", [], ("a,b",), {}),
        (None, [("period", "1m"), ("exchange", "a,b")], ("a", "b"), {"period": "1m"}),
    ],
)
def test_the_exchange_may_stand_in_the_path_or_in_the_query(in_path, query, asked, others):
    assert with_exchange(query, in_path, ("period",)) == (asked, others)


@pytest.mark.parametrize("in_query", ["a", "b", "", "A"])
def test_where_it_is_in_the_path_the_query_has_no_such_parameter(in_query):
    with pytest.raises(BadParameter) as caught:
        with_exchange([("exchange", in_query)], "a", ("period",))
    assert (caught.value.kind, caught.value.allowed) == ("unknown-parameter", ("period",))
