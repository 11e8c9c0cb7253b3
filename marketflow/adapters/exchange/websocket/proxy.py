"""The address of an HTTP proxy, through which the way to exchanges may lead. No I/O."""

from __future__ import annotations

from base64 import b64encode
from urllib.parse import unquote, urlsplit

import attrs


@attrs.frozen
class Proxy:
    """An HTTP proxy that makes tunnels (CONNECT)."""

    host: str
    port: int
    credentials: str | None = attrs.field(default=None, repr=False)
    """`user:password`."""

    @classmethod
    def parsed(cls, url: str) -> Proxy:
        """From `http://host:port` or `http://user:password@host:port`.

        Raises:
            ValueError: it is no such URL. The text does not contain it, since it may have a password.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValueError("a proxy's URL is like http://host:port") from None
        if parts.scheme != "http":
            raise ValueError("a proxy's URL begins with http://")
        if not parts.hostname or port is None:
            raise ValueError("a proxy's URL has a host and a port")
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError("a proxy's URL ends with its port")
        credentials = None
        if parts.username is not None:
            credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return cls(parts.hostname, port, credentials)

    @property
    def authorization(self) -> str | None:
        """The value of the header `Proxy-Authorization`."""
        return None if self.credentials is None else "Basic " + b64encode(self.credentials.encode()).decode()
