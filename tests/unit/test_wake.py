"""When the flusher is woken."""

from __future__ import annotations

import trio

from marketflow.app.share.arrivals import Arrivals
from marketflow.app.share.wake import Wake


async def test_a_wait_ends_when_it_is_due_also_if_the_last_was_due_later(autojump_clock):
    wake = Wake(Arrivals())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wake.run)
        for seconds in (0.5, 0.25, 1.0):
            start = trio.current_time()
            await wake.wait_for_work(start + seconds)
            assert trio.current_time() == start + seconds
        with trio.move_on_after(0.1):
            await wake.wait_for_work(trio.current_time() + 10)
        start = trio.current_time()
        await wake.wait_for_work(start + 0.05)
        assert trio.current_time() - start < 0.051
        nursery.cancel_scope.cancel()
