"""The expected rows, computed only from what was sent."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import attrs

from tests.bench.sender import LINES, Lines

Key = tuple[str, str, int]
"""Symbol, exchange, end of the interval (ms)."""
Row = tuple[
    float, float, float, float, float, int, float | None, float | None, float | None, float | None, int
]
"""Average, min, max, open, close, count; volume, quote volume, bought, sold, updates with a volume."""
Sent = tuple[float, float | None, str | None]
"""The price of an update, its volume and side."""
MARGIN = 100
"""Ms before the end of a broken connection in which updates may be missing: the flush interval (50 ms) after
a kill, in which they wait for the feed's next beat; half of it where they wait for the flusher's next beat as
well; and 25 ms for the way to the service and into Redis. The time for which one of them had no processor is
added.
"""
MOST_MARGIN = 2_000
"""The upper limit in ms, however long they had no processor."""
MOST_RUNS = 2
"""With more broken connections in one interval there are too many combinations: only bounds are checked."""
RIGHT, WAIT = "", "wait"


@attrs.frozen
class Block:
    """Lines that were sent together."""

    exchange: str
    connection: int
    first: int
    count: int
    timestamp: int


class Model:
    """All lines that were sent."""

    def __init__(
        self,
        symbols: Sequence[str],
        interval: int,
        starved: Callable[[int, int], float] = lambda _start, _end: 0.0,
    ) -> None:
        """The interval in ms.

        `starved` returns how much (ms) of the time between two moments (Unix ms) a process had no processor.
        """
        self.symbols = symbols
        self.interval = interval
        self._starved = starved
        made = Lines(symbols, "mixed")
        # Twice the list, so that a block that wraps around is one slice.
        self.lines: list[Sent] = 2 * [
            (price, *trade) for price, trade in zip(made.prices, made.trades, strict=True)
        ]
        self._blocks: dict[tuple[str, int], list[Block]] = defaultdict(list)
        """The blocks, by exchange and end of the interval."""
        self._torn: dict[tuple[str, int], int] = {}
        """The end (ms) of each connection that may have lost data."""
        self._excused: dict[tuple[str, int], int] = {}
        """The time (ms) from which updates of such a connection may be missing."""
        self.sent = 0
        self.longest_missing = 0
        """The longest time (ms) before the end of a broken connection in which an update was missing."""

    def add(self, told: Mapping[str, Sequence[Sequence[object]]]) -> None:
        """Add what the exchanges report."""
        for fields in told["blocks"]:
            block = Block(*fields)  # type: ignore[arg-type]
            self._blocks[block.exchange, (block.timestamp // self.interval + 1) * self.interval].append(block)
            self.sent += block.count
        for exchange, connection, at, exact in told["ended"]:
            if not exact:
                self._torn[exchange, connection] = at  # type: ignore[index,assignment]

    def _excused_from(self, exchange: str, connection: int) -> float:
        """The time (ms) from which updates may be missing: `MARGIN` plus starvation before a broken end."""
        key = exchange, connection
        if key not in self._torn:
            return math.inf
        if key not in self._excused:
            # Computed late: soon after the end some waits before it are not counted yet.
            self._excused[key] = self._before(self._torn[key])
        return self._excused[key]

    def _before(self, ended: int) -> int:
        margin = MARGIN
        while margin < MOST_MARGIN:
            needed = MARGIN + math.ceil(self._starved(ended - margin, ended))
            if needed <= margin:
                break
            margin = needed
        return ended - min(margin, MOST_MARGIN)

    def keys(self, until: int) -> Iterator[Key]:
        """The keys of intervals that ended by then and have lines."""
        for exchange, end in self._blocks:
            if end <= until:
                yield from ((symbol, exchange, end) for symbol in self.symbols)

    def judge(self, key: Key, row: Row | None) -> str:
        """RIGHT; WAIT if updates are missing that may still come; otherwise what is wrong with the row."""
        symbol, exchange, end = key
        sent, runs = self.updates(symbol, exchange, end)
        missing = len(sent) - (row[5] if row else 0)
        if missing < 0:
            return f"{-missing} updates more than were sent"
        if row is None:
            return RIGHT if sum(len(run) for run in runs) >= missing else WAIT
        if missing == 0:
            return RIGHT if _same(row, sent) else f"{row} instead of {_row(sent)}"
        if len(runs) > MOST_RUNS:
            return RIGHT if _within(row, sent) and missing <= sum(map(len, runs)) else WAIT
        for shares in itertools.product(*(range(min(missing, len(run)) + 1) for run in runs[1:])):
            first = missing - sum(shares)
            if runs and 0 <= first <= len(runs[0]) and _close(sent, runs[-1], (first, *shares)[-1]) == row[4]:
                left = list(sent)
                for run, share in reversed(list(zip(runs, (first, *shares), strict=True))):
                    del left[run.stop - share : run.stop]
                if left and _same(row, left):
                    self._note(exchange, end, first, *shares)
                    return RIGHT
        return WAIT

    def count(self, exchange: str, symbol: str, start: int, end: int) -> int:
        """The number of updates that were sent with a timestamp in [start, end) (ms)."""
        found = 0
        for (name, over), blocks in self._blocks.items():
            if name == exchange and over > start and over - self.interval < end:
                for block in blocks:
                    if start <= block.timestamp < end:
                        found += len(self._of(block, self.symbols.index(symbol)))
        return found

    def count_of(self, key: Key) -> int:
        """The number of updates of a row."""
        symbol, exchange, end = key
        return self.count(exchange, symbol, end - self.interval, end)

    def updates(self, symbol: str, exchange: str, end: int) -> tuple[list[Sent], list[range]]:
        """The updates of an interval in order, and the runs whose ends may be missing."""
        place = self.symbols.index(symbol)
        sent: list[Sent] = []
        runs: dict[int, range] = {}
        for block in self._blocks.get((exchange, end), ()):
            before = len(sent)
            sent += self._of(block, place)
            if block.timestamp >= self._excused_from(exchange, block.connection):
                start = runs.get(block.connection, range(before, 0)).start
                runs[block.connection] = range(start, len(sent))
        return sent, list(runs.values())

    def _of(self, block: Block, place: int) -> list[Sent]:
        first = block.first % LINES
        skipped = (place - first) % len(self.symbols)
        return self.lines[first + skipped : first + block.count : len(self.symbols)]

    def _note(self, exchange: str, end: int, *shares: int) -> None:
        """Note how far back missing lines reach; in ms, from the timestamps of their blocks."""
        torn = [
            connection
            for connection in dict.fromkeys(block.connection for block in self._blocks[exchange, end])
            if any(
                block.connection == connection and block.timestamp >= self._excused_from(exchange, connection)
                for block in self._blocks[exchange, end]
            )
        ]
        for connection, share in zip(torn, shares, strict=True):
            left = share * len(self.symbols)
            for block in reversed(self._blocks[exchange, end]):
                if block.connection == connection and left > 0:
                    left -= block.count
                    ago = self._torn[exchange, connection] - block.timestamp
                    self.longest_missing = max(self.longest_missing, ago)


def _close(sent: Sequence[Sent], last: range, share: int) -> float | None:
    """The last price if so many lines of the last run are missing: a cheap check that excludes most cases."""
    left = len(sent) - (share if last.stop == len(sent) else 0)
    return sent[left - 1][0] if left else None


def _row(sent: Sequence[Sent]) -> Row:
    prices = [price for price, _, _ in sent]
    told = [(price, volume, side) for price, volume, side in sent if volume is not None]
    sided = any(side for _, _, side in told)
    return (
        math.fsum(prices) / len(prices),
        min(prices),
        max(prices),
        prices[0],
        prices[-1],
        len(prices),
        math.fsum(volume for _, volume, _ in told) if told else None,
        math.fsum(price * volume for price, volume, _ in told) if told else None,
        math.fsum(volume for _, volume, side in told if side == "buy") if sided else None,
        math.fsum(volume for _, volume, side in told if side == "sell") if sided else None,
        len(told),
    )


def _same(row: Row, sent: Sequence[Sent]) -> bool:
    right = _row(sent)
    return (
        row[1:6] == right[1:6]
        and row[10] == right[10]
        and all(map(_near, (row[0], *row[6:10]), (right[0], *right[6:10])))
    )


def _near(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-9)


def _within(row: Row, sent: Sequence[Sent]) -> bool:
    """Whether a row may be that of some of these updates."""
    most = _row(sent)
    sums = zip(row[6:11], most[6:11], strict=True)
    return most[1] <= row[1] <= row[0] <= row[2] <= most[2] and all(
        each is None or (bound is not None and 0 <= each <= bound * (1 + 1e-9)) for each, bound in sums
    )
