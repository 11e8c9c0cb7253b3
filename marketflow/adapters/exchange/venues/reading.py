"""Parts that venues have in common: messages with trades, members of other messages, times. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from math import isfinite
from typing import Any, Final, Literal, TypeVar

import msgspec
from msgspec import UNSET

from marketflow.adapters.exchange.venues.venue import Found, Trade

Item = TypeVar("Item")
"""The type of a message's trades."""
Volume = TypeVar("Volume")
Side = TypeVar("Side")
Id = TypeVar("Id")

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, OverflowError)
"""What reading a message of any content may raise."""
MOST_ONE_BY_ONE: Final = 2_000
"""Trades of a message that are read one by one, which takes some 15 us each; the rest counts as malformed.
Venues send some thousand in a message at most."""


# ---- trades ----


class TradeMessages:
    """Decodes messages with trades: all at once, or one by one if one of them is not as usual.

    A trade counts without a volume or a side that cannot be read, and its id may be any text. So a venue
    declares its trades as a Struct with parameters for the types of these three fields.
    """

    def __init__(
        self,
        item: Any,
        trades: Callable[[Any], list[Trade]],
        *,
        message: Any = None,
        field: str = "data",
        sides: Any = Literal["buy", "sell"],
        ids: Any = int,
    ) -> None:
        """What a venue's messages are.

        Args:
            item: a trade; a Struct with the parameters `Volume`, `Side` and `Id`.
            trades: the trades of a message. It may raise a ValueError, and must not depend on the types of
                volumes and sides.
            message: a Struct whose parameter is the type of its trades; None: a message is a trade.
            field: the field of the message that has its trades, or one trade.
            sides: how the venue writes sides.
            ids: how it usually writes ids.
        """
        # Not strict: venues write numbers as text.
        usual = item[float, sides, ids]
        self._usual = msgspec.json.Decoder(usual if message is None else message[usual], strict=False)
        self._raw = None if message is None else msgspec.json.Decoder(message[msgspec.Raw])
        self._unusual = tuple(
            msgspec.json.Decoder(item[msgspec.Raw, msgspec.Raw, each], strict=False) for each in (ids, str)
        )
        self._field = field
        self._trades = trades

    def found(self, body: bytes) -> Found:
        """The trades of a message; one malformed if it cannot be taken apart."""
        try:
            trades = self._trades(self._usual.decode(body))
        except UNREADABLE:
            return self._one_by_one(body)
        for each in trades:
            # The sum is finite only if both are.
            if type(each.volume) is not float or not isfinite(each.price + each.volume) or each.side is UNSET:
                return self._one_by_one(body)
        return Found(trades)

    def _one_by_one(self, body: bytes) -> Found:
        if self._raw is None:
            trade = self._unusual_trade(body, lambda item: item)
            return Found([], 1) if trade is None else Found([trade])
        try:
            message = self._raw.decode(body)
        except UNREADABLE:
            return Found([], 1)
        items = getattr(message, self._field)
        if not isinstance(items, list):
            trade = self._unusual_trade(items, partial(_with, message, self._field))
            return Found([], 1) if trade is None else Found([trade])
        found = [
            trade
            for item in items[:MOST_ONE_BY_ONE]
            if (trade := self._unusual_trade(item, lambda item: _with(message, self._field, [item])))
            is not None
        ]
        return Found(found, len(items) - len(found))

    def _unusual_trade(self, raw: bytes | msgspec.Raw, message_with: Callable[[Any], Any]) -> Trade | None:
        for decoder in self._unusual:
            try:
                (trade,) = self._trades(message_with(_without_raw(decoder.decode(raw))))
            except UNREADABLE:
                continue
            if not isfinite(trade.price):
                return None
            trade.volume = _volume(trade.volume)
            if trade.side not in {"buy", "sell"}:
                trade.side = None
            return trade
        return None


def _with(message: Any, field: str, value: object) -> Any:
    setattr(message, field, value)
    return message


def _without_raw(item: Any) -> Any:
    """A trade with plain values in place of raw ones."""
    for field in item.__struct_fields__:
        value = getattr(item, field)
        if isinstance(value, msgspec.Raw):
            setattr(item, field, _plain(value))
    return item


def _plain(raw: msgspec.Raw) -> str | float | bool | None:
    """A value of any type; None if it is an object or an array, or cannot be read."""
    try:
        value = msgspec.json.decode(raw)
    except UNREADABLE:
        return None
    return value if isinstance(value, str | float | int) else None


def _volume(value: object) -> object:
    """A volume as a finite float; UNSET if there is none, and None if it cannot be one."""
    if value is UNSET:
        return value
    try:
        volume = msgspec.convert(value, float, strict=False)
    except UNREADABLE:
        return None
    return volume if isfinite(volume) else None


# ---- other messages ----


def decoded(frame: bytes) -> Any:
    """A frame as a value; None if it is no JSON."""
    try:
        return msgspec.json.decode(frame)
    except UNREADABLE:
        return None


def members(frame: bytes) -> Mapping[str, Any] | None:
    """The members of a frame; None if it is no JSON object."""
    value = decoded(frame)
    return value if isinstance(value, dict) else None


def member(value: object, *path: str) -> Any:
    """The member at a path of names; None if there is none."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def text_of(value: object, otherwise: str) -> str:
    """A text that is not empty, or another one in its place."""
    return value if isinstance(value, str) and value else otherwise


def request_of(value: object) -> int | None:
    """The number of a request, also as text; None if it cannot be one of ours."""
    if isinstance(value, str) and value.isdecimal() and len(value) <= _DIGITS:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


_DIGITS: Final = 18


# ---- times ----

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_SECONDS_KEPT: Final = 64
"""Trades come in the order of their times, so few seconds are current."""


def ms_of(text: str) -> int:
    """Unix ms of an ISO 8601 time with a time zone, rounded down.

    Raises:
        ValueError: it is not one.
    """
    digits = text[20:-1]
    if len(digits) >= len("123") and digits.isdecimal() and text[-1] == "Z":
        return _ms_of_second(text[:20]) + int(digits[:3])
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"no time zone: {text}")
    return (time - _EPOCH) // _MS


@lru_cache(_SECONDS_KEPT)
def _ms_of_second(text: str) -> int:
    """Unix ms of an ISO 8601 time in UTC, in seconds and with the point of their fraction."""
    if text[19] != ".":
        raise ValueError(f"no point after the seconds: {text}")
    return (datetime.fromisoformat(text[:19]).replace(tzinfo=UTC) - _EPOCH) // _MS
