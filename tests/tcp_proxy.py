"""A proxy in front of a TCP server that makes connections fail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import urlsplit

import trio
from trio_util import AsyncValue


class Proxy:
    """A proxy in front of a server. It can delay data, drop connections, or lose one direction."""

    def __init__(self, url: str, host: str = "127.0.0.1", port: int = 0) -> None:
        """`url` of the server. `host`, `port`: where to listen; 0: on any port."""
        self._parts = urlsplit(url)
        self._host = host
        self._port = port
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
        return self._parts._replace(netloc=f"{user}{self._host}:{self._port}").geturl()

    async def drop(self) -> None:
        """End all connections."""
        for stream in list(self._open):
            await stream.aclose()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        listeners = await trio.open_tcp_listeners(self._port, host=self._host)
        self._port = listeners[0].socket.getsockname()[1]
        await trio.serve_listeners(self._serve, listeners, task_status=task_status)

    async def _serve(self, client: trio.SocketStream) -> None:
        if self.refusing:
            return
        try:
            server = await trio.open_tcp_stream(str(self._parts.hostname), self._parts.port or 0)
        except OSError:
            return  # It is away.
        self._open |= {client, server}
        try:
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
async def proxy(url: str, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Proxy]:
    """A running proxy for the server."""
    made = Proxy(url, host, port)
    async with trio.open_nursery() as nursery:
        await nursery.start(made.run)
        yield made
        nursery.cancel_scope.cancel()
