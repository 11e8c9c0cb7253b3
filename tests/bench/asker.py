"""A client that repeats one request on many connections, each as soon as the last is answered.

It is a separate process, so that its cost is not the bench's: `python -m tests.bench.asker PORT PATH
CONNECTIONS SECONDS` prints its results as JSON.
"""

from __future__ import annotations

import json
import re
import select
import socket
import subprocess
import sys
import time

import attrs

from tests.bench.children import child
from tests.bench.rows import percentile
from tests.bench.stage import BenchError

LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
PATIENCE = 30.0
"""Seconds that the last answers may take."""


@attrs.frozen
class Answers:
    """The results."""

    rate: float
    """Answers a second."""
    p50: float
    """In ms."""
    p99: float
    longest: float
    count: int
    failed: int
    """Answers with another status than 200."""
    sample: str
    """The body of the last answer."""


def ask(port: int, path: str, *, connections: int, seconds: float) -> Answers:
    """Send requests for so long."""
    with child("tests.bench.asker", port, path, connections, seconds, stdout=subprocess.PIPE) as process:
        said, _ = process.communicate()
    if not said:
        raise BenchError(f"the client that asks for {path} has failed")
    return Answers(**json.loads(said))


class _Connection:
    def __init__(self, port: int, request: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = request
        self._received = b""
        self.asked_at = 0.0

    def ask(self) -> None:
        self._received = b""
        self.asked_at = time.perf_counter()
        self.socket.sendall(self._request)

    def answer(self) -> tuple[bytes, bytes] | None:
        """Read head and body of an answer."""
        data = self.socket.recv(262_144)
        if not data:
            raise ConnectionError("closed by the server")
        self._received += data
        head, _, body = self._received.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        return (head, body) if length and len(body) == int(length[1]) else None


def _main(port: int, path: str, connections: int, seconds: float) -> Answers:
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    poll = select.epoll()
    asking = {}
    for _ in range(connections):
        connection = _Connection(port, request)
        asking[connection.socket.fileno()] = connection
        poll.register(connection.socket, select.EPOLLIN)
    began = time.perf_counter()
    for connection in asking.values():
        connection.ask()
    took: list[float] = []
    failed, waiting, body, now = 0, connections, b"", began
    while waiting:
        if now - began > seconds + PATIENCE:
            raise TimeoutError(f"{waiting} answers have not come")
        for number, _ in poll.poll(PATIENCE):
            connection = asking[number]
            answer = connection.answer()
            now = time.perf_counter()
            if answer is None:
                continue
            took.append((now - connection.asked_at) * 1_000)
            head, body = answer
            failed += not head.startswith(b"HTTP/1.1 200")
            if now - began < seconds:
                connection.ask()
            else:
                waiting -= 1
    return Answers(
        rate=len(took) / (now - began),
        p50=percentile(took, 50),
        p99=percentile(took, 99),
        longest=max(took),
        count=len(took),
        failed=failed,
        sample=body.decode(),
    )


if __name__ == "__main__":
    seen = _main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
    print(json.dumps(attrs.asdict(seen)))
