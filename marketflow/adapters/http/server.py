"""Hypercorn in the nursery."""

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
from hypercorn.config import Sockets
from hypercorn.logging import Logger
from hypercorn.trio import serve
from hypercorn.typing import ResponseSummary, WWWScope
from quart_trio import QuartTrio
from trio_util import run_and_cancelling

from marketflow.adapters.http.peers import UNREAD_TIMEOUT_MS, Peers, PeersConfig

IDLE_TIMEOUT: Final = 15.0
"""Seconds that a connection may be without a request; the head of one must have come whole by then."""
MESSAGE_LIMIT: Final = 16 * 1024
"""Bytes of a WebSocket message from a client; no route wants one at all."""
REQUESTS_PER_CONNECTION: Final = 100_000
BACKLOG: Final = 1024

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
    is cancelled.
    """
    with listener:
        async with trio.open_nursery() as nursery:
            config = _configured(listener, limits, graceful_timeout)
            urls = await nursery.start(_serve, app, config, shutdown)
            task_status.started(urls[0])


async def _serve(
    app: QuartTrio,
    config: PeersConfig,
    shutdown: Callable[[], Awaitable[None]],
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    async with run_and_cancelling(partial(_cut_off, config, shutdown)):
        await serve(app, config, shutdown_trigger=shutdown, task_status=task_status)


async def _cut_off(config: PeersConfig, shutdown: Callable[[], Awaitable[None]]) -> None:
    """End what Hypercorn cannot: a send to a client that does not read."""
    try:
        await shutdown()
        await trio.sleep(config.graceful_timeout)
    finally:
        config.peers.cut_off()


def _configured(listener: socket.socket, limits: Limits, graceful_timeout: float) -> PeersConfig:
    config = _Config(Peers(limits.connections))
    config.listener = listener
    config.logger_class = _HypercornLog
    config.errorlog = None
    config.accesslog = None
    config.backlog = BACKLOG
    config.graceful_timeout = graceful_timeout
    config.include_server_header = False
    # Before a request's head is complete this is the only limit of time: it holds off a slow-loris too.
    config.keep_alive_timeout = IDLE_TIMEOUT
    config.keep_alive_max_requests = REQUESTS_PER_CONNECTION
    config.h11_max_incomplete_size = limits.head_size
    config.websocket_max_message_size = MESSAGE_LIMIT
    return config


class _Config(PeersConfig):
    """Hypercorn's settings with a socket that is there already.

    Its own way, a bind to `fd://N`, makes a second owner of the descriptor and lets child processes have it.
    """

    listener: socket.socket

    def create_sockets(self) -> Sockets:
        return Sockets([], [self.listener], [])


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
