"""The channels of one connection to Bitfinex. No I/O."""

from __future__ import annotations

import msgspec


class Channels:
    """The symbols of channels: a trade comes with the number of its channel only."""

    def __init__(self, most: int) -> None:
        """`most`: as many as a connection may have."""
        self._most = most
        self._symbols: dict[int, bytes] = {}
        """The beginning of a message by its channel: a bracket, the symbol and a comma."""

    def open(self, channel: object, symbol: str) -> bool:
        """Bitfinex sends the trades of a symbol in a channel. Returns whether that can be."""
        if not isinstance(channel, int) or not symbol:
            return False
        if channel not in self._symbols and len(self._symbols) >= self._most:
            return False
        self._symbols[channel] = b"[" + msgspec.json.encode(symbol) + b","
        return True

    def named(self, channel: int, frame: bytes) -> bytes:
        """A frame with the symbol of its channel put before the rest; the frame itself if there is none."""
        beginning = self._symbols.get(channel)
        return frame if beginning is None else beginning + frame[1:]
