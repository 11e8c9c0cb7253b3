"""The faults that a fake venue can have, and those of single trades. No I/O."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Literal

import attrs

from marketflow.adapters.exchange.fake_venues.trades import Trade

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Sequence

Mute = Literal["no", "messages", "all"]
"""`messages`: it sends only pongs, of both kinds, and pings of the WebSocket protocol. `all`: nothing at all,
also no answer to a new connection."""

Spoil = Literal["nan", "unit", "late", "duplicate", "garbage", "oversize"]
"""What happens to a trade.

nan: its price is NaN. unit: its time is a thousandth of what it should be. late: it is sent after the next
trade of its pair. duplicate: it is sent twice. garbage: a message that is no JSON comes before it. oversize:
a message that is far too long comes before it.
"""
SPOILS: Final[Sequence[Spoil]] = ("nan", "unit", "late", "duplicate", "garbage", "oversize")

GARBAGE: Final = (
    b"hello",
    b"",
    b"{",
    b"}{",
    b"null",
    b"[]",
    b"{}",
    b'"BTCUSDT"',
    b'{"data":',
    b'{"data":[[[]]]}',
    b"<html>502 Bad Gateway</html>",
    b"[" * 3_000,
)
"""Messages without any trade. They are valid UTF-8."""
OVERSIZE: Final = 8 * 1024 * 1024
"""Bytes of a message that is far too long."""


@attrs.define
class Faults:
    """The faults of a fake venue. They may be changed at any time."""

    mute: Mute = "no"
    refused: float = 0.0
    """The fraction (0 to 1) of new connections that are refused with 429."""
    resend: int = 0
    """How many of the last trades of a symbol are sent again when it is subscribed to."""
    fragments: int = 1
    """In how many frames each message is sent."""
    deflate: bool = True
    """Whether new connections may compress messages."""
    lifetime: float | None = None
    """Seconds after which new connections are cut; None: as long as the venue's rules say."""
    fractions: dict[Spoil, float] = attrs.field(factory=dict)
    """For each spoil the fraction (0 to 1) of trades that have it."""
    ordered: deque[Spoil] = attrs.field(factory=deque)
    """What happens to the next trades, one after the other."""


class Spoiler:
    """Spoils trades as the faults say."""

    def __init__(self, faults: Faults, rng: random.Random) -> None:
        self._faults = faults
        self._rng = rng
        self._held: dict[str, Trade] = {}
        """Trades that are late, by symbol."""
        self.spoiled: list[Trade] = []
        """The trades that no client has got correctly."""

    def spoil(self, trades: Sequence[Trade]) -> Sequence[Trade | bytes]:
        """What is sent instead of trades: trades, and other messages for all clients."""
        if not (self._faults.ordered or self._faults.fractions or self._held):
            return trades
        return [sent for trade in trades for sent in self._sent(trade)]

    def _sent(self, trade: Trade) -> Iterator[Trade | bytes]:
        spoil = self._next()
        held = self._held.pop(trade.symbol, None)
        match spoil:
            case "nan":
                self.spoiled.append(trade)
                yield trade.at_price("NaN")
            case "unit":
                self.spoiled.append(trade)
                yield trade.at_time(trade.time // 1_000)
            case "late":
                self._held[trade.symbol] = trade
            case "duplicate":
                yield trade
                yield trade
            case "garbage":
                yield self._rng.choice(GARBAGE)
                yield trade
            case "oversize":
                yield b"x" * OVERSIZE
                yield trade
            case None:
                yield trade
        if held is not None:
            yield held

    def _next(self) -> Spoil | None:
        if self._faults.ordered:
            return self._faults.ordered.popleft()
        for spoil, fraction in self._faults.fractions.items():
            if self._rng.random() < fraction:
                return spoil
        return None
