"""How to get to the Redis that a URL names: redis-py reads the URL, and we allow a part of its options."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import attrs
import redis

from marketflow.adapters.cache.resp import Command

_PLACE: Final = frozenset({"host", "port", "path"})
_TIMES: Final = frozenset({"socket_timeout", "socket_connect_timeout"})
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
class UnixPlace:
    """A Unix socket."""

    path: str


@attrs.frozen
class TcpPlace:
    """A host and port, with TLS or without."""

    host: str
    port: int
    keepalive: Mapping[int, int] | None
    """Options of TCP's keep-alive; None: without it."""
    tls_context: Callable[[], ssl.SSLContext] | None
    """Makes a context for TLS, blocks meanwhile, and raises OSError; None: without TLS."""


@attrs.frozen
class Access:
    """Where a Redis is, and how to speak to it."""

    place: TcpPlace | UnixPlace
    greeting: Sequence[Command]
    """Sent first: who we are, and which database we want. Each is answered by `OK`."""
    timeout: float
    """Seconds for the replies to a request."""
    connect_timeout: float
    """Seconds for making a connection: looking up the host's name, TLS and the greeting included."""
    secrets: Sequence[str]
    """What no error may repeat."""


def access_of(url: str, timeout: float) -> Access:
    """How to get to the Redis that the URL names. The timeout in seconds; the URL may say less.

    Raises:
        ValueError: the URL is not of the form `redis://`, `rediss://` or `unix://`, or has other options.
    """
    scheme, mark, rest = url.partition("://")
    pool = redis.ConnectionPool.from_url(f"{scheme.lower()}{mark}{rest}")
    allowed = URL_OPTIONS[pool.connection_class]
    unknown = {name for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)} - allowed
    if unknown:
        raise ValueError(f"a Redis URL of this kind has no option {', '.join(sorted(unknown))}")
    given = {name: value for name, value in pool.connection_kwargs.items() if name in allowed | _PLACE}
    try:
        # Never connected. redis-py knows its own defaults, and gives its connections no types.
        known: Any = pool.connection_class(**given)
    except redis.RedisError as error:
        raise ValueError(str(error)) from error
    return Access(
        place=_place(known),
        greeting=_greeting(known),
        timeout=min(timeout, given.get("socket_timeout", timeout)),
        connect_timeout=min(timeout, given.get("socket_connect_timeout", timeout)),
        secrets=[given[name] for name in ("password", "ssl_password") if given.get(name)],
    )


def _place(known: Any) -> TcpPlace | UnixPlace:
    if isinstance(known, redis.UnixDomainSocketConnection):
        return UnixPlace(known.path)
    return TcpPlace(
        host=known.host,
        port=known.port,
        keepalive=known.socket_keepalive_options if known.socket_keepalive else None,
        tls_context=partial(_tls_context, known) if isinstance(known, redis.SSLConnection) else None,
    )


def _tls_context(known: Any) -> ssl.SSLContext:
    """Reads the files again each time, since certificates are renewed."""
    context = ssl.create_default_context()
    context.check_hostname = known.check_hostname
    context.verify_mode = known.cert_reqs
    if known.certfile or known.keyfile:
        # Without a password OpenSSL would ask for one on the terminal.
        context.load_cert_chain(known.certfile or "", known.keyfile, known.certificate_password or "")
    if known.ca_certs or known.ca_path:
        context.load_verify_locations(known.ca_certs, known.ca_path)
    if known.ssl_ciphers:
        context.set_ciphers(known.ssl_ciphers)
    return context


def _greeting(known: Any) -> Sequence[Command]:
    commands: list[Command] = []
    if known.username:
        commands.append(("AUTH", known.username, known.password or ""))
    elif known.password:
        commands.append(("AUTH", known.password))
    if known.client_name:
        commands.append(("CLIENT", "SETNAME", known.client_name))
    if known.db:
        commands.append(("SELECT", known.db))
    return commands
