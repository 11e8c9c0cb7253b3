"""Bars of made-up trades, with prices and volumes of few digits as real exchanges have them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count

from marketflow.domain.bars import BAR_WIDTH, Bar, in_seconds
from marketflow.domain.columns import Columns, Side
from tests.bench.sender import STARTS

UPDATES = 3
"""The updates of each bar. With one, a bar would have only one price."""


def bars(place: int, first: int) -> Iterator[Bar]:
    """Bars of the seconds from `first` (Unix ms) on, of the pair at that place. Sequences begin at 0 in each.

    Every bar has numbers of its own, as those have that come from an exchange: equal objects would cost
    memory only once.
    """
    rng = random.Random(place)
    price = STARTS[place % len(STARTS)]
    digits = 2 if price >= 100 else 5
    sides: tuple[Side, ...] = ("buy", "sell")
    for second in count(first, BAR_WIDTH):
        times = sorted([second + rng.randrange(BAR_WIDTH) for _ in range(UPDATES)])
        prices = [round(price * (1 + rng.uniform(-1e-4, 1e-4)), digits) for _ in range(UPDATES)]
        volumes = [round(rng.expovariate(1), 5) for _ in range(UPDATES)]
        columns = Columns(times, prices, volumes, [rng.choice(sides) for _ in range(UPDATES)])
        yield in_seconds(columns, ascending=True)[second]
        price = prices[-1]
