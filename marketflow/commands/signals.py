"""Runs a task until a signal ends it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from marketflow.signals import stop_signals


async def until_signal(task: Callable[[], Awaitable[object]]) -> None:
    """Run the task until SIGINT, SIGTERM or SIGHUP, which cancel it."""
    import trio  # noqa: PLC0415

    with trio.open_signal_receiver(*stop_signals()) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task)
            await anext(aiter(signals))
            nursery.cancel_scope.cancel()
