from __future__ import annotations

import itertools
import math
import random

import pytest

from marketflow.adapters.exchange.walk import START_PRICES, Walk
from marketflow.domain.prices import SYMBOLS


def test_starts_within_a_step_of_the_real_prices():
    prices = dict(Walk(SYMBOLS, random.Random(1)).at(0))
    assert prices["BTCUSDT"] == pytest.approx(100_000, abs=250)
    for symbol, start in [("DOGEUSDT", 0.3), ("TONUSDT", 3.9), ("SOLUSDT", 200), ("ETHUSDT", 3_050)]:
        assert prices[symbol] == pytest.approx(start, rel=0.01)


def test_each_tick_has_every_symbol_in_the_given_order():
    walk = Walk(["SOLUSDT", "BTCUSDT"], random.Random(1))
    for _ in range(3):
        assert [symbol for symbol, _ in walk.at(0)] == ["SOLUSDT", "BTCUSDT"]


def test_every_configured_symbol_has_a_start_price():
    assert set(START_PRICES) == set(SYMBOLS)


def test_an_unknown_symbol_walks_from_100():
    walk = Walk(["XRPUSDT"], random.Random(1))
    prices = [100.0, *(price for _ in range(1_000) for _, price in walk.at(0))]
    steps = [after / before - 1 for before, after in itertools.pairwise(prices)]
    assert all(abs(step) <= 0.010001 for step in steps)
    assert max(steps) > 0.009
    assert min(steps) < -0.009


def test_bitcoin_steps_by_at_most_250_either_way():
    walk = Walk(["BTCUSDT"], random.Random(1))
    prices = [100_000.0, *(price for _ in range(1_000) for _, price in walk.at(0))]
    steps = [after - before for before, after in itertools.pairwise(prices)]
    assert all(abs(step) <= 250.001 for step in steps)
    assert max(steps) > 225
    assert min(steps) < -225


class Extreme(random.Random):
    """Always makes the largest step, down or up."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self._side = side

    def uniform(self, a, b):
        return (a, b)[self._side]


FALLING, RISING = 0, 1


def test_cheap_bitcoin_falls_by_a_per_cent_at_most():
    walk = Walk(["BTCUSDT"], Extreme(FALLING))
    prices = [price for _ in range(2_000) for _, price in walk.at(0)]
    assert all(after >= before * 0.99 for before, after in itertools.pairwise(prices))
    assert prices[-1] < 1


@pytest.mark.parametrize("side", [FALLING, RISING])
def test_prices_stay_finite_and_above_zero_for_ever(side):
    walk = Walk([*SYMBOLS, "XRPUSDT"], Extreme(side))
    for _ in range(50_000):
        prices = walk.at(0)
    assert all(0 < price < math.inf for _, price in prices)
    assert [price for _, price in prices][1:] == [price for _, price in walk.at(0)][1:]


def test_the_same_seed_gives_the_same_prices():
    first, second, other = (Walk(SYMBOLS, random.Random(seed)) for seed in (1, 1, 2))
    assert [first.at(0) for _ in range(3)] == [second.at(0) for _ in range(3)]
    assert first.at(0) != other.at(0)
