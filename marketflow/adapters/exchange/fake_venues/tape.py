"""The tape of a fake venue: brings trades, and what faults make of them, to its connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marketflow.adapters.exchange.fake_venues.faults import Spoiler
from marketflow.adapters.exchange.fake_venues.frames import text_frame
from marketflow.adapters.exchange.fake_venues.trades import Trade

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marketflow.adapters.exchange.fake_venues.floor import Floor


class Tape:
    """Makes each message once for all connections that get it."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self._spoiler = Spoiler(floor.faults, floor.rng)

    @property
    def spoiled(self) -> Sequence[Trade]:
        """The trades that no client has got correctly."""
        return self._spoiler.spoiled

    def play(self, trades: Sequence[Trade]) -> None:
        """Send trades to the connections that have subscribed to them."""
        items = self._spoiler.spoil(trades)
        forms: dict[str, Sequence[tuple[str, bytes, bytes]]] = {}
        for connection in list(self._floor.connections):
            variant = self._floor.kind.variant(connection.session)
            if variant not in forms:
                forms[variant] = [
                    (symbol, message, text_frame(message))
                    for symbol, message in self._messages(items, variant)
                ]
            connection.play(forms[variant])

    def _messages(self, items: Sequence[Trade | bytes], variant: str) -> Sequence[tuple[str, bytes]]:
        """Messages, each with its symbol; those for all clients have none."""
        messages: list[tuple[str, bytes]] = []
        trades: list[Trade] = []
        for item in items:
            if isinstance(item, Trade):
                trades.append(item)
                continue
            messages += [*self._floor.kind.messages(trades, variant), ("", item)]
            trades = []
        return [*messages, *self._floor.kind.messages(trades, variant)]
