"""Random histories through all of a venue's source, compared with an independent model.

```
 fake venue ──frames in pieces──> WebSocketSource ──> codec ──> sieve ──> rows, rejected, missing
     │                                                                      │
     └──messages──> the tests' own reading ──> model ──────────────── equal? ┘
```
A history has trades one by one and many together, some of them again, late, left out or spoiled, messages
that are no trades, frames of all forms, pieces of any size, connections that end or are replaced, and symbols
that the venue refuses.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from functools import partial
from math import isnan

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from venue_forms import KINDS, SYMBOLS, UNITS, Seen
from venue_world import START, World, is_message, ours, running

from marketflow.adapters.exchange.fake_venues.faults import GARBAGE, Faults
from marketflow.adapters.exchange.venues.registry import VENUES

Row = tuple[str, str, int, float, float, str]
HOUR = 3_600_000
FORMS = ("text", "text", "text", "binary", "fragments", "fragments and pings")
MORE = {kind: pair.replace("ETH", "XRP").replace("eth", "xrp") for kind, (_, pair) in SYMBOLS.items()}
"""A pair that the venue does not have. Bitstamp accepts it nevertheless."""


def id_of(kind: str, seen: Seen) -> str:
    """The id of a trade as it is stored."""
    return {"kucoin": f"{seen.id:024x}", "bybit": str(seen.id + 2_290_000_000_000_000_000)}.get(
        kind, str(seen.id)
    )


def row_of(kind: str, seen: Seen) -> Row:
    time = seen.time * UNITS[kind] // 1_000_000
    return (ours(seen.symbol), id_of(kind, seen), time, seen.price, seen.size, seen.side)


class Model:
    """What the service must have made of the messages that were sent."""

    def __init__(self, world: World) -> None:
        self.rows: list[Row] = []
        self.rejected: Counter[str] = Counter()
        kind, come = world.kind, defaultdict[str, set[int]](set)
        known: set[tuple[str, int]] = set()
        for seen in world.seen():
            row = row_of(kind, seen)
            if isnan(seen.price):
                self.rejected["malformed"] += 1
                continue
            come[seen.symbol].add(seen.id)
            key, time = (seen.symbol, seen.id), row[2]
            if seen.price <= 0:
                self.rejected["price"] += 1
            elif time < START - HOUR:
                self.rejected["late"] += 1
            elif key in known or time < START:
                # What was made before the service asked is not new: OKX sends the last trade again.
                self.rejected["duplicate"] += 1
                known.add(key)
            else:
                self.rows.append(row)
                known.add(key)
        messages = [message for log in world.side.logs for message in log]
        self.rejected["malformed"] += sum(not is_message(kind, each) for each in messages)
        self.missing = 0
        if kind in {"binance", "coinbase"}:
            self.missing = sum([max(ids) - min(ids) + 1 - len(ids) for ids in come.values()])


class History:
    """Steps by chance."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self.earlier: list[object] = []

    def form(self) -> str:
        return self.rng.choice(FORMS)

    async def run(self, steps: int) -> None:
        world = self.world
        await world.live()
        for symbol in SYMBOLS[world.kind]:
            self.send(world.made(1, symbol))  # ids are counted from here on
        for _ in range(steps):
            await self.rng.choice(
                (
                    self.trade,
                    self.trade,
                    self.trade,
                    self.trade_again,
                    self.leave_out,
                    self.disorder,
                    self.spoil,
                    self.say_something_else,
                    self.wait,
                    self.end,
                    self.announce,
                )
            )()
        await trio.sleep(40)  # the last announced end is over
        await world.live()
        for symbol in SYMBOLS[world.kind]:
            self.send(world.made(1, symbol))
        await trio.sleep(6)  # by then a trade that is missing is given up
        for symbol in SYMBOLS[world.kind]:
            self.send(world.made(1, symbol))
        await trio.sleep(1)

    def send(self, made) -> None:
        self.earlier += made
        self.world.send(made, self.form)

    async def trade(self) -> None:
        self.send(self.world.made(self.rng.choice((1, 2, 5, 40))))

    async def trade_again(self) -> None:
        first = self.rng.randrange(len(self.earlier))
        self.world.send(self.earlier[first : first + self.rng.randint(1, 8)], self.form)

    async def leave_out(self) -> None:
        self.world.made(self.rng.randint(1, 5))

    async def disorder(self) -> None:
        made = list(self.world.made(self.rng.randint(2, 12)))
        self.rng.shuffle(made)
        self.send(made)

    async def spoil(self) -> None:
        """Bad ones among good ones, in one message where the venue puts several into one."""
        made = list(self.world.made(self.rng.randint(1, 6)))
        for place in range(len(made)):
            if self.rng.random() < 0.4:
                price = self.rng.choice(("NaN", "0", "-1.5", "1e-7"))
                made[place] = (
                    made[place].at_time(made[place].time // 1_000)
                    if self.rng.random() < 0.3
                    else made[place].at_price(price)
                )
        self.world.send(made, self.form)

    async def say_something_else(self) -> None:
        for connection in self.world.connections:
            message = self.rng.choice(GARBAGE)
            connection.say(message, self.form() if message else "text")
            connection.ping()

    async def wait(self) -> None:
        await trio.sleep(self.rng.choice((0.001, 0.2, 1.5, 4.0)))

    async def end(self) -> None:
        world = self.world
        if self.rng.random() < 0.5:
            await world.live()
        else:
            await trio.sleep(self.rng.random())
        opened = len(world.side.opened)
        if self.rng.random() < 0.5:
            world.cut(self.rng.choice((1000, 1001, 1011, 1012, 1013, 4000)), "by chance")
        else:
            await trio.sleep(0.1)  # a reset throws away what is on its way
            world.reset()
        await trio.sleep(self.rng.random())
        world.made(self.rng.randint(0, 3))  # these are missed
        await world.live(opened + 1)

    async def announce(self) -> None:
        self.world.maintain(self.rng.choice((2.0, 30.0)))
        await trio.sleep(self.rng.random())


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12)
@given(seed=st.integers(0, 2**32))
def test_each_trade_of_any_history_counts_once(kind: str, seed: int) -> None:
    rng = random.Random(seed)

    async def history() -> None:
        faults = Faults(deflate=rng.random() < 0.4, fragments=rng.choice((1, 1, 3)))
        # Where missing trades are counted, one that comes after it was given up would count as both.
        faults.resend = 0 if VENUES[kind].contiguous_ids else rng.choice((0, 0, 5))
        symbols = [*SYMBOLS[kind], *([MORE[kind]] if rng.random() < 0.4 else ())]
        async with running(kind, symbols, listed=SYMBOLS[kind], faults=faults, rng=rng) as world:
            await History(world, rng).run(rng.randint(5, 25))
            model = Model(world)
            assert Counter(world.rows) == Counter(model.rows)
            assert world.rejected == model.rejected
            assert world.sieve.missing == model.missing
            refused = {ours(symbol) for symbol in symbols if symbol not in SYMBOLS[kind]}
            assert {*world.source.rejected_symbols} == (set() if kind == "bitstamp" else refused)
            assert world.violations == []

    trio.run(partial(history), clock=trio.testing.MockClock(autojump_threshold=0))
