"""The end of what runs until somebody ends it."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable


async def until_signal(task: Callable[[], Awaitable[object]]) -> None:
    """Run the task until SIGINT or SIGTERM, which cancel it."""
    import trio  # noqa: PLC0415

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task)
            await anext(aiter(signals))
            nursery.cancel_scope.cancel()
