"""All kinds of fake venues, by name."""

from __future__ import annotations

from typing import Final

from marketflow.adapters.exchange.fake_venues.binance import Binance
from marketflow.adapters.exchange.fake_venues.bitfinex import Bitfinex
from marketflow.adapters.exchange.fake_venues.bitstamp import Bitstamp
from marketflow.adapters.exchange.fake_venues.bybit import Bybit
from marketflow.adapters.exchange.fake_venues.coinbase import Coinbase
from marketflow.adapters.exchange.fake_venues.gateio import Gateio
from marketflow.adapters.exchange.fake_venues.kraken import Kraken
from marketflow.adapters.exchange.fake_venues.kucoin import Kucoin
from marketflow.adapters.exchange.fake_venues.okx import Okx

KINDS: Final = {
    kind.name: kind for kind in (Binance, Coinbase, Kraken, Okx, Bybit, Bitstamp, Gateio, Kucoin, Bitfinex)
}
