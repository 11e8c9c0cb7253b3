from __future__ import annotations

import pytest
import trio
from builders import batch_of

from marketflow.adapters.exchange.lines import Lines
from marketflow.app.ingest.workers import CHUNK_BUFFER, FanIn, run_pool
from marketflow.app.ports import Batch, Chunk, Decoded


def chunk_of(number, lines=b""):
    return Chunk("exchange1", number, Lines(lines, 0, number, number / 10))


def feed_of(count, sent=None):
    async def feed(chunks):
        async with chunks:
            for number in range(count):
                await chunks.send(chunk_of(number))
                if sent is not None:
                    sent.append(number)

    return feed


def decode(_payload):
    return batch_of("", [("BTCUSDT", 1.0, 1)])


@pytest.mark.parametrize("workers", [1, 2, 5, 64])
async def test_every_batch_enters_in_the_order_of_its_chunk(workers):
    """Workers run in any order and overtake each other."""
    entered = []

    async def enter(batch):
        await trio.lowlevel.checkpoint()
        entered.append(batch.number)

    await run_pool(feed_of(500), decode=decode, enter=enter, workers=workers)
    assert entered == list(range(500))


async def test_a_batch_says_which_chunk_it_was():
    """It also has the content from the codec, and the times of the receipt."""
    entered, seen = [], []

    def note(payload):
        seen.append(payload)
        return Decoded(received=3, rejected={"late": 1, "malformed": 2}, updates=())

    async def enter(batch):
        entered.append(batch)

    await run_pool(feed_of(2), decode=note, enter=enter, workers=5)
    assert seen == [chunk_of(0).payload, chunk_of(1).payload]
    assert entered[1] == Batch(
        exchange="exchange1",
        number=1,
        received=3,
        rejected={"late": 1, "malformed": 2},
        updates=(),
        received_at=1,
        received_monotonic=0.1,
    )


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 2, 0), (3, 2, 1, 0), (1, 0, 3, 2)])
async def test_an_overtaken_batch_waits_for_its_place(autojump_clock, order):
    """The fan-in holds back batches that come out of order, and enters one at a time."""
    entered, entering = [], []

    async def enter(batch):
        entering.append(batch.number)
        assert len(entering) == 1
        await trio.sleep(1)
        entered.append(entering.pop())

    fan_in = FanIn(enter, workers=5, first=0)
    async with trio.open_nursery() as nursery:
        for number in order:
            nursery.start_soon(fan_in.take, batch_of("exchange1", [], number=number))
            await trio.testing.wait_all_tasks_blocked()
    assert entered == [0, 1, 2, 3]


async def test_what_cannot_enter_pushes_back_to_the_feed(autojump_clock):
    """Memory is bounded: a few chunks and batches are on their way, and no more is read."""
    sent, entered, gate = [], [], trio.Event()

    async def enter(batch):
        await gate.wait()
        entered.append(batch.number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: run_pool(feed_of(1_000, sent), decode=decode, enter=enter, workers=5))
        await trio.sleep(1)
        assert entered == []
        assert len(sent) <= CHUNK_BUFFER + 2 * 5 + 2
        gate.set()
    assert entered == list(range(1_000))


async def test_a_decode_that_raises_takes_the_pool_down():
    """A skipped batch would be a silent loss."""

    def fail(payload):
        if payload.received_at == 7:
            raise RuntimeError("a bug")
        return decode(payload)

    entered = []

    async def enter(batch):
        entered.append(batch.number)

    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="a bug")):
        await run_pool(feed_of(100), decode=fail, enter=enter, workers=5)
    assert entered == list(range(len(entered)))
    assert len(entered) <= 7


async def test_an_enter_that_raises_takes_the_pool_down():
    async def enter(batch):
        raise RuntimeError("a bug")

    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="a bug")):
        await run_pool(feed_of(100), decode=decode, enter=enter, workers=5)


async def test_a_feed_that_ends_at_once_ends_the_pool():
    async def enter(batch):
        raise AssertionError

    with trio.fail_after(5):
        await run_pool(feed_of(0), decode=decode, enter=enter, workers=5)


async def test_nothing_in_a_channel_is_thrown_away_when_the_feed_ends(autojump_clock):
    """The feed ends long before the last of its chunks has entered."""
    entered, ended = [], []

    async def feed(chunks):
        await feed_of(8)(chunks)
        ended.append(trio.current_time())

    async def enter(batch):
        await trio.sleep(1)
        entered.append(batch.number)

    await run_pool(feed, decode=decode, enter=enter, workers=3)
    assert ended == [0.0]
    assert entered == list(range(8))


@pytest.mark.parametrize("after", [(2,), (2, 3), (2, 3, 4, 5)])
async def test_a_chunk_that_never_comes_is_an_error(autojump_clock, after):
    """The batches after it would wait for it, and with them all of the exchange's updates."""

    async def feed(chunks):
        async with chunks:
            for number in (0, *after):
                await chunks.send(chunk_of(number))

    async def enter(batch):
        pass

    count = min(len(after), 2)
    with pytest.RaisesGroup(
        pytest.RaisesExc(RuntimeError, match=f"chunk 1 has never come, {count} after it")
    ):
        await run_pool(feed, decode=decode, enter=enter, workers=2)


async def test_a_chunk_that_never_comes_is_an_error_while_the_feed_goes_on(autojump_clock):
    async def feed(chunks):
        async with chunks:
            for number in (1, 2, 3):
                await chunks.send(chunk_of(number))
            await trio.sleep_forever()

    async def enter(batch):
        raise AssertionError

    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="chunk 0 has never come, 3 after it")):
        await run_pool(feed, decode=decode, enter=enter, workers=3)
