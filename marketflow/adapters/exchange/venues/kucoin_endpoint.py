"""The endpoint of a connection to KuCoin, as its answer to the request for a token gives it. No I/O."""

from __future__ import annotations

from typing import TypeGuard
from urllib.parse import urlencode

from marketflow.adapters.exchange.venues.members import member, members, text_of
from marketflow.adapters.exchange.venues.venue import Endpoint

_LEAST_PING, _MOST_PING = 1.0, 60.0
"""What we accept as an interval of pings, in seconds."""


def endpoint_of(answer: bytes, connection: str) -> Endpoint:
    """The first of its servers; the answer also says how often it wants pings.

    Raises:
        ValueError: it has no endpoint.
    """
    message = members(answer)
    token, servers = member(message, "data", "token"), member(message, "data", "instanceServers")
    server = servers[0] if isinstance(servers, list) and servers else None
    url = text_of(member(server, "endpoint"), "")
    if not isinstance(token, str) or not url.startswith(("wss://", "ws://")):
        raise ValueError(f"no endpoint: {text_of(member(message, 'msg'), 'not as documented')}")
    url += ("&" if "?" in url else "?") + urlencode({"token": token, "connectId": connection})
    interval, timeout = member(server, "pingInterval"), member(server, "pingTimeout")
    if not _is_time(interval) or not _is_time(timeout):
        return Endpoint(url)
    ping_every = min(max(interval / 1_000, _LEAST_PING), _MOST_PING)
    return Endpoint(url, ping_every, 2 * ping_every + min(timeout / 1_000, _MOST_PING))


def _is_time(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
