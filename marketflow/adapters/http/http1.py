"""How requests are delimited and upgraded (HTTP/1.1), where Hypercorn is too lenient."""

from __future__ import annotations

import h11
import hypercorn.protocol.h11
from hypercorn.protocol.h11 import H11Protocol

from marketflow.adapters.http.websocket_stream import WebSocket


async def _check_protocol(protocol: H11Protocol, request: h11.Request) -> None:
    """Look at a request's head before it is answered. Called by Hypercorn, which would offer HTTP/2 here.

    Offers of HTTP/2 are ignored, as a server may. Without TLS nobody needs it, and there Hypercorn forgets
    its idle timer: a connection without a request is never closed, and holds a stop for the whole of
    `graceful_timeout`.

    A request with Content-Length and Transfer-Encoding is answered, then the connection is closed (RFC 9112,
    6.1). h11 goes by Transfer-Encoding. A proxy in front that went by Content-Length would take what follows
    for a part of this request, or the end of this request for the next one: so nothing that follows is read.
    """
    names = {name for name, _ in request.headers}
    if b"transfer-encoding" in names and b"content-length" in names:
        # As if it were the last request that the connection may have: Hypercorn then says and does so.
        protocol.keep_alive_requests = protocol.config.keep_alive_max_requests


H11Protocol._check_protocol = _check_protocol  # type: ignore[assignment,method-assign] # noqa: SLF001
hypercorn.protocol.h11.WSStream = WebSocket  # type: ignore[attr-defined]
