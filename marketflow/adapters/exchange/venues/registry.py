"""All kinds of venues, by their names in the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from marketflow.adapters.exchange.venues.binance import Binance
from marketflow.adapters.exchange.venues.bitfinex import Bitfinex
from marketflow.adapters.exchange.venues.bitstamp import Bitstamp
from marketflow.adapters.exchange.venues.bybit import Bybit
from marketflow.adapters.exchange.venues.coinbase import Coinbase
from marketflow.adapters.exchange.venues.gateio import Gate
from marketflow.adapters.exchange.venues.kraken import Kraken
from marketflow.adapters.exchange.venues.kucoin import KuCoin
from marketflow.adapters.exchange.venues.okx import Okx
from marketflow.adapters.exchange.venues.venue import Venue

VENUES: Final[Mapping[str, Venue]] = MappingProxyType(
    {
        venue.kind: venue
        for venue in (
            Binance(),
            Bitfinex(),
            Bitstamp(),
            Bybit(),
            Coinbase(),
            Gate(),
            Kraken(),
            KuCoin(),
            Okx(),
        )
    }
)
"""A connection uses what `for_connection` gives, which has a state where the venue needs one."""
