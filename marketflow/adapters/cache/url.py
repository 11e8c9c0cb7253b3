"""Connections for a Redis URL: the allowed options, and our own settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import attrs
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

_PLACE: Final = frozenset({"host", "port", "path"})
_TIMES: Final = ("socket_timeout", "socket_connect_timeout")
_ANYWHERE: Final = frozenset({"db", "username", "password", "client_name", *_TIMES})
_TCP: Final = frozenset({"socket_keepalive"})
_TLS: Final = frozenset(
    {
        "ssl_ca_certs",
        "ssl_ca_path",
        "ssl_cert_reqs",
        "ssl_certfile",
        "ssl_check_hostname",
        "ssl_ciphers",
        "ssl_keyfile",
        "ssl_password",
    }
)

URL_OPTIONS: Final = {
    redis.Connection: _ANYWHERE | _TCP,
    redis.SSLConnection: _ANYWHERE | _TCP | _TLS,
    redis.UnixDomainSocketConnection: _ANYWHERE,
}
"""The allowed options of a URL, by the kind of connection; the configuration checks them, too."""


@attrs.frozen
class Access:
    """Where a Redis is, and how to speak to it."""

    make: Callable[[], Any]
    """A new connection, not connected yet. redis-py gives its connections no types."""
    secrets: Sequence[str]
    """What no error may repeat."""


def access_of(url: str, timeout: float) -> Access:
    """How to get to the Redis that the URL names. The timeout in seconds.

    In redis-py the options of a URL override its other arguments. Ours must not be overridden: the rest of
    this package relies on its protocol, decoder and time limits. Shorter time limits are fine.

    Raises:
        ValueError: the URL is not of the form `redis://`, `rediss://` or `unix://`, or has other options.
    """
    scheme, mark, rest = url.partition("://")
    pool = redis.ConnectionPool.from_url(f"{scheme.lower()}{mark}{rest}")
    allowed = URL_OPTIONS[pool.connection_class]
    unknown = {name for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)} - allowed
    if unknown:
        raise ValueError(f"a Redis URL of this kind has no option {', '.join(sorted(unknown))}")
    known = _PLACE | allowed
    given = {name: value for name, value in pool.connection_kwargs.items() if name in known}
    settings = given | {name: min(timeout, given.get(name, timeout)) for name in _TIMES}
    settings |= {"retry": Retry(NoBackoff(), 0), "protocol": 2, "health_check_interval": 0}
    secrets = [given[name] for name in ("password", "ssl_password") if given.get(name)]
    return Access(partial(pool.connection_class, **settings), secrets)
