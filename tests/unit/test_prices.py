from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.domain.prices import FUTURE, LATE, PRICE, SYMBOL, SYMBOLS, Acceptance

NOW = 1_795_343_351_549
RULES = {"symbols": frozenset(SYMBOLS), "interval": 60_000, "lateness": 120_000}


@given(
    st.integers(0, 10**13),
    st.integers(-(10**6), 10**6),
    st.sampled_from([1_000, 2_000, 5_000, 60_000]),
    st.integers(0, 10**6),
)
def test_late_is_what_comes_when_its_interval_and_the_lateness_are_over(now, age, interval, lateness):
    """An update is late iff now >= the end of its interval + lateness."""
    timestamp = now - age
    rules = Acceptance.at(now, symbols=frozenset(SYMBOLS), interval=interval, lateness=lateness)
    end = (timestamp // interval + 1) * interval
    reason = rules.reason_against("BTCUSDT", 1.0, timestamp)
    if timestamp > now + 5_000:
        assert reason == FUTURE
    else:
        assert (reason == LATE) == (now >= end + lateness)
        assert reason in (LATE, None)


@pytest.mark.parametrize(
    ("symbol", "price", "timestamp", "reason"),
    [
        ("BTCUSDT", 1.0, NOW, None),
        ("BTCUSDT", 5e-324, NOW + 5_000, None),
        ("BTCUSDT", 1.0, NOW + 5_001, FUTURE),
        ("BTCUSDT", 0.0, NOW, PRICE),
        ("BTCUSDT", -0.0, NOW, PRICE),
        ("BTCUSDT", -1.0, NOW, PRICE),
        ("BTCUSDT", math.nan, NOW, PRICE),
        ("BTCUSDT", 1.0, 0, LATE),
        ("BTCUSDT", 1.0, -1, LATE),
        ("BTCUSDT", 1.0, 10**41, FUTURE),
        ("btcusdt", 1.0, NOW, SYMBOL),
        ("", 1.0, NOW, SYMBOL),
    ],
)
def test_what_is_acceptable(symbol, price, timestamp, reason):
    assert Acceptance.at(NOW, **RULES).reason_against(symbol, price, timestamp) == reason


def test_the_first_reason_that_applies_is_told():
    rules = Acceptance.at(NOW, **RULES)
    assert rules.reason_against("X", -1.0, 10**41) == SYMBOL
    assert rules.reason_against("BTCUSDT", -1.0, 10**41) == PRICE
