"""What signals do to a command that runs a task: they cancel it, or end the process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from marketflow.signals import stop_signals


async def until_signal(task: Callable[[], Awaitable[object]]) -> None:
    """Run the task until SIGINT, SIGTERM or SIGHUP, which cancel it."""
    import trio  # noqa: PLC0415

    with trio.open_signal_receiver(*stop_signals()) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task)
            await anext(aiter(signals))
            nursery.cancel_scope.cancel()


@contextmanager
def interruptible() -> Iterator[None]:
    """End by the signal if the block is interrupted: without a result the exit must not look successful."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield
        return
    before = {number: signal.signal(number, signal.SIG_DFL) for number in stop_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
