"""The server: accepts connections, and serves each with Hypercorn in its own task."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import attrs
import structlog
import trio
from hypercorn.config import Config
from hypercorn.logging import Logger
from hypercorn.typing import ResponseSummary, WWWScope
from quart_trio import QuartTrio
from trio_util import run_and_cancelling

from marketflow.adapters.http.app import App
from marketflow.adapters.http.connection_errors import ConnectionErrors, Fence, OneConnection
from marketflow.adapters.http.hypercorn_parts import Hypercorn, url_of
from marketflow.adapters.http.peers import UNREAD_TIMEOUT_MS, Peers
from marketflow.app.instruments.seldom import Seldom

IDLE_TIMEOUT: Final = 15.0
"""Seconds that a connection may be without a complete head of a request."""
MESSAGE_LIMIT: Final = 16 * 1024
"""Bytes of a WebSocket message from a client; no route reads any."""
REQUESTS_PER_CONNECTION: Final = 100_000
BACKLOG: Final = 1024
ACCEPT_AGAIN: Final = 0.1
"""Seconds until the next attempt to accept a connection after the system had no resources for one."""
NO_ROOM_LOG_EVERY: Final = 60.0
"""The least number of seconds between two log lines about that. Each client that leaves makes room for one
more, so the shortage may end and begin many times in a second."""

_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""The errors when the system has no file descriptor or no memory for another connection."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@attrs.frozen
class Limits:
    """Limits for clients."""

    connections: int
    """The most open connections; more are refused."""
    head_size: int
    """Bytes of a request's line and headers."""


def open_listener(host: str, port: int) -> socket.socket:
    """A socket that listens. Clients can connect from now on, and no second service can have the port.

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
            # Accepted sockets inherit it. Otherwise a client that does not read keeps its answer in memory.
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
    """Serve until `shutdown` returns. Owns the listener. Started, with the URL, once requests are answered.

    After `shutdown` no more connections are accepted, idle ones are closed at once, and running requests have
    `graceful_timeout` seconds to end. Then all other connections are closed; so are all if this is cancelled.
    An error of a connection ends only that connection, and is counted in an `App`'s `connection_errors`.
    """
    errors = app.connection_errors if isinstance(app, App) else ConnectionErrors()
    hypercorn = Hypercorn(app, _configured(limits, graceful_timeout))
    peers = Peers(limits.connections, errors)
    with listener:
        async with run_and_cancelling(partial(_cut_off, peers, graceful_timeout, shutdown)):
            await _serve(hypercorn, peers, listener, shutdown, task_status)


async def _serve(
    hypercorn: Hypercorn,
    peers: Peers,
    listener: socket.socket,
    shutdown: Callable[[], Awaitable[None]],
    task_status: trio.TaskStatus[str],
) -> None:
    """Serve each connection in its own task. Errors of a connection do not leave its task.

    There are no lifespan events: the application does not use them.
    """

    async def connected(stream: trio.SocketStream) -> None:
        errors = OneConnection(peers.errors)
        with Fence(errors.add):
            try:
                await peers.serve(stream, hypercorn, errors)
            finally:
                stream.socket.close()

    async with trio.open_nursery() as nursery:
        async with run_and_cancelling(partial(_accept, listener, nursery, connected)):
            task_status.started(url_of(listener))
            await shutdown()
        listener.close()
        await hypercorn.stop()
        nursery.cancel_scope.deadline = trio.current_time() + hypercorn.config.graceful_timeout


async def _accept(
    listener: socket.socket,
    nursery: trio.Nursery,
    connected: Callable[[trio.SocketStream], Awaitable[None]],
) -> None:
    """Accept connections until cancelled, and run a task for each."""
    accepting = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
    seldom = Seldom(NO_ROOM_LOG_EVERY)
    while True:
        try:
            stream = await accepting.accept()
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            others = seldom.turn()
            if others is not None:
                log.warning("connections not accepted", error=error.strerror, others_since=others)
            await trio.sleep(ACCEPT_AGAIN)
        else:
            nursery.start_soon(connected, stream)


async def _cut_off(peers: Peers, graceful_timeout: float, shutdown: Callable[[], Awaitable[None]]) -> None:
    """End sends that are shielded from cancellation, such as one to a client that does not read."""
    try:
        await shutdown()
        await trio.sleep(graceful_timeout)
    finally:
        peers.cut_off()


def _configured(limits: Limits, graceful_timeout: float) -> Config:
    config = Config()
    config.logger_class = _HypercornLog
    config.errorlog = None
    config.accesslog = None
    config.graceful_timeout = graceful_timeout
    config.include_server_header = False
    # This is the only time limit until the head of a request is complete, so it also stops a slowloris.
    config.keep_alive_timeout = IDLE_TIMEOUT
    config.keep_alive_max_requests = REQUESTS_PER_CONNECTION
    config.h11_max_incomplete_size = limits.head_size
    config.websocket_max_message_size = MESSAGE_LIMIT
    return config


class _HypercornLog(Logger):
    """Passes Hypercorn's log to ours. Messages below a warning are logged at debug level."""

    async def access(self, request: WWWScope, response: ResponseSummary, request_time: float) -> None:
        """No-op: the application logs its requests."""

    async def log(self, level: int, message: str, *args: Any, **kwargs: Any) -> None:
        log.log(
            level if level > logging.INFO else logging.DEBUG,
            "http server logged",
            message=message % args if args else message,
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
