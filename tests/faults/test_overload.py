"""More than it can take, with and without Redis: exchanges that send all that is read, as fast as it is read.

Three of them; each can send many times what there is room for. Settings are the defaults, but that an
interval is 5 s, and that with Redis it may be slow for 5 s: on a busy machine it may not have its turn for as
long. FLOOD_SECONDS makes that flood longer, up to 60. Once the replay memory is full, which takes some
seconds, memory grows no more.
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
"""Seconds, for the second half of which Redis has half of the time only."""
FULL = 1_500_000
"""Updates whose flushes fill the replay memory."""
MEMORY = 400_000_000
"""Bytes that the service takes at most."""
GROWTH = 30_000_000
"""Bytes that it takes more at most, however long a flood goes on after that."""
LATEST = 250
"""Ms that 99 of 100 questions of the latest prices take at most, each on a connection of its own."""
STARVED = 0.25
"""The part of the time from which on the machine is so much others' that 90 of 100 must do."""
QUESTIONS = 150
RECOVERY = 5.0
"""Seconds after a flood until it is as up to date as ever."""
AFTERWARDS = 1_000.0
"""Lines a second then."""
EXCHANGES = 3
SLICE = 0.02
"""Seconds."""


@contextmanager
def at_half_speed(pid: int) -> Iterator[None]:
    """A process has half of the time only: what was as much as it could take is now twice that."""
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
    """Shown with `-s`, and when the test fails."""
    print(*what, sep="\n")  # noqa: T201


def up_to_date(service: Service) -> bool:
    """Its newest prices are new, and nothing piles up."""
    _, answer = service.get("/prices/latest")
    now = time.time() * 1_000
    is_new = all(now - each["timestamp"] < 1_000 for each in answer["prices"])
    return is_new and look(service).pending < AFTERWARDS


def check_waiting(seen: Seen) -> None:
    """Who sends waits, and nobody else."""
    assert all(each.dropped == 0 for each in seen.looks)
    assert max(each.pending for each in seen.looks) <= EXCHANGES * MOST_AHEAD
    # The kernel is full of what each sends, on either side of the connection.
    for in_kernel in zip(*(each.in_kernel for each in seen.looks), strict=True):
        assert median(in_kernel) > SEND_BUFFER
    part = 99 if seen.starved < STARVED else 90
    assert percentile(seen.took, part) < LATEST, str(seen)


def test_with_redis_the_exchanges_wait() -> None:
    """Nothing is lost, memory is bounded, questions are answered, and soon after it is up to date again."""
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
    """What is dropped is counted, the newest are written once Redis is back, bars and rows have all."""
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
        # All that was pending then is written now, and nothing else was lost.
        assert after["dropped"] == ledger["dropped"] == {"overflow": sent.total - after["cached"]}
        assert lost_of(after) == after["dropped"]["overflow"]
        model = Model(service, sent)
        assert model.members() == after["cached"]
        lines = share * 9 // 10
        assert model.check_newest(lines) > 0.9 * lines * EXCHANGES
        model.check_bars()
        model.check_rows()
