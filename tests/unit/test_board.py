from __future__ import annotations

import pytest
from client_answers import health_of

from marketflow.client.answers import Price
from marketflow.client.board import Board


def price(value: float, *, exchange: str = "a", symbol: str = "BTCUSDT", timestamp: int = 0) -> Price:
    return Price(symbol, exchange, value, timestamp)


@pytest.fixture
def board() -> Board:
    """A board of two connected exchanges and one of the other mode."""
    return Board(
        symbols=["BTCUSDT"], trouble=None, health=health_of(b="connected", a="connected", test="off")
    )


def test_the_change_is_that_of_the_last_price_that_differed(board):
    changes = []
    for value in (2.0, 2.0, 3.0, 3.0, 1.0, 1.0):
        board.enter([price(value)])
        changes.append(board.quote("a", "BTCUSDT").change)

    assert changes == [0, 0, 1, 1, -1, -1]


def test_older_news_change_nothing(board):
    """A new stream begins with the newest prices, which we may already have."""
    board.enter([price(2.0, timestamp=10), price(9.0, timestamp=9), price(3.0, timestamp=10)])

    quote = board.quote("a", "BTCUSDT")
    assert (quote.price, quote.timestamp, quote.change) == (3.0, 10, 1)


def test_pairs_are_apart(board):
    board.enter([price(1.0), price(2.0, exchange="b"), price(3.0, symbol="X")])

    assert board.quote("a", "BTCUSDT").price == 1.0
    assert board.quote("b", "BTCUSDT").price == 2.0
    assert board.quote("a", "X").price == 3.0
    assert board.quote("b", "X") is None


def test_columns(board):
    """The exchanges of the mode, in the service's order; until these are known, the exchanges seen so far."""
    board.enter([price(1.0, exchange="test"), price(1.0)])

    assert board.exchanges == ["b", "a"]
    board.health = None
    assert board.exchanges == ["a", "test"]
    assert Board(only="c", health=health_of(a="connected")).exchanges == ["c"]


@pytest.mark.parametrize("status", ["stale", "reconnecting"])
def test_stale_is_what_the_service_says(board, status):
    """The clocks of two machines may differ, so an age alone proves nothing."""
    board.health = health_of(a="connected", b=status)

    assert [board.stale("a"), board.stale("b")] == [False, True]


def test_without_a_connection_everything_is_stale(board):
    board.trouble = "lost"

    assert board.stale("a")


def test_spread_is_between_prices_that_are_not_stale(board):
    assert board.spread("BTCUSDT") is None
    board.enter([price(100.0)])
    assert board.spread("BTCUSDT") is None
    board.enter([price(103.0, exchange="b"), price(1.0, exchange="test")])

    spread = board.spread("BTCUSDT")
    assert (spread.amount, spread.part) == (3.0, 0.03)

    board.health = health_of(a="connected", b="stale")
    assert board.spread("BTCUSDT") is None
