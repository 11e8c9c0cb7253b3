"""Shared parts of the tests under a flood: exchanges that send all that is read, samples, and a model.

The program is the real one, in its own process and on its own stores; so are the exchanges. They are those of
`nox -s bench`.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs
from rig import Key, Row, differences, row_of, stored_rows

from marketflow.adapters.cache.bar_fields import read_bar, read_field
from tests.bench.exchanges import Sent
from tests.bench.processes import rss
from tests.bench.rows import percentile
from tests.bench.sender import LINES, Lines
from tests.bench.stage import Service, symbols, wait_until
from tests.bench.starvation import OURSELVES, run_delay

SYMBOLS = symbols(5)
INTERVAL = 5
"""Seconds of an aggregate, so that tests need not wait for the end of a minute."""
SETTINGS = {"AGGREGATION__INTERVAL": f"{INTERVAL}s"}
"""Settings in addition to the defaults."""
BETWEEN = 0.02
"""Seconds between two requests."""
LOOK_EVERY = 5
"""Requests between two samples."""
NOTE_EVERY = 0.004
"""Seconds between two samples of the starvation."""
MORE = 45
"""Further seconds that it may take until enough was seen."""
ESTABLISHED = "01"


@attrs.frozen
class Look:
    """One sample."""

    pending: int
    cached: int
    dropped: int
    rss: int
    in_kernel: Sequence[int]
    """Bytes that were sent and not read yet, by exchange."""


@attrs.define
class Seen:
    """All samples, and the durations of requests."""

    looks: list[Look] = attrs.field(factory=list)
    waits: list[float] = attrs.field(factory=list)
    """The duration of each request in ms, by the clock."""
    took: list[float] = attrs.field(factory=list)
    """The same without the time for which the service, Redis or this process had no processor."""
    starved: float = 0.0
    """The share of the time for which the service or Redis had no processor."""

    def __str__(self) -> str:
        looks = self.looks
        return (
            f"{len(self.took)} questions, p50, p99 and longest {_spread(self.took)} ms, "
            f"by the clock {_spread(self.waits)}; starved for {self.starved:.0%}; {len(looks)} looks: "
            f"pending {max(each.pending for each in looks)}, "
            f"RSS {max(each.rss for each in looks) / 1e6:.0f} MB at most; {looks[-1].cached} cached, "
            f"{looks[-1].dropped} dropped, in kernel {looks[-1].in_kernel}"
        )


def _spread(values: Sequence[float]) -> str:
    return "/".join(f"{percentile(values, part):.0f}" for part in (50, 99, 100))


def look(service: Service) -> Look:
    """Take one sample, and check that the ledger adds up."""
    ledger = service.ledger()
    return Look(
        pending=ledger["pending"],
        cached=ledger["cached"],
        dropped=sum(ledger["dropped"].values()),
        rss=rss(service.pid),
        in_kernel=_in_kernel(service.exchanges.ports),
    )


def watched(
    service: Service, seconds: float, *, at_least: int = 0, until: Callable[[Look], bool] = lambda _: True
) -> Seen:
    """Ask for the latest prices `at_least` that often, and take samples until one shows that it is enough."""
    seen = Seen()
    began, at_first = time.monotonic(), starved(service)
    end = began + seconds
    while time.monotonic() < end or len(seen.took) < at_least or not until(seen.looks[-1]):
        assert time.monotonic() < end + MORE, f"not enough yet: {seen}"
        for _ in range(LOOK_EVERY):
            asked, before, ours = time.monotonic(), starved(service), run_delay(OURSELVES)
            status, answer = service.get("/prices/latest")
            wait = time.monotonic() - asked
            seen.waits.append(wait * 1_000)
            # We wait first for them and then for our own turn, so both times count.
            others = more(before, starved(service)) + run_delay(OURSELVES) - ours
            seen.took.append((wait - others) * 1_000)
            assert status == 200, answer
            time.sleep(BETWEEN)
        seen.looks.append(look(service))
        seen.starved = more(at_first, starved(service)) / (time.monotonic() - began)
    return seen


Starved = tuple[float, float]
"""Seconds for which service and Redis were ready to run but had no processor."""


def starved(service: Service) -> Starved:
    """The starvation so far; 0 if the system does not count it."""
    return run_delay(service.pid), run_delay(service.stage.redis.pid)


def more(before: Starved, after: Starved) -> float:
    """The seconds of starvation in between: the longer of the two, since both may overlap."""
    return max(late - early for early, late in zip(before, after, strict=True))


class Starvation:
    """The starvation of service and Redis between any two moments. Use `noted`."""

    def __init__(self) -> None:
        self._at: list[int] = []
        """Times of the samples (ns, monotonic)."""
        self._starved: list[Starved] = []

    def note(self, service: Service) -> None:
        """Take a sample."""
        self._at.append(time.monotonic_ns())
        self._starved.append(starved(service))

    def between(self, start: int, end: int) -> float:
        """The starvation in ms between two moments (ns, monotonic)."""
        return more(self._up_to(start), self._up_to(end)) * 1_000

    def _up_to(self, at: int) -> Starved:
        return self._starved[min(bisect(self._at, at), len(self._at) - 1)]


@contextmanager
def noted(service: Service) -> Iterator[Starvation]:
    """Take a sample every few ms until the end of the block."""
    starvation, ending = Starvation(), threading.Event()

    def note() -> None:
        while not ending.wait(NOTE_EVERY):
            starvation.note(service)

    starvation.note(service)
    noting = threading.Thread(target=note)
    noting.start()
    try:
        yield starvation
    finally:
        ending.set()
        noting.join()
        starvation.note(service)


def _in_kernel(ports: Sequence[int]) -> list[int]:
    """Bytes in the socket buffers of each of these ports and its clients, in both directions."""
    found: Counter[int] = Counter()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, queues, *_ = line.split()
        unsent, unread = (int(size, 16) for size in queues.split(":"))
        if state == ESTABLISHED:
            found[int(local.partition(":")[2], 16)] += unsent
            found[int(remote.partition(":")[2], 16)] += unread
    return [found[port] for port in ports]


# ---- what is right ----


class Model:
    """The lines that were sent: they come in a fixed order, and their number in each second is known."""

    def __init__(self, service: Service, sent: Sent) -> None:
        self._service = service
        self._lines = sent.lines
        self._prices = Lines(SYMBOLS).prices
        self._first: list[dict[int, int]] = []
        """The number of the first line, by exchange and second."""
        for counts, lines in zip(sent.seconds, sent.lines, strict=True):
            assert list(counts) == sorted(counts), "the clock was set back"
            firsts = itertools.accumulate(counts.values(), initial=0)
            self._first.append(dict(zip([*counts, math.inf], firsts, strict=True)))
            assert self._first[-1].popitem() == (math.inf, lines)

    def _of(self, symbol: str, first: int, end: int) -> list[float]:
        """The prices of a symbol among an exchange's lines in [first, end), in order."""
        first += (SYMBOLS.index(symbol) - first) % len(SYMBOLS)
        return [self._prices[number % LINES] for number in range(first, end, len(SYMBOLS))]

    def _summaries(self, seconds: int) -> dict[Key, Row]:
        """The summaries of each span of that many seconds, by symbol, exchange and end (ms)."""
        found: dict[Key, Row] = {}
        for name, firsts, lines in zip(self._service.names, self._first, self._lines, strict=True):
            begins = dict[int, int]()
            for second, first in firsts.items():
                begins.setdefault((second // seconds + 1) * seconds, first)
            ends = [*list(begins.values())[1:], lines]
            for (until, first), end in zip(begins.items(), ends, strict=True):
                for symbol in SYMBOLS:
                    if prices := self._of(symbol, first, end):
                        found[symbol, name, until * 1_000] = row_of(prices)
        return found

    def check_rows(self) -> None:
        """PostgreSQL gets a row for each interval in time, and each is exact."""
        expected = self._summaries(INTERVAL)
        dsn = self._service.dsn
        wait_until(
            lambda: stored_rows(dsn).keys() >= expected.keys(), "a row of each interval", seconds=2 * INTERVAL
        )
        wrong = differences(stored_rows(dsn), expected)
        assert not wrong, f"{len(wrong)} rows of {len(expected)} wrong: {wrong[:3]}"

    def check_bars(self) -> None:
        """Redis has a bar for each second, and each is exact."""
        stored: dict[Key, Row] = {}
        with self._service.stage.client() as client:
            for name, symbol in itertools.product(self._service.names, SYMBOLS):
                for field, value in client.hgetall(f"bars:{name}:{symbol}").items():
                    second, _ = read_field(field)
                    bar = read_bar(value, second)
                    key = symbol, name, second + 1_000
                    stored[key] = bar.average, bar.min, bar.max, bar.open, bar.close, bar.count
        expected = self._summaries(1)
        wrong = differences(stored, expected)
        assert not wrong, f"{len(wrong)} bars of {len(expected)} wrong: {wrong[:3]}"

    def check_newest(self, lines: int) -> int:
        """The newest lines of each exchange are in Redis, each once; returns how many were compared.

        It skips the lines of the oldest ms, which it shares with older lines.
        """
        compared = 0
        with self._service.stage.client() as client:
            for name, total in zip(self._service.names, self._lines, strict=True):
                for symbol in SYMBOLS:
                    key = f"prices:{name}:{symbol}"
                    held = client.zrange(key, -(lines // len(SYMBOLS)), -1, withscores=True)
                    newest = [float(member.split(b":")[0]) for member, at in held if at > held[0][1]]
                    sent = self._of(symbol, 0, total)[-len(newest) :]
                    assert Counter(newest) == Counter(sent), (
                        f"{name} {symbol}: not the newest of what was sent"
                    )
                    compared += len(newest)
        return compared

    def members(self) -> int:
        """The number of updates in Redis."""
        with self._service.stage.client() as client:
            pairs = itertools.product(self._service.names, SYMBOLS)
            return sum(client.zcard(f"prices:{name}:{symbol}") for name, symbol in pairs)
