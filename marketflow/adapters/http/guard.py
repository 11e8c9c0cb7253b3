"""Decides which requests may change the service. Today the only change is a switch of the mode.

If a token is configured, only requests with that token may. Without one the service trusts every client that
can reach it. But pages of other sites, in the browsers of trusted users, can reach it too, and must not be
trusted. There are two attacks:

- A page of another site sends a request to this service (CSRF). The browser names that site in `Origin`.
- The owner of a page's host name makes it point to this machine (DNS rebinding). To the browser, page and
  service are then one site, and `Origin` equals `Host`. But `Host` is not a name of this service.

So a request passes if it meets one of two conditions:

1. `Sec-Fetch-Site: same-origin`. The browser sets this header itself, and no page can set it. Browsers send
   it only to "potentially trustworthy" URLs: https, and http to loopback. So a page with a rebound name
   cannot have it: its http requests come without the header, and https would need a certificate for its name.
   The dashboard meets this condition behind a proxy with TLS, even if the proxy replaces `Host`, as nginx
   does by default.
2. `Host` is a name that an attacker cannot redirect: loopback, `http.host` or one of `http.allowed_hosts`;
   and `Origin` is absent or equal to it. Programs meet this condition, since they send no `Origin`, and so
   does the dashboard without TLS, or in an old browser.

`X-Forwarded-Host` and similar headers are ignored: any client can send them.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import Final

from quart import Request
from quart.wrappers import Response

from marketflow.adapters.http.hosts import (
    Authority,
    authority_in,
    canonical_host,
    is_loopback,
    is_origin_of,
    parse_authority,
)
from marketflow.adapters.http.problem import problem

_SHOWN: Final = 100
"""The most characters of a header that an error message repeats."""
_OR_TOKEN: Final = "or set http.token, and send it as Authorization: Bearer <http.token>"  # noqa: S105


class Guard:
    """Decides whether a request may change what the service does."""

    def __init__(self, token: str | None, hosts: Iterable[str]) -> None:
        """`hosts`: the names of the service in addition to loopback: `http.host` and `http.allowed_hosts`."""
        self._token = token
        self._hosts = frozenset(map(canonical_host, hosts)) - {None}

    def refusal(self, request: Request) -> Response | None:
        """The answer to a request that may not pass; None for one that may."""
        if self._token is not None:
            if _is_bearer(request.headers.get("Authorization", ""), self._token):
                return None
            return problem(
                "unauthorized",
                "switching the mode needs the header Authorization: Bearer <http.token>",
                headers={"WWW-Authenticate": 'Bearer realm="marketflow"'},
            )
        if request.headers.getlist("Sec-Fetch-Site") == ["same-origin"]:
            return None
        return self._refusal_by_names(request)

    def _refusal_by_names(self, request: Request) -> Response | None:
        name = _host_of(request)
        host = parse_authority(name)
        if host is None or not self._is_known(host):
            return problem(
                "cross-site-request",
                f"the request is for the host {name[:_SHOWN]!r}, which is not a known name of this service: "
                f"if it is one of its names, add it to http.allowed_hosts; {_OR_TOKEN}",
            )
        origins = request.headers.getlist("Origin")
        if not origins or (len(origins) == 1 and is_origin_of(origins[0], host)):
            return None
        return problem(
            "cross-site-request",
            f"a page of {', '.join(origins)[:_SHOWN]!r} may not switch the mode of {name[:_SHOWN]!r}: if "
            "both are this service, let the proxy pass on the requested Host, and add that name to "
            f"http.allowed_hosts; {_OR_TOKEN}",
        )

    def _is_known(self, authority: Authority) -> bool:
        return is_loopback(authority.host) or authority.host in self._hosts


def _host_of(request: Request) -> str:
    """The host that a request says it is for; empty if it names none, or more than one."""
    target = request.scope.get("raw_path", b"").decode("latin-1")
    named = authority_in(target)
    if named is not None:
        return named
    given = request.headers.getlist("Host")
    return given[0].strip() if len(given) == 1 else ""


def _is_bearer(authorization: str, token: str) -> bool:
    scheme, _, credentials = authorization.partition(" ")
    # Quart reads the bytes of a header as Latin-1.
    presented = credentials.strip().encode("latin-1")
    return scheme.lower() == "bearer" and hmac.compare_digest(presented, token.encode()) and presented != b""
