"""What the conformance suite for venues knows of one: a frame with a trade, and what other frames mean."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from marketflow.adapters.exchange.venues.venue import Found, Meaning, Trade, Trades, Venue

Path = tuple[str | int, ...]
"""The names and places that lead to a value within a message."""


@attrs.frozen(kw_only=True)
class Sample:
    """All frames are of the shapes that the venue documents."""

    frame: bytes
    """Has one trade."""
    trade: Trade
    """The trade of `frame`."""
    at: Path
    """Where the trade is in it; its fields are named below."""
    price: str | int
    volume: str | int
    side: str | int | None
    """None: the side is not a field of its own."""
    time: str | int
    id: str | int
    sides: Mapping[Any, str] = {}
    """How the venue writes sides, and the taker's sides that they mean."""
    other_units: Sequence[Any] = ()
    """The time of the trade in units that the venue does not use."""
    times: Mapping[Any, int] = {}
    """Other times as the venue may write them, and what they are in Unix ms."""
    ids: Mapping[Any, int | str] = {}
    """Other ids as the venue may write them, and what they become."""
    meanings: Mapping[str, tuple[bytes, Meaning]]
    """Other frames, by what they are."""
    request: tuple[tuple[str, ...], Any]
    """Configured symbols, and the message that subscribes to them as request 7 at 1,795,343,351,549 ms."""
    before: Sequence[bytes] = ()
    """What a connection has read before all this."""

    def connection(self, venue: Venue) -> Venue:
        """The venue as a connection uses it that has read what comes before."""
        connection = venue.for_connection()
        for frame in self.before:
            connection.read(frame)
        return connection

    def found(self, venue: Venue, frame: bytes) -> Found:
        """The trades of a frame that has some."""
        meaning = self.connection(venue).read(frame)
        assert isinstance(meaning, Trades)
        return venue.trades(meaning.body)

    @property
    def document(self) -> Any:
        """The frame as a document that may be changed."""
        return json.loads(self.frame)

    def with_field(self, field: str | int, value: object) -> bytes:
        """The frame with another value for a field of its trade."""
        document = self.document
        at(document, self.at)[field] = value
        return dump(document)

    def with_trades(self, trades: Sequence[object]) -> bytes:
        """The frame with other trades, for venues that send several in a message."""
        document = self.document
        at(document, self.at[:-1])[:] = trades
        return dump(document)

    @property
    def has_several(self) -> bool:
        """Whether a message may have several trades."""
        return bool(self.at) and isinstance(at(self.document, self.at[:-1]), list) and self.at[-1] == 0

    def changed(self, **fields: object) -> Trade:
        """The trade with other values."""
        trade = copy.copy(self.trade)
        for name, value in fields.items():
            setattr(trade, name, value)
        return trade


def at(document: Any, path: Path) -> Any:
    """The value at a path."""
    for step in path:
        document = document[step]
    return document


def dump(document: object) -> bytes:
    """A document as venues write it."""
    return json.dumps(document, separators=(",", ":")).encode()
