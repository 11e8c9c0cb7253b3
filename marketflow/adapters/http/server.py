"""The server: it accepts connections, and has Hypercorn serve each in a task of its own."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, cast

import attrs
import structlog
import trio
from hypercorn.logging import Logger
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState, ResponseSummary, WWWScope
from hypercorn.utils import repr_socket_addr, wrap_app
from quart_trio import QuartTrio
from trio_util import run_and_cancelling

from marketflow.adapters.http import http1  # noqa: F401 - mends Hypercorn's HTTP/1.1 where it is imported
from marketflow.adapters.http.app import App
from marketflow.adapters.http.connection_errors import ConnectionErrors, Fence
from marketflow.adapters.http.peers import UNREAD_TIMEOUT_MS, Peer, Peers, PeersConfig

IDLE_TIMEOUT: Final = 15.0
"""Seconds that a connection may be without a request; the head of one must have come whole by then."""
MESSAGE_LIMIT: Final = 16 * 1024
"""Bytes of a WebSocket message from a client; no route wants one at all."""
REQUESTS_PER_CONNECTION: Final = 100_000
BACKLOG: Final = 1024
ACCEPT_AGAIN: Final = 0.1
"""Seconds until it is tried again to accept connections, when there was no room for one."""

_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""The errors by which the system says that it has no descriptor, or no memory, for one more connection."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@attrs.frozen
class Limits:
    """What clients may take."""

    connections: int
    """At a time; one more is refused."""
    head_size: int
    """Bytes of a request's line and headers."""


def open_listener(host: str, port: int) -> socket.socket:
    """A socket that listens already: clients wait from now on, and no second service can have the port.

    A name that has several addresses gets its first, IPv4 before IPv6.

    Raises:
        OSError: with a text for people, such as `port 8080 is in use on 127.0.0.1` (EADDRINUSE).
    """
    bare = host.removeprefix("[").removesuffix("]")
    try:
        found = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _for_people(error, bare, port) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # Accepted sockets inherit it. A client that does not read holds an answer, which may be large.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_TIMEOUT_MS)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _for_people(error, bare, port) from error
    return listener


def _for_people(error: OSError, host: str, port: int) -> OSError:
    if error.errno == errno.EADDRINUSE:
        return OSError(error.errno, f"port {port} is in use on {host}")
    return OSError(error.errno, f"cannot listen on {host} port {port}: {error.strerror}")


async def serve_http(
    app: QuartTrio,
    listener: socket.socket,
    *,
    shutdown: Callable[[], Awaitable[None]],
    graceful_timeout: float,
    limits: Limits,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `shutdown` returns; reports the URL once requests are answered. Owns the listener.

    Then no connection is accepted any more, idle ones are closed at once, and running requests have
    `graceful_timeout` seconds to come to their end. What has not by then is cut off; so is everything if this
    is cancelled. Errors of connections are counted in an `App`'s `connection_errors`, and end
    nothing else.
    """
    errors = app.connection_errors if isinstance(app, App) else ConnectionErrors()
    config = _configured(limits, graceful_timeout, errors)
    with listener:
        async with run_and_cancelling(partial(_cut_off, config, shutdown)):
            await _serve(app, config, listener, shutdown, task_status)


async def _serve(
    app: QuartTrio,
    config: PeersConfig,
    listener: socket.socket,
    shutdown: Callable[[], Awaitable[None]],
    task_status: trio.TaskStatus[str],
) -> None:
    """What Hypercorn's own `serve` does, but for this: no error of a connection leaves its task.

    Hypercorn's connections are closed outside of everything that they could catch themselves; an error there
    would end the server. There are no lifespan events, for which the app has no use.
    """
    context = WorkerContext(None)
    served = wrap_app(app, config.wsgi_max_body_size, "asgi")

    async def connected(stream: trio.SocketStream) -> None:
        peer = Peer(served, config, context, ConnectionState({}), cast("Any", stream))
        with Fence(peer.failed):
            try:
                await peer.run()
            finally:
                await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        async with run_and_cancelling(partial(_accept, listener, nursery, connected)):
            task_status.started(f"http://{repr_socket_addr(listener.family, listener.getsockname())}")
            await shutdown()
        listener.close()
        await context.terminated.set()
        nursery.cancel_scope.deadline = trio.current_time() + config.graceful_timeout


async def _accept(
    listener: socket.socket,
    nursery: trio.Nursery,
    connected: Callable[[trio.SocketStream], Awaitable[None]],
) -> None:
    """Accept connections until cancelled, and run a task for each."""
    accepting = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
    short = False
    while True:
        try:
            stream = await accepting.accept()
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            if not short:
                log.warning("connections not accepted", error=error.strerror)
            short = True
            await trio.sleep(ACCEPT_AGAIN)
        else:
            short = False
            nursery.start_soon(connected, stream)


async def _cut_off(config: PeersConfig, shutdown: Callable[[], Awaitable[None]]) -> None:
    """End what Hypercorn cannot: a send to a client that does not read."""
    try:
        await shutdown()
        await trio.sleep(config.graceful_timeout)
    finally:
        config.peers.cut_off()


def _configured(limits: Limits, graceful_timeout: float, errors: ConnectionErrors) -> PeersConfig:
    config = PeersConfig(Peers(limits.connections, errors))
    config.logger_class = _HypercornLog
    config.errorlog = None
    config.accesslog = None
    config.graceful_timeout = graceful_timeout
    config.include_server_header = False
    # Before a request's head is complete this is the only limit of time: it holds off a slow-loris too.
    config.keep_alive_timeout = IDLE_TIMEOUT
    config.keep_alive_max_requests = REQUESTS_PER_CONNECTION
    config.h11_max_incomplete_size = limits.head_size
    config.websocket_max_message_size = MESSAGE_LIMIT
    return config


class _HypercornLog(Logger):
    """Hypercorn's own log, as ours: what it says of itself at debug, what went wrong as it is."""

    async def access(self, request: WWWScope, response: ResponseSummary, request_time: float) -> None:
        """Nothing: the application logs its requests."""

    async def log(self, level: int, message: str, *args: Any, **kwargs: Any) -> None:
        log.log(
            level if level > logging.INFO else logging.DEBUG,
            "http_server",
            said=message % args if args else message,
            **kwargs,
        )

    async def debug(self, message: str, *args: Any, **kwargs: Any) -> None:
        await self.log(logging.DEBUG, message, *args, **kwargs)

    async def info(self, message: str, *args: Any, **kwargs: Any) -> None:
        await self.log(logging.INFO, message, *args, **kwargs)

    async def warning(self, message: str, *args: Any, **kwargs: Any) -> None:
        await self.log(logging.WARNING, message, *args, **kwargs)

    async def error(self, message: str, *args: Any, **kwargs: Any) -> None:
        await self.log(logging.ERROR, message, *args, **kwargs)

    async def critical(self, message: str, *args: Any, **kwargs: Any) -> None:
        await self.log(logging.CRITICAL, message, *args, **kwargs)

    async def exception(self, message: str, *args: Any, **kwargs: Any) -> None:
        await self.log(logging.ERROR, message, *args, exc_info=True, **kwargs)
