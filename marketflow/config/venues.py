"""What the configuration has to know of each kind of real exchange. A test compares it with the venues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

_WEBSOCKET: Final = ("wss://", "ws://")


class VenueFacts(NamedTuple):
    """What a valid configuration of this kind of venue depends on."""

    spells_as_we_do: bool
    """Whether its spelling of each symbol follows from ours without doubt."""
    most_symbols: int
    """On one connection."""
    schemes: tuple[str, ...] = _WEBSOCKET
    """The beginnings of its URLs."""


VENUES: Final[Mapping[str, VenueFacts]] = {
    "binance": VenueFacts(spells_as_we_do=True, most_symbols=1_000),
    "coinbase": VenueFacts(spells_as_we_do=False, most_symbols=500),
    "kraken": VenueFacts(spells_as_we_do=False, most_symbols=1_000),
    "okx": VenueFacts(spells_as_we_do=False, most_symbols=500),
    "bybit": VenueFacts(spells_as_we_do=True, most_symbols=500),
    "bitstamp": VenueFacts(spells_as_we_do=True, most_symbols=100),
    "gateio": VenueFacts(spells_as_we_do=False, most_symbols=200),
    # Its URL is where a token is asked for, by HTTP.
    "kucoin": VenueFacts(spells_as_we_do=False, most_symbols=300, schemes=("https://", "http://")),
    "bitfinex": VenueFacts(spells_as_we_do=False, most_symbols=25),
}
"""By the name of the kind."""
