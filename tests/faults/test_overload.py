"""Overload with and without Redis: exchanges that send as fast as they are read.

Each of the three can send many times the pending limit. Settings are the defaults, except for an interval of
5 s, and for a time limit of 5 s for Redis: on a busy machine Redis may have no processor for that long.
FLOOD_SECONDS makes the flood with Redis longer, up to 60. The replay memory is full after some seconds; then
memory must not grow any more.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import pytest
from flooding import SETTINGS, Model, Seen, look, watched

from marketflow.app.share.buffers import MOST_AHEAD
from marketflow.config import Settings
from tests.bench.processes import peak_rss
from tests.bench.rows import percentile
from tests.bench.sender import SEND_BUFFER
from tests.bench.stage import Service, lost_of, staged, wait_until

pytestmark = pytest.mark.alone

FLOOD = float(os.environ.get("FLOOD_SECONDS", "16"))
"""Seconds of the flood. In the second half Redis gets only half of the processor time."""
FULL = 1_500_000
"""The number of updates whose flushes fill the replay memory."""
MEMORY = 400_000_000
"""The most bytes of memory that the service may use."""
GROWTH = 30_000_000
"""The most bytes by which memory may grow after that, in a flood of any length."""
LATEST = 250
"""The limit in ms for 99 of 100 requests of the latest prices, each on a new connection."""
STARVED = 0.25
"""If other programs take more than this share of the time, 90 of 100 requests must meet the limit."""
QUESTIONS = 150
RECOVERY = 5.0
"""Seconds after a flood within which the service must be up to date."""
AFTERWARDS = 1_000.0
"""Lines a second after the flood."""
EXCHANGES = 3
SLICE = 0.02
"""Seconds of each turn."""


@contextmanager
def at_half_speed(pid: int) -> Iterator[None]:
    """Give a process only half of the time, so that its load doubles."""
    ending = threading.Event()

    def hold() -> None:
        while not ending.wait(SLICE):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(SLICE)
            os.kill(pid, signal.SIGCONT)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        yield
    finally:
        ending.set()
        holder.join()


def tell(*what: object) -> None:
    """Print a figure, which is shown with `-s` and if the test fails."""
    print(*what, sep="\n")  # noqa: T201


def up_to_date(service: Service) -> bool:
    """Check that its newest prices are recent, and that nothing piles up."""
    _, answer = service.get("/prices/latest")
    now = time.time() * 1_000
    is_new = all(now - each["timestamp"] < 1_000 for each in answer["prices"])
    return is_new and look(service).pending < AFTERWARDS


def check_waiting(seen: Seen) -> None:
    """Check that the exchanges wait, and no other buffer grows."""
    assert all(each.dropped == 0 for each in seen.looks)
    assert max(each.pending for each in seen.looks) <= EXCHANGES * MOST_AHEAD
    # The kernel's buffers are full for each exchange, on both sides of the connection.
    for in_kernel in zip(*(each.in_kernel for each in seen.looks), strict=True):
        assert median(in_kernel) > SEND_BUFFER
    part = 99 if seen.starved < STARVED else 90
    assert percentile(seen.took, part) < LATEST, str(seen)


def test_with_redis_the_exchanges_wait() -> None:
    """Nothing is lost, memory is bounded, requests are answered, and soon after it is up to date."""
    settings = SETTINGS | {"REDIS__TIMEOUT": "5s"}
    with staged() as stage, stage.service(exchanges=EXCHANGES, settings=settings) as service:
        service.exchanges.flood()
        watched(service, 1)
        seen = watched(service, FLOOD / 2, at_least=QUESTIONS, until=lambda it: it.cached > FULL)
        with at_half_speed(stage.redis.pid):
            slowly = watched(service, FLOOD / 2, at_least=QUESTIONS)
        tell(seen, slowly)
        check_waiting(seen)
        check_waiting(slowly)
        peak = peak_rss(service.pid)
        assert peak < MEMORY
        assert peak - seen.looks[-1].rss < GROWTH

        began = time.monotonic()
        service.exchanges.send(AFTERWARDS)
        wait_until(lambda: up_to_date(service), "prices are new again")
        recovery = time.monotonic() - began
        assert recovery < RECOVERY

        sent = service.exchanges.finish()
        ledger = service.drained(sent)
        tell(f"up to date in {recovery:.1f} s, RSS {peak_rss(service.pid) / 1e6:.0f} MB at most", ledger)
        assert lost_of(ledger) == 0
        assert ledger["cached"] == sent.total
        model = Model(service, sent)
        lines = min(FULL // EXCHANGES, *sent.lines)
        assert model.check_newest(lines) > 0.9 * lines * EXCHANGES
        model.check_bars()
        model.check_rows()


def test_without_redis_the_oldest_go() -> None:
    """Drops are counted, the newest are written once Redis is back, bars and rows are exact."""
    share = Settings().pipeline.max_pending_updates // EXCHANGES
    with staged() as stage, stage.service(exchanges=EXCHANGES, settings=SETTINGS) as service:
        service.exchanges.flood()
        watched(service, 2)
        stage.redis.pause()
        seen = watched(service, 3, until=lambda it: it.dropped > share)
        sent = service.exchanges.finish()
        wait_until(lambda: service.ledger()["received"] == sent.total, "all that was sent is received")
        ledger = service.ledger()
        tell(seen, ledger)
        assert max(each.pending for each in seen.looks) <= EXCHANGES * share
        assert ledger["pending"] > 0.9 * EXCHANGES * share
        assert peak_rss(service.pid) < MEMORY

        stage.redis.resume()
        after = service.drained(sent)
        tell(f"RSS {peak_rss(service.pid) / 1e6:.0f} MB at most", after)
        assert peak_rss(service.pid) < MEMORY
        # All updates that were pending are written now, and no others were lost.
        assert after["dropped"] == ledger["dropped"] == {"overflow": sent.total - after["cached"]}
        assert lost_of(after) == after["dropped"]["overflow"]
        model = Model(service, sent)
        assert model.members() == after["cached"]
        lines = share * 9 // 10
        assert model.check_newest(lines) > 0.9 * lines * EXCHANGES
        model.check_bars()
        model.check_rows()
