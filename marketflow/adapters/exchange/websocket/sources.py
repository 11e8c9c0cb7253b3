"""Makes the sources of venues. Those of one kind share what our address may do."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

import attrs

from marketflow.adapters.exchange.checks import Checks
from marketflow.adapters.exchange.pacing import Pace
from marketflow.adapters.exchange.venues.registry import VENUES
from marketflow.adapters.exchange.websocket.budget import Budget
from marketflow.adapters.exchange.websocket.codec import VenueDecoder
from marketflow.adapters.exchange.websocket.opening import Opener
from marketflow.adapters.exchange.websocket.proxy import Proxy
from marketflow.adapters.exchange.websocket.source import WebSocketSource
from marketflow.app.ports import Clock, Entropy


@attrs.define
class VenueSources:
    """Makes the sources of one service."""

    checks: Checks
    clock: Clock
    entropy: Entropy
    pace: Pace = attrs.field(factory=Pace)
    """When connections are read."""
    tls: ssl.SSLContext | None = None
    """In place of one with the system's certificates."""
    _budgets: dict[tuple[str, str, int], Budget] = attrs.field(factory=dict)
    """By the kind of venue, and the host and port of the proxy: venues see its address in place of ours."""

    def source(
        self,
        exchange: str,
        kind: str,
        *,
        symbols: Mapping[str, str | None],
        url: str | None = None,
        proxy: str | None = None,
    ) -> WebSocketSource:
        """The source of an exchange.

        Args:
            exchange: its name.
            kind: that of its venue.
            symbols: by our symbol the venue's name for it; None: as the venue spells it without doubt.
            url: in place of the venue's own.
            proxy: the URL of an HTTP proxy.

        Raises:
            ValueError: the venue spells a symbol in its own way, or gives fewer symbols on a connection.
        """
        venue = VENUES[kind]
        names: dict[str, str] = {}
        for symbol, name in symbols.items():
            theirs = venue.spelling(symbol) if name is None else venue.canonical(name)
            if theirs is None:
                raise ValueError(f"{kind} spells {symbol} in its own way")
            names[theirs] = symbol
        if self.tls is None:
            self.tls = ssl.create_default_context()
        way = None if proxy is None else Proxy.parsed(proxy)
        address = ("", 0) if way is None else (way.host, way.port)
        return WebSocketSource(
            exchange,
            venue,
            names,
            VenueDecoder(venue, names, self.checks),
            opener=Opener(way, self.tls, pace=self.pace),
            budget=self._budgets.setdefault((kind, *address), Budget.of(venue.rules)),
            clock=self.clock,
            entropy=self.entropy,
            url=url,
        )
