"""Measures how long an update takes from the exchange into Redis.

Every 10 ms one exchange sends a numbered line after its other lines. Redis reports each flush that adds to
that line's sorted set by a keyspace notification; the newest member shows which number has arrived. The time
runs from before the line is written to the socket until the notification, so it includes slightly more than
the time from receipt to Redis.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.bench.bench import Bench
from tests.bench.histograms import bound_of
from tests.bench.rows import Row, percentile
from tests.bench.sender import PROBE
from tests.bench.stage import LIMIT, BenchError, Service, lost_of

RATE = 100_000.0
"""Updates a second."""
P50_GOAL, P99_GOAL = 15, 100
"""In ms."""
P50_GOAL_LITTLE = 15
"""In ms, when little comes in."""
KEY = f"prices:exchange1:{PROBE}"


def latency(bench: Bench) -> list[Row]:
    """The rows for the latency."""
    seconds = 1.5 if bench.quick else 10.0
    rounds: list[list[float]] = []
    seen: list[list[float]] = []
    said: list[list[float]] = []
    with bench.stage.service() as service:
        service.exchanges.send(RATE)
        bench.wait(bench.warm_up)
        for number in range(bench.rounds):
            bench.say(f"round {number + 1} of {bench.rounds}, {seconds:g} s at {RATE:,.0f}/s")
            before = service.latency_buckets()
            took = probed(bench, service, seconds)
            after = service.latency_buckets()
            rounds.append(took)
            seen.append([percentile(took, part) for part in (50, 90, 99, 100)])
            said.append([bound_of(before, after, part) for part in (50, 99)])
            bench.say(
                "p50 {:.1f}, p90 {:.1f}, p99 {:.1f}, longest {:.1f} ms; ".format(*seen[-1])
                + "itself it says p50 <= {:.0f}, p99 <= {:.0f} ms".format(*said[-1])
            )
        ledger = service.drained(service.exchanges.finish())
        if lost_of(ledger):
            raise BenchError(f"updates were lost: {ledger}")
    return [
        Row(
            name=f"latency.p{part}",
            what=f"receipt to Redis at {RATE:,.0f} updates/s, p{part}",
            goal=f"<= {goal} ms",
            unit="ms",
            rounds=[percentile(took, part) for took in rounds],
            at_most=goal,
            raw={"p50_p90_p99_longest": seen, "said_p50_p99_at_most": said},
        )
        for part, goal in ((50, P50_GOAL), (99, P99_GOAL))
    ]


def probed(bench: Bench, service: Service, seconds: float) -> list[float]:
    """Send probes for so long; returns the durations (ms)."""
    return [(arrived - sent) / 1e6 for sent, arrived in probes(service, seconds, bench.wait)]


def probes(
    service: Service, seconds: float, wait: Callable[[float], None] = time.sleep
) -> list[tuple[int, int]]:
    """Send probes for so long; returns the times of sending and of arrival in Redis (ns, monotonic)."""
    first = len(service.exchanges.probes())
    with _arrivals(service) as arrivals:
        service.exchanges.probe(probing=True)
        wait(seconds)
        service.exchanges.probe(probing=False)
        sent = service.exchanges.probes()
        deadline = time.monotonic() + LIMIT
        while (not arrivals or arrivals[-1][1] < len(sent)) and time.monotonic() < deadline:
            time.sleep(0.01)
    found: list[tuple[int, int]] = []
    arrived = iter(arrivals)
    at, newest = 0, 0
    for number in range(first + 1, len(sent) + 1):
        while newest < number:
            try:
                at, newest = next(arrived)
            except StopIteration:
                raise BenchError(f"probe {number} of {len(sent)} has not come to Redis") from None
        found.append((sent[number - 1], at))
    return found


@contextmanager
def _arrivals(service: Service) -> Iterator[list[tuple[int, int]]]:
    """A growing list: when (ns, monotonic) a flush arrived, and the number of the newest probe then."""
    arrivals: list[tuple[int, int]] = []
    stopping = threading.Event()
    with service.stage.client() as client, client.pubsub() as notices:
        # Only for sorted sets: one notification for each ZADD of a thousand members.
        client.config_set("notify-keyspace-events", "Kz")
        notices.subscribe(f"__keyspace@0__:{KEY}")

        def listen() -> None:
            while not stopping.is_set():
                notice = notices.get_message(timeout=0.1)
                if notice is not None and notice["type"] == "message" and notice["data"] == b"zadd":
                    at = time.monotonic_ns()
                    (member,) = client.zrevrange(KEY, 0, 0)
                    arrivals.append((at, int(float(member.split(b":")[0]))))

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            yield arrivals
        finally:
            stopping.set()
            listener.join()
            client.config_set("notify-keyspace-events", "")
