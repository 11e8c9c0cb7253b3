from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.adapters.http.parameters import (
    LARGEST_INTEGER,
    BadParameter,
    choice,
    integer,
    optional_timestamp,
    parameters,
    with_exchange,
)


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


@given(st.integers(min_value=0, max_value=LARGEST_INTEGER))
def test_every_int64_that_is_not_negative_is_a_timestamp(number):
    assert optional_timestamp("start", str(number)) == number


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
        ("a", [], "a", {}),
        (None, [("exchange", "a")], "a", {}),
        (None, [("exchange", "")], "", {}),
        ("a", [("period", "1m")], "a", {"period": "1m"}),
        (None, [("period", "1m"), ("exchange", "a")], "a", {"period": "1m"}),
    ],
)
def test_the_exchange_may_stand_in_the_path_or_in_the_query(in_path, query, asked, others):
    assert with_exchange(query, in_path, ("period",)) == (asked, others)


@pytest.mark.parametrize("in_query", ["a", "b", "", "A"])
def test_where_it_is_in_the_path_the_query_has_no_such_parameter(in_query):
    with pytest.raises(BadParameter) as caught:
        with_exchange([("exchange", in_query)], "a", ("period",))
    assert (caught.value.kind, caught.value.allowed) == ("unknown-parameter", ("period",))
