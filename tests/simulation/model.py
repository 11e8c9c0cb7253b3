"""What must be true, computed from the lines that the feeds were given and in no way from the product.

The model knows every line that a process received, and decides by itself what must become of it. It knows
what a killed process may have lost by looking into the simulated Redis at that moment. Everything else must
be exact.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from marketflow.domain.bars import Bar
from tests.simulation.volumes import Told, Volumes, found_in, same_volumes, volumes_of, within_volumes

Pair = tuple[str, str]
"""Exchange and symbol."""


class Update(NamedTuple):
    """An update that a process has accepted."""

    exchange: str
    symbol: str
    price: float
    timestamp: int
    boot: str
    order: int
    at: float
    """When it was received (seconds of Trio's clock)."""
    told: Told = Told()
    id: str | None = None
    """The exchange's own id of the trade."""


Interval = tuple[Pair, int]
"""An exchange and symbol, and the end (ms) of an interval."""


class Model:
    """All updates that were accepted, by whichever process, and what may be missing of them."""

    def __init__(self, interval: int) -> None:
        """`interval` of the aggregates in ms."""
        self.interval = interval
        self.ended: list[Update] = []
        """What processes accepted that have ended."""
        self.tainted: dict[Interval, int] = {}
        """Intervals of which something was truly lost, with the number of updates that must be there."""

        self.told_by_rows = 0
        """Up to when (ms) rows had more than their bars when something was lost. All bars before that are
        given up for rows, so that a late update may not get into its row."""

    def end_of(self, timestamp: int) -> int:
        """The end of the interval that a time (ms) belongs to."""
        return (timestamp // self.interval + 1) * self.interval

    def interval_of(self, update: Update) -> Interval:
        """Where an update belongs."""
        return (update.exchange, update.symbol), self.end_of(update.timestamp)

    # ---- losses ----

    def lost(self, bars: Mapping[tuple[Pair, int, str], int], rows: Mapping[Interval, int]) -> list[Update]:
        """What ended processes accepted and no store has: neither in bars nor in a row that has it all.

        Intervals whose bars are not whole are tainted: from now on only bounds hold for their rows.

        Args:
            bars: how many updates Redis and the spool have, by pair, second (ms) and boot.
            rows: how many PostgreSQL's rows have.
        """
        seconds: defaultdict[tuple[Pair, int, str], list[Update]] = defaultdict(list)
        totals: Counter[Interval] = Counter()
        for update in self.ended:
            pair = update.exchange, update.symbol
            seconds[pair, update.timestamp // 1_000 * 1_000, update.boot].append(update)
            totals[self.interval_of(update)] += 1
        missing: defaultdict[Interval, list[Update]] = defaultdict(list)
        for key, updates in seconds.items():
            held = bars.get(key, 0)
            if held > len(updates):
                raise AssertionError(f"{key}: {held} updates in the bar, {len(updates)} were accepted")
            if held < len(updates):
                missing[key[0], self.end_of(key[1])] += updates[held:]
        found: list[Update] = []
        for interval, updates in missing.items():
            in_row = rows.get(interval, 0)
            if in_row < totals[interval] and interval not in self.tainted:
                found += updates
            held = totals[interval] - len(updates)
            if in_row > held:
                self.told_by_rows = max(self.told_by_rows, interval[1])
            least = max(held, in_row)
            self.tainted[interval] = min(least, self.tainted.get(interval, least))
        return found

    def doubt(self, updates: Iterable[Update]) -> None:
        """Two processes served at once: how often these count nobody can say."""
        for update in updates:
            self.tainted[self.interval_of(update)] = 0

    def rows_went_back(self) -> None:
        """PostgreSQL has come back in an older state: rows with more than their bars may be gone for good."""
        for interval in self.tainted:
            self.tainted[interval] = 0

    # ---- rows ----

    def wrong_rows(
        self,
        rows: Mapping[Interval, Bar],
        updates: Sequence[Update],
        until: int,
        since: int,
    ) -> list[str]:
        """Rows that are missing, too many, or not right, of intervals that ended in (since, until] (ms)."""
        groups: defaultdict[Interval, list[Update]] = defaultdict(list)
        for update in updates:
            groups[self.interval_of(update)].append(update)
        wrong = [f"row of nothing: {key}" for key in rows if key not in groups]
        for key, group in groups.items():
            if since < key[1] <= until:
                wrong += self._wrong(key, group, rows.get(key))
        return wrong

    def _wrong(self, key: Interval, group: list[Update], row: Bar | None) -> list[str]:
        if key in self.tainted:
            if row is None:
                return [f"row missing: {key}"] if self.tainted[key] > 0 else []
            prices = [update.price for update in group]
            bounded = (
                self.tainted[key] <= row.count <= len(group)
                and min(prices) <= row.min <= row.max <= max(prices)
                and within_volumes(found_in(row.traded), volumes_of(group))
            )
            return [] if bounded else [f"row of an interval with losses: {key}: {row}"]
        if row is None:
            return [f"row missing: {key}, {len(group)} updates"]
        right = summary(group)
        if key[1] <= self.told_by_rows and row.count < right.count:
            first = sum(update.boot == group[0].boot for update in group)
            return [] if row.count >= first else [f"row lacks updates: {key}: {row}, right is {right}"]
        if not same(row, right):
            return [f"row wrong: {key}: {row}, right is {right}"]
        return []

    def taints(
        self,
        exchanges: Collection[str],
        symbol: str,
        start: int,
        end: int,
        unread: Collection[Interval] = (),
    ) -> bool:
        """Whether something was lost of what an answer is about, or is in these unread intervals."""
        return any(
            exchange in exchanges and name == symbol and over > start and over - self.interval < end
            for (exchange, name), over in (*self.tainted, *unread)
        )


class Summary(NamedTuple):
    """The numbers of some updates, computed in the plainest way."""

    count: int
    average: float
    min: float
    max: float
    open: float
    close: float
    volumes: Volumes


def summary(updates: Iterable[Update]) -> Summary:
    """Of updates of one symbol; of equal timestamps the later received is the later."""
    ordered = sorted(updates, key=lambda update: (update.timestamp, update.exchange, update.order))
    prices = [update.price for update in ordered]
    return Summary(
        len(prices),
        math.fsum(prices) / len(prices),
        min(prices),
        max(prices),
        prices[0],
        prices[-1],
        volumes_of(ordered),
    )


def same(row: Bar, right: Summary) -> bool:
    """Whether a bar has these numbers."""
    return (
        (row.count, row.min, row.max, row.open, row.close)
        == (right.count, right.min, right.max, right.open, right.close)
        and math.isclose(row.average, right.average, rel_tol=1e-9)
        and same_volumes(found_in(row.traded), right.volumes)
    )
