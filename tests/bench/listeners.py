"""Clients of the live stream, many of them, that only count what they are told.

A process of their own, so that what they cost is not the service's: `python -m tests.bench.listeners PORT
KIND COUNT` says LISTENING once all of them have been told something; then for each line of stdin, a number of
seconds, it answers with a line of JSON. KIND is `stream` or `ws`.
"""

from __future__ import annotations

import json
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from tests.bench.bench import percentile

LISTENING = "listening"
HEAD = {
    "stream": b"GET /stream HTTP/1.1\r\nHost: bench\r\n\r\n",
    "ws": b"GET /ws HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
}
LARGEST = 256 * 1024
PATIENCE = 60.0
"""Seconds that the first events may take."""

_TIMESTAMP = re.compile(rb'"timestamp":(\d+)')


@attrs.frozen
class Heard:
    """What all listeners together were told in some seconds."""

    sends: int
    events: int
    least: int
    """Sends to the client that got the fewest."""
    p50: float
    """Age in ms, on its arrival, of the newest event of a send."""
    p99: float
    longest: float


class Listeners:
    """Told for how long to listen. Use `listening`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        assert self._answer() == LISTENING

    def listen(self, seconds: float) -> Heard:
        """Count for so long."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"%r\n" % seconds)
        self._process.stdin.flush()
        return Heard(**self._answer())  # type: ignore[arg-type]

    def _answer(self) -> object:
        assert self._process.stdout is not None
        answer: object = json.loads(self._process.stdout.readline())
        return answer


@contextmanager
def listening(port: int, kind: str, count: int) -> Iterator[Listeners]:
    """So many of them; an exchange must be sending."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.listeners", str(port), kind, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        try:
            yield Listeners(process)
        finally:
            process.kill()


def main() -> None:
    """Connect, and listen whenever told to."""
    port, kind, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    poll = select.epoll()
    clients = {}
    for _ in range(count):
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(HEAD[kind])
        client.settimeout(0.0)
        clients[client.fileno()] = client
        poll.register(client, select.EPOLLIN)
    waiting, deadline = set(clients), time.monotonic() + PATIENCE
    while waiting and time.monotonic() < deadline:
        for number, _ in poll.poll(1.0):
            if _TIMESTAMP.search(_received(clients[number])):
                waiting.discard(number)
    assert not waiting, f"{len(waiting)} of {count} were told nothing"
    print(json.dumps(LISTENING), flush=True)
    for line in sys.stdin:
        print(json.dumps(attrs.asdict(_listened(poll, clients, float(line)))), flush=True)


def _listened(poll: select.epoll, clients: dict[int, socket.socket], seconds: float) -> Heard:
    sends = dict.fromkeys(clients, 0)
    events = 0
    ages = []
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        for number, _ in poll.poll(left):
            found = _TIMESTAMP.findall(_received(clients[number]))
            if found:
                sends[number] += 1
                events += len(found)
                ages.append(time.time() * 1_000 - int(found[-1]))
    return Heard(
        sum(sends.values()),
        events,
        min(sends.values()),
        percentile(ages, 50),
        percentile(ages, 99),
        max(ages),
    )


def _received(client: socket.socket) -> bytes:
    received = client.recv(LARGEST)
    assert received, "the service has closed a stream"
    return received


if __name__ == "__main__":
    main()
