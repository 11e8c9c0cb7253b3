"""Faulty and hostile HTTP clients: the service goes on accepting updates, and stops in time."""

from __future__ import annotations

import itertools
import resource
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from rig import Service, all_sent, eventually, exchanges, playing, service, settings_for
from slow_machine import SlowClock, within
from structlog.testing import capture_logs

from marketflow.adapters.http import app as http_app
from marketflow.adapters.http import server as http_server

GONE = (trio.BrokenResourceError, trio.ClosedResourceError)
PACE = 40
"""The least updates a second, of the 60 to 90 that are sent."""


@attrs.frozen
class Target:
    """A service under attack."""

    service: Service
    port: int

    async def connected(self, *, receive_buffer: int | None = None) -> trio.SocketStream:
        sock = trio.socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await sock.connect(("127.0.0.1", self.port))
        return trio.SocketStream(sock)

    async def told(self, request: bytes, *, within: float = 20.0) -> bytes:
        """The answer to raw bytes, up to the end of the connection."""
        answer = b""
        with trio.fail_after(within):
            async with await self.connected() as stream:
                with suppress(*GONE):
                    await stream.send_all(request)
                with suppress(*GONE):
                    while part := await stream.receive_some(65_536):
                        answer += part
        return answer

    async def goes_on(self, seconds: float = 1.0) -> None:
        """Check that it accepts updates at their rate, and answers all other clients."""
        players = self.service.players
        accepted = self.service.updates.accepted
        before = sent = len(all_sent(players))
        end = trio.current_time() + seconds
        with within(2 * seconds + 2):
            while trio.current_time() < end or sent - before < PACE * seconds:
                health = await self.service.get("/health")
                assert all(each["status"] in {"connected", "off"} for each in health["exchanges"].values())
                assert (await self.service.get("/prices/latest/BTCUSDT"))["price"] > 0
                await trio.sleep(0.1)
                sent = len(all_sent(players))
            await eventually(lambda: self.service.updates.accepted - accepted >= 0.8 * (sent - before))


@pytest.fixture
def target(redis_url: str, postgres_dsn: str, tmp_path: Path, clock: SlowClock) -> Any:
    """Makes a service that must stop in order and in time at the end of the block."""

    @asynccontextmanager
    async def made(**http: object) -> AsyncIterator[Target]:
        async with exchanges("exchange1", "exchange2") as players:
            settings = settings_for(players, redis_url, postgres_dsn, tmp_path, http=http)
            # The watcher would be one connection too many.
            watched = "max_connections" not in http
            async with service(settings, players, watched=watched) as it:
                async with playing(*players):
                    await eventually(lambda: it.updates.accepted)
                    yield Target(it, int(it.url.rpartition(":")[2]))
                await it.received_all()
                stopping = clock.seconds
            assert clock.seconds - stopping < 5

    return made


HEAD = b"GET /prices/latest/BTCUSDT HTTP/1.1\r\nHost: h\r\n"


async def side_by_side(count: int, attack: Callable[[int], Awaitable[object]]) -> None:
    """Run many copies at a time."""
    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(attack, number)


def statuses(answer: bytes) -> list[int]:
    """The statuses of all answers on a connection."""
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def end(stream: trio.SocketStream, *, resets: bool) -> None:
    """Close the connection at once."""
    if resets:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


async def trickle(stream: trio.SocketStream, text: Iterable[bytes]) -> None:
    """Send a little every 50 ms, until the peer closes the connection."""
    with suppress(*GONE):
        for part in text:
            await stream.send_all(part)
            await trio.sleep(0.05)


async def asks(stream: trio.SocketStream) -> bytes:
    """Ask for a price; returns the whole answer."""
    answer = b""
    with trio.fail_after(30):
        await stream.send_all(HEAD + b"\r\n")
        while not answer.endswith(b"}"):
            part = await stream.receive_some(4_096)
            if not part:
                break
            answer += part
    return answer


async def ends(stream: trio.SocketStream) -> bytes:
    """Read until the end."""
    answer = b""
    with suppress(*GONE):
        while part := await stream.receive_some(65_536):
            answer += part
    return answer


LORISES: dict[str, Callable[[], Iterable[bytes]]] = {
    "request line": lambda: itertools.repeat(b"G"),
    "headers": lambda: itertools.chain([HEAD], itertools.repeat(b"X-A: b\r\n")),
    "one header": lambda: itertools.chain([HEAD + b"X-A: "], itertools.repeat(b"a")),
    "blank lines": lambda: itertools.repeat(b"\r\n"),
}
"""What each of them sends, made for each connection, since Python 3.14 cannot copy an iterator."""


@pytest.mark.parametrize("text", LORISES.values(), ids=LORISES)
async def test_a_slow_loris_is_shaken_off(target, monkeypatch, text) -> None:
    """A client that sends a byte now and then is disconnected when its time is over."""
    monkeypatch.setattr(http_server, "IDLE_TIMEOUT", 1.0)
    async with target() as it, trio.open_nursery() as nursery:

        async def attack(_: int) -> None:
            stream = await it.connected()
            nursery.start_soon(trickle, stream, text())
            with trio.fail_after(13):
                await ends(stream)
            await stream.aclose()

        nursery.start_soon(side_by_side, 50, attack)
        await it.goes_on(2)


async def test_a_body_that_comes_by_the_byte_is_not_waited_for(target, monkeypatch) -> None:
    """It is disconnected, and half a POST switches nothing."""
    monkeypatch.setattr(http_app, "BODY_TIMEOUT", 1)
    answers: list[bytes] = []
    async with target() as it, trio.open_nursery() as nursery:

        async def attack(_: int) -> None:
            stream = await it.connected()
            head = b"POST /mode/test HTTP/1.1\r\nHost: h\r\nContent-Length: 10000\r\n\r\n"
            nursery.start_soon(trickle, stream, itertools.chain([head], itertools.repeat(b"x")))
            with trio.fail_after(20):
                answers.append(await ends(stream))
            await stream.aclose()

        nursery.start_soon(side_by_side, 30, attack)
        await it.goes_on(2)
        await eventually(lambda: len(answers) == 30, within=8)
        assert (await it.service.get("/mode"))["mode"] == "live"
        nursery.cancel_scope.cancel()
    assert {status for answer in answers for status in statuses(answer)} == {408}


async def test_clients_that_leave_in_the_middle(target) -> None:
    """After half a request, or before the answer, by a close or a reset: the service is not affected."""
    with capture_logs() as logs:
        async with target() as it:
            openings = [b"", b"GET /pri", HEAD, HEAD + b"\r\n", (HEAD + b"\r\n") * 20]
            openings += [b"GET /stream HTTP/1.1\r\nHost: h\r\n\r\n"]
            openings += [b"POST /mode/test HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab"]

            async def attack(number: int) -> None:
                stream = await it.connected()
                with suppress(*GONE):
                    await stream.send_all(openings[number % len(openings)])
                end(stream, resets=number % 2 == 0)

            for _ in range(4):
                await side_by_side(50, attack)
            await it.goes_on()
            assert (await it.service.get("/mode"))["mode"] == "live"
    assert [each for each in logs if each["log_level"] == "error"] == []


@pytest.mark.parametrize("resets", [False, True], ids=["in order", "by a reset"])
async def test_two_hundred_connections_end_at_once(target, resets) -> None:
    """Streams and idle connections, closed together, free their places."""
    async with target(max_connections=210) as it:
        streams = [await it.connected() for _ in range(200)]
        for number, stream in enumerate(streams):
            await stream.send_all((HEAD if number % 2 else b"GET /stream HTTP/1.1\r\nHost: h\r\n") + b"\r\n")
            assert b" 200 " in await stream.receive_some(100)
        for stream in streams:
            end(stream, resets=resets)

        async def room() -> bool:
            again = [await it.connected() for _ in range(200)]
            for stream in again:
                await stream.send_all(HEAD + b"\r\n")
            answers = [await stream.receive_some(100) for stream in again]
            for stream in again:
                await stream.aclose()
            return all(b" 200 " in answer for answer in answers)

        await eventually(room, within=10, every=0.5)
        await it.goes_on()


async def test_heads_of_a_megabyte(target) -> None:
    """They are refused before they are complete, with any content."""
    heads = [
        HEAD + b"X-A: " + b"a" * 2**20 + b"\r\n\r\n",
        HEAD + b"".join(b"X-%d: a\r\n" % number for number in range(100_000)) + b"\r\n",
        b"GET /" + b"a" * 2**20 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /prices/latest?" + b"symbol=BTCUSDT&" * 70_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        HEAD + b"Cookie: " + b"a=b; " * 200_000 + b"\r\n\r\n",
        b"A" * 2**20,
    ]
    answers: list[list[int]] = []
    async with target() as it:

        async def attack(number: int) -> None:
            answers.append(statuses(await it.told(heads[number % len(heads)])))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(side_by_side, 30, attack)
            await it.goes_on()
    # A client that is still sending may lose the answer to the reset that follows.
    assert all(answer in ([400], [414], [431], []) for answer in answers)
    assert [400] in answers or [431] in answers


async def test_idle_connections_by_the_hundred(target) -> None:
    """Connections up to the limit are served, and each one more gets an error at once."""
    limit = 600
    _allow_files(3 * limit)
    async with target(max_connections=limit) as it, AsyncExitStack() as stack:
        kept = await stack.enter_async_context(await it.connected())
        for _ in range(limit + 200):
            await stack.enter_async_context(await it.connected())
        refused = await stack.enter_async_context(await it.connected())
        with trio.fail_after(20):
            assert b" 503 " in await refused.receive_some(100)
        before = it.service.updates.accepted
        for _ in range(10):
            assert b" 200 " in await asks(kept)
            await trio.sleep(0.1)
        assert it.service.updates.accepted > before + PACE // 2
        report = it.service.running.report()
        assert report.status == "ok"


def _allow_files(number: int) -> None:
    """Raise the limit of open files: the program raises its own, but here both ends are in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < number:
        pytest.skip(f"not more than {hard} files may be open here")
    if soft != resource.RLIM_INFINITY and soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))


async def test_clients_that_never_read(target) -> None:
    """Clients that request much and read nothing use no memory, and do not delay a stop."""
    async with target() as it, AsyncExitStack() as stack:
        for number in range(60):
            stream = await stack.enter_async_context(await it.connected(receive_buffer=2_048))
            path = (b"/openapi.json", b"/stream", b"/metrics")[number % 3]
            request = b"GET " + path + b" HTTP/1.1\r\nHost: h\r\n\r\n"
            await stream.send_all(request * (50 if number % 3 != 1 else 1))
        await it.goes_on(3)


METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "get", "X" * 50]
BODIES = [
    b"Content-Length: 5\r\n\r\nabcde",
    b"Content-Length: -1\r\n\r\n",
    b"Content-Length: x\r\n\r\n",
    b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx",
    b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"Content-Length: 99999999999999999999\r\n\r\nabc",
    b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
    b"Expect: the impossible\r\n\r\n",
    b"Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n" + b"[" * 100_000,
    b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 99\r\n\r\n",
]
TRICKS = [
    *["/..", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc%2fpasswd", "/assets/../../x"],
    *["/assets/%2e%2e/%2e%2e/pages.py", "/assets/..%2fpages.py", "/assets/..%5cpages.py", "/assets/%00"],
    *["/assets//etc/passwd", "/%2fetc/passwd", "//etc/passwd", "/./symbols", "/symbols/.", "/symbols;x=1"],
    *["/prices/latest/%00", "/prices/latest/BTCUSDT%00", "/prices/latest/%EF%BC%A2TCUSDT"],
    *["/prices/latest/%D0%92TCUSDT", "/prices/latest/BTC%E2%80%8BUSDT", "/prices/latest/%F0%9F%98%80"],
    *["/prices/latest/%ff", "/prices/latest/%25%30%30", "/prices/latest/{symbol}", "/prices/latest/%7B%7D"],
    *["/prices/latest/prices:exchange1:BTCUSDT", "/prices/latest/exchange1%3ABTCUSDT", "/prices/latest/*"],
    *[
        "/prices/highest/BTCUSDT?period=%D9%A1m",
        "/prices/highest/BTCUSDT?period=1m%00",
        "/candles/BTCUSDT?limit=1_0",
    ],
    *["/candles/BTCUSDT?start=" + "9" * 400, "/candles/BTCUSDT?start=-0", "/candles/BTCUSDT?limit=1e2"],
    *["/prices/average/BTCUSDT?period=" + "9" * 4_000 + "d", "/prices/latest?exchange=%0d%0aX-Injected:%201"],
    *["/symbols?%", "/symbols?=&=&", "/symbols#x", "/problems/../x", "/problems/%2e%2e", "/docs/..", "/ws?x"],
]


async def test_wrong_methods_bodies_and_paths(target) -> None:
    """Any method, body and path on every route gives an answer other than 5xx, or ends the connection."""
    with capture_logs() as logs:
        async with target(token="guarded") as it:  # noqa: S106
            described = await it.service.get("/openapi.json")
            paths = [path.replace("{", "").replace("}", "") for path in described["paths"]] + ["/", "/docs"]
            requests = [
                *[(method, path, b"\r\n") for method in METHODS for path in paths if path != "/stream"],
                *[("POST", path, body) for path in ("/mode/test", "/prices/latest", "/x") for body in BODIES],
                *[("GET", path, body) for path in ("/symbols", "/ws") for body in BODIES],
                *[(method, trick, b"\r\n") for trick in TRICKS for method in ("GET", "POST")],
            ]
            answers: dict[tuple[str, str, bytes], bytes] = {}

            async def attack(number: int) -> None:
                for method, path, body in requests[number::20]:
                    head = f"{method} {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n".encode()
                    try:
                        answers[method, path, body] = await it.told(head + body)
                    except trio.TooSlowError:
                        raise AssertionError(f"no end: {method} {path} {body[:50]!r}") from None

            async with trio.open_nursery() as nursery:
                nursery.start_soon(side_by_side, 20, attack)
                await it.goes_on()
            await it.goes_on()
            assert (await it.service.get("/mode"))["mode"] == "live"
    assert len(answers) > 300
    for asked, answer in answers.items():
        codes = statuses(answer)
        # There is one answer for each request, except for 1xx; a body without a clear end may get none.
        # HTTP defines 501 for an unknown encoding.
        known = b"gzip, chunked" not in asked[2]
        assert all(code < 500 or (code == 501 and not known) for code in codes), (asked, answer[:300])
        assert codes or asked[2] != b"\r\n", asked
        if asked[1] in TRICKS:
            assert b"root:" not in answer, asked
            assert b"import annotations" not in answer, asked
            assert b"\r\nX-Injected" not in answer, asked
    assert [each for each in logs if each["log_level"] == "error"] == []
