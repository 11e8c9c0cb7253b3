"""Which trades of real exchanges have been taken in: each once, and none missing without being counted.

Real exchanges number their trades. They send some again: after a reconnect, and while the next connection is
made before the old one ends. Some send the last trade of each symbol when they are asked for it, which may be
days old. Updates without an id, as those of exchanges that send lines, do not come here.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs
import structlog

from marketflow.app.ports import Batch, Identity, Updates
from marketflow.domain.bars import in_seconds
from marketflow.domain.columns import Columns
from marketflow.domain.prices import DUPLICATE, Pair

log = structlog.get_logger()

IDS_KEPT: Final = 8_192
"""Of each symbol. More than come while two connections overlap, or than are ever sent again."""
_NUMBER: Final = re.compile("[0-9]{1,18}")
GAP_MS: Final = 5_000
"""So long after a later trade one may still come: trades need not arrive in order."""


class Gaps:
    """Missing ids of a symbol whose ids have no gaps. Times in ms of the wall clock."""

    def __init__(self) -> None:
        self._next: int | None = None
        """The id that follows the greatest one so far."""
        self._open: dict[int, int] = {}
        """Missing ids, each with the time since when it is missing; the oldest first."""
        self._long = 0
        """How many are missing for good."""

    def came(self, number: int, now: int) -> int:
        """A trade has come; returns how many ids are given up now."""
        if self._next is None or number == self._next:
            self._next = number + 1
        elif number > self._next:
            missing = range(self._next, number)
            if len(missing) > IDS_KEPT:
                # So many will not come: they were missed while there was no connection.
                self._long += len(missing)
                self._next = number + 1
                return len(missing) + self.give_up(now)
            self._open.update(dict.fromkeys(missing, now))
            self._next = number + 1
        else:
            self._open.pop(number, None)
        return self.give_up(now) if self._open else 0

    def give_up(self, now: int) -> int:
        """Count those that are missing for too long as missing for good; returns how many."""
        over = [number for number, since in self._open.items() if not now - GAP_MS < since <= now]
        for number in over:
            del self._open[number]
        self._long += len(over)
        return len(over)

    @property
    def missing(self) -> int:
        """How many are missing for good."""
        return self._long


@attrs.define
class SymbolTrades:
    """The trades of a symbol: the newest ids, in the order of receipt."""

    ids: dict[str, None] = attrs.field(factory=dict)
    gaps: Gaps = attrs.field(factory=Gaps)
    begun: bool = False
    """Whether a trade has come, in this boot or before."""

    def know(self, ids: Iterable[str]) -> None:
        """These trades were taken in by an earlier boot."""
        self.ids.update(dict.fromkeys(ids))
        self.begun = self.begun or bool(self.ids)

    def new(self, columns: Columns, *, not_before: int) -> list[int]:
        """The places of trades that have not come yet. They have from now on.

        Of a symbol's very first trades those with a timestamp (ms) before `not_before` are old ones.
        """
        known, first = self.ids, not self.begun
        places = []
        for place, number in enumerate(columns.ids or ()):
            if number is None:
                places.append(place)
            elif number not in known:
                known[number] = None
                if not first or columns.timestamps[place] >= not_before:
                    places.append(place)
        self.begun = True
        if len(known) > IDS_KEPT:
            for number in list(known)[: len(known) - IDS_KEPT]:
                del known[number]
        return places


class Trades:
    """The trades of an exchange that numbers them."""

    def __init__(self, exchange: str) -> None:
        self._exchange = exchange
        self._symbols: defaultdict[str, SymbolTrades] = defaultdict(SymbolTrades)
        self._asked_at: int | None = None
        """When the exchange was first asked for its trades (Unix ms)."""

    def know(self, symbol: str, ids: Iterable[str]) -> None:
        """These trades were taken in by an earlier boot."""
        self._symbols[symbol].know(ids)

    @property
    def missing(self) -> int:
        """How many ids have never come, where they have no gaps."""
        return sum(symbol.gaps.missing for symbol in self._symbols.values())

    def sifted(self, batch: Batch, identity: Identity) -> Batch:
        """The batch without trades that have come before. Those are rejected as duplicates."""
        if self._asked_at is None:
            self._asked_at = identity.asked_at
        updates: list[Updates] = []
        duplicates = 0
        for each in batch.updates:
            places = self._symbols[each.symbol].new(each.columns, not_before=self._asked_at)
            if identity.contiguous:
                self._look_for_gaps(each.symbol, each.columns.ids or (), batch.received_at)
            if len(places) == len(each.columns):
                updates.append(each)
                continue
            duplicates += len(each.columns) - len(places)
            if places:
                columns = each.columns.take(places)
                updates.append(Updates(each.symbol, columns, in_seconds(columns, ascending=False)))
        for symbol, ids in (identity.others or {}).items():
            self._look_for_gaps(symbol, ids, batch.received_at)
        if not duplicates:
            return batch
        return attrs.evolve(
            batch,
            updates=updates,
            rejected={**batch.rejected, DUPLICATE: batch.rejected.get(DUPLICATE, 0) + duplicates},
        )

    def _look_for_gaps(self, symbol: str, ids: Iterable[str | None], now: int) -> None:
        gaps = self._symbols[symbol].gaps
        numbers = [int(each) for each in ids if each is not None and _NUMBER.fullmatch(each)]
        given_up = sum([gaps.came(number, now) for number in numbers])
        if given_up:
            log.warning("trades missing", exchange=self._exchange, symbol=symbol, trades=given_up)


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
