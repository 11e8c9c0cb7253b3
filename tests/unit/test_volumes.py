from __future__ import annotations

import json
import math
import random
import statistics

import pytest

from marketflow.adapters.exchange.fair import FairPrices
from marketflow.adapters.exchange.volumes import MEDIAN_VALUE, Volumes, tick_lines
from marketflow.adapters.exchange.walk import START_PRICES, Prices, Walk
from marketflow.domain.columns import counts
from marketflow.domain.prices import SYMBOLS

UNKNOWN = "XRPUSDT"


def told(volumes: Volumes, ticks: int, symbols=SYMBOLS) -> dict[str, list[dict]]:
    """What so many ticks tell, by symbol."""
    found = [[json.loads("{" + text[1:] + "}") for text in volumes.next()] for _ in range(ticks)]
    return dict(zip(symbols, zip(*found, strict=True), strict=True))


def test_each_volume_counts_and_each_side_is_one():
    for symbol, trades in told(Volumes([*SYMBOLS, UNKNOWN], "1"), 2_000, [*SYMBOLS, UNKNOWN]).items():
        assert all(counts(trade["volume"], START_PRICES.get(symbol, 100.0)) for trade in trades)
        assert all(trade["volume"] > 0 for trade in trades)
        bought = sum(trade["side"] == "buy" for trade in trades)
        assert 800 < bought < 1_200
        assert bought + sum(trade["side"] == "sell" for trade in trades) == 2_000


def test_sizes_are_spread_about_the_median_and_have_few_digits():
    for symbol, trades in told(Volumes(SYMBOLS, "1"), 2_000).items():
        sizes = [trade["volume"] for trade in trades]
        assert statistics.median(sizes) * START_PRICES[symbol] == pytest.approx(MEDIAN_VALUE, rel=0.25)
        assert max(sizes) > 10 * statistics.median(sizes)
        assert max(len(repr(size).replace(".", "").strip("0")) for size in sizes) <= 6


def test_the_same_seed_gives_the_same_trades():
    first, second, other = (told(Volumes(SYMBOLS, seed), 5) for seed in ("1", "1", "2"))
    assert first == second != other


@pytest.mark.parametrize("kind", ["free", "fair"])
def test_prices_are_the_same_with_volumes_and_without(kind):
    def lines(volumes: Volumes | None) -> list[dict]:
        prices: Prices = (
            Walk(SYMBOLS, random.Random(1)) if kind == "free" else FairPrices("exchange1", SYMBOLS, 1)
        )
        ticks = [tick_lines(prices.at(time), time, volumes) for time in range(0, 5_000, 100)]
        return [json.loads(line) for tick in ticks for line in tick]

    telling, silent = lines(Volumes(SYMBOLS, "1")), lines(None)
    assert all(line.keys() == {"symbol", "price", "timestamp"} for line in silent)
    assert [{key: line[key] for key in ("symbol", "price", "timestamp")} for line in telling] == silent
    assert all(line["side"] in ("buy", "sell") and math.isfinite(line["volume"]) for line in telling)
