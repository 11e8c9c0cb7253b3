"""Requests checked before Hypercorn sees them: Hypercorn is more lenient than a public server should be.

h11 parses the bytes of a connection into events, and Hypercorn asks it for one after the other. The class
here is an h11 parser that also checks the head of each request. It overrides one method, which h11 documents.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

import h11

_BAD_REQUEST: Final = 400
_EXTENSIONS: Final = b"sec-websocket-extensions"
_VERSION: Final = b"13"

Fields = dict[bytes, bytes]
"""Headers by name, in lower case. If a name is repeated, its last value counts, as in Hypercorn."""


class Phase(Enum):
    """The protocol state of a connection."""

    HTTP = auto()
    """Requests and answers."""
    HANDSHAKE = auto()
    """The client has requested a WebSocket and has no answer yet. Until then it must not send anything."""
    FRAMES = auto()
    """A WebSocket."""
    CLOSING = auto()
    """We have sent the frame that closes the WebSocket. We must not send another frame."""


class StrictHttp(h11.Connection):
    """The server's side of HTTP/1.1.

    - An offer to upgrade to a protocol other than WebSocket is ignored, as the standard allows.
    - The beginning of an HTTP/2 connection is refused.
    - A WebSocket handshake that Hypercorn cannot serve is refused (see `_refusal`).
    - A WebSocket is never compressed. Compression takes 300 KB for each client and more time than everything
      else, and a message of 64 KiB could decompress to 64 MiB.
    """

    def __init__(self, max_head_size: int) -> None:
        """`max_head_size` is in bytes."""
        super().__init__(h11.SERVER, max_incomplete_event_size=max_head_size)
        self._asked = False
        self._closing = False

    @property
    def phase(self) -> Phase:
        """The current state."""
        if self._closing:
            return Phase.CLOSING
        if self.our_state is h11.SWITCHED_PROTOCOL:
            return Phase.FRAMES
        return Phase.HANDSHAKE if self._asked else Phase.HTTP

    def close_web_socket(self) -> None:
        """Note that we have sent the closing frame."""
        self._closing = True

    def next_event(self) -> h11.Event | type[h11.NEED_DATA | h11.PAUSED]:
        """Return the next event.

        Raises:
            h11.RemoteProtocolError: the request is refused with the status in `error_status_hint`.
        """
        event = super().next_event()
        return self._checked(event) if isinstance(event, h11.Request) else event

    def _checked(self, request: h11.Request) -> h11.Request:
        if request.http_version > b"1.1":
            raise _refused("HTTP/1.1 only")
        fields = dict(request.headers)
        if b"upgrade" not in fields:
            return request
        if not _asks_for_web_socket(request, fields):
            return _without(request, b"upgrade")
        reason = _refusal(request, fields)
        if reason is None and self.trailing_data[0]:
            reason = "frames before the handshake was answered"
        if reason is not None:
            raise _refused(reason)
        self._asked = True
        return _without(request, _EXTENSIONS) if _EXTENSIONS in fields else request


def _refused(reason: str) -> h11.RemoteProtocolError:
    return h11.RemoteProtocolError(reason, error_status_hint=_BAD_REQUEST)


def _without(request: h11.Request, header: bytes) -> h11.Request:
    return h11.Request(
        method=request.method,
        target=request.target,
        headers=[(name, value) for name, value in request.headers if name != header],
        http_version=request.http_version,
    )


def _asks_for_web_socket(request: h11.Request, fields: Fields) -> bool:
    """Whether Hypercorn treats a request as a WebSocket handshake."""
    return (
        request.method.upper() == b"GET"
        and fields[b"upgrade"].strip().lower() == b"websocket"
        and b"upgrade" in (token.strip() for token in fields.get(b"connection", b"").lower().split(b","))
    )


def _refusal(request: h11.Request, fields: Fields) -> str | None:
    """Why a handshake is refused; None if it is in order.

    Hypercorn would refuse most of these too, but would then leave the connection open for ever. It raises for
    text that is not ASCII. With a body in the handshake, Hypercorn would read as frames the bytes that a
    proxy reads as the body.
    """
    if request.http_version < b"1.1" or b"sec-websocket-key" not in fields:
        return "no WebSocket handshake"
    if fields.get(b"sec-websocket-version") != _VERSION:
        return "unknown version of WebSocket"
    if b"transfer-encoding" in fields or fields.get(b"content-length", b"").strip(b"0"):
        return "a WebSocket handshake has no body"
    for name, value in request.headers:
        of_handshake = name in {b"connection", b"upgrade"} or name.startswith(b"sec-websocket-")
        if of_handshake and not value.isascii():
            return "a WebSocket handshake is ASCII"
    return None
