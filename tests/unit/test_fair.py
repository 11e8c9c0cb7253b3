from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Iterable

import pytest

from marketflow.adapters.exchange.fair import FAIR_SCALES, NOISE_SCALES, SYMBOLS, FairPrices, Noise
from marketflow.adapters.exchange.walk import START_PRICES

NAMES = ("exchange1", "exchange2", "exchange3")
NOW = 1_795_343_351_549
SECOND = 1_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR


def market(seed: int = 0, names: Iterable[str] = NAMES) -> list[FairPrices]:
    return [FairPrices(name, SYMBOLS, seed) for name in names]


def spreads(exchanges: list[FairPrices], times: Iterable[int]) -> dict[str, list[float]]:
    """For each symbol and time the spread between the exchanges, as a fraction of the price."""
    found: dict[str, list[float]] = {symbol: [] for symbol in SYMBOLS}
    for timestamp in times:
        quotes = [dict(exchange.at(timestamp)) for exchange in exchanges]
        for symbol, of_symbol in found.items():
            prices = [each[symbol] for each in quotes]
            of_symbol.append((max(prices) - min(prices)) / min(prices))
    return found


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_exchanges_never_walk_apart(seed):
    """They stay together within a minute, within a day and after a year."""
    exchanges = market(seed)
    for times in (
        range(NOW, NOW + 60 * SECOND, 100),
        range(NOW, NOW + DAY, 300 * SECOND),
        range(NOW + 365 * DAY, NOW + 366 * DAY, 900 * SECOND),
    ):
        for symbol, found in spreads(exchanges, times).items():
            assert statistics.mean(found) < 0.0005, symbol
            assert max(found) < 0.003, symbol


def test_spread_is_no_greater_after_a_day_than_at_first():
    """The spread of random walks would grow with time."""
    early = spreads(market(), range(NOW, NOW + HOUR, 10 * SECOND))
    late = spreads(market(), range(NOW + 30 * DAY, NOW + 30 * DAY + HOUR, 10 * SECOND))
    for symbol in SYMBOLS:
        assert statistics.mean(late[symbol]) == pytest.approx(statistics.mean(early[symbol]), rel=0.3)


def test_exchanges_do_not_quote_the_same():
    """There is a visible spread of some ticks."""
    for symbol, found in spreads(market(), range(NOW, NOW + HOUR, 10 * SECOND)).items():
        assert statistics.mean(found) > 0.00005, symbol


def test_a_deviation_from_the_fair_price_is_forgotten():
    """The difference between two exchanges soon changes: a higher price on one is not a trend."""
    one, other = market(names=NAMES[:2])

    def difference(timestamp: int) -> float:
        return math.log(dict(one.at(timestamp))["BTCUSDT"] / dict(other.at(timestamp))["BTCUSDT"])

    times = range(NOW, NOW + 12 * HOUR, 20 * SECOND)
    differences = [difference(timestamp) for timestamp in times]
    assert abs(statistics.mean(differences)) < 0.1 * statistics.pstdev(differences)
    assert abs(statistics.correlation(differences[:-1], differences[1:])) < 0.15
    just_after = [difference(timestamp + 50) for timestamp in times]
    assert statistics.correlation(differences, just_after) > 0.8


@pytest.mark.parametrize("seconds", [1, 60])
@pytest.mark.parametrize("symbol", SYMBOLS)
def test_moves_are_believable(symbol, seconds):
    """They are some hundredths of a per cent a second, and grow with the root of the time."""
    squares = []
    for seed in range(8):
        [exchange] = market(seed, names=["exchange1"])
        for timestamp in range(NOW, NOW + 2 * HOUR, 180 * SECOND):
            before = dict(exchange.at(timestamp))[symbol]
            after = dict(exchange.at(timestamp + seconds * SECOND))[symbol]
            squares.append(math.log(after / before) ** 2)
    change = math.sqrt(statistics.mean(squares) / seconds)
    assert change == pytest.approx(SYMBOLS[symbol].volatility, rel=0.3)
    assert 0.0001 < change < 0.0005


@pytest.mark.parametrize("year", range(0, 100, 10))
def test_prices_stay_around_their_start(year):
    """At any time they are finite, above zero and of the same order."""
    times = range(NOW + year * 365 * DAY, NOW + (year * 365 + 30) * DAY, 7 * HOUR)
    for exchange in market(seed=year):
        for timestamp in times:
            for symbol, price in exchange.at(timestamp):
                assert price == pytest.approx(START_PRICES[symbol], rel=0.2)


def test_prices_have_as_many_digits_as_their_tick_size():
    [exchange] = market(names=["exchange1"])
    digits = dict.fromkeys(SYMBOLS, 0)
    for timestamp in range(NOW, NOW + 30 * SECOND, 100):
        for symbol, price in exchange.at(timestamp):
            digits[symbol] = max(digits[symbol], len(repr(price).partition(".")[2]))
    assert digits == {symbol: kind.digits for symbol, kind in SYMBOLS.items()}


def test_a_price_changes_from_tick_to_tick():
    [exchange] = market(names=["exchange1"])
    prices = [dict(exchange.at(timestamp))["BTCUSDT"] for timestamp in range(NOW, NOW + 60 * SECOND, 100)]
    changed = [before != after for before, after in itertools.pairwise(prices)]
    assert statistics.mean(changed) > 0.9


def test_the_time_and_the_seed_alone_make_the_price():
    """Another object with another history gives the same price, and so does another process."""
    times = [NOW + random.Random(1).randrange(DAY) for _ in range(200)]
    asked_forward = {timestamp: market()[0].at(timestamp) for timestamp in times}
    [long_asked] = market(names=["exchange1"])
    for timestamp in [*times[::-1], *sorted(times)]:
        assert long_asked.at(timestamp) == asked_forward[timestamp]


def test_seeds_and_names():
    """Another seed gives another market, another name only other noise."""
    [one], [same], [other] = (market(seed, names=["exchange1"]) for seed in (1, 1, 2))
    assert one.at(NOW) == same.at(NOW)
    apart = [
        abs(math.log(mine / theirs))
        for (_, mine), (_, theirs) in zip(one.at(NOW), other.at(NOW), strict=True)
    ]
    assert max(apart) > 0.003


def test_symbols_are_in_their_order_and_an_unknown_one_trades_around_100():
    exchange = FairPrices("exchange1", ["XRPUSDT", "BTCUSDT"], 0)
    (first, price), (second, _) = exchange.at(NOW)
    assert (first, second) == ("XRPUSDT", "BTCUSDT")
    assert price == pytest.approx(100, rel=0.2)
    assert price == round(price, 3)


@pytest.mark.parametrize("scales", [FAIR_SCALES, NOISE_SCALES])
def test_noise_is_bounded_and_has_no_jumps(scales):
    noise = Noise("seed", scales, [1.0] * len(scales))
    assert noise.bound == len(scales)
    values = [noise.at(index / 1_000) for index in range(-5_000, 5_000)]
    assert max(map(abs, values)) <= noise.bound
    steepest = sum(2 / scale for scale in scales) / 1_000
    assert max(abs(after - before) for before, after in itertools.pairwise(values)) <= steepest * 1.001
