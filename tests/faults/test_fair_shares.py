"""One exchange floods, another one sends little: the second one's updates get into Redis nearly as fast."""

from __future__ import annotations

import time
from statistics import median

import pytest
from flooding import noted

from marketflow.config import Settings
from tests.bench.latency import probes
from tests.bench.rows import percentile
from tests.bench.stage import Service, lost_of, staged

pytestmark = pytest.mark.alone

ROUNDS = 4
SECONDS = 2.0
"""Seconds of a round, without the flood and with it."""
SETTLING = 0.5
"""Seconds until a flood has reached its steady state, or its rest is processed."""
TIMES = 2
"""The factor by which the flood may lengthen the time."""


def p99(service: Service) -> float:
    """The p99 in ms, from sending to Redis."""
    with noted(service) as starvation:
        found = probes(service, SECONDS)
    took = [(arrived - sent) / 1e6 for sent, arrived in found]
    alone = [each - starvation.between(*probe) for each, probe in zip(took, found, strict=True)]
    print(f"p99 by the clock {percentile(took, 99):.1f}, alone {percentile(alone, 99):.1f} ms")  # noqa: T201
    return percentile(alone, 99)


def test_one_that_floods_delays_no_other() -> None:
    """From sending to Redis, 99 of 100 lines take at most twice as long as without the flood.

    The time without it counts as at least the flush interval, since an update may always wait for that long.
    Time for which service or Redis had no processor is left out. A line is sent every 10 ms.
    """
    quiet: list[float] = []
    beside: list[float] = []
    with staged() as stage, stage.service(exchanges=2) as service:
        for _ in range(ROUNDS):
            for place, found in (((), quiet), ((1,), beside)):
                if place:
                    service.exchanges.flood(*place)
                else:
                    service.exchanges.send(0)
                time.sleep(SETTLING)
                found.append(p99(service))
        health = service.get("/health")[1]["exchanges"]
        said = [health[name]["updates"]["cached"] for name in service.names]
        print(f"p99 (ms) without {quiet}, with {beside}; cached {said}")  # noqa: T201
        assert said[1] > 100 * said[0], "that was no flood"
        assert lost_of(service.drained(service.exchanges.finish())) == 0
    least = Settings().pipeline.flush_interval
    assert median(beside) <= TIMES * max(least, median(quiet)), (quiet, beside)
