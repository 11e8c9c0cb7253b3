"""A time limit for waiting on a peer. A standstill of our own process does not count against the peer.

A process may be stopped (SIGSTOP, Ctrl-Z, a suspended machine) past the deadline of a wait, while data
arrives. When it goes on, Python's `epoll.poll` reports no event, because its own timeout is over, and Trio
cancels the wait with the data unread. So a wait gets a short extension after its deadline, in which Trio
polls the sockets again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

T = TypeVar("T")

SECOND_LOOK: Final = 0.1
"""The extension in seconds, in which data that has already arrived is still read."""


async def within(seconds: float, wait: Callable[[], Awaitable[T]]) -> T:
    """Call `wait`, and return what it returns.

    A result is never lost: if an outer scope is cancelled after `wait` has returned, the result is returned,
    and the cancellation is raised at the caller's next checkpoint.

    Raises:
        trio.TooSlowError: it took longer than `seconds` and `SECOND_LOOK` together.
    """
    results: list[T] = []
    failure: BaseException | None = None
    timer = trio.CancelScope(shield=True)
    with trio.CancelScope() as limit:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_after, seconds, limit, timer)
            try:
                results.append(await wait())
            except BaseException as error:  # noqa: BLE001 - raised below; here the nursery would wrap it in a group
                failure = error
            finally:
                timer.cancel()
        if failure is not None:
            raise failure
        return results[0]
    raise trio.TooSlowError


async def _cancel_after(seconds: float, limit: trio.CancelScope, timer: trio.CancelScope) -> None:
    with timer:
        await trio.sleep(seconds)
        await trio.sleep(SECOND_LOOK)
        limit.cancel()
