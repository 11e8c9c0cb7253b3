"""When lines are read: small amounts at a beat, together with those of other exchanges."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
import trio

from marketflow.adapters.exchange.reading import FEW, LITTLE, LineReader
from marketflow.app.instruments.clocks import Beat, SystemClock

LINE = b"x" * 99 + b"\n"


class Intake:
    """Receives without an end, and forgets what is sent."""

    async def received(self, receive) -> AsyncIterator[bytes]:
        while True:
            yield await receive()

    async def outside(self, wait) -> None:
        await wait()

    async def send(self, payload) -> None:
        pass


@pytest.mark.parametrize(
    ("size", "pace"), [(100, 0.25), (FEW - 1, 0.25), (FEW, 0.125), (LITTLE - 1, 0.125), (LITTLE, 0.0)]
)
async def test_the_less_was_received_the_later_is_the_next_receive(size, pace, autojump_clock):
    """After a few lines the pause is longer, and after a large receive there is none."""
    received_at: list[float] = []

    async def receive() -> bytes:
        await trio.sleep(0.01)
        received_at.append(trio.current_time())
        if len(received_at) == 10:
            raise trio.EndOfChannel
        return (LINE * size)[:size]

    reader = LineReader(SystemClock(), Beat(0.125), slow_beat=Beat(0.25))
    with pytest.raises(trio.EndOfChannel):
        await reader.read(Intake(), receive)
    gaps = [b - a for a, b in pairwise(received_at[1:])]
    assert gaps == pytest.approx([pace or 0.01] * len(gaps))
