"""Makes connections to Redis: finds the host's addresses, connects to one of them, begins TLS, and logs in.

Each step ends in time. Two of them run in threads, which cannot be interrupted: the system's resolver, and
reading certificates from files. At a time limit their thread is left behind; at most `THREADS` run at a time,
and none of them holds a connection. No thread is used for an address, or for a Unix socket.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_address
from itertools import zip_longest
from typing import Any, Final, TypeVar

import trio

from marketflow.adapters.cache.connection import Connection
from marketflow.adapters.cache.failures import Failures
from marketflow.adapters.cache.resp import pack_commands
from marketflow.adapters.cache.url import Access, TcpPlace, UnixPlace
from marketflow.app.ports import StoreAway

T = TypeVar("T")
Address = tuple[int, int, int, str, Any]
"""As `getaddrinfo` gives them: family, kind, protocol, name, and the address itself."""

THREADS: Final = 4
"""Threads at a time, those that were left behind included."""
HEAD_START: Final = 0.25
"""Seconds after which the next address is tried beside the one before (RFC 8305, "happy eyeballs")."""


class Opener:
    """Makes connections to one Redis."""

    def __init__(self, access: Access, failures: Failures) -> None:
        self._access = access
        self._failures = failures
        self._threads = trio.CapacityLimiter(THREADS)

    async def open(self, deadline: float = float("inf")) -> Connection:
        """A new connection, by `deadline` (of Trio's clock) and within the time limit for connecting.

        Raises:
            StoreAway
        """
        deadline = min(deadline, trio.current_time() + self._access.connect_timeout)
        with self._failures.translated():
            match self._access.place:
                case UnixPlace(path):
                    with in_time(deadline, "nobody answers there"):
                        stream = await trio.open_unix_socket(path)
                    connection = Connection(stream, stream.socket)
                case TcpPlace() as place:
                    connection = await self._open_tcp(place, deadline)
            try:
                await self._greet(connection, deadline)
            except BaseException:
                connection.close()
                raise
            return connection

    async def _open_tcp(self, place: TcpPlace, deadline: float) -> Connection:
        with in_time(deadline, "the host's name is not found out"):
            addresses = await self._addresses(place)
        with in_time(deadline, "nobody answers there"):
            stream = await _first_of(addresses, place)
        try:
            if place.tls_context is None:
                return Connection(stream, stream.socket)
            with in_time(deadline, "it does not begin TLS"):
                context = await self._in_thread(place.tls_context)
                secure = trio.SSLStream(stream, context, server_hostname=place.host, https_compatible=True)
                await secure.do_handshake()
            return Connection(secure, stream.socket)
        except BaseException:
            stream.socket.close()
            raise

    async def _addresses(self, place: TcpPlace) -> Sequence[Address]:
        """Of both families in turn, as RFC 8305 wants them."""
        look_up = partial(socket.getaddrinfo, place.host, place.port, type=socket.SOCK_STREAM)
        try:
            found = look_up() if _is_address(place.host) else await self._in_thread(look_up)
        except UnicodeError as error:
            raise OSError(f"{place.host!r} is no host name: {error}") from error
        except OSError as error:
            raise OSError(f"{place.host}: {_said(error)}") from error
        families: dict[int, list[Address]] = {}
        for address in found:
            families.setdefault(address[0], []).append(address)
        return [each for one_of_each in zip_longest(*families.values()) for each in one_of_each if each]

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(call, limiter=self._threads, abandon_on_cancel=True)

    async def _greet(self, connection: Connection, deadline: float) -> None:
        greeting = self._access.greeting
        if not greeting:
            return
        with in_time(deadline, "it does not answer"):
            await connection.send([pack_commands(greeting)], len(greeting), deadline)
            (replies,) = await connection.receive(1, deadline)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
            if reply != b"OK":
                raise StoreAway("unexpected answer to the first commands: is it a Redis?")


@contextmanager
def in_time(deadline: float, otherwise: str) -> Iterator[None]:
    """Raise StoreAway at the deadline (of Trio's clock)."""
    reason = f"no connection in time: {otherwise}"
    with trio.move_on_at(deadline) as scope:
        try:
            yield
        except trio.TooSlowError:
            raise StoreAway(reason) from None
    if scope.cancelled_caught:
        raise StoreAway(reason)


async def _first_of(addresses: Sequence[Address], place: TcpPlace) -> trio.SocketStream:
    """Connect to the address that answers first.

    Raises:
        OSError: none of them can be connected to.
    """
    made: list[trio.SocketStream] = []
    errors: list[OSError] = []

    async def attempt(address: Address, ended: trio.Event) -> None:
        try:
            stream = await _connected(address, place)
        except OSError as error:
            errors.append(error)
            ended.set()
            return
        if made:
            stream.socket.close()
        made.append(stream)
        nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            for address in addresses:
                ended = trio.Event()
                nursery.start_soon(attempt, address, ended)
                with trio.move_on_after(HEAD_START):
                    await ended.wait()
    except BaseException:
        for stream in made:
            stream.socket.close()
        raise
    if not made:
        raise OSError(f"{place.host}:{place.port}: {_said(errors[0])}") from errors[0]
    return made[0]


async def _connected(address: Address, place: TcpPlace) -> trio.SocketStream:
    family, kind, protocol, _, where = address
    connecting = trio.socket.socket(family, kind, protocol)
    try:
        if place.keepalive is not None:
            connecting.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in place.keepalive.items():
                connecting.setsockopt(socket.IPPROTO_TCP, option, value)
        await connecting.connect(where)
        _check_other_end(connecting)
        return trio.SocketStream(connecting)
    except BaseException:
        connecting.close()
        raise


def _check_other_end(connected: trio.socket.SocketType) -> None:
    """On loopback a client may be given the very port that it connects to, if nobody listens there.

    Raises:
        ConnectionError: it is connected to itself.
    """
    if connected.getsockname() == connected.getpeername():
        # After an ordinary close the kernel would keep the port from Redis for another minute.
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise ConnectionError("nobody listens there: connected to itself")


def _is_address(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _said(error: OSError) -> str:
    return error.strerror or str(error)
