"""A client of two live streams, which measures how far the second is behind the first.

It is a separate process: `python -m tests.bench.behind PORT PORT SECONDS` prints its results as JSON.
"""

from __future__ import annotations

import json
import re
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence

import attrs

from tests.bench.children import child
from tests.bench.listeners import REQUESTS
from tests.bench.rows import percentile
from tests.bench.stage import BenchError

EVENT = re.compile(rb'data: (\{"symbol":[^\n]*\})\n')
PATIENCE = 10.0
"""Seconds within which both streams must begin, and in the end the second must have come as far as the
first."""

Pair = tuple[str, str]


@attrs.frozen
class Behind:
    """The results."""

    p50: float
    """Milliseconds from an event of the first stream to the one of the second that shows the same update of
    the pair, or a newer one. Less than 0: the second stream was first."""
    p99: float
    longest: float
    count: int
    """Events of the first stream."""


def behind(first: int, second: int, seconds: float) -> Behind:
    """Listen for so long to the streams at these two ports."""
    with child("tests.bench.behind", first, second, seconds, stdout=subprocess.PIPE) as process:
        said, _ = process.communicate()
    if not said:
        raise BenchError("the client of two streams has failed")
    return Behind(**json.loads(said))


class _Stream:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(REQUESTS["stream"])
        self._received = b""

    def read(self) -> list[tuple[Pair, int]]:
        """Read the available data; returns the pairs and timestamps (ms) of whole events in it."""
        data = self.socket.recv(262_144)
        if not data:
            raise ConnectionError("closed by the server")
        whole, _, self._received = (self._received + data).rpartition(b"\n\n")
        events = [json.loads(each) for each in EVENT.findall(whole + b"\n")]
        return [((each["exchange"], each["symbol"]), each["timestamp"]) for each in events]


@attrs.define
class _Lags:
    """Events of the first stream that wait for the second, and how long the others waited."""

    found: list[float] = attrs.field(factory=list)
    """Milliseconds."""
    _waiting: dict[Pair, deque[tuple[int, float]]] = attrs.field(factory=dict)
    _seen: dict[Pair, deque[tuple[int, float]]] = attrs.field(factory=dict)
    """Events of the second stream: timestamp, and when it came (monotonic seconds)."""

    def first(self, pair: Pair, timestamp: int, at: float) -> None:
        """The first stream has shown this."""
        seen = self._seen.setdefault(pair, deque())
        while seen and seen[0][0] < timestamp:
            seen.popleft()
        if seen:
            self.found.append((seen[0][1] - at) * 1_000)
        else:
            self._waiting.setdefault(pair, deque()).append((timestamp, at))

    def second(self, pair: Pair, timestamp: int, at: float) -> None:
        """The second stream has shown this."""
        self._seen.setdefault(pair, deque()).append((timestamp, at))
        waiting = self._waiting.setdefault(pair, deque())
        while waiting and waiting[0][0] <= timestamp:
            self.found.append((at - waiting.popleft()[1]) * 1_000)

    @property
    def all_came(self) -> bool:
        """Whether the second stream has shown everything that the first has."""
        return not any(self._waiting.values())


class _Ears:
    """Both streams."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._poll = select.epoll()
        self._streams: dict[int, tuple[int, _Stream]] = {}
        for place, port in enumerate(ports):
            stream = _Stream(port)
            self._streams[stream.socket.fileno()] = place, stream
            self._poll.register(stream.socket, select.EPOLLIN)

    def heard(self) -> Iterator[tuple[int, Pair, int]]:
        """Wait for data, a second at most; returns the new events, each with the place of its stream."""
        for number, _ in self._poll.poll(1.0):
            place, stream = self._streams[number]
            for pair, timestamp in stream.read():
                yield place, pair, timestamp


def _main(first: int, second: int, seconds: float) -> Behind:
    ears, lags, begun = _Ears((first, second)), _Lags(), set[int]()
    began = time.monotonic()
    while len(begun) < 2:  # What a stream begins with may be old, so it is left out.
        if time.monotonic() > began + PATIENCE:
            raise TimeoutError("a stream has not begun")
        begun |= {place for place, _, _ in ears.heard()}
    now, end = time.monotonic(), time.monotonic() + seconds
    while now < end or not lags.all_came:
        if now > end + PATIENCE:
            raise TimeoutError("the second stream has not shown what the first has")
        heard = list(ears.heard())
        now = time.monotonic()
        for place, pair, timestamp in heard:
            if place == 1:
                lags.second(pair, timestamp, now)
            elif now < end:
                lags.first(pair, timestamp, now)
    found = lags.found
    return Behind(percentile(found, 50), percentile(found, 99), max(found), len(found))


if __name__ == "__main__":
    print(json.dumps(attrs.asdict(_main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))))
