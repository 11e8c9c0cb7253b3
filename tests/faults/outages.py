"""Checks of what must hold while Redis is away for any reason, and a proxy that makes connections fail."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import urlsplit

import trio
from rig import Exchange, Service, check_summary, eventually, now_ms, rows_are_right, window_is_whole
from trio_util import AsyncValue


async def check_outage(it: Service, players: Sequence[Exchange], dsn: str, seconds: float) -> None:
    """For so long, feeds go on, rows are written on time, and answers from memory are fresh and right."""
    await trio.sleep(1.05)  # Answers from memory are in whole seconds, so a second with updates must be over.
    until = trio.current_time() + seconds
    accepted = it.updates.accepted
    while trio.current_time() < until:
        async with it.still() as sent:
            summary = await it.get("/prices/aggregate/BTCUSDT?period=1m")
            short = await it.get("/prices/aggregate/exchange1/DOGEUSDT?period=2s")
            latest = await it.get("/prices/latest/BTCUSDT")
        for answer in (summary, short):
            assert answer["source"] == "memory"
            assert answer["end"] % 1_000 == 0
            check_summary(answer, sent)
        newest = max(each.timestamp for each in sent if each.symbol == "BTCUSDT")
        assert latest["source"] == "memory"
        assert latest["timestamp"] == newest
        await trio.sleep(0.3)
        await eventually(partial(more_accepted, it, accepted), within=1, what="the feeds go on")
        accepted = it.updates.accepted
        # A row is due 200 ms after the interval's end, which is checked each second.
        await rows_are_right(dsn, sent, until=now_ms() - 1_600, within=0.5)


def more_accepted(it: Service, before: int) -> bool:
    """Whether it has accepted more updates than before."""
    return it.updates.accepted > before


async def check_up(it: Service, players: Sequence[Exchange]) -> None:
    """Answers are from Redis again, exact to the ms."""
    async with it.still() as sent:
        summary = {}

        async def from_redis() -> bool:
            summary.update(await it.get("/prices/aggregate/BTCUSDT?period=1m"))
            return summary["source"] == "redis"

        await eventually(from_redis, within=1)
    check_summary(summary, sent)


async def check_whole(it: Service, redis_url: str, players: Sequence[Exchange]) -> None:
    """Within 2 s after an outage the window has all accepted updates, and answers come from it."""
    await window_is_whole(redis_url, players, within=2)
    await check_up(it, players)
    await eventually(lambda: it.updates.pending == 0)
    assert it.updates.cached == it.updates.accepted


async def no_thread_left() -> None:
    """Wait until no thread works. Trio keeps idle threads for a while, under another name."""

    def at_work() -> list[str]:
        return [each.name for each in threading.enumerate() if each.name.startswith("trio.to_thread")]

    await eventually(lambda: not at_work(), within=2, what="no thread at work")


class Proxy:
    """A proxy in front of a server. It can delay data, drop connections, or lose one direction."""

    def __init__(self, url: str) -> None:
        """`url` of the server."""
        self._parts = urlsplit(url)
        self._port = 0
        self._open: set[trio.SocketStream] = set()
        self.delay = 0.0
        """Seconds by which each piece from a client is delayed."""
        self.losing = AsyncValue[str | None](None)
        """Requests or answers: data and closes of this direction are held back."""
        self.refusing = False
        """Whether new connections are closed at once."""

    @property
    def url(self) -> str:
        """The URL for clients."""
        user = "".join(self._parts.netloc.rpartition("@")[:2])
        return self._parts._replace(netloc=f"{user}127.0.0.1:{self._port}").geturl()

    async def drop(self) -> None:
        """End all connections."""
        for stream in list(self._open):
            await stream.aclose()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self._port = listeners[0].socket.getsockname()[1]
        await trio.serve_listeners(self._serve, listeners, task_status=task_status)

    async def _serve(self, client: trio.SocketStream) -> None:
        if self.refusing:
            return
        try:
            server = await trio.open_tcp_stream(str(self._parts.hostname), self._parts.port or 0)
            self._open |= {client, server}
            async with server, trio.open_nursery() as nursery:
                for source, target in ((server, client), (client, server)):
                    asking = source is client
                    pass_on = partial(self._pass_on, source, target, nursery.cancel_scope, asking=asking)
                    nursery.start_soon(pass_on)
        except OSError:
            return
        finally:
            self._open -= {client, server}

    async def _pass_on(
        self, source: trio.SocketStream, target: trio.SocketStream, scope: trio.CancelScope, *, asking: bool
    ) -> None:
        try:
            async for piece in source:
                if asking:
                    await trio.sleep(self.delay)
                await self._not_losing(asking=asking)
                await target.send_all(piece)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        await self._not_losing(asking=asking)
        scope.cancel()

    async def _not_losing(self, *, asking: bool) -> None:
        direction = "requests" if asking else "answers"
        await self.losing.wait_value(lambda lost: lost != direction)


@asynccontextmanager
async def proxy(url: str) -> AsyncIterator[Proxy]:
    """A running proxy for the server."""
    made = Proxy(url)
    async with trio.open_nursery() as nursery:
        await nursery.start(made.run)
        yield made
        nursery.cancel_scope.cancel()
