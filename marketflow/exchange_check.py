"""Connects to one configured exchange for some seconds, and says what it sees. Nothing is stored."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import attrs
import trio

from marketflow.app.ingest.feeds import Feed
from marketflow.app.ports import Chunk, Clock, Entropy, Source, VenueSource
from marketflow.assembly import backoff_of, idle_timeout_of
from marketflow.config import Settings
from marketflow.sources import sources_of

LOOK_SECONDS: Final = 0.05
"""How often it is looked what has changed."""


class NoUpdates(ConnectionError):
    """The exchange could not be read."""


def source_named(settings: Settings, name: str, clock: Clock, entropy: Entropy) -> Source[Any]:
    """The source of a configured exchange.

    Raises:
        LookupError: there is none of that name; the error has the names that there are.
    """
    sources = {source.exchange: source for source in sources_of(settings, clock, entropy)["live"]}
    if name not in sources:
        raise LookupError(f"there is no exchange {name!r}; there are {', '.join(sources)}")
    return sources[name]


@attrs.define
class Seen:
    """What has been seen of an exchange, said line by line as it comes."""

    source: Source[Any]
    say: Callable[[str], None]
    began: float = attrs.field(factory=trio.current_time)
    symbols: set[str] = attrs.field(factory=set)
    """Those that updates have come of."""
    delays: list[int] = attrs.field(factory=list)
    """Receipt less the exchange's own time, of each update (ms)."""
    rejected: dict[str, int] = attrs.field(factory=dict)
    """Messages that were no good updates, by reason."""
    _activity: str | None = None
    _refused: set[str] = attrs.field(factory=set)

    def look(self) -> None:
        """Say what has changed of the connection."""
        if not isinstance(self.source, VenueSource):
            return
        if self.source.activity != self._activity:
            self._activity = self.source.activity
            self.say(f"{self._after()} {self._activity}")
        for symbol, reason in self.source.rejected_symbols.items():
            if symbol not in self._refused:
                self._refused.add(symbol)
                self.say(f"{self._after()} {symbol} ({self.source.symbols[symbol]}) was rejected: {reason}")

    def take(self, chunk: Chunk[Any]) -> None:
        """Take what was received; say the first update of each symbol."""
        decoded = self.source.decode(chunk.payload)
        for reason, count in decoded.rejected.items():
            if reason not in self.rejected:
                self.say(f"{self._after()} a message was rejected: {reason}")
            self.rejected[reason] = self.rejected.get(reason, 0) + count
        asked_at = 0 if decoded.identity is None else decoded.identity.asked_at
        for symbol, columns, _ in decoded.updates:
            # Those from before we asked were sent again.
            self.delays += [
                chunk.payload.received_at - timestamp
                for timestamp in columns.timestamps
                if timestamp >= asked_at
            ]
            if symbol not in self.symbols:
                self.symbols.add(symbol)
                *_, (timestamp, price, volume, side) = columns.rows()
                size = "" if volume is None else f", {side or 'traded'} {volume:g}"
                delay = chunk.payload.received_at - timestamp
                self.say(f"{self._after()} {symbol} {price!r}{size}, {delay} ms after its time")

    def all_seen(self, wanted: Mapping[str, Any]) -> bool:
        """Whether each symbol has an update or was rejected."""
        return len(self.symbols | self._refused) >= len(wanted)

    def summary(self) -> str:
        """What was seen in all."""
        if not self.delays:
            return "no update came: the market may be quiet, or the names of the symbols are others"
        count, least, middle = len(self.delays), min(self.delays), round(statistics.median(self.delays))
        return (
            f"{count} updates of {len(self.symbols)} symbols; they came {least} ms after their time"
            f" at least, {middle} ms in the median; a negative number shows that a clock is wrong"
        )

    def _after(self) -> str:
        return f"{trio.current_time() - self.began:6.2f} s "


async def check_exchange(
    settings: Settings,
    name: str,
    *,
    seconds: float,
    clock: Clock,
    entropy: Entropy,
    say: Callable[[str], None],
) -> None:
    """Connect once, and say what is seen, until each symbol has been seen or the time is over.

    Raises:
        LookupError: there is no such exchange.
        NoUpdates: no connection could be made, it ended, or all symbols were rejected.
    """
    source = source_named(settings, name, clock, entropy)
    wanted: Mapping[str, Any] = (
        source.symbols if isinstance(source, VenueSource) else dict.fromkeys(settings.symbols)
    )
    feed = Feed(
        source,
        backoff=backoff_of(source, settings, entropy),
        idle_timeout=idle_timeout_of(source, settings),
        last_well=lambda: None,
    )
    seen, stopping = Seen(source, say), trio.Event()
    send, receive = trio.open_memory_channel[Chunk[Any]](8)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.run, send, stopping)
        nursery.start_soon(partial(_take_all, seen, receive))
        with trio.move_on_after(seconds):
            while feed.state.last_error is None and not seen.all_seen(wanted):
                await trio.sleep(LOOK_SECONDS)
                seen.look()
        failure = feed.state.last_error
        stopping.set()
    if failure is not None:
        raise NoUpdates(f"{name}: {failure}")
    if isinstance(source, VenueSource) and len(source.rejected_symbols) == len(source.symbols):
        raise NoUpdates(f"{name}: all symbols were rejected")
    say(seen.summary())


async def _take_all(seen: Seen, receive: trio.MemoryReceiveChannel[Chunk[Any]]) -> None:
    async with receive:
        async for chunk in receive:
            seen.take(chunk)
