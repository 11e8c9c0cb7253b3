"""Which trades of real exchanges have been taken in: each once, and none missing without being counted.

Real exchanges number their trades. They send some again: after a reconnect, and while the next connection is
made before the old one ends. Some send the last trade of each symbol when they are asked for it, which may be
days old. Updates without an id, as those of exchanges that send lines, do not come here.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from operator import attrgetter, itemgetter
from typing import Final, NamedTuple, cast

import attrs
import structlog

from marketflow.app.instruments.seldom import Seldom
from marketflow.app.ports import Batch, Identity, Updates
from marketflow.domain.bars import in_seconds
from marketflow.domain.columns import Columns
from marketflow.domain.prices import DUPLICATE, Pair

log = structlog.get_logger()

IDS_KEPT: Final = 8_192
"""Of each symbol. More than come while two connections overlap, or than are ever sent again."""
EXCHANGE_IDS_KEPT: Final = 262_144
"""Of all symbols of an exchange together. With more each symbol keeps the newer half of its ids."""
_NUMBER: Final = re.compile("[0-9]{1,18}")
GAP_SECONDS: Final = 5.0
"""So long after a later trade one may still come: trades need not arrive in order."""
GAPS_KEPT: Final = 1_024
"""Open gaps of a symbol. With more the oldest ones are given up at once."""
MOST_BACK, MOST_FORWARD = 10**6, 10**9
"""If an id is farther than this from the next one, the exchange has begun to count again."""
MISSING_LOG_EVERY: Final = 10.0
"""The least number of seconds between two log lines about missing trades of an exchange."""


class Gap(NamedTuple):
    """Ids that are missing."""

    start: int
    end: int
    """The first id behind the gap."""
    since: float
    """In seconds of Trio's clock: a step of the wall clock gives up no gap, and keeps none open."""


class Gaps:
    """Missing ids of a symbol whose ids have no gaps. Times in seconds of Trio's clock."""

    def __init__(self) -> None:
        self._next: int | None = None
        """The id that follows the greatest one so far."""
        self._open: list[Gap] = []
        """Ascending, and so in the order in which they were found."""
        self.lost = 0
        """How many ids are missing for good."""

    def came(self, number: int, now: float) -> None:
        """A trade has come."""
        if self._next is None or not self._next - MOST_BACK <= number <= self._next + MOST_FORWARD:
            self._open.clear()
            self._next = number + 1
        elif number >= self._next:
            if number > self._next:
                self._open.append(Gap(self._next, number, now))
            self._next = number + 1
        elif self._open:
            self._fill(number)

    def all_came(self, ids: Sequence[str | None], now: float) -> None:
        """Trades have come, in this order. An id that is no number does not count."""
        following = self._next
        if following is not None and ids == [str(following + place) for place in range(len(ids))]:
            self._next = following + len(ids)
            return
        for number in ids:
            if number is not None and _NUMBER.fullmatch(number):
                self.came(int(number), now)

    def _fill(self, number: int) -> None:
        place = bisect_right(self._open, number, key=attrgetter("start")) - 1
        if place >= 0 and number < self._open[place].end:
            start, end, since = self._open[place]
            rest = Gap(start, number, since), Gap(number + 1, end, since)
            self._open[place : place + 1] = [gap for gap in rest if gap.start < gap.end]

    def give_up(self, now: float) -> int:
        """Count what is missing for too long as missing for good; returns how many ids that are."""
        excess = len(self._open) - GAPS_KEPT
        over = 0
        while over < len(self._open) and (over < excess or now - self._open[over].since >= GAP_SECONDS):
            over += 1
        lost = sum([gap.end - gap.start for gap in self._open[:over]])
        del self._open[:over]
        self.lost += lost
        return lost


@attrs.define
class SymbolTrades:
    """The trades of a symbol: the newest ids, in the order of receipt."""

    ids: dict[str, None] = attrs.field(factory=dict)
    gaps: Gaps = attrs.field(factory=Gaps)
    is_current: bool = False
    """Whether a trade has come that was made after the exchange was first asked."""

    def new(self, columns: Columns, *, not_before: int) -> list[int]:
        """The places of trades that have not come yet. They have from now on.

        Trades with a timestamp (ms) before `not_before` are old ones, until one comes that is not.
        """
        known = self.ids
        if self.is_current and columns.ids and known.keys().isdisjoint(columns.ids):
            fresh = dict.fromkeys(columns.ids)
            # Usually all are new, which shows without a look at each.
            if len(fresh) == len(columns) and None not in fresh:
                known.update(cast("dict[str, None]", fresh))
                self.keep(IDS_KEPT)
                return list(range(len(columns)))
        places = []
        for place, number in enumerate(columns.ids or ()):
            if number is not None:
                if number in known:
                    continue
                known[number] = None
            if self.is_current or columns.timestamps[place] >= not_before:
                self.is_current = True
                places.append(place)
        self.keep(IDS_KEPT)
        return places

    def keep(self, most: int) -> None:
        """Forget all but the newest ids."""
        for number in list(islice(self.ids, max(0, len(self.ids) - most))):
            del self.ids[number]


class Trades:
    """The trades of an exchange that numbers them."""

    def __init__(self, exchange: str) -> None:
        self._exchange = exchange
        self._symbols: defaultdict[str, SymbolTrades] = defaultdict(SymbolTrades)
        self._asked_at: int | None = None
        """When the exchange was first asked for its trades, by the clock as it is now (Unix ms)."""
        self._held = 0
        """How many ids of all symbols are kept, at most."""
        self._missing_log = Seldom(MISSING_LOG_EVERY)

    def know(self, symbol: str, ids: Iterable[str]) -> None:
        """These trades were taken in by an earlier boot."""
        known = self._symbols[symbol].ids
        known.update(dict.fromkeys(ids))
        self._held += len(known)

    @property
    def missing(self) -> int:
        """How many ids have never come, where they have no gaps."""
        return sum(symbol.gaps.lost for symbol in self._symbols.values())

    def sifted(self, batch: Batch, identity: Identity) -> Batch:
        """The batch without trades that have come before. Those are rejected as duplicates."""
        # A clock that was ahead at the question may have been set right since. Without the minimum all trades
        # would be old until it is as late as it was then.
        asked_at = identity.asked_at if self._asked_at is None else self._asked_at
        self._asked_at = min(asked_at, batch.received_at)
        updates: list[Updates] = []
        duplicates = ignored = 0
        for each in batch.updates:
            places = self._symbols[each.symbol].new(each.columns, not_before=self._asked_at)
            self._held += len(each.columns)
            if identity.ignored:
                ignored += len({*places}.intersection(identity.ignored.get(each.symbol, ())))
            if len(places) == len(each.columns):
                updates.append(each)
                continue
            duplicates += len(each.columns) - len(places)
            if places:
                columns = each.columns.take(places)
                updates.append(Updates(each.symbol, columns, in_seconds(columns, ascending=False)))
        if identity.contiguous:
            self._look_for_gaps(batch, identity.others or {})
        if self._held > EXCHANGE_IDS_KEPT:
            self._forget()
        if not duplicates:
            return batch
        rejected = {**batch.rejected, DUPLICATE: batch.rejected.get(DUPLICATE, 0) + duplicates}
        return batch.sifted(updates, rejected, ignored_volumes=ignored)

    def _look_for_gaps(self, batch: Batch, others: Mapping[str, Sequence[str]]) -> None:
        """`others`: ids of trades that came and were not accepted, by symbol."""
        now, missing = batch.received_monotonic, {}
        accepted = [(each.symbol, each.columns.ids or ()) for each in batch.updates]
        come = (*accepted, *others.items())
        for symbol, ids in come:
            self._symbols[symbol].gaps.all_came(ids, now)
        # Only now: what is missing among the accepted trades may be among the others.
        for symbol, _ in come:
            if lost := self._symbols[symbol].gaps.give_up(now):
                missing[symbol] = lost
        if missing and (more := self._missing_log.turn(len(missing))) is not None:
            symbol, lost = max(missing.items(), key=itemgetter(1))
            log.warning("trades missing", exchange=self._exchange, symbol=symbol, trades=lost, others=more)

    def _forget(self) -> None:
        """Keep the ids of all symbols together within their limit."""
        self._held = sum(len(symbol.ids) for symbol in self._symbols.values())
        if self._held > EXCHANGE_IDS_KEPT:
            for symbol in self._symbols.values():
                symbol.keep(len(symbol.ids) // 2)


class AllTrades:
    """The trades of all exchanges that number them."""

    def __init__(self) -> None:
        self._exchanges: dict[str, Trades] = {}

    def of(self, exchange: str) -> Trades:
        """Those of an exchange."""
        if exchange not in self._exchanges:
            self._exchanges[exchange] = Trades(exchange)
        return self._exchanges[exchange]

    def know(self, ids: Mapping[Pair, Sequence[str]]) -> None:
        """These were taken in by an earlier boot."""
        for (exchange, symbol), known in ids.items():
            self.of(exchange).know(symbol, known)

    def missing(self) -> Mapping[str, int]:
        """By exchange how many trades have never come, as far as ids tell."""
        return {exchange: trades.missing for exchange, trades in self._exchanges.items()}
