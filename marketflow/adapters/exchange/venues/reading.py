"""Parts that venues have in common: messages with trades, numbers and times as venues write them. No I/O."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

import msgspec

from marketflow.adapters.exchange.venues.venue import Found, Trade

Item = TypeVar("Item")


class TradeMessages(Generic[Item]):
    """Decodes messages with trades: at once, or one trade after the other if one of them is malformed.

    A trade counts without its volume if that is no number. So there are two types of trades: one for good
    ones, and one with a volume of any type.
    """

    def __init__(
        self,
        message: Any,
        *,
        good: type[Item],
        loose: Any,
        items: Callable[[Any], Sequence[Any]],
        trade: Callable[[Any, Any], Trade | None],
    ) -> None:
        """What a venue's messages are.

        Args:
            message: a generic Struct; its parameter is the type of a trade.
            good: the type of a trade whose fields are all as they should be.
            loose: the same with a volume of any type.
            items: the trades in a message.
            trade: makes a trade of the message and one of its items; None if it is malformed.
        """
        # Not strict: venues write numbers as text.
        self._good = msgspec.json.Decoder(message[good], strict=False)
        self._raw = msgspec.json.Decoder(message[msgspec.Raw])
        self._loose = msgspec.json.Decoder(loose, strict=False)
        self._items = items
        self._trade = trade

    def found(self, body: bytes) -> Found:
        """The trades of a message; one malformed if it has none that can be told apart."""
        trade = self._trade
        try:
            message = self._good.decode(body)
            trades = [trade(message, item) for item in self._items(message)]
        except _UNREADABLE:
            return self._one_by_one(body)
        good = [each for each in trades if each is not None and math.isfinite(each.price)]
        return Found(good, len(trades) - len(good))

    def _one_by_one(self, body: bytes) -> Found:
        try:
            message = self._raw.decode(body)
        except _UNREADABLE:
            return Found((), 1)
        found: list[Trade] = []
        items = self._items(message)
        for raw in items:
            try:
                trade = self._trade(message, self._loose.decode(raw))
            except _UNREADABLE:
                continue
            if trade is not None and math.isfinite(trade.price):
                found.append(trade)
        return Found(found, len(items) - len(found))


_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, OverflowError)
"""What reading a message of any content may raise."""


def decoded(decoder: msgspec.json.Decoder[Item], frame: bytes) -> Item | None:
    """A frame as the decoder's type; None if it is none."""
    try:
        return decoder.decode(frame)
    except _UNREADABLE:
        return None


def volume_of(told: object) -> object:
    """A volume as a number if it is one, also as text; else unchanged, so that it does not count."""
    if isinstance(told, str):
        try:
            return float(told)
        except ValueError:
            return told
    return float(told) if isinstance(told, int) and not isinstance(told, bool) else told


def ms_of(time: datetime) -> int:
    """Unix ms of a time with a time zone, rounded down."""
    return round(time.timestamp() * 1_000_000) // 1_000
