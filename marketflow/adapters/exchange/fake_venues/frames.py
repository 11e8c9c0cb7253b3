"""Text frames of a WebSocket server without compression: the same for all clients, and made once. No I/O."""

from __future__ import annotations

from typing import Final

_TEXT: Final = b"\x81"
_SHORT: Final = 126
"""From this length on the length has two more bytes."""
_MIDDLE: Final = 65_536
"""From this length on it has eight more."""


def text_frame(message: bytes) -> bytes:
    """The frame of a whole message."""
    size = len(message)
    if size < _SHORT:
        return b"%b%c%b" % (_TEXT, size, message)
    if size < _MIDDLE:
        return b"%b\x7e%b%b" % (_TEXT, size.to_bytes(2), message)
    return b"%b\x7f%b%b" % (_TEXT, size.to_bytes(8), message)


def pieces(message: bytes, count: int) -> list[bytes]:
    """A message in about so many pieces, which may split a character."""
    size = max(1, -(-len(message) // count))
    return [message[begin : begin + size] for begin in range(0, len(message), size)]
