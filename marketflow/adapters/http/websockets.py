"""WebSocket frames (RFC 6455), made here so that each is made once for all clients."""

from __future__ import annotations

import struct
from typing import Final

PING: Final = b"\x89\x00"
GOING_AWAY: Final = 1001

_TEXT: Final = 0x81
_SHORT: Final = 125
_MEDIUM: Final = 0xFFFF


def text_frame(payload: bytes) -> bytes:
    """A message of UTF-8 text as one frame. A server does not mask it, so all clients get the same bytes."""
    length = len(payload)
    if length <= _SHORT:
        return struct.pack("!BB", _TEXT, length) + payload
    if length <= _MEDIUM:
        return struct.pack("!BBH", _TEXT, 126, length) + payload
    return struct.pack("!BBQ", _TEXT, 127, length) + payload
