"""When lines are read: small amounts at a beat, together with those of other exchanges."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import pytest
import trio

from marketflow.adapters.exchange.pacing import FEW, LEAST, LITTLE, SPAN_BEATS, Pace, PacedReceive
from marketflow.adapters.exchange.reading import LineReader
from marketflow.app.instruments.clocks import SystemClock

LINE = b"x" * 9 + b"\n"
BEAT = 0.25


class Intake:
    """Receives without an end, and forgets what is sent."""

    stopping = False

    async def forward(self, receive) -> None:
        while True:
            await receive()


class Exchange:
    """Receives when there is something to receive, and notes when."""

    def __init__(self, size: int, gaps: Sequence[float]) -> None:
        """Sends so many bytes after each gap (seconds)."""
        self.received_at: list[float] = []
        self.size = size
        self.gaps = gaps
        self.due = list(accumulate(gaps))

    async def receive(self) -> bytes:
        if not self.due:
            raise trio.EndOfChannel
        if self.due[0] > trio.current_time() - self.began:
            await trio.sleep_until(self.began + self.due[0])
        come = sum(due <= trio.current_time() - self.began for due in self.due)
        del self.due[:come]
        self.received_at.append(trio.current_time() - self.began)
        return (LINE * self.size * come)[: self.size * come]

    def has_come(self) -> bool:
        return not self.due or self.due[0] <= trio.current_time() - self.began

    async def read(self, reader: LineReader | None = None) -> list[float]:
        """When it was read."""
        self.began = trio.current_time()
        reader = reader or new_reader()
        with pytest.raises(trio.EndOfChannel):
            await reader.read(Intake(), self)
        return self.received_at


def new_reader() -> LineReader:
    return LineReader(SystemClock(), Pace.at(2 * BEAT))


def gaps_of(times: Sequence[float]) -> list[float]:
    return [b - a for a, b in pairwise(times)]


@pytest.mark.parametrize(
    ("size", "pace"),
    [(1, 2 * BEAT), (LEAST // 51, 2 * BEAT), (LEAST // 24, BEAT), (FEW // 26, BEAT), (FEW // 8, BEAT / 2)],
)
async def test_the_less_was_received_the_later_is_the_next_receive(size, pace, autojump_clock):
    """Something comes each 10 ms. The fewer lines there are, the longer is the pause."""
    gaps = gaps_of(await Exchange(size, [0.01] * 500).read())[3:-2]
    assert gaps == pytest.approx([pace] * len(gaps))


async def test_after_a_large_receive_there_is_no_pause(autojump_clock):
    assert gaps_of(await Exchange(LITTLE, [0.01] * 50).read()) == pytest.approx([0.01] * 49)


async def test_what_comes_seldom_is_read_at_once(autojump_clock):
    """Such an exchange is woken once for what it sends: not at a beat at which there is nothing."""
    exchange = Exchange(100, [0.7] * 20)
    assert await exchange.read() == pytest.approx([0.7 * number for number in range(1, 21)])


async def read_beside_each_other(exchanges: Sequence[Exchange]) -> list[float]:
    """When any of them was read."""
    reader = new_reader()
    async with trio.open_nursery() as nursery:
        for exchange in exchanges:
            nursery.start_soon(exchange.read, reader)
    return sorted({round(at, 3) for exchange in exchanges for at in exchange.received_at})


async def test_exchanges_that_send_more_often_than_the_beat_together_are_read_at_it(autojump_clock):
    """Each alone sends less often: three of them at times of their own are three wake-ups in two beats."""
    exchanges = [Exchange(4, [0.3 * number + 0.01, *[4 * BEAT] * 100]) for number in range(3)]
    wake_ups = await read_beside_each_other(exchanges)
    begun = (SPAN_BEATS + 10) * 2 * BEAT
    together = [at for at in wake_ups if begun < at < 90]
    assert together
    assert [at % (2 * BEAT) for at in together] == pytest.approx([0.0] * len(together), abs=0.001)
    assert all(gap < 2.01 * BEAT for gap in gaps_of(together))


async def test_two_that_send_less_often_than_the_beat_together_are_read_at_once(autojump_clock):
    exchanges = [Exchange(4, [0.3 * number + 0.01, *[8 * BEAT] * 50]) for number in range(2)]
    wake_ups = await read_beside_each_other(exchanges)
    assert wake_ups == pytest.approx(sorted(at for each in exchanges for at in accumulate(each.gaps)))


async def test_when_the_others_end_one_is_read_at_once_again(autojump_clock):
    others = [Exchange(4, [0.3 * number + 0.01, *[4 * BEAT] * 50]) for number in range(2)]
    last = Exchange(4, [0.91, *[4 * BEAT] * 100])
    await read_beside_each_other([*others, last])
    apart = [at for at in last.received_at if at > 50 + 2 * SPAN_BEATS * 2 * BEAT]
    assert [at % 1 for at in apart] == pytest.approx([0.91] * len(apart))
    assert len(apart) > 10


async def test_an_exchange_that_begins_to_send_often_is_read_at_the_beat_again(autojump_clock):
    seldom, often = [0.7] * 10, [0.02] * 100
    received = await Exchange(40, [*seldom, *often]).read()
    gaps = gaps_of(received[len(seldom) + 2 :])[:-1]
    assert gaps == pytest.approx([BEAT] * len(gaps))


async def test_bursts_are_read_at_the_beat(autojump_clock):
    """The lines of a burst come one after another, and the beat after the first takes all others."""
    received = await Exchange(100, [0.7, 0.001, 0.001, 0.001, 0.001] * 10).read()
    assert len(received) <= 20


async def test_beside_an_exchange_that_floods_small_amounts_are_read_more_often(autojump_clock):
    """An update waits behind the others then; it must not have waited for long before that."""
    reader = new_reader()
    little, flood = Exchange(1, [0.01] * 1_000), Exchange(LITTLE, [0.01] * 500)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flood.read, reader)
        nursery.start_soon(little.read, reader)
    beside = [at for at in little.received_at if 1 < at < 4.5]
    alone = [at for at in little.received_at if 5.5 < at < 9.5]
    assert gaps_of(beside) == pytest.approx([BEAT / 2] * (len(beside) - 1))
    assert gaps_of(alone) == pytest.approx([2 * BEAT] * (len(alone) - 1))


async def test_with_no_time_left_what_has_come_is_read():
    """After a standstill there may be a millisecond to look once more, and others have their turn first."""

    class Full:
        async def receive(self) -> bytes:
            return LINE

        def has_come(self) -> bool:
            return True

    paced = PacedReceive(Full(), lambda _: (None, None), lambda: False)
    with trio.CancelScope() as scope:
        scope.cancel()
        assert await paced.receive() == LINE
    assert not scope.cancelled_caught
