"""The sources of both modes, as configured: the real exchanges, and the generators that replace them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from marketflow.adapters.exchange.checks import Checks
from marketflow.adapters.exchange.generator import generator_source
from marketflow.adapters.exchange.pacing import Pace
from marketflow.adapters.exchange.reading import LineReader
from marketflow.adapters.exchange.tcp import TcpSource, receive_size
from marketflow.adapters.exchange.websocket.sources import VenueSources
from marketflow.adapters.exchange.wire import Decoder
from marketflow.app.interface import Mode
from marketflow.app.ports import Clock, Entropy, Source
from marketflow.config import ExchangeSettings, Settings

MOST_PACE: Final = 0.050
"""The most seconds from one beat to the next, after a receive of five lines or less. After a larger one it is
half or a quarter of that. Half of it is the flusher's beat."""


def sources_of(settings: Settings, clock: Clock, entropy: Entropy) -> Mapping[Mode, Sequence[Source[Any]]]:
    """The sources of each mode, as configured. Nothing is connected yet."""
    decode, pace = line_decoder(settings), pace_of(settings)
    reader = LineReader(clock, pace)
    size = receive_size(len(settings.symbols))
    venues = VenueSources(checks_of(settings), clock, entropy, pace)
    return {
        "live": [
            TcpSource(each.name, each.host, each.port, decode, reader, size)
            if isinstance(each, ExchangeSettings)
            else venues.source(
                each.name,
                each.kind,
                symbols=each.symbols or dict.fromkeys(settings.symbols),
                url=each.url,
                proxy=each.proxy,
            )
            for each in settings.exchanges
        ],
        "test": [
            generator_source(name, settings.symbols, settings.generator.rate, clock, decode)
            for name in settings.generator.exchanges
        ],
    }


def shared_of(settings: Settings) -> frozenset[str]:
    """The exchanges whose connections all carry the same updates. A generator makes up those of each."""
    return frozenset(
        each.name for each in settings.exchanges if not isinstance(each, ExchangeSettings) or each.shared
    )


def checks_of(settings: Settings) -> Checks:
    """The checks of updates, the same for all sources."""
    aggregation = settings.aggregation
    return Checks(frozenset(settings.symbols), aggregation.interval, aggregation.lateness)


def line_decoder(settings: Settings) -> Decoder:
    """The codec of all sources that send lines."""
    return Decoder(checks_of(settings))


def pace_of(settings: Settings) -> Pace:
    """When the connections of all sources are read: they have common beats."""
    return Pace.at(min(settings.pipeline.flush_interval / 1_000, MOST_PACE))
