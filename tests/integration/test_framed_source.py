"""The second kind of source (tests/framed.py) through feed, pool and book, over real sockets."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import attrs
import pytest
import trio
from framed import MOST_FRAME, FramedCodec, FramedServer, FramedSource, frame, frame_of, trade
from slow_machine import within
from structlog.testing import capture_logs

from marketflow.adapters.exchange.checks import Checks
from marketflow.app.ingest.backoff import Backoff
from marketflow.app.ingest.feeds import Feed
from marketflow.app.ingest.workers import run_pool
from marketflow.app.instruments.clocks import SystemClock
from marketflow.app.share.book import Book
from marketflow.domain.prices import SYMBOLS

NAME = "framed"
LIMIT = 40
CHECKS = Checks(frozenset(SYMBOLS), 60_000, 120_000)


@attrs.frozen
class Stage:
    """A feed of the second kind with its pool, a book, and its exchange."""

    server: FramedServer
    source: FramedSource
    feed: Feed
    book: Book
    stopping: trio.Event

    @property
    def ledger(self):
        return self.book.ledgers[NAME]

    async def until(self, condition) -> None:
        while not condition():  # noqa: ASYNC110 - under the test's time limit
            await trio.sleep(0.005)

    async def connected(self, times: int = 1) -> None:
        await self.until(
            lambda: self.feed.connected and self.server.connected and self.server.connections == times
        )


@asynccontextmanager
async def stage(*, decode=None, idle_timeout=5.0, enter=None, **options) -> AsyncIterator[Stage]:
    server = FramedServer()
    book = Book(
        boot="boot1", limits={NAME: 100_000}, window_length=60_000, replay_memory=1_000, interval=60_000
    )
    book.begin(1)
    stopping = trio.Event()
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            source = FramedSource(NAME, server.port, decode or FramedCodec(CHECKS), SystemClock(), **options)
            feed = Feed(
                source,
                backoff=Backoff(0.01, 0.05, random.Random(1)),
                idle_timeout=idle_timeout,
                last_well=partial(book.last_accepted.get, NAME),
            )

            async def pool() -> None:
                await run_pool(
                    partial(feed.run, stopping=stopping),
                    decode=feed.decode,
                    enter=enter or book.enter,
                    workers=5,
                )
                book.end()

            nursery.start_soon(pool)
            yield Stage(server, source, feed, book, stopping)
            stopping.set()
            await book.ended.wait()
            nursery.cancel_scope.cancel()


def now() -> int:
    return time.time_ns() // 1_000_000


def trades(count: int, symbol: str = "BTCUSDT") -> list[list]:
    return [trade(symbol, 100.0 + number, now()) for number in range(count)]


async def test_its_messages_become_updates(nursery):
    """There are two in each frame, with heartbeats between; prices become numbers, symbols become ours."""
    async with stage() as on:
        await on.connected()
        for number in range(50):
            await on.server.send(
                frame_of(trade("BTCUSDT", 1.5 + number, now()), ["h"], trade("ETHUSDT", 2.5 + number, now()))
            )
            await on.server.send(frame_of(["h"]))
        await on.until(lambda: on.ledger.received == 100)
        assert (on.ledger.accepted, on.ledger.rejected) == (100, {})
        for symbol, first in (("BTCUSDT", 1.5), ("ETHUSDT", 2.5)):
            newest = on.book.bars.newest_bars.of((NAME, symbol))
            assert newest is not None
            assert newest.close == first + 49


async def test_frames_may_come_in_pieces(nursery):
    """They may be cut anywhere."""
    data = b"".join(frame_of(*pair) for pair in zip(trades(20), trades(20, "TONUSDT"), strict=True))
    async with stage() as on:
        await on.connected()
        cut = random.Random(1)
        while data:
            size = cut.choice((1, 2, 3, 5, 50, 200))
            await on.server.send(data[:size])
            data = data[size:]
            await trio.sleep(0.001)
        await on.until(lambda: on.ledger.accepted == 40)
        assert on.server.connections == 1
        assert on.ledger.received == 40


GARBAGE = {
    "no json": ({"malformed": 1}, frame(b"hello")),
    "no array": ({"malformed": 1}, frame(b"{}")),
    "an array of objects": ({"malformed": 1}, frame(b"[{}]")),
    "nothing": ({"malformed": 1}, frame(b"")),
    "half of it": ({"malformed": 1}, frame(frame_of(trade("BTCUSDT", 1, 1))[4:-3])),
    "no UTF-8": ({"malformed": 1}, frame(b'[["t","\xff","1",1]]')),
    "nested": ({"malformed": 1}, frame(b"[" * 4_000 + b"]" * 4_000)),
    "an unknown message": ({"malformed": 1}, frame_of(["what"])),
    "a number as price": ({"malformed": 1}, frame_of(["t", "BTC-USDT", 1.5, 1])),
    "a word as price": ({"malformed": 1}, frame_of(["t", "BTC-USDT", "much", 1])),
    "NaN": ({"malformed": 1}, frame_of(["t", "BTC-USDT", "NaN", 1])),
    "infinite": ({"malformed": 1}, frame_of(["t", "BTC-USDT", "Infinity", 1])),
    "two of three": ({"malformed": 2}, frame_of(["t"], ["h"], [])),
    "a symbol of others": ({"symbol": 1}, frame_of(["t", "FOO-USDT", "1", now()])),
    "no price": ({"price": 1}, frame_of(["t", "BTC-USDT", "0", now()])),
    "a negative price": ({"price": 1}, frame_of(["t", "BTC-USDT", "-1", now()])),
    "tomorrow": ({"future": 1}, frame_of(trade("BTCUSDT", 1.0, now() + 86_400_000))),
    "yesterday": ({"late": 1}, frame_of(trade("BTCUSDT", 1.0, now() - 86_400_000))),
    "too long": ({"oversized": 1}, frame(b" " * (MOST_FRAME + 1))),
}


@pytest.mark.parametrize(("rejected", "data"), GARBAGE.values(), ids=GARBAGE)
async def test_garbage_is_counted_by_its_reason(nursery, rejected, data):
    """Good messages in the same frames are accepted, on the same connection."""
    async with stage() as on:
        await on.connected()
        await on.server.send(frame_of(*trades(2)) + data + frame_of(*trades(2)))
        await on.until(lambda: on.ledger.accepted == 4)
        assert on.ledger.rejected == rejected
        assert on.ledger.received == 4 + sum(rejected.values())
        assert on.server.connections == 1


async def test_a_stream_without_frames_is_made_anew(nursery):
    async with stage() as on:
        await on.connected()
        await on.server.send(frame_of(*trades(2)) + b"HTTP/1.1 400 Bad Request\r\n")
        await on.connected(2)
        assert on.feed.state.last_error == "no frame begins here"
        assert on.feed.state.bugs == 0


@pytest.mark.parametrize("half", [1, 3, 4, 30])
async def test_what_came_before_a_disconnect_counts_also_half_a_frame(nursery, half):
    """It is never joined with the first frame of the next connection."""
    async with stage() as on:
        for connection in range(1, 4):
            await on.connected(connection)
            await on.server.send(frame_of(*trades(2)))
            await on.server.drop(frame_of(*trades(2)) + frame_of(*trades(2))[:half])
            await on.until(lambda connection=connection: on.ledger.received == 5 * connection)
        await on.until(lambda: on.feed.reconnects == 3)
        assert on.ledger.accepted == 12
        assert on.ledger.rejected == {"malformed": 3}
        assert on.feed.state.last_error == "closed by the exchange"


async def test_heartbeats_are_life_and_silence_is_not(nursery):
    async with stage(idle_timeout=4.0) as on:
        await on.connected()
        for _ in range(10):
            await trio.sleep(0.5)
            await on.server.send(frame_of(["h"]))
        assert (on.server.connections, on.ledger.received) == (1, 0)
        assert on.server.pings > 5, "and its own task pings meanwhile"
        await on.connected(2)
        assert on.feed.state.last_error == "nothing received for 4 s"


async def test_it_is_connected_only_when_its_subscription_is_answered(nursery):
    async with stage() as on:
        on.server.mute = True
        await on.until(lambda: on.feed.state.last_error == "the subscription was not answered")
        assert (on.feed.connected, on.server.connections) == (False, 0)
        await on.until(lambda: on.feed.state.state == "connecting")
        on.stopping.set()
        with within(0.5):
            await on.book.ended.wait()
        assert on.feed.state.state == "stopped"


async def test_a_stop_in_the_middle_takes_what_has_come_in(nursery):
    """Whole frames up to the stop are accepted, even if the book is busy; half a frame does not count."""
    gate = trio.Event()
    entered = []

    async def enter(batch):
        await gate.wait()
        entered.append(batch)

    async with stage(enter=enter) as on:
        await on.connected()
        for _ in range(10):
            await on.server.send(frame_of(*trades(2)))
            await trio.sleep(0.01)
        await on.server.send(frame_of(*trades(2))[:-1])
        await trio.sleep(0.05)
        on.stopping.set()
        await trio.sleep(0.1)
        gate.set()
        await on.book.ended.wait()
        assert sum(batch.accepted for batch in entered) == 20
        assert sum(batch.received for batch in entered) == 20
        assert [batch.number for batch in entered] == list(range(len(entered)))


@pytest.mark.parametrize(
    ("error", "bugs"), [(OSError("REST is away"), 0), (RuntimeError("a bug"), 1)], ids=["outage", "bug"]
)
async def test_a_failing_inner_task_costs_that_connection_only(nursery, error, bugs):
    fail = trio.Event()

    async def beside():
        await fail.wait()
        raise error

    with capture_logs() as lines:
        async with stage(beside=beside) as on:
            await on.connected()
            await on.server.send(frame_of(*trades(2)))
            await on.until(lambda: on.ledger.accepted == 2)
            fail.set()
            await on.until(lambda: on.feed.state.last_error == str(error))
            on.source.beside = None
            # A connection that began with the failing task may still be open: what is sent there is lost.
            while on.ledger.accepted == 2:
                if on.server.connected:
                    with suppress(trio.BrokenResourceError):
                        await on.server.send(frame_of(*trades(2)))
                await trio.sleep(0.02)
            assert bool(on.feed.state.bugs) == bool(bugs)
    failed = [line for line in lines if line["event"] == "source failed"]
    assert bool(failed) == bool(bugs)
    for line in failed[:1]:
        assert line["log_level"] == "error"
        assert line["where"].endswith("in beside")


async def test_a_codec_with_a_bug_costs_its_payloads(nursery):
    """Their messages are counted, so the ledger adds up."""
    codec = FramedCodec(CHECKS)

    def decode(payload):
        if b"SOL" in payload.bodies[0]:
            raise KeyError("a bug")
        return codec(payload)

    async with stage(decode=decode) as on:
        await on.connected()
        await on.server.send(frame_of(*trades(2)))
        await on.until(lambda: on.ledger.received == 2)
        await on.server.send(frame_of(*trades(2, "SOLUSDT")))
        await on.until(lambda: on.ledger.received == 3)
        await on.server.send(frame_of(*trades(2)))
        await on.until(lambda: on.ledger.accepted == 4)
        assert on.ledger.rejected == {"malformed": 1}
        assert (on.feed.state.bugs, on.server.connections) == (1, 1)


async def test_a_bug_of_ours_still_ends_it(nursery):
    async def enter(_batch):
        raise RuntimeError("a bug of ours")

    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="a bug of ours"), flatten_subgroups=True):
        async with stage(enter=enter) as on:
            await on.connected()
            await on.server.send(frame_of(*trades(2)))
            await trio.sleep_forever()
