"""One bad symbol never costs the others, however an exchange words its answers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.adapters.exchange.venues.venue import Rejected, Subscribed
from marketflow.adapters.exchange.websocket.subscriptions import PATIENCE, Subscriptions

LETTERS = "abcdefghij"


def of(symbols="abcd", batch=2, *, rejects_all=False):
    return Subscriptions(tuple(symbols), batch, rejects_all=rejects_all)


def test_symbols_are_asked_for_in_batches():
    subscriptions = of("abcde")
    asked = [subscriptions.ask(number, 0.0) for number in range(1, 5)]
    assert asked == [("a", "b"), ("c", "d"), ("e",), ()]
    assert set(subscriptions.states.values()) == {"asked"}


def test_an_acceptance_may_name_symbols_a_request_or_neither():
    subscriptions = of("abcdef")
    for number in (1, 2, 3):
        subscriptions.ask(number, 0.0)
    assert subscriptions.accept(Subscribed(("b",))).accepted == ["b"]
    assert subscriptions.accept(Subscribed(request=2)).accepted == ["c", "d"]
    assert subscriptions.accept(Subscribed()).accepted == ["a"]  # the oldest
    assert subscriptions.accept(Subscribed(("b",))) == ([], {})
    assert subscriptions.accept(Subscribed(("unknown",))) == ([], {})
    assert subscriptions.accept(Subscribed(request=77)) == ([], {})
    assert (subscriptions.decided, subscriptions.are_decided) == (4, False)
    assert subscriptions.accept(Subscribed()).accepted == ["e", "f"]
    assert subscriptions.are_decided


def test_a_named_symbol_alone_is_rejected():
    subscriptions = of("abc", 3)
    subscriptions.ask(1, 0.0)
    assert subscriptions.reject(Rejected("unknown pair", ("b",), 1)) == ((), {"b": "unknown pair"})
    assert subscriptions.states == {"a": "asked", "b": "rejected", "c": "asked"}
    assert not subscriptions.may_ask


def test_the_others_are_asked_for_again_if_one_was_accepted_before():
    """The exchange has refused the request because of it."""
    subscriptions = of("abcd", 3, rejects_all=True)
    subscriptions.ask(1, 0.0)
    answer = Subscribed(("b",), 1, others_refused=True)
    assert subscriptions.accept(answer).accepted == ["b"]
    assert subscriptions.ask(2, 0.0) == ("a", "c")
    assert subscriptions.accept(answer) == ([], {})  # it comes again, and the request is gone
    assert subscriptions.accept(Subscribed(request=2)).accepted == ["a", "c"]
    assert subscriptions.ask(3, 0.0) == ("d",)


@pytest.mark.parametrize("request_number", [1, None])
def test_the_others_are_asked_for_again_if_the_request_failed_with_it(request_number):
    subscriptions = of("abcd", 3, rejects_all=True)
    subscriptions.ask(1, 0.0)
    assert subscriptions.reject(Rejected("no", ("b",), request_number)) == ((), {"b": "no"})
    assert subscriptions.ask(2, 0.0) == ("a", "c")
    assert subscriptions.ask(3, 0.0) == ("d",)
    assert subscriptions.accept(Subscribed(request=1)).accepted == []  # it is gone
    assert subscriptions.accept(Subscribed(request=2)).accepted == ["a", "c"]


def test_a_rejection_of_what_was_not_asked_is_none_of_a_symbol():
    subscriptions = of("ab", 1)
    assert subscriptions.reject(Rejected("no")) is None
    subscriptions.ask(1, 0.0)
    assert subscriptions.reject(Rejected("not JSON", request=9)) is None
    subscriptions.accept(Subscribed(("a",)))
    assert subscriptions.reject(Rejected("subscribed already", ("a",))) is None
    assert subscriptions.states == {"a": "accepted", "b": "waiting"}


def test_a_rejection_without_a_name_belongs_to_the_request_that_no_other_answer_belongs_to():
    subscriptions = of("abcd", 1)
    for number in (1, 2, 3, 4):
        subscriptions.ask(number, 0.0)
    assert subscriptions.reject(Rejected("no")) == ((), {})
    assert subscriptions.accept(Subscribed(("a",))) == (["a"], {})
    assert subscriptions.reject(Rejected("no")) == ((), {})
    assert subscriptions.accept(Subscribed(("d",))) == (["d"], {"b": "no", "c": "no"})
    assert subscriptions.are_decided


def test_if_that_stays_open_they_are_asked_again_one_at_a_time():
    subscriptions = of("abc", 1)
    for number in (1, 2, 3):
        subscriptions.ask(number, 0.0)
    assert subscriptions.reject(Rejected("no")) == ((), {})
    assert subscriptions.give_up(PATIENCE) == ()
    assert subscriptions.ask(4, PATIENCE) == ("a",)
    assert not subscriptions.may_ask
    assert subscriptions.reject(Rejected("no")) == ((), {"a": "no"})
    assert subscriptions.ask(5, PATIENCE) == ("b",)
    assert subscriptions.ask(6, PATIENCE) == ()
    assert subscriptions.give_up(2 * PATIENCE) == ["b"]  # an answer that does not come holds nothing up
    assert subscriptions.ask(7, 2 * PATIENCE) == ("c",)


def test_what_was_accepted_late_is_not_asked_for_again():
    subscriptions = of("abcd", 4)
    subscriptions.ask(1, 0.0)
    subscriptions.reject(Rejected("no", request=1))
    subscriptions.accept(Subscribed(("a", "b")))
    assert subscriptions.ask(2, 0.0) == ("c", "d")


def test_no_answer_is_reported_once_and_an_answer_still_counts():
    subscriptions = of("abc", 1)
    assert subscriptions.overdue_at == math.inf
    for number, now in ((1, 5.0), (2, 7.0), (3, 7.0)):
        subscriptions.ask(number, now)
    assert subscriptions.overdue_at == 5 + PATIENCE
    assert subscriptions.give_up(4.9 + PATIENCE) == ()
    assert subscriptions.give_up(5 + PATIENCE) == ["a"]
    assert subscriptions.give_up(6 + PATIENCE) == ()
    assert subscriptions.give_up(7 + PATIENCE) == ["b", "c"]
    assert subscriptions.overdue_at == math.inf
    assert subscriptions.are_decided
    assert subscriptions.accept(Subscribed(("a",))).accepted == ["a"]
    assert subscriptions.reject(Rejected("no", ("b",))) == ((), {"b": "no"})


@given(
    bad=st.sets(st.sampled_from(LETTERS)),
    batch=st.integers(1, 10),
    names=st.sampled_from(["symbols", "all", "request", "nothing"]),
    lag=st.integers(1, 4),
    data=st.data(),
)
def test_in_the_end_exactly_the_bad_symbols_are_rejected(bad, batch, names, lag, data):
    """With an exchange that refuses a request if it has a bad symbol, and answers in order, but late."""
    subscriptions = of(LETTERS, batch, rejects_all=names == "all")
    awaiting, requests = [], 0
    for _ in range(500):
        if subscriptions.are_decided:
            break
        if subscriptions.may_ask and (len(awaiting) < lag or data.draw(st.booleans())):
            requests += 1
            awaiting.append((requests, subscriptions.ask(requests, 0.0)))
        elif awaiting:
            number, symbols = awaiting.pop(0)
            wrong = tuple(each for each in symbols if each in bad)
            said = None if names == "nothing" else number
            if not wrong:
                named = symbols if names == "nothing" else ()
                subscriptions.accept(Subscribed(named, said))
            elif names == "all":
                subscriptions.reject(Rejected("no", wrong[:1], said))
            elif names == "symbols":
                subscriptions.reject(Rejected("no", wrong, said))
                subscriptions.accept(Subscribed(request=said))
            else:
                subscriptions.reject(Rejected("no", (), said))
    expected = {each: "rejected" if each in bad else "accepted" for each in LETTERS}
    assert subscriptions.states == expected
