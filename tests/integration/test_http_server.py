"""The server on a real port: connections that are persistent, broken, idle, slow, or never read."""

from __future__ import annotations

import errno
import itertools
import random
import socket
import struct
from contextlib import suppress

import attrs
import pytest
import trio
from slow_machine import within
from structlog.testing import capture_logs
from test_http_fakes import LIMITS, Client, eventually, serving

from marketflow.adapters.http import asgi
from marketflow.adapters.http import server as http_server
from marketflow.adapters.http.server import open_listener


async def test_the_url_is_reported_once_it_answers(questions):
    async with serving(questions.app()) as server, await server.connect() as client:
        assert server.url == f"http://127.0.0.1:{server.port}"
        answer = await client.get("/prices/latest/BTCUSDT")
    assert answer.status == 200
    assert answer.json["price"] == 0.1 + 0.2
    assert "server" not in answer.headers


async def test_a_connection_is_kept_for_many_requests(questions):
    async with serving(questions.app()) as server, await server.connect() as client:
        for _ in range(20):
            assert (await client.get("/symbols")).status == 200
            assert (await client.get("/nowhere")).status == 404
            assert (await client.request("HEAD", "/symbols")).body == b""
            assert (await client.request("POST", "/symbols", body=b"x" * 100)).status == 405
            assert (await client.request("POST", "/mode/live", body=b"{}")).status == 200


async def test_requests_run_side_by_side(questions):
    """The last of many requests is sent while all the others wait."""
    questions.prices.hold = trio.Event()
    answers = []

    async def ask(server):
        async with await server.connect() as client:
            answers.append((await client.get("/prices/latest/BTCUSDT")).status)

    async with serving(questions.app()) as server, trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(ask, server)
        await eventually(lambda: len(questions.prices.asked) == 50)
        assert answers == []
        questions.prices.hold.set()
    assert answers == [200] * 50


async def test_one_connection_too_many_is_told_so(questions):
    """It gets the answer even without a request; others are served, and a leaving client frees a place."""
    async with serving(questions.app(), limits=attrs.evolve(LIMITS, connections=2)) as server:
        async with await server.connect() as first, await server.connect() as second:
            assert (await first.get("/symbols")).status == 200
            assert (await second.get("/symbols")).status == 200
            async with await server.connect() as third:
                answer = await third.get("/symbols")
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert "http.max_connections" in answer.json["detail"]
            async with await trio.open_tcp_stream("127.0.0.1", server.port) as silent:
                assert b"503" in await silent.receive_some()
            assert (await first.get("/symbols")).status == 200
        with trio.fail_after(15):
            while True:
                async with await server.connect() as again:
                    if (await again.get("/symbols")).status == 200:
                        break


async def test_an_answer_does_not_wait_for_a_body_that_does_not_come(questions):
    head = b"POST /symbols HTTP/1.1\r\nHost: here\r\nContent-Length: 10\r\n\r\n"
    async with serving(questions.app()) as server, await server.connect() as client:
        await client.stream.send_all(head)
        with within(0.8 * asgi.LINGER):
            assert b" 405 " in await client.stream.receive_some()


async def test_a_failed_request_leaves_the_connection_and_the_service_alive(questions):
    questions.prices.error = RuntimeError("a mistake of ours")
    async with serving(questions.app()) as server, await server.connect() as client:
        assert (await client.get("/prices/latest/BTCUSDT")).status == 500
        questions.prices.error = None
        assert (await client.get("/prices/latest/BTCUSDT")).status == 200


async def test_a_client_that_leaves_cancels_its_question(questions):
    cancelled = trio.Event()

    async def latest(symbol, exchange):
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    questions.prices.latest = latest
    async with serving(questions.app()) as server:
        async with await server.connect() as client:
            await client.stream.send_all(b"GET /prices/latest/BTCUSDT HTTP/1.1\r\nHost: h\r\n\r\n")
            await trio.testing.wait_all_tasks_blocked(0.05)
        with trio.fail_after(15):
            await cancelled.wait()


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/prices/latest/BTCUSDT%2F", 404),
        ("/prices/latest/%00", 404),
        ("/prices/latest/%0A", 404),
        ("/prices/latest/%FF%FE", 404),
        ("/prices/latest/%ED%A0%80", 404),
        ("/prices/latest/%", 404),
        ("/prices/latest/%zz", 404),
        ("/prices/latest/%3Fx", 404),
        ("/prices/latest/..%2F..%2Fetc%2Fpasswd", 404),
        ("/prices/latest/%42TCUSDT", 200),
        ("/prices/latest/" + "A" * 8000, 404),
        ("/%2e%2e/", 404),
        ("//symbols//", 404),
        ("/prices/latest?symbol=%FF", 404),
        ("/prices/latest?%FF=%FF", 400),
        ("/prices/latest?&&=", 400),
        ("/prices/latest?", 200),
        ("/candles/BTCUSDT?limit=%D9%A1", 400),
        ("http://somewhere:1/symbols", 200),
        ("http://somewhere", 200),
        ("http://[::1", 200),
        ("?x=1", 200),
        ("*", 404),
    ],
)
async def test_a_strange_target_is_a_plain_answer(questions, target, status):
    async with serving(questions.app()) as server, await server.connect() as client:
        answer = await client.get(target)
        assert answer.status == status
        if status != 200:
            assert answer.json["status"] == status
        assert (await client.get("/symbols")).status == 200


@pytest.mark.parametrize("host", [b"", b"a" * 64, b"a b", b"[::1", b"x..y", b"\xff", b"localhost:notaport"])
async def test_a_strange_host_is_no_reason_to_fail(questions, host):
    async with serving(questions.app()) as server, await server.connect() as client:
        await client.stream.send_all(
            b"GET /symbols HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n"
        )
        assert (await client.read_to_end()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("garbage", [b"\x00\xff garbage\r\n\r\n", b"GET /" + b"x" * 70_000])
async def test_what_is_no_http_is_refused(questions, garbage):
    async with serving(questions.app()) as server, await server.connect() as client:
        await client.stream.send_all(garbage)
        answer = await client.read_to_end()
        assert answer.startswith(b"HTTP/1.1 4")
        async with await server.connect() as another:
            assert (await another.get("/symbols")).status == 200


@pytest.mark.parametrize("request_line", [b"GET /symbols HTTP/1.0", b"get /symbols HTTP/1.1\r\nHost: h"])
async def test_old_and_sloppy_clients(questions, request_line):
    async with serving(questions.app()) as server, await server.connect() as client:
        await client.stream.send_all(request_line + b"\r\nConnection: close\r\n\r\n")
        assert (await client.read_to_end()).startswith(b"HTTP/1.1 200 ")


async def test_pipelined_requests_are_answered_in_order(questions):
    async with serving(questions.app()) as server, await server.connect() as client:
        first = b"GET /symbols HTTP/1.1\r\nHost: h\r\n\r\n"
        last = b"GET /mode HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        await client.stream.send_all(first * 3 + last)
        answers = await client.read_to_end()
    assert answers.count(b"HTTP/1.1 200 ") == 4
    assert answers.endswith(b'{"mode":"live","changed":false}')


async def test_the_last_answer_of_a_connection_comes_whole(questions, monkeypatch):
    """This holds even if more was requested: Hypercorn closes in one task while another one sends."""
    monkeypatch.setattr(http_server, "REQUESTS_PER_CONNECTION", 3)
    async with serving(questions.app()) as server:
        for _ in range(20):
            async with await server.connect() as client:
                await client.stream.send_all(6 * b"GET /symbols HTTP/1.1\r\nHost: h\r\n\r\n")
                answers = await client.read_to_end()
            assert answers.count(b"HTTP/1.1 200") == 3
            assert answers.count(b'"ETHUSDT"') == 3


@pytest.mark.parametrize("behind", [b"\r\n", b"x", b"GET / HTTP/1.0\r\n\r\n"])
@pytest.mark.parametrize(
    "asked",
    [b"GET /symbols HTTP/1.0\r\n\r\n", b"HEAD /none HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"],
)
async def test_what_comes_behind_a_last_request_harms_nobody(questions, asked, behind):
    """For example one more line end: while it is answered the reader finds that nothing more may follow."""
    async with serving(questions.app()) as server:
        for _ in range(20):
            async with await server.connect() as client:
                with trio.fail_after(10):
                    await client.stream.send_all(asked + behind)
                    assert (await client.read_to_end()).startswith(b"HTTP/1.1 ")
        async with await server.connect() as client:
            assert (await client.get("/symbols")).status == 200


HANDSHAKE = (
    b"GET %b HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
EMPTY_FRAME = b"\x81\x80\x00\x00\x00\x00"


@pytest.mark.parametrize("path", [b"/ws", b"/nowhere"])
async def test_a_web_socket_that_speaks_before_it_is_let_in_harms_nobody(questions, path):
    async with serving(questions.app()) as server:
        for _ in range(20):
            async with await server.connect() as client:
                with trio.fail_after(10):
                    await client.stream.send_all(HANDSHAKE % path + EMPTY_FRAME)
                    with suppress(trio.BrokenResourceError):
                        await client.read_to_end()
        async with await server.connect() as client:
            assert (await client.get("/symbols")).status == 200


PIECES = [
    b"GET /symbols HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /symbols HTTP/1.0\r\n\r\n",
    b"HEAD /symbols HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    b"GET /symbols HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}",
    b"POST /mode/test HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"POST /mode/test HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
    b"POST /mode/test HTTP/1.1\r\nHost: h\r\nContent-Length: 50\r\n\r\nhalf",
    b"GET /stream HTTP/1.1\r\nHost: h\r\n\r\n",
    HANDSHAKE % b"/ws",
    HANDSHAKE % b"/nowhere",
    EMPTY_FRAME,
    b"\x88\x80\x00\x00\x00\x00",
    b"\r\n",
    b"x",
    b"\x00\xff\r\n\r\n",
]


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_clients_send_it_ends_nobody_else(questions, seed):
    """Any of these after any other, in any pieces, with any end, many at a time, affects no other client."""
    rng = random.Random(seed)

    async def client_of(parts: list[bytes], end: str) -> None:
        with trio.move_on_after(rng.random() / 5), suppress(trio.BrokenResourceError):
            async with await server.connect() as client:
                for part in parts:
                    await client.stream.send_all(part)
                    await trio.sleep(rng.random() / 500)
                if end == "reset":
                    client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                elif end == "read":
                    await client.read_to_end()

    async with serving(questions.app()) as server:
        for _ in range(15):
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    sent = b"".join(rng.choices(PIECES, k=rng.randint(1, 5)))
                    cuts = sorted(rng.choices(range(len(sent) + 1), k=rng.randint(0, 2)))
                    parts = [sent[a:b] for a, b in itertools.pairwise([0, *cuts, len(sent)])]
                    nursery.start_soon(client_of, parts, rng.choice(["reset", "read", "close"]))
        async with await server.connect() as client:
            assert (await client.get("/symbols")).status == 200


async def test_an_offer_of_http_2_is_ignored(questions):
    offer = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABk")]
    async with serving(questions.app()) as server, await server.connect() as client:
        for _ in range(3):
            assert (await client.get("/symbols", headers=offer)).status == 200


async def test_http_2_without_asking_is_refused(questions):
    """If it stayed open, such a connection would delay a stop."""
    async with serving(questions.app()) as server, await server.connect() as client:
        await client.stream.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        with trio.fail_after(0.8 * http_server.IDLE_TIMEOUT):
            assert (await client.read_to_end()).startswith(b"HTTP/1.1 4")


async def test_what_goes_wrong_outside_of_the_routes_is_logged_too(questions):
    app = questions.app()
    handle_request = app.handle_request

    async def fail(request):
        raise RuntimeError("a mistake of ours")

    with capture_logs() as logs:
        async with serving(app) as server:
            async with await server.connect() as client:
                app.handle_request = fail
                assert (await client.get("/symbols")).status == 500
            async with await server.connect() as client:
                app.handle_request = handle_request
                assert (await client.get("/symbols")).status == 200
    [entry] = [entry for entry in logs if entry["log_level"] == "error"]
    assert entry == {
        "event": "http server logged",
        "log_level": "error",
        "message": "Error in ASGI Framework",
        "exc_info": True,
    }


# ---- stopping ----


async def test_idle_connections_do_not_hold_the_stop(questions):
    """This holds for a new one, a used one, and one with half a request."""
    async with (
        serving(questions.app(), graceful_timeout=60) as server,
        await server.connect(),
        await server.connect() as used,
        await server.connect() as halfway,
    ):
        assert (await used.get("/symbols")).status == 200
        await halfway.stream.send_all(b"GET /symb")
        server.stop.set()
        with trio.fail_after(15):
            await server.stopped.wait()
        assert await used.read_to_end() == b""


async def test_a_running_request_is_answered_before_the_end(questions):
    questions.prices.hold = trio.Event()
    async with serving(questions.app(), graceful_timeout=60) as server, await server.connect() as client:
        async with trio.open_nursery() as nursery:

            async def stop_meanwhile():
                await eventually(lambda: questions.prices.asked)
                server.stop.set()
                await trio.sleep(0.05)
                assert not server.stopped.is_set()
                questions.prices.hold.set()

            nursery.start_soon(stop_meanwhile)
            assert (await client.get("/prices/latest/BTCUSDT")).status == 200
        with trio.fail_after(15):
            await server.stopped.wait()


async def test_a_request_that_does_not_end_is_cut(questions):
    questions.prices.hold = trio.Event()
    async with serving(questions.app(), graceful_timeout=0.2) as server, await server.connect() as client:
        await client.stream.send_all(b"GET /prices/latest/BTCUSDT HTTP/1.1\r\nHost: h\r\n\r\n")
        await eventually(lambda: questions.prices.asked)
        server.stop.set()
        with trio.fail_after(15):
            await server.stopped.wait()


async def test_after_the_stop_the_port_is_free(questions):
    async with serving(questions.app()) as server:
        server.stop.set()
        await server.stopped.wait()
        open_listener("127.0.0.1", server.port).close()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux only")
@pytest.mark.parametrize("cancel", [False, True], ids=["stop", "cancel"])
async def test_a_client_that_does_not_read_cannot_hold_the_stop(questions, cancel):
    """Hypercorn shields its sends: only the socket's own time limit ends this one."""
    questions.prices.symbols = ("X" * 1000,) * 20_000
    async with serving(questions.app(), graceful_timeout=0.1) as server, await server.connect() as client:
        await client.stream.send_all(b"GET /symbols HTTP/1.1\r\nHost: h\r\n\r\n")
        assert await client.stream.receive_some(100)
        if cancel:
            server.cancel()
        else:
            server.stop.set()
        with trio.fail_after(10):
            await server.stopped.wait()


async def test_idle_connections_are_closed_in_time(questions, monkeypatch):
    """This also holds after a request, where quart-trio loses the timer, and for half a head."""
    limit = 0.8 * http_server.IDLE_TIMEOUT
    monkeypatch.setattr(http_server, "IDLE_TIMEOUT", 0.3)
    async with (
        serving(questions.app()) as server,
        await server.connect() as unused,
        await server.connect() as used,
        await server.connect() as slow,
    ):
        assert (await used.get("/symbols")).status == 200
        await slow.stream.send_all(b"GET /symbols HTTP/1.1\r\nHo")
        with trio.fail_after(limit):
            assert await unused.read_to_end() == b""
            assert await used.read_to_end() == b""
            assert await slow.read_to_end() == b""


async def test_a_cancelled_server_leaves_no_listener(questions):
    async with serving(questions.app()) as server:
        server.cancel()
        await server.stopped.wait()
        open_listener("127.0.0.1", server.port).close()


@pytest.mark.parametrize("at_a_time", [1, 5])
async def test_room_that_comes_and_goes_does_not_flood_the_log(questions, monkeypatch, at_a_time):
    """Each client that leaves makes room for one more, and then there is none again."""
    accept, failures = trio.SocketListener.accept, itertools.count(1)

    async def accept_or_not(listener):
        if next(failures) % (at_a_time + 1):
            await trio.lowlevel.checkpoint()
            raise OSError(errno.EMFILE, "Too many open files")
        return await accept(listener)

    monkeypatch.setattr(http_server, "ACCEPT_AGAIN", 0.001)
    monkeypatch.setattr(trio.SocketListener, "accept", accept_or_not)
    with capture_logs() as logs:
        async with serving(questions.app()) as server:
            for _ in range(20):
                async with await server.connect() as client:
                    assert (await client.get("/symbols")).status == 200
    told = [each for each in logs if each["event"] == "connections not accepted"]
    assert [(each["error"], each["others_since"]) for each in told] == [("Too many open files", 0)]
    assert next(failures) > 20 * at_a_time


# ---- listening ----


def test_a_port_in_use_is_said_plainly():
    with open_listener("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} is in use on 127.0.0.1") as caught:
            open_listener("127.0.0.1", port)
    assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize(("host", "port"), [("203.0.113.1", 0), ("no such host.invalid", 8080)])
def test_where_it_cannot_listen_host_and_port_are_named(host, port):
    with pytest.raises(OSError, match=f"cannot listen on {host} port {port}: ."):
        open_listener(host, port)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_names_and_addresses(host):
    with open_listener(host, 0) as listener:
        assert listener.family == socket.AF_INET
        socket.create_connection(listener.getsockname()).close()


@pytest.mark.parametrize("host", ["::1", "[::1]"])
async def test_ipv6(questions, host):
    try:
        open_listener(host, 0).close()
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    async with serving(questions.app(), host=host) as server:
        assert server.url == f"http://[::1]:{server.port}"
        async with Client(await trio.open_tcp_stream("::1", server.port)) as client:
            assert (await client.get("/symbols")).status == 200
