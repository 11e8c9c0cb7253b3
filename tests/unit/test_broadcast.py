from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from marketflow.adapters.exchange.broadcast import AHEAD, BACKLOG, PATIENCE, Broadcast, Reader

CHUNK = b"x" * 65_536


async def test_each_reader_gets_all_from_the_moment_it_came(autojump_clock):
    broadcast = Broadcast()
    broadcast.send(b"before")
    with broadcast.reader() as early:
        broadcast.send(b"1")
        with broadcast.reader() as late:
            broadcast.send(b"2")
            assert [await early.next(), await early.next()] == [b"1", b"2"]
            assert await late.next() == b"2"
            broadcast.send(b"3")
            assert (await early.next()) is (await late.next())
        broadcast.send(b"4")
        assert await early.next() == b"4"


async def test_a_reader_waits_for_the_next_chunk(autojump_clock):
    broadcast = Broadcast()
    with broadcast.reader() as reader:
        async with trio.open_nursery() as nursery:

            async def send_later() -> None:
                await trio.sleep(3)
                broadcast.send(b"1")

            nursery.start_soon(send_later)
            assert await reader.next() == b"1"
        assert trio.current_time() == pytest.approx(3)


async def test_the_slow_one_is_dropped_when_too_much_waits(autojump_clock):
    """No more is kept for it, and the other readers go on."""
    broadcast = Broadcast()
    with broadcast.reader() as prompt:
        async with trio.open_nursery() as nursery:
            slow: list[Reader] = []

            async def read_one() -> None:
                with broadcast.reader() as reader:
                    slow.append(reader)
                    await reader.next()
                    await trio.sleep_forever()

            nursery.start_soon(read_one)
            await wait_all_tasks_blocked()
            for _ in range(2 * BACKLOG // len(CHUNK)):
                broadcast.send(CHUNK)
                assert await prompt.next() == CHUNK
                assert slow[0].waiting <= BACKLOG + len(CHUNK)
        # The nursery has ended, so the slow reader's block has ended too.
        assert slow[0].dropped.cancelled_caught
    assert not prompt.dropped.cancel_called


async def test_one_chunk_however_large_drops_nobody(autojump_clock):
    broadcast = Broadcast()
    large = bytes(2 * BACKLOG)
    with broadcast.reader() as reader:
        broadcast.send(large)
        assert await reader.next() == large
        broadcast.send(b"1")
        assert await reader.next() == b"1"


async def fill(broadcast: Broadcast) -> int:
    """Send as fast as it is read, for a while; returns the number of bytes."""
    sent = 0
    with trio.move_on_after(10):
        while True:
            await broadcast.room()
            broadcast.send(CHUNK)
            sent += len(CHUNK)
    return sent


async def test_there_is_no_room_without_a_reader(autojump_clock):
    assert await fill(Broadcast()) == 0


async def test_a_lone_reader_is_waited_for(autojump_clock):
    broadcast = Broadcast()
    with broadcast.reader() as reader:
        assert await fill(broadcast) == reader.waiting <= AHEAD + len(CHUNK)
        assert not reader.dropped.cancel_called


async def test_the_slowest_sets_the_pace_unless_it_is_stuck(autojump_clock):
    broadcast = Broadcast()
    taken = {"prompt": 0, "slow": 0, "stuck": 0}
    dropped: dict[str, float] = {}

    async def read(name: str, pause: float) -> None:
        with broadcast.reader() as reader:
            while True:
                taken[name] += len(await reader.next())
                await trio.sleep(pause)
        dropped[name] = trio.current_time()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, "prompt", 0)
        nursery.start_soon(read, "slow", 0.1)
        nursery.start_soon(read, "stuck", 1_000)
        await wait_all_tasks_blocked()
        await fill(broadcast)
        nursery.cancel_scope.cancel()

    assert list(dropped) == ["stuck"]
    assert PATIENCE <= dropped["stuck"] <= 2 * PATIENCE + 0.1
    assert taken["slow"] == pytest.approx(len(CHUNK) * 100, rel=0.1)
    assert taken["prompt"] == pytest.approx(taken["slow"], abs=AHEAD + 2 * len(CHUNK))
