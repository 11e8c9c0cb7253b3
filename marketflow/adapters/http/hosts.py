"""Names and addresses of hosts in `Host` and `Origin` headers. Pure functions."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

import attrs

_AUTHORITY: Final = re.compile(r"(\[[0-9A-Za-z:.%_~-]+\]|[^\s:\[\]@/?#,\\]+)(?::([0-9]{0,5}))?")
_ORIGIN: Final = re.compile(r"(https?)://([^/?#]+)", re.IGNORECASE)
_ABSOLUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_LAST_PORT: Final = 65_535


@attrs.frozen
class Authority:
    """A host and its port."""

    host: str
    """As `canonical_host` gives it."""
    port: int | None
    """None if it is not given."""


def canonical_host(text: str) -> str | None:
    """The canonical spelling of a host, for comparisons; None if the text is not a host.

    Lower case, without brackets, without the dot at the end of a full name; addresses in their short form.
    """
    bare = text.strip().removeprefix("[").removesuffix("]").lower().removesuffix(".")
    try:
        address = ipaddress.ip_address(bare.partition("%")[0])
    except ValueError:
        return _name(bare)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _name(text: str) -> str | None:
    """A name, in the ASCII form in which browsers send it."""
    try:
        return text.encode("idna").decode("ascii") or None
    except UnicodeError:
        return None


def is_loopback(host: str) -> bool:
    """Whether a canonical host always means the client's own machine; no DNS server can change that."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_authority(text: str) -> Authority | None:
    """A host with or without a port, such as `prices.example:8080` or `[::1]`; None if it is neither."""
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        return None
    host = canonical_host(match[1])
    port = int(match[2]) if match[2] else None
    if host is None or (port is not None and port > _LAST_PORT):
        return None
    return Authority(host, port)


def is_origin_of(origin: str, authority: Authority) -> bool:
    """Whether a page of this origin came from that host and port.

    A missing port is the default of the origin's scheme: `Host` has no scheme, and the connection does not
    show it either, since a proxy may have ended TLS.
    """
    match = _ORIGIN.fullmatch(origin)
    if match is None:  # `null` is the origin of pages that have none
        return False
    default = _DEFAULT_PORTS[match[1].lower()]
    found = parse_authority(match[2])
    return found is not None and (found.host, found.port or default) == (
        authority.host,
        authority.port or default,
    )


def authority_in(target: str) -> str | None:
    """The authority in a request target that is an absolute URI; None if it is a path, as usual.

    If there is one, it counts instead of the `Host` header (RFC 9112, 3.2.2).
    """
    match = _ABSOLUTE.match(target)
    return None if match is None else match[1]
