"""Connects a socket to the first of several addresses that answers."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final

import trio

from marketflow.loopback import check_other_end

Address = tuple[int, int, int, str, Any]
"""As `getaddrinfo` gives them: family, kind, protocol, name, and the address itself."""

HEAD_START: Final = 0.25
"""Seconds after which the next address is tried beside the one before (RFC 8305, "happy eyeballs")."""


async def connected_to_first(
    addresses: Sequence[Address], keepalive: Mapping[int, int] | None
) -> socket.socket:
    """A socket that is connected to one of the addresses.

    Args:
        addresses: those of both families are tried in turn.
        keepalive: options of TCP's keep-alive; None: without it.

    Raises:
        OSError: that of the first that failed, if none can be connected to.
    """
    made: list[socket.socket] = []
    errors: list[OSError] = []

    async def attempt(address: Address, failed: trio.Event) -> None:
        try:
            made.append(await _connected(address, keepalive))
        except OSError as error:
            errors.append(error)
            failed.set()
        else:
            nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            for address in _in_turn(addresses):
                failed = trio.Event()
                nursery.start_soon(attempt, address, failed)
                with trio.move_on_after(HEAD_START):
                    await failed.wait()
    except BaseException:
        _close(made)
        raise
    if not made:
        raise errors[0]
    _close(made[1:])
    return made[0]


def _in_turn(addresses: Sequence[Address]) -> list[Address]:
    families: dict[int, list[Address]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    return [each for one_of_each in zip_longest(*families.values()) for each in one_of_each if each]


def _close(sockets: Sequence[socket.socket]) -> None:
    for each in sockets:
        each.close()


async def _connected(address: Address, keepalive: Mapping[int, int] | None) -> socket.socket:
    family, kind, protocol, _, where = address
    connecting = socket.socket(family, kind, protocol)
    try:
        if family != socket.AF_UNIX:
            connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if keepalive is not None:
            connecting.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in keepalive.items():
                connecting.setsockopt(socket.IPPROTO_TCP, option, value)
        await trio.socket.from_stdlib_socket(connecting).connect(where)
        if family != socket.AF_UNIX:
            check_other_end(connecting)
    except BaseException:
        connecting.close()
        raise
    return connecting
