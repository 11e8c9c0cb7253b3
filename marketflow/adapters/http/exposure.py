"""A warning if other machines can reach the service and may switch its mode without a token."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

import structlog
import trio

EVERY: Final = 86_400.0
"""Seconds between two warnings: a day, so that each day's log has one."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


async def warn_while_exposed(listener: socket.socket, token: str | None, *, stopping: trio.Event) -> None:
    """Warn now and each day, if other machines can reach the listener and no token is set.

    The address of the listener decides, not the name in the settings. Returns when `stopping` is set, or at
    once if there is nothing to warn about.
    """
    host, port = listener.getsockname()[:2]
    if token is not None or ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        return
    while not stopping.is_set():
        log.warning(
            "mode switch unguarded",
            host=host,
            port=port,
            detail="http.host is not loopback, and without http.token any client may switch the mode",
        )
        with trio.move_on_after(EVERY):
            await stopping.wait()
