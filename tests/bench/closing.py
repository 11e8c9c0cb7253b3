"""Measures how long it takes to close a minute, and whether exchanges are read meanwhile.

A past minute gets updates in each of its seconds, for every exchange and symbol, and its rows are written.
Then it repeatedly gets one more update for each: at the next whole second all rows are written again. This is
the work of a first close (all bars of the minute are read and merged, and rows written), without waiting for
the end of a minute. The time runs from that second until PostgreSQL shows all rows.

Meanwhile updates arrive at a moderate rate, and the kernel shows how much of them is unread: as long as that
grows, the exchange is not read.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import attrs
import psycopg

from marketflow.domain.periods import MINUTE, SECOND
from tests.bench.bench import Bench
from tests.bench.rows import Row
from tests.bench.stage import BenchError, Service, wait_until

RATE = 10_000.0
"""Updates a second meanwhile: 20 x 50 keys at the pace of the real exchanges."""
GRACE = 2 * SECOND
"""The setting aggregation.grace: closes are due at whole seconds."""
LEAD = 0.6
"""Seconds between the updates and the second at which they are due."""
QUEUE_SECONDS = 0.003
"""Seconds between two readings of the kernel's queues."""
PAUSE_GOAL = 20

COUNT_ROWS = """
    SELECT count(*) FROM price_aggregates WHERE "timestamp" = to_timestamp(%s) AND update_count >= %s
"""


@attrs.frozen
class Size:
    """The number of keys, and the goal (ms) for closing their minute."""

    exchanges: int
    symbols: int
    goal: int

    def __str__(self) -> str:
        return f"{self.exchanges} x {self.symbols} keys"


SIZES = (Size(3, 5, 50), Size(20, 50, 500))
QUICK_SIZES = (Size(3, 5, 50), Size(6, 20, 500))


@attrs.frozen
class Close:
    """The result of one round."""

    took: float
    """Milliseconds until the rows were there."""
    unread: float
    """The longest time (ms) for which an exchange was not read."""
    unread_quiet: float
    """The same for an equal time without a close."""


def closing(bench: Bench) -> list[Row]:
    """Two rows for each size."""
    sizes = QUICK_SIZES if bench.quick else SIZES
    return [row for size in sizes for row in _rows(bench, size)]


def _rows(bench: Bench, size: Size) -> list[Row]:
    closes: list[Close] = []
    with bench.stage.service(exchanges=size.exchanges, symbols_count=size.symbols) as service:
        for close in _closes(bench, service, size):
            closes.append(close)
            bench.say(
                f"round {len(closes)} of {bench.rounds}, {size}: {close.took:.1f} ms, longest unread "
                f"{close.unread:.1f} (without a close {close.unread_quiet:.1f}) ms"
            )
    quiet = max(each.unread_quiet for each in closes)
    raw = {"rounds": [attrs.asdict(close) for close in closes]}
    name = f"closing.{size.exchanges}x{size.symbols}"
    return [
        Row(
            name=name,
            what=f"closing a minute of {size}, {RATE:,.0f} updates/s meanwhile",
            goal=f"<= {size.goal} ms",
            unit="ms",
            rounds=[each.took for each in closes],
            at_most=size.goal,
            raw=raw,
        ),
        Row(
            name=f"{name}.pause",
            what="longest time meanwhile that an exchange is not read",
            goal=f"<= {PAUSE_GOAL} ms",
            unit="ms",
            rounds=[each.unread for each in closes],
            limit=quiet,
            limit_is="without a close, longest",
            at_most=PAUSE_GOAL,
        ),
    ]


def _closes(bench: Bench, service: Service, size: Size) -> Iterator[Close]:
    keys = size.exchanges * size.symbols
    with (
        psycopg.connect(service.dsn, autocommit=True) as connection,
        _unread(service.exchanges.ports) as samples,
    ):
        # The minute of the start, since rows of earlier ones would be compared with Redis repeatedly.
        end = _now() // MINUTE * MINUTE + (0 if bench.quick else MINUTE)
        bench.say(f"{size}: waiting for the end of the minute")
        _sleep_until((end + GRACE) / SECOND)
        service.exchanges.send_each(range(end - MINUTE, end, SECOND))

        def there(count: int) -> bool:
            found = connection.execute(COUNT_ROWS, (end // SECOND, count)).fetchone()
            return found is not None and int(found[0]) == keys

        wait_until(lambda: there(MINUTE // SECOND), "the minute's rows")
        service.exchanges.send(RATE)
        bench.wait(bench.warm_up)
        for number in range(1, bench.rounds + 1):
            due = _next_due()
            _sleep_until(due / SECOND - LEAD)
            service.exchanges.send_each([end - MINUTE // 2])
            _sleep_until(due / SECOND)
            began = time.monotonic()
            every = size.goal / 50 / SECOND
            wait_until(partial(there, MINUTE // SECOND + number), "the rows again", every=every)
            ended = time.monotonic()
            time.sleep(0.1 + ended - began)
            quiet = ended + 0.1
            yield Close(
                took=(ended - began) * 1_000,
                unread=_longest_unread(samples, began, ended),
                unread_quiet=_longest_unread(samples, quiet, quiet + ended - began),
            )


def _next_due() -> int:
    """A whole second (Unix ms) in the near future at which no other minute is closed."""
    due = (_now() // SECOND + 2) * SECOND
    while (due - GRACE) % MINUTE < 2 * SECOND:
        due += SECOND
    return due


def _now() -> int:
    return time.time_ns() // 1_000_000


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.time()))


# ---- what is left unread ----

Sample = tuple[float, dict[int, int]]
"""The time (seconds, monotonic), and the unread bytes by the exchange's port."""


@contextmanager
def _unread(ports: Sequence[int]) -> Iterator[list[Sample]]:
    """A list of samples that grows until the end of the block."""
    samples: list[Sample] = []
    wanted = {f"{port:04X}": port for port in ports}
    stopping = threading.Event()

    def watch() -> None:
        table = Path("/proc/net/tcp")
        while not stopping.wait(QUEUE_SECONDS):
            now = time.monotonic()
            fields = [line.split()[2:5] for line in table.read_text().splitlines()]
            unread = {
                wanted[remote[9:]]: int(queues[9:], 16)
                for remote, _, queues in fields
                if remote[9:] in wanted
            }
            samples.append((now, unread))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield samples
    finally:
        stopping.set()
        watcher.join()


def _longest_unread(samples: Sequence[Sample], began: float, ended: float) -> float:
    """The longest time (ms) between two moments in which an exchange's unread bytes did not shrink."""
    longest = 0.0
    since: dict[int, float] = {}
    before: dict[int, int] = {}
    times = [moment for moment, _ in samples]
    # Include the samples just before and after: a close may be shorter than the time between two samples.
    within = samples[max(0, bisect_right(times, began) - 1) : bisect_left(times, ended) + 1]
    if not within:
        raise BenchError("the kernel was not asked")
    for now, unread in within:
        for port, size in unread.items():
            if size == 0 or size < before.get(port, 0):
                since.pop(port, None)
            else:
                longest = max(longest, now - since.setdefault(port, now))
            before[port] = size
    return longest * 1_000
