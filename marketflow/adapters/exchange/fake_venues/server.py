"""A fake venue: a WebSocket server that plays trades as a real exchange would, with faults to order.

```
 FakeVenue ── nursery ─┬─ trades: the market's, at `rate`, to all connections
                       └─ serve_listeners ── serve_client, for each client
                                              └─ read, write, duties (pings, heartbeats, limits)
```
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import trio

from marketflow.adapters.exchange.fake_venues.faults import Faults
from marketflow.adapters.exchange.fake_venues.floor import new_floor
from marketflow.adapters.exchange.fake_venues.orders import Orders
from marketflow.adapters.exchange.fake_venues.serving import serve_client
from marketflow.adapters.exchange.fake_venues.tape import Tape
from marketflow.adapters.exchange.fake_venues.trades import Trade
from marketflow.app.instruments.clocks import SystemClock

if TYPE_CHECKING:
    from marketflow.app.ports import Clock

WRITE_INTERVAL: Final = 0.01
"""Seconds. At higher rates several trades share one write, which saves wake-ups."""
CATCH_UP: Final = 0.5
"""Seconds. If trades are later than this (the process was delayed), the missed ones are skipped."""


class FakeVenue(Orders):
    """A fake venue, which listens within its `async with` block."""

    def __init__(
        self,
        kind: str,
        *,
        symbols: Sequence[str] | None = None,
        rate: float = 0.0,
        seed: int = 0,
        host: str = "127.0.0.1",
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
        faults: Faults | None = None,
        clock: Clock | None = None,
        keep: int | None = None,
    ) -> None:
        """Prepare a venue; it listens from the beginning of the block.

        Args:
            kind: one of `KINDS`.
            symbols: in the venue's spelling; by default the usual ones.
            rate: trades a second of all pairs together; 0: only those that `trade` makes. A pair has trades
                from its first subscription on.
            seed: gives the same trades each time, at other times.
            host: the address to listen on.
            port: 0: any free one.
            ssl_context: for TLS.
            faults: may be changed later, as `faults`.
            clock: the time of the trades.
            keep: how many trades `made` keeps at least; None: all.
        """
        floor = new_floor(kind, symbols, seed, faults or Faults(), clock or SystemClock(), keep)
        super().__init__(floor)
        self._tape = Tape(floor)
        self._listen = (host, port, ssl_context)
        self._block: AbstractAsyncContextManager[None] | None = None
        self._rate = rate
        self._rated = trio.Event()
        """Set while there is a rate."""
        self.url = ""
        """What a client is configured with."""

    async def __aenter__(self) -> Self:
        self._block = self._serving()
        await self._block.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return None if self._block is None else await self._block.__aexit__(kind, error, traceback)

    @property
    def rate(self) -> float:
        """Trades a second; it may be changed."""
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self._rate = rate
        if rate:
            self._rated.set()

    # ---- what it has done ----

    @property
    def made(self) -> Sequence[Trade]:
        """All trades since the start, the oldest first (those kept): also those that no client got."""
        return self._floor.market.made

    @property
    def count(self) -> int:
        """The number of trades since the start."""
        return self._floor.market.count

    @property
    def spoiled(self) -> Sequence[Trade]:
        """Those of them that no client has got correctly, because of `nan` or `unit`."""
        return self._tape.spoiled

    @property
    def violations(self) -> Sequence[str]:
        """The rules of the venue that clients have broken."""
        return self._floor.violations

    @property
    def connections(self) -> int:
        """The number of connections that were accepted so far."""
        return self._floor.count

    @property
    def open(self) -> int:
        """The number of connections that are open."""
        return len(self._floor.connections)

    @property
    def symbols(self) -> Sequence[str]:
        """The pairs that it lists, in its spelling."""
        return self._floor.market.symbols

    def trade(self, count: int = 1, symbol: str | None = None) -> Sequence[Trade]:
        """Make trades now, of one pair or of those that have been subscribed to, and send them."""
        trades = self._floor.market.trade(count, symbol)
        self._tape.play(trades)
        return trades

    # ---- its tasks ----

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        host, port, context = self._listen
        listeners = await trio.open_tcp_listeners(port, host=host)
        bound: int = listeners[0].socket.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        self.url = self._floor.kind.url(f"{shown}:{bound}", secure=context is not None)
        async with trio.open_nursery() as nursery:
            serve = partial(serve_client, floor=self._floor, context=context)
            await nursery.start(trio.serve_listeners, serve, listeners)
            nursery.start_soon(self._trade)
            yield
            nursery.cancel_scope.cancel()

    async def _trade(self) -> None:
        """Make trades on schedule."""
        while True:
            while not self._rate:
                self._rated = trio.Event()
                await self._rated.wait()
            await self._trade_at(self._rate)

    async def _trade_at(self, rate: float) -> None:
        """Make trades at this rate, until it is changed."""
        last = begin = trio.current_time()
        while True:
            # At least one trade is due then.
            await trio.sleep_until(max(last + WRITE_INTERVAL, begin + 1 / rate))
            if self._rate != rate:
                return
            last = trio.current_time()
            begin = max(begin, last - CATCH_UP)
            count = max(1, int((last - begin) * rate))
            begin += count / rate
            self.trade(count)
