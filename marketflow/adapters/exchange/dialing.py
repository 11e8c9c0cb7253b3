"""TCP connections to exchanges."""

from __future__ import annotations

import trio

from marketflow.loopback import check_other_end


async def open_tcp(host: str, port: int) -> trio.SocketStream:
    """A TCP connection; the addresses of both families are tried in turn.

    Raises:
        OSError: there is none.
    """
    stream = await trio.open_tcp_stream(host, port)
    try:
        check_other_end(stream.socket)
    except ConnectionError:
        await trio.aclose_forcefully(stream)
        raise
    return stream
