from __future__ import annotations

import pytest
from client_answers import health_of

from marketflow.client.answers import Price
from marketflow.client.table_state import TableState


def price(value: float, *, exchange: str = "a", symbol: str = "BTCUSDT", timestamp: int = 0) -> Price:
    return Price(symbol, exchange, value, timestamp)


@pytest.fixture
def state() -> TableState:
    """A state of two connected exchanges and one of the other mode."""
    return TableState(
        symbols=["BTCUSDT"], trouble=None, health=health_of(b="connected", a="connected", test="off")
    )


def test_the_change_is_that_of_the_last_price_that_differed(state):
    changes = []
    for value in (2.0, 2.0, 3.0, 3.0, 1.0, 1.0):
        state.enter([price(value)])
        changes.append(state.quote("a", "BTCUSDT").change)

    assert changes == [0, 0, 1, 1, -1, -1]


def test_older_news_change_nothing(state):
    """A new stream begins with the newest prices, which we may already have."""
    state.enter([price(2.0, timestamp=10), price(9.0, timestamp=9), price(3.0, timestamp=10)])

    quote = state.quote("a", "BTCUSDT")
    assert (quote.price, quote.timestamp, quote.change) == (3.0, 10, 1)


def test_pairs_are_apart(state):
    state.enter([price(1.0), price(2.0, exchange="b"), price(3.0, symbol="X")])

    assert state.quote("a", "BTCUSDT").price == 1.0
    assert state.quote("b", "BTCUSDT").price == 2.0
    assert state.quote("a", "X").price == 3.0
    assert state.quote("b", "X") is None


def test_columns(state):
    """The exchanges of the mode, in the service's order; until these are known, the exchanges seen so far."""
    state.enter([price(1.0, exchange="test"), price(1.0)])

    assert state.exchanges == ["b", "a"]
    state.health = None
    assert state.exchanges == ["a", "test"]
    assert TableState(only="c", health=health_of(a="connected")).exchanges == ["c"]


@pytest.mark.parametrize("status", ["stale", "reconnecting"])
def test_stale_is_what_the_service_says(state, status):
    """The clocks of two machines may differ, so an age alone proves nothing."""
    state.health = health_of(a="connected", b=status)

    assert [state.stale("a"), state.stale("b")] == [False, True]


def test_without_a_connection_everything_is_stale(state):
    state.trouble = "lost"

    assert state.stale("a")


def test_spread_is_between_prices_that_are_not_stale(state):
    assert state.spread("BTCUSDT") is None
    state.enter([price(100.0)])
    assert state.spread("BTCUSDT") is None
    state.enter([price(103.0, exchange="b"), price(1.0, exchange="test")])

    spread = state.spread("BTCUSDT")
    assert (spread.amount, spread.part) == (3.0, 0.03)

    state.health = health_of(a="connected", b="stale")
    assert state.spread("BTCUSDT") is None
