"""The only module that uses undocumented parts of Hypercorn.

Hypercorn documents `hypercorn.trio.serve`, its settings and its logger. That function is not enough for a
public server, for these reasons, all seen in Hypercorn 0.18:

- An error while a connection is being closed leaves the connection's task, and ends the whole server.
- It shields each send from cancellation, so a client that does not read delays a stop.
- A connection whose client has left stays until its idle time is over.
- It starts and cancels a task after each answer, which is a tenth of what an answer costs.
- It has no limit for the number of connections, and no setting to refuse HTTP/2.

So connections are accepted and read by us (`server.py`, `peers.py`), and this module gives their bytes to
`H11Protocol`, which turns bytes into requests for the application and its answers into bytes. Nothing here
overrides a part of Hypercorn, replaces one for the whole process, or touches a private name: it calls what
has a public name, and sets one public attribute (`H11Protocol.connection`). An error in it ends the task of
one connection (`connection_errors.Fence`).

tests/unit/test_hypercorn_parts.py fails when an update of Hypercorn changes what is used here. It also
reproduces each fault of Hypercorn without our workaround. If such a test fails, the workaround that it names
can be removed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, cast

import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.typing import Event as Happening
from hypercorn.utils import parse_socket_addr, repr_socket_addr, wrap_app
from quart_trio import QuartTrio

from marketflow.adapters.http.strict_http import Phase, StrictHttp

_CLOSE_FRAME: Final = b"\x88"
"""The first byte of a frame that closes a WebSocket. Hypercorn sends each frame in a separate call."""


class Wire(Protocol):
    """The calls that a conversation makes to its connection."""

    async def send(self, data: bytes) -> None:
        """Send these bytes."""

    async def send_last(self, data: bytes) -> None:
        """Send these bytes and then nothing more. The client has a few seconds to leave."""

    async def close(self) -> None:
        """Close the connection: the last answer was sent."""

    async def idle(self) -> None:
        """Mark the connection as idle: no request is being answered."""

    async def busy(self) -> None:
        """Mark the connection as busy: a request has arrived."""

    def leave(self) -> None:
        """End the connection at once: the client violates the protocol."""


class Hypercorn:
    """An application, and the settings that it is served with."""

    def __init__(self, app: QuartTrio, config: Config) -> None:
        self.config = config
        self._app = wrap_app(app, config.wsgi_max_body_size, "asgi")
        self._context = WorkerContext(None)

    @property
    def stopping(self) -> Happening:
        """Set when the server stops."""
        return self._context.terminated

    async def stop(self) -> None:
        """Make each connection end after its current answer."""
        await self._context.terminated.set()

    def tasks(self) -> TaskGroup:
        """An async context manager for the tasks of one connection.

        The caller must put a cancel scope around it: a cancellation of the nursery inside would leave it.
        """
        return TaskGroup()

    def converse(
        self, tasks: TaskGroup, socket: trio.socket.SocketType, state: Mapping[str, Any], wire: Wire
    ) -> Conversation:
        """Begin a conversation on a connection.

        Args:
            tasks: the context that `tasks` returned, entered.
            socket: the application gets its addresses.
            state: is put into the ASGI scope of each request, under `state`.
            wire: sends the bytes of answers.

        Raises:
            OSError: the client has left already.
        """
        client = parse_socket_addr(socket.family, socket.getpeername())
        server = parse_socket_addr(socket.family, socket.getsockname())

        def protocol(send: Callable[[Event], Awaitable[None]]) -> H11Protocol:
            shared = cast("ConnectionState", dict(state))
            return H11Protocol(
                app=self._app,
                config=self.config,
                context=self._context,
                task_group=tasks,
                connection_state=shared,
                ssl=False,
                client=client,
                server=server,
                send=send,
            )

        return Conversation(protocol, StrictHttp(self.config.h11_max_incomplete_size), wire)


class Conversation:
    """One connection's protocol: bytes in and out on one side, requests and answers on the other."""

    def __init__(
        self,
        protocol: Callable[[Callable[[Event], Awaitable[None]]], H11Protocol],
        http: StrictHttp,
        wire: Wire,
    ) -> None:
        """`protocol` makes Hypercorn's side; it gets a function that Hypercorn calls with each event."""
        self._http = http
        self._wire = wire
        self._protocol = protocol(self._tell)
        self._protocol.connection = http

    @property
    def takes_frames(self) -> bool:
        """Whether it is a WebSocket, and open."""
        return self._http.phase is Phase.FRAMES

    async def receive(self, data: bytes) -> None:
        """Take bytes that the client sent.

        After our close of a WebSocket they are dropped: Hypercorn would keep a message that was too large,
        and all bytes after it. Bytes between a handshake and its answer end the connection: Hypercorn would
        refuse the handshake while the application accepts it, and two answers would be sent.
        """
        if self._http.phase is Phase.HANDSHAKE:
            self._wire.leave()
        elif self._http.phase is not Phase.CLOSING:
            await self._protocol.handle(RawData(data))

    async def received_all(self) -> None:
        """Report that the client has closed its side; requests that it waits for are abandoned."""
        if self._http.phase is not Phase.CLOSING:
            await self._protocol.handle(RawData(b""))
        await self.broken()

    async def broken(self) -> None:
        """Report that nothing more can be sent to the client."""
        await self._protocol.handle(Closed())

    async def _tell(self, event: Event) -> None:
        """Carry out an event of Hypercorn."""
        if isinstance(event, RawData):
            if self.takes_frames and event.data.startswith(_CLOSE_FRAME):
                self._http.close_web_socket()
                await self._wire.send_last(event.data)
            else:
                await self._wire.send(event.data)
        elif isinstance(event, Closed):
            await self._wire.close()
            await self.broken()
        elif isinstance(event, Updated):
            await (self._wire.idle() if event.idle else self._wire.busy())


def url_of(listener: Any) -> str:
    """The URL of a socket that listens."""
    return f"http://{repr_socket_addr(listener.family, listener.getsockname())}"
