"""The address of the service."""

from __future__ import annotations

from typing import Final
from urllib.parse import SplitResult, urlsplit

import attrs

DEFAULT_URL: Final = "http://127.0.0.1:8080"
"""The default address of `marketflow serve`."""

_PORTS: Final = {"http": 80, "https": 443}


@attrs.frozen
class Address:
    """The address of a service: where to connect to, and the prefix of its paths."""

    host: str
    port: int
    secure: bool
    """Whether to use TLS."""
    prefix: str
    """The prefix of every path, if a proxy serves the API below one."""

    @property
    def authority(self) -> str:
        """For the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self._scheme] else f"{host}:{self.port}"

    @property
    def _scheme(self) -> str:
        return "https" if self.secure else "http"

    def __str__(self) -> str:
        return f"{self._scheme}://{self.authority}{self.prefix}"


def parse_address(text: str) -> Address:
    """Read `http://127.0.0.1:8080`, `https://host/prefix` or `host:port`.

    Raises:
        ValueError: it is not such an address; the message says why.
    """
    text = text.strip()
    if not text.isprintable() or " " in text:
        raise ValueError("there is white space in it")
    parts = urlsplit(text if "://" in text else f"http://{text}")
    if parts.scheme not in _PORTS:
        raise ValueError("it must begin with http:// or https://")
    if not parts.hostname:
        raise ValueError("there is no host in it")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("it can only have a host, a port and a path")
    return Address(parts.hostname, _port(parts), parts.scheme == "https", parts.path.rstrip("/"))


def _port(parts: SplitResult) -> int:
    try:
        return _PORTS[parts.scheme] if parts.port is None else parts.port
    except ValueError:  # Its message may contain part of a password.
        raise ValueError("the port must be a number up to 65535") from None
