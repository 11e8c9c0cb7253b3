"""The window of one term: what a node of a cluster writes as long as it has the exchange.

Each write is a transaction that has no effect once another term has the fence (`fenced`). So it is whole or
not there at all, unless Redis refuses a command while it executes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs

from marketflow.adapters.cache import members
from marketflow.adapters.cache.change_log import ChangeLog
from marketflow.adapters.cache.fenced import FencedWriter, Transaction
from marketflow.adapters.cache.keys import TAGGED, marker_key
from marketflow.adapters.cache.lock import text_of
from marketflow.adapters.cache.markers import MARKER_TTL, Markers
from marketflow.adapters.cache.packing import Packer, RedisFlush
from marketflow.adapters.cache.reading import RedisReading
from marketflow.adapters.cache.replies import check_write
from marketflow.adapters.cache.resp import refusals_of
from marketflow.adapters.cache.routing import RoutedReaders
from marketflow.adapters.cache.servers import Servers
from marketflow.app.ports import Field, Flush, Scope, Sight, StoreRefuses, Term
from marketflow.domain.prices import Pair


@attrs.frozen
class _Posted:
    """A write on its way."""

    flush: RedisFlush
    marker: bytes

    @property
    def place(self) -> int:
        """Of the reply with the previous marker."""
        return self.flush.removals_replies

    @property
    def texts(self) -> int:
        """How many replies are texts, from that place on."""
        return 1 + (self.flush.change is not None)


class TermWindow(RedisReading):
    """Fills the port Window for one term. Close it at the end."""

    def __init__(
        self, term: Term, servers: Servers, confirmed: Callable[[], bool], *, window_length: int
    ) -> None:
        """The window's length in ms. `confirmed`: see `FencedWriter`."""
        readers = RoutedReaders(servers, term.exchange)
        super().__init__(readers, TAGGED, Scope(frozenset({term.exchange})))
        self.met = Sight(None, None)
        self._writer = FencedWriter(term, servers, confirmed)
        boot = term.id.encode()
        self._packer = Packer(boot, TAGGED, window_length=window_length, changes=True)
        self._markers = Markers(boot)
        self._marker_key = marker_key(term.exchange)
        self._changes = ChangeLog(term)
        self._posted: _Posted | None = None

    # ---- writing ----

    def encode(self, flush: Flush) -> RedisFlush:
        """The commands of a flush."""
        return self._packer.pack(flush)

    def encode_trim(
        self, pairs: Sequence[Pair], *, older_than: int, bars: Sequence[tuple[Pair, Field]]
    ) -> RedisFlush:
        """The commands that remove old members and fields."""
        return self._packer.pack_trim(pairs, older_than=older_than, bars=bars)

    async def post(self, flush: RedisFlush) -> bool:
        """Send a flush once the one before is acknowledged; returns whether that has found the marker."""
        await self._receive()
        await self._send(flush)
        return self._markers.report()

    async def collect(self) -> bool:
        """Wait for what was posted; returns whether it has found the marker."""
        await self._receive()
        return self._markers.report()

    async def write(self, flush: RedisFlush) -> bool:
        """Send a flush; returns whether it and the one posted before it have found the marker."""
        await self._receive()
        await self._send(flush)
        return await self.collect()

    async def _send(self, flush: RedisFlush) -> None:
        marker, expiries = self._markers.next(), self._packer.expiries(flush)
        marking = members.pack(b"SET", self._marker_key, marker, b"EX", b"%d" % MARKER_TTL, b"GET")
        data = [
            flush.removals + marking,
            self._changes.append(flush.change) if flush.change is not None else b"",
            flush.updates,
            flush.bars,
            b"".join(expiries),
        ]
        self._posted = posted = _Posted(flush, marker)
        commands = flush.removals_replies + posted.texts + flush.updates_replies
        commands += len(flush.hashes) + len(expiries)
        try:
            await self._writer.send(Transaction(data, commands))
        except BaseException:
            self._forget()
            raise

    async def _receive(self) -> None:
        """Wait for the write on its way, if there is one, and check the replies."""
        if self._posted is None:
            return
        posted = self._posted
        try:
            self._found(posted, await self._writer.receive())
        except StoreRefuses:
            self._forget()
            removals = posted.flush.removals
            if removals:  # Or a Redis that is full would stay so.
                await self._writer.remove(Transaction([removals], posted.flush.removals_replies))
            raise
        except BaseException:
            self._forget()
            self._writer.close()
            raise
        self._posted = None

    def _found(self, posted: _Posted, replies: Sequence[Any]) -> None:
        found, refusals = replies[posted.place], refusals_of(replies)
        if not isinstance(found, Exception):
            self._markers.acknowledged(posted.marker, found)
        if refusals:
            raise self._writer.refusal(refusals[0])
        check_write(replies, posted.place, posted.texts)
        stranger = text_of(found) if self._markers.is_anothers(found) else None
        self.met = Sight(self.met.holder, stranger)
        if not self._markers.intact:
            self._packer.forget_expiries()

    def _forget(self) -> None:
        """After a failure nothing is on its way any more."""
        self._posted = None
        self._packer.forget_expiries()

    # ---- the fence ----

    async def look(self) -> Sight:
        """Watch the fence, and read it and the marker."""
        await self._receive()
        fence, marker = await self._writer.look()
        self.met = Sight(text_of(fence), None)
        return Sight(text_of(fence), text_of(marker))

    async def take(self, found: Sight) -> bool:
        """Make the fence ours, unless it has changed since it was found. It never expires."""
        return await self._writer.take(None if found.holder is None else found.holder.encode())

    async def release(self) -> None:
        """The fence stays, so that the next term has a greater epoch."""

    def close(self) -> None:
        """Close the connection that writes. The others belong to the servers."""
        self._writer.close()
