"""Ten thousand idle connections to the real program with default settings."""

from __future__ import annotations

import http.client
import json
import resource
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from marketflow.config import Settings
from tests.bench.processes import peak_rss
from tests.bench.stage import Service, staged, wait_until

pytestmark = pytest.mark.alone

IDLE = 10_000
MOST = Settings().http.max_connections
PER_ADDRESS = 5_000
"""Connections from one address, which has about 28,000 ports."""
RATE = 1_000
"""Lines a second during the test."""
USUAL_FILES = 1_024
OTHER_FILES = 500
MEMORY = 400_000_000
"""Bytes."""
STOP = 5.0
"""Seconds."""


@pytest.fixture
def files() -> Iterator[Callable[[int], int]]:
    """Raise the limit of open files as far as wanted and allowed; returns it."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = before[1]

    def allow(number: int) -> int:
        may = number if hard == resource.RLIM_INFINITY else min(number, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (may, hard))
        return may

    allow(USUAL_FILES)
    yield allow
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def connected(port: int, number: int) -> socket.socket:
    """The connection with this number, which sends nothing."""
    source = f"127.0.1.{1 + number // PER_ADDRESS}", 0
    return socket.create_connection(("127.0.0.1", port), timeout=30, source_address=source)


def ended(clients: list[socket.socket]) -> int:
    """The number of these that the service has closed."""
    poll = select.poll()
    for client in clients:
        poll.register(client, select.POLLRDHUP)
    return len(poll.poll(0))


def told(port: int) -> str:
    """The answer to one more connection, which sends no request."""
    with connected(port, 0) as client:
        answer = b""
        with suppress(ConnectionResetError):
            while part := client.recv(4_096):
                answer += part
        return answer.decode()


def ask(connection: http.client.HTTPConnection, path: str) -> Any:
    """Send a request on an existing connection, since a new one would be refused."""
    connection.request("GET", path)
    with connection.getresponse() as response:
        assert response.status == 200
        return json.loads(response.read())


def check_goes_on(service: Service, client: http.client.HTTPConnection) -> None:
    """Check that all updates are accepted, and that earlier clients are answered."""
    before = ask(client, "/health")["updates"]["cached"]
    began = time.monotonic()
    while time.monotonic() < began + 1:
        sent = service.exchanges.sent()
        assert len(ask(client, "/prices/latest")["prices"]) > 0
        wait_until(
            lambda sent=sent: ask(client, "/health")["updates"]["cached"] >= sent, "it goes on", seconds=3
        )
    assert ask(client, "/health")["updates"]["cached"] > before + RATE // 2
    assert ask(client, "/health")["status"] == "ok"


def test_ten_thousand_idle_connections(files: Callable[[int], int]) -> None:
    """Connections up to the limit stay, more are refused; updates, answers and the stop are not affected."""
    with ExitStack() as stack:
        clients: list[socket.socket] = []
        with staged() as stage:
            with stage.service() as service:
                # The service inherits the usual limit; it raises its own.
                count = files(IDLE + OTHER_FILES) - OTHER_FILES
                assert count > 2 * MOST, "too few files may be open"
                service.exchanges.send(RATE)
                first = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
                stack.callback(first.close)
                ask(first, "/health")
                for number in range(count):
                    clients.append(stack.enter_context(connected(service.port, number)))
                    if number % 100 == 0:
                        ask(first, "/prices/latest")
                    if number == MOST - 2:
                        assert ended(clients) == 0
                wait_until(lambda: ended(clients[MOST - 1 :]) == count - (MOST - 1), "the others are refused")
                # It refuses a few hundred at a time.
                answer = wait_until(lambda: told(service.port), "one more is told why")
                assert answer.startswith("HTTP/1.1 503 ")
                assert "http.max_connections" in answer
                check_goes_on(service, first)
                assert peak_rss(service.pid) < MEMORY
                service.exchanges.finish()
                stopping = time.monotonic()
            assert time.monotonic() - stopping < STOP
            stopped = service.events()[-1]
            assert stopped["event"] == "stopped"
            assert stopped["pending"] == 0
