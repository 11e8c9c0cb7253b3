"""Makes connections to Redis: finds the host's addresses, connects to one of them, begins TLS, and logs in.

Each step ends in time. Two of them run in threads, which cannot be interrupted: the system's resolver, and
reading certificates from files. At a time limit their thread is left behind; at most `THREADS` run at a time,
and none of them holds a connection. No thread is used for an address, or for a Unix socket.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_address
from typing import Final, TypeVar

import trio

from marketflow.adapters.cache.connecting import Address, connected_to_first
from marketflow.adapters.cache.connection import Connection
from marketflow.adapters.cache.failures import Failures
from marketflow.adapters.cache.plain import PlainStream
from marketflow.adapters.cache.resp import pack_commands
from marketflow.adapters.cache.tls import TlsStream
from marketflow.adapters.cache.url import Access, TcpPlace, UnixPlace
from marketflow.app.ports import StoreAway

T = TypeVar("T")

THREADS: Final = 4
"""Threads at a time, those that were left behind included."""


class Opener:
    """Makes connections to one Redis."""

    def __init__(self, access: Access, failures: Failures) -> None:
        self._access = access
        self._failures = failures
        self._threads = trio.CapacityLimiter(THREADS)

    @property
    def host(self) -> str:
        """The host that it connects to; empty for a Unix socket."""
        place = self._access.place
        return place.host if isinstance(place, TcpPlace) else ""

    async def open(self, deadline: float = float("inf")) -> Connection:
        """A new connection, by `deadline` (of Trio's clock) and within the time limit for connecting.

        Raises:
            StoreAway
        """
        deadline = min(deadline, trio.current_time() + self._access.connect_timeout)
        with self._failures.translated():
            connected = await self._connected(deadline)
            try:
                connection = await self._begun(connected, deadline)
                await self._greet(connection, deadline)
            except BaseException:
                connected.close()
                raise
            return connection

    async def _connected(self, deadline: float) -> socket.socket:
        match self._access.place:
            case UnixPlace(path):
                name, keepalive = path, None
                addresses: Sequence[Address] = [(socket.AF_UNIX, socket.SOCK_STREAM, 0, "", path)]
            case TcpPlace(host, port, keepalive, _):
                name = f"{host}:{port}"
                with _in_time(deadline, "the host's name is not found out"):
                    addresses = await self._addresses(host, port)
        with _in_time(deadline, "nobody answers there"):
            try:
                connected = await connected_to_first(addresses, keepalive)
            except OSError as error:
                raise OSError(f"{name}: {_said(error)}") from error
        return connected

    async def _addresses(self, host: str, port: int) -> Sequence[Address]:
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            if _is_address(host):
                return look_up(flags=socket.AI_NUMERICHOST)  # Asks nobody, so it does not block.
            return await self._in_thread(look_up)
        except UnicodeError as error:
            raise OSError(f"{host!r} is no host name: {error}") from error
        except OSError as error:
            raise OSError(f"{host}: {_said(error)}") from error

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(call, limiter=self._threads, abandon_on_cancel=True)

    async def _begun(self, connected: socket.socket, deadline: float) -> Connection:
        """With TLS, if that is wanted."""
        match self._access.place:
            case TcpPlace(host=host, tls_context=make) if make is not None:
                with _in_time(deadline, "it does not begin TLS"):
                    context = await self._in_thread(make)
                    secure = TlsStream(connected, context, host)
                    await secure.begin()
                return Connection(secure, connected)
            case _:
                return Connection(PlainStream(connected), connected)

    async def _greet(self, connection: Connection, deadline: float) -> None:
        greeting = self._access.greeting
        if not greeting:
            return
        with _in_time(deadline, "it does not answer"):
            (replies,) = await connection.exchange(
                [pack_commands(greeting)], len(greeting), requests=1, deadline=deadline
            )
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
            if reply != b"OK":
                raise StoreAway("unexpected answer to the first commands: is it a Redis?")


@contextmanager
def _in_time(deadline: float, otherwise: str) -> Iterator[None]:
    """Raise StoreAway at the deadline (of Trio's clock)."""
    reason = f"no connection in time: {otherwise}"
    with trio.move_on_at(deadline) as scope:
        try:
            yield
        except trio.TooSlowError:
            raise StoreAway(reason) from None
    if scope.cancelled_caught:
        raise StoreAway(reason)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _said(error: OSError) -> str:
    return error.strerror or str(error)
