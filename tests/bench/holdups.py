"""Measures how long the service does nothing but one thing: /health/live is answered at once otherwise.

The answer needs no store and no lock, so the longest time to it is the longest time for which the event loop
had no turn for a task that was ready, the time of the answer itself included.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.bench.stage import LIMIT, BenchError

PAUSE = 0.005
"""Seconds between an answer and the next request."""

Sample = tuple[float, float]
"""When a request was sent and when it was answered (seconds, monotonic)."""


@contextmanager
def asking(port: int) -> Iterator[list[Sample]]:
    """Ask again and again on one connection: a list that grows until the end of the block."""
    samples: list[Sample] = []
    failures: list[Exception] = []
    stopping = threading.Event()

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
        sent = time.monotonic()
        while not stopping.is_set():
            try:
                connection.request("GET", "/health/live")
                connection.getresponse().read()
            except (ConnectionError, http.client.HTTPException):
                # After a long hold-up the service takes the connection for an idle one.
                connection.close()
            except OSError as error:
                failures.append(error)
                break
            else:
                samples.append((sent, time.monotonic()))
                stopping.wait(PAUSE)
                sent = time.monotonic()
        connection.close()

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        yield samples
    finally:
        stopping.set()
        asker.join()
    if failures:
        raise BenchError(f"/health/live was not answered: {failures[0]!r}")


def longest(samples: Sequence[Sample], began: float, ended: float) -> float:
    """The longest answer (ms) of those that were under way between two moments."""
    took = [(until - since) * 1_000 for since, until in samples if since < ended and until > began]
    if not took:
        raise BenchError("/health/live was not asked for meanwhile")
    return max(took)
