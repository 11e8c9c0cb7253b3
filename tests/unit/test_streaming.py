"""The live stream on a virtual clock: who gets what, when, and what is left out."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
from builders import EXCHANGES, NOON, SYMBOLS, TEST_EXCHANGES, batch_of
from test_book import book_of

from marketflow.app.answers import UnknownSymbol
from marketflow.app.streaming import PriceStream

pytestmark = pytest.mark.usefixtures("autojump_clock")

BTC, ETH = SYMBOLS
ONE, TWO = EXCHANGES
(TEST,) = TEST_EXCHANGES


class Streaming:
    """A stream over a book that the test fills."""

    def __init__(self, **options):
        self.book = book_of()
        self.mode = EXCHANGES
        self.stopping = trio.Event()
        self.refused = None
        self.stream = PriceStream(
            book=self.book,
            pairs=[(name, symbol) for name in (*EXCHANGES, *TEST_EXCHANGES) for symbol in SYMBOLS],
            exchanges_of_mode=lambda: self.mode,
            check=self.check,
            **{"most_clients": 10_000, **options},
        )

    def check(self, symbol, _):
        if symbol == "NOSUCH":
            raise UnknownSymbol(symbol, SYMBOLS)

    def update(self, exchange, symbol, *prices, at=0):
        self.book.apply(batch_of(exchange, [(symbol, price, NOON + at) for price in prices]))


@asynccontextmanager
async def streaming(**options):
    world = Streaming(**options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.stream.run, world.stopping)
        yield world
        world.stopping.set()


def told(events):
    return [(event.latest.exchange, event.latest.symbol, event.latest.price) for event in events]


async def test_it_begins_with_the_newest_of_each_pair():
    async with streaming() as world:
        world.update(ONE, BTC, 1.0, 2.0)
        world.update(TWO, BTC, 3.0)
        world.update(TWO, ETH, 4.0)
        world.update(ONE, BTC, 5.0)
        with world.stream.subscribed(None, None) as client:
            assert told(await client.receive()) == [(TWO, BTC, 3.0), (TWO, ETH, 4.0), (ONE, BTC, 5.0)]
