"""The window's twin in memory, for tests of the use cases: the same behaviour, and outages at will."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Final

import attrs
import trio

from marketflow.app.ports import Edge, Field, FieldBars, Flush, Sight, StoreAway, StoredBars, StoreRefuses
from marketflow.app.share.foreign_bars import is_foreign
from marketflow.domain.bars import BAR_WIDTH, Bar, in_seconds, merged
from marketflow.domain.columns import Columns
from marketflow.domain.packed_minute import by_minute
from marketflow.domain.periods import Span, floor_to
from marketflow.domain.prices import Pair, PriceUpdate

UPDATE_SIZE = 75
"""Bytes that an update would take in Redis's form, about."""


@attrs.frozen
class MemoryFlush:
    """A flush as it is."""

    flush: Flush
    pairs: Sequence[Pair] = ()
    """Whose updates older than that are removed."""
    older_than: int = 0
    outdated: Sequence[tuple[Pair, Field]] = ()
    """Bars that are removed."""

    @property
    def size(self) -> int:
        """Bytes that it would take, about."""
        return UPDATE_SIZE * sum(len(run.columns) for run in self.flush.updates)

    def without_bars(self) -> MemoryFlush:
        """Its updates alone."""
        return MemoryFlush(Flush(self.flush.updates, ()))


LOCK_SECONDS: Final = 5.0
"""How long after the last write the lease expires."""


@attrs.define
class MemoryShelf:
    """What the store holds, for all boots that write to it."""

    members: dict[Pair, dict[tuple[int, str], PriceUpdate]] = attrs.field(factory=dict)
    """By sequence and boot, so that adding an update twice has no effect."""
    bars: dict[Pair, dict[Field, Bar]] = attrs.field(factory=dict)
    marker: str | None = None
    lock: tuple[str, float] | None = None
    """The boot that has the lease, and when it expires (seconds of Trio's clock)."""

    @property
    def holder(self) -> str | None:
        """The boot that has the lease now."""
        return self.lock[0] if self.lock is not None and trio.current_time() < self.lock[1] else None

    def hold(self, boot: str) -> None:
        """Give a boot the lease, or renew it."""
        self.lock = boot, trio.current_time() + LOCK_SECONDS

    def empty(self) -> None:
        """Forget everything, as after a restart of the store."""
        self.members.clear()
        self.bars.clear()
        self.marker = self.lock = None


class MemoryWindow:
    """Fills the port Window."""

    def __init__(self, *, boot: str, shelf: MemoryShelf | None = None) -> None:
        """Windows of several boots on one store share its shelf."""
        self.away = False
        """While it is set, every call fails."""
        self.forgetful = False
        """While it is set, a write takes effect, but its acknowledgement is lost."""
        self.refused: set[str] = set()
        """The parts of a write that are refused: "updates", "bars", "removals"; or "reads", "bars within"."""
        self.writes = 0
        """How many were acknowledged."""
        self.shelf = MemoryShelf() if shelf is None else shelf
        self.met = Sight(None, None)
        self._boot = boot
        self._attempts = 0
        self._acknowledged = ""
        self._intact = True
        self._posted: list[tuple[Sight, str, bool]] = []
        """For each write in flight what it has found, its own marker, and whether it was refused."""

    @property
    def members(self) -> dict[Pair, dict[tuple[int, str], PriceUpdate]]:
        """The updates that the store holds."""
        return self.shelf.members

    @property
    def stored_bars(self) -> dict[Pair, dict[Field, Bar]]:
        """The bars that it holds."""
        return self.shelf.bars

    @property
    def marker(self) -> str | None:
        """Of the last write."""
        return self.shelf.marker

    def empty(self) -> None:
        """Forget everything, as after a restart of the store."""
        self.shelf.empty()

    def encode(self, flush: Flush) -> MemoryFlush:
        """The flush itself."""
        return MemoryFlush(flush)

    def encode_trim(
        self, pairs: Sequence[Pair], *, older_than: int, bars: Sequence[tuple[Pair, Field]]
    ) -> MemoryFlush:
        """The removal itself."""
        return MemoryFlush(Flush((), ()), pairs, older_than, tuple(bars))

    async def post(self, flush: MemoryFlush) -> bool:
        """Write a flush; returns whether those posted before it have found the marker."""
        try:
            await self._reach()
        except StoreAway:
            self._posted.clear()
            raise
        earlier = self._posted
        self._posted = []
        self._write(flush)
        if self.forgetful:
            self._posted.clear()
            raise StoreAway("no answer in time")
        return self._acknowledge(earlier)

    async def write(self, flush: MemoryFlush) -> bool:
        """Write a flush; returns whether it and those posted before it have found the marker."""
        intact = await self.post(flush)
        stranger = self.met.marker
        intact = await self.collect() and intact
        self.met = Sight(self.met.holder, self.met.marker or stranger)
        return intact

    async def collect(self) -> bool:
        """Returns whether those posted have found the marker."""
        await trio.lowlevel.checkpoint()
        earlier, self._posted = self._posted, []
        return self._acknowledge(earlier)

    def _acknowledge(self, writes: list[tuple[Sight, str, bool]]) -> bool:
        strangers = []
        if any(refused for *_, refused in writes):
            # After a failure no write is in flight.
            writes, self._posted = [*writes, *self._posted], []
        for met, marker, _ in writes:
            self._intact = self._intact and met.marker == self._acknowledged
            self._acknowledged = marker
            if met.marker is not None and not met.marker.startswith(f"{self._boot}:"):
                strangers.append(met.marker)
            self.met = met
        self.met = Sight(self.met.holder, strangers[-1] if strangers else None)
        if any(refused for *_, refused in writes):
            raise StoreRefuses("refused")
        self.writes += len(writes)
        intact, self._intact = self._intact, True
        return intact

    def _write(self, write: MemoryFlush) -> None:
        refused = self._refuses(write)
        if "removals" not in self.refused:
            for pair in write.pairs:
                held = self.members.get(pair, {})
                for key in [key for key, update in held.items() if update.timestamp < write.older_than]:
                    del held[key]
            for pair, field in write.outdated:
                self.stored_bars.get(pair, {}).pop(field, None)
        self._attempts += 1
        met = Sight(self.shelf.holder, self.shelf.marker)
        self.shelf.marker = f"{self._boot}:{self._attempts}"
        if met.holder is not None:
            self.shelf.hold(met.holder)
        self._posted.append((met, self.shelf.marker, refused))
        if "updates" not in self.refused:
            self._write_updates(write.flush)
        if "bars" not in self.refused:
            for pair, field, bar in write.flush.bars:
                self.stored_bars.setdefault(pair, {})[field] = bar

    def _refuses(self, write: MemoryFlush) -> bool:
        asked = {"updates": write.flush.updates, "bars": write.flush.bars, "removals": write.pairs}
        return any(asked[kind] for kind in self.refused & asked.keys())

    def _write_updates(self, flush: Flush) -> None:
        for run in flush.updates:
            members = self.members.setdefault((run.exchange, run.symbol), {})
            ids = run.columns.ids or [None] * len(run.columns)
            for sequence, (timestamp, price, volume, side), number in zip(
                run.sequences, run.columns.rows(), ids, strict=True
            ):
                members[sequence, self._boot] = PriceUpdate(
                    run.exchange, run.symbol, price, timestamp, sequence, volume, side, number
                )

    async def look(self) -> Sight:
        """The owner of the lease, and the marker."""
        await self._reach()
        return Sight(self.shelf.holder, self.shelf.marker)

    async def take(self, found: Sight) -> bool:
        """Take the lease, unless its state has changed."""
        await self._reach()
        seen = Sight(self.shelf.holder, self.shelf.marker)
        if seen.holder != found.holder or (found.holder is not None and seen != found):
            return False
        self.shelf.hold(self._boot)
        if self.forgetful:
            raise StoreAway("no answer in time")
        return True

    async def release(self) -> None:
        """Release the lease, if it is ours."""
        await self._reach()
        if self.shelf.holder == self._boot:
            self.shelf.lock = self.shelf.marker = None

    async def all_bars(self, pairs: Sequence[Pair]) -> Mapping[Pair, StoredBars]:
        """Every bar there is."""
        await self._reach()
        if "reads" in self.refused:
            raise StoreAway("refused")
        return self._minutes(pairs)

    async def bars_within(self, pairs: Sequence[Pair], span: Span) -> Mapping[Pair, StoredBars]:
        """The bars of these minutes."""
        await self._reach()
        if self.refused & {"reads", "bars within"}:
            raise StoreRefuses("refused")
        return {
            pair: {start: minute for start, minute in bars.items() if start in span}
            for pair, bars in self._minutes(pairs).items()
        }

    def _minutes(self, pairs: Sequence[Pair]) -> dict[Pair, StoredBars]:
        return {pair: by_minute(_ours(self.stored_bars.get(pair, {}))) for pair in pairs}

    async def pairs_with_bars(self) -> Sequence[Pair]:
        """Pairs that have bars."""
        await trio.lowlevel.checkpoint()
        return [] if self.away else [pair for pair, bars in self.stored_bars.items() if bars]

    async def bars(self, fields: Mapping[Pair, Sequence[Field]]) -> Mapping[Pair, FieldBars]:
        """The bars in these fields."""
        await self._reach()
        found = {
            pair: {
                field: bar
                for field in of_pair
                if (bar := self.stored_bars.get(pair, {}).get(field)) is not None
            }
            for pair, of_pair in fields.items()
        }
        return {pair: _ours(bars) for pair, bars in found.items()}

    async def edges(self, pairs: Sequence[Pair], spans: Sequence[Span]) -> Mapping[Pair, Sequence[Edge]]:
        """The raw updates of each span as a bar."""
        await self._reach()
        return {pair: [self._edge(pair, span) for span in spans] for pair in pairs}

    async def counts(self, spans: Sequence[tuple[Pair, Span]]) -> Sequence[int]:
        """How many updates each pair has within its span."""
        await self._reach()
        return [
            sum(update.timestamp in span for update in self.members.get(pair, {}).values())
            for pair, span in spans
        ]

    async def ids(self, pairs: Sequence[Pair], most: int) -> Mapping[Pair, Sequence[str]]:
        """The ids of each pair's newest updates."""
        await self._reach()
        found = {}
        for pair in pairs:
            held = sorted(self.members.get(pair, {}).values(), key=attrgetter("timestamp", "sequence"))
            found[pair] = [update.id for update in held[-most:] if update.id is not None]
        return found

    async def updates(self, spans: Sequence[tuple[Pair, Span]]) -> Sequence[Sequence[PriceUpdate]]:
        """The updates that each pair has within its span."""
        await self._reach()
        return [
            [update for update in self.members.get(pair, {}).values() if update.timestamp in span]
            for pair, span in spans
        ]

    async def prices(self, spans: Sequence[tuple[Pair, Span]]) -> Sequence[Sequence[float]]:
        """The prices that each pair has within its span."""
        await self._reach()
        return [
            [update.price for update in self.members.get(pair, {}).values() if update.timestamp in span]
            for pair, span in spans
        ]

    def _edge(self, pair: Pair, span: Span) -> Edge:
        held = self.members.get(pair, {}).values()
        bar = merged(_bar_of(update) for update in held if update.timestamp in span)
        seconds = range(floor_to(span.start, BAR_WIDTH), span.end, BAR_WIDTH)
        counts = {
            second: sum(update.timestamp in Span(second, second + BAR_WIDTH) for update in held)
            for second in seconds
        }
        return Edge(bar, counts)

    async def _reach(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.away:
            raise StoreAway("switched off")


def _bar_of(update: PriceUpdate) -> Bar:
    (bar,) = in_seconds(Columns([update.timestamp], [update.price], [update.volume], [update.side])).values()
    return bar.shifted(update.sequence)


def _ours(bars: FieldBars) -> dict[Field, Bar]:
    """The bars without foreign ones."""
    return {field: bar for field, bar in bars.items() if not is_foreign(bar, field[0], BAR_WIDTH)}
