"""Clients of the live stream, all in one separate process, which measures the age of events.

`python -m tests.bench.listeners PORT KIND CLIENTS` (KIND is `stream` or `ws`) prints a line of JSON once all
have begun to get events, and another one for each line on stdin, with the figures since the last.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from tests.bench.children import child
from tests.bench.rows import percentile
from tests.bench.stage import BenchError

TIMESTAMP = re.compile(rb'"timestamp":(\d{13})')
REQUESTS = {
    "stream": b"GET /stream HTTP/1.1\r\nHost: bench\r\n\r\n",
    "ws": b"GET /ws HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
}
PATIENCE = 60.0
"""Seconds until all clients must have events."""


@attrs.frozen
class Heard:
    """The events of all clients since the last time."""

    seconds: float
    events: int
    """The number for all clients together."""
    fewest: int
    """The number for the client with the fewest."""
    age_p50: float
    """Milliseconds from the timestamp of the newest event in a read to that read."""
    age_p99: float

    def __str__(self) -> str:
        return (
            f"{self.events / self.seconds:,.0f} events/s in all, "
            f"{self.age_p50:.0f} ms old, p99 {self.age_p99:.0f} ms"
        )


class Listeners:
    """Controls the process of the clients."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def heard(self) -> Heard:
        """The figures since the last time."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> Heard:
        """Wait for its next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchError("the clients of the stream have ended")
        return Heard(**json.loads(line))


@contextmanager
def listening(port: int, kind: str, clients: int) -> Iterator[Listeners]:
    """That many clients, each of which has got an event."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with child("tests.bench.listeners", port, kind, clients, **pipes) as process:
        listeners = Listeners(process)
        listeners.answer()
        yield listeners


class _Ears:
    def __init__(self, port: int, kind: str, clients: int) -> None:
        self.poll = select.epoll()
        self.sockets: dict[int, socket.socket] = {}
        self.events: dict[int, int] = {}
        self.ages: list[float] = []
        self.since = time.monotonic()
        for _ in range(clients):
            client = socket.create_connection(("127.0.0.1", port))
            client.sendall(REQUESTS[kind])
            self.sockets[client.fileno()] = client
            self.events[client.fileno()] = 0
            self.poll.register(client, select.EPOLLIN)

    def listen(self) -> bool:
        """Read all available data; returns whether stdin has a line."""
        told = False
        for number, _ in self.poll.poll(1.0):
            if number == 0:
                told = True
                continue
            data = self.sockets[number].recv(262_144)
            if not data:
                raise ConnectionError("closed by the server")
            if timestamps := TIMESTAMP.findall(data):
                self.events[number] += len(timestamps)
                self.ages.append(time.time() * 1_000 - int(timestamps[-1]))
        return told

    def heard(self) -> Heard:
        now, ages = time.monotonic(), self.ages or [0.0]
        heard = Heard(
            seconds=now - self.since,
            events=sum(self.events.values()),
            fewest=min(self.events.values()),
            age_p50=percentile(ages, 50),
            age_p99=percentile(ages, 99),
        )
        self.ages, self.since = [], now
        self.events = dict.fromkeys(self.events, 0)
        return heard


def _main(port: int, kind: str, clients: int) -> None:
    ears = _Ears(port, kind, clients)
    while not all(ears.events.values()):
        if time.monotonic() > ears.since + PATIENCE:
            raise TimeoutError("not all clients were served")
        ears.listen()
    print(json.dumps(attrs.asdict(ears.heard())), flush=True)
    ears.poll.register(0, select.EPOLLIN)
    while True:
        if ears.listen():
            if not os.read(0, 1_024):
                return
            print(json.dumps(attrs.asdict(ears.heard())), flush=True)


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
