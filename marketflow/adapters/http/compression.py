"""Compresses answers for clients that accept it."""

from __future__ import annotations

import gzip
from typing import Final

import trio
from quart import request
from quart.wrappers import Response

LEAST: Final = 1_024
"""Bytes. Shorter answers fit into one packet anyway."""
LEVEL: Final = 4
"""Of 9: candles become a fifth, at a hundred MB a second."""
LONG: Final = 65_536
"""Bytes. Longer answers are compressed in a thread: they would hold up all tasks for a millisecond."""
_TEXTS: Final = (
    "text/",
    "application/json",
    "application/problem+json",
    "application/openmetrics-text",
    "image/svg",
)
_STREAM: Final = "text/event-stream"
_THREADS: Final = 2
"""How many answers are compressed at a time."""


class Compression:
    """Compresses the bodies of answers. One for each application."""

    def __init__(self) -> None:
        self._threads = trio.CapacityLimiter(_THREADS)

    async def compress(self, response: Response) -> Response:
        """The answer, compressed if it is a long text and the client accepts that. No streams."""
        kind = response.content_type or ""
        if not kind.startswith(_TEXTS) or kind.startswith(_STREAM):
            return response
        response.vary.add("Accept-Encoding")
        if "Content-Encoding" in response.headers or request.accept_encodings["gzip"] <= 0:
            return response
        body = await response.get_data(as_text=False)
        if len(body) < LEAST:
            return response
        if len(body) < LONG:
            packed = _packed(body)
        else:
            packed = await trio.to_thread.run_sync(_packed, body, limiter=self._threads)
        response.set_data(packed)
        response.headers["Content-Encoding"] = "gzip"
        etag, _ = response.get_etag()
        if etag:
            response.set_etag(etag, weak=True)  # The bytes differ from those of the uncompressed answer.
        return response


def _packed(body: bytes) -> bytes:
    return gzip.compress(body, LEVEL, mtime=0)
