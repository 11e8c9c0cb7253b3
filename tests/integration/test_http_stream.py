"""/stream and /ws on a real port: their format, their beginning, and all ways in which they end."""

from __future__ import annotations

import json
import socket
import struct
from contextlib import contextmanager

import pytest
import trio
from slow_machine import within
from stream_clients import event_source, web_socket
from test_http_fakes import AWKWARD, TIME, eventually, serving
from wsproto.events import BytesMessage, Ping, TextMessage

from marketflow.adapters.http import server as http_server
from marketflow.app.answers import Latest, PriceEvent, TooManyClients

EVENT = PriceEvent(7, Latest("BTCUSDT", "exchange1", AWKWARD, TIME, "memory", 0.25))
OTHER = PriceEvent(9, Latest("ETHUSDT", "exchange2", 2e-7, TIME + 1, "memory"))
DATA = {
    "symbol": "BTCUSDT",
    "exchange": "exchange1",
    "price": AWKWARD,
    "timestamp": TIME,
    "source": "memory",
    "volume": 0.25,
}
OTHER_DATA = {
    "symbol": "ETHUSDT",
    "exchange": "exchange2",
    "price": 2e-7,
    "timestamp": TIME + 1,
    "source": "memory",
    "volume": None,
}
LARGE = "x" * 17_000


@pytest.fixture
async def server(questions):
    async with serving(questions.app(), graceful_timeout=30) as running:
        yield running


# ---- events ----


async def test_the_form_of_events(questions, server):
    async with event_source(server.port) as source:
        assert source.status == 200
        assert source.headers["content-type"].partition(";")[0] == "text/event-stream"
        assert source.headers["cache-control"] == "no-store"
        assert source.headers["x-accel-buffering"] == "no"
        assert source.headers["x-request-id"]
        beginning = await source.block()
        assert beginning.retry > 0
        questions.stream.tell(EVENT, OTHER)
        first, second = await source.prices(2)
        assert (first.event, first.id, first.data) == ("price", 7, DATA)
        assert (second.event, second.id, second.data) == ("price", 9, OTHER_DATA)


async def test_messages_are_the_same_as_events(questions, server):
    async with web_socket(server.port) as messages:
        assert messages.status == 101
        questions.stream.tell(EVENT, OTHER)
        assert await messages.messages(2) == [DATA, OTHER_DATA]


async def test_messages_are_not_compressed_though_offered(questions, server):
    async with web_socket(server.port, compress=True) as messages:
        questions.stream.tell(EVENT)
        assert await messages.message() == DATA


@pytest.mark.parametrize("length", [0, 100, 125, 126, 127, 65_535, 65_536, 100_000])
async def test_a_frame_of_any_length(questions, server, length):
    event = PriceEvent(1, Latest("BTCUSDT", "x" * length, 1.0, TIME, "memory"))
    async with web_socket(server.port) as messages:
        questions.stream.tell(event, EVENT)
        first, second = await messages.messages(2)
        assert first["exchange"] == "x" * length
        assert second == DATA


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("", (None, None)),
        ("?", (None, None)),
        ("?symbol=BTCUSDT", (("BTCUSDT",), None)),
        ("?exchange=test1", (None, ("test1",))),
        (
            "?exchange=exchange2,test1&symbol=ethusdt,BTCUSDT",
            (("ETHUSDT", "BTCUSDT"), ("exchange2", "test1")),
        ),
    ],
)
async def test_what_is_asked(questions, server, query, asked):
    async with event_source(server.port, "/stream" + query) as source:
        assert source.status == 200
        async with web_socket(server.port, "/ws" + query) as messages:
            assert messages.status == 101
            assert questions.stream.asked == [(*asked, None), (*asked, None)]


@pytest.mark.parametrize(
    ("presented", "since"),
    [
        ("7", 7),
        ("0", 0),
        ("1795343351549000123", 1_795_343_351_549_000_123),
        ("", None),
        ("-1", None),
        ("x", None),
        ("1.0", None),
        ("1" * 5_000, None),
    ],
)
async def test_the_last_event_id(questions, server, presented, since):
    """An invalid id counts as none: a client that reconnects is never refused for it."""
    async with event_source(server.port, headers=[("Last-Event-ID", presented)]) as source:
        assert source.status == 200
        assert questions.stream.asked == [(None, None, since)]


async def test_heartbeats(questions, server):
    async with event_source(server.port) as source, web_socket(server.port) as messages:
        await source.block()
        questions.stream.tell()
        assert (await source.block()).comments == ["heartbeat"]
        questions.stream.tell(EVENT)
        assert (await source.price()).data == DATA
        assert await messages.message() == DATA
        assert messages.pings == 1


async def test_an_old_client_gets_events_as_they_are(questions, server):
    """HTTP/1.0 does not know chunks, so there are none."""
    async with await server.connect() as client:
        await client.stream.send_all(b"GET /stream HTTP/1.0\r\n\r\n")
        await eventually(lambda: questions.stream.clients == 1)
        questions.stream.tell(EVENT)
        received = b""
        while b"\n\nevent: price\nid: 7\ndata: {" not in received:
            received += await client.stream.receive_some()
        assert b"chunked" not in received


async def test_a_quiet_stream_is_no_idle_connection(questions, monkeypatch):
    monkeypatch.setattr(http_server, "IDLE_TIMEOUT", 0.2)
    async with (
        serving(questions.app()) as server,
        await server.connect() as idle,
        event_source(server.port) as source,
        web_socket(server.port) as messages,
    ):
        assert await idle.read_to_end() == b""
        await trio.sleep(0.2)
        questions.stream.tell(EVENT)
        assert (await source.price()).data == await messages.message() == DATA


async def test_head_is_answered_and_takes_no_place(questions, server):
    async with await server.connect() as client:
        answer = await client.request("HEAD", "/stream?symbol=BTCUSDT")
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert (await client.get("/symbols")).status == 200
    await eventually(lambda: questions.stream.clients == 0)


# ---- refusals ----

REFUSALS = [
    ("?symbol=NOSUCH", 404, "unknown-symbol"),
    ("?symbol=", 404, "unknown-symbol"),
    ("?exchange=nowhere", 404, "unknown-exchange"),
    ("?symbl=BTCUSDT", 400, "unknown-parameter"),
    ("?symbol=BTCUSDT&symbol=ETHUSDT", 400, "repeated-parameter"),
]


async def refusals(server, query=""):
    """The answers of both routes: status, headers, problem."""
    async with await server.connect() as client:
        answer = await client.get("/stream" + query)
    async with web_socket(server.port, "/ws" + query) as messages:
        refused = messages.status, messages.headers, json.loads(messages.answer)
    return [(answer.status, answer.headers, answer.json), refused]


@pytest.mark.parametrize(("query", "status", "kind"), REFUSALS)
async def test_what_is_unknown_is_refused_before_anything_begins(server, query, status, kind):
    """A WebSocket's handshake is refused with the same problem."""
    for found, headers, problem in await refusals(server, query):
        assert found == problem["status"] == status
        assert problem["type"] == f"/problems/{kind}"
        assert headers["content-type"] == "application/problem+json"
        assert headers["x-request-id"]


async def test_too_many_clients(questions, server):
    questions.stream.error = TooManyClients(3)
    for status, headers, problem in await refusals(server):
        assert status == 503
        assert problem["type"] == "/problems/too-many-clients"
        assert int(headers["retry-after"]) > 0


async def test_not_ready(questions, server):
    questions.health.ready = False
    for status, headers, problem in await refusals(server):
        assert status == 503
        assert problem["type"] == "/problems/not-ready"
        assert headers["retry-after"] == "1"


@pytest.mark.parametrize("path", ["/nowhere", "/symbols", "/stream"])
async def test_a_web_socket_where_there_is_none(server, path):
    async with web_socket(server.port, path) as messages:
        assert messages.status == (404 if path == "/nowhere" else 400)
        assert json.loads(messages.answer)["status"] == messages.status


async def test_ws_without_a_web_socket(server):
    async with await server.connect() as client:
        answer = await client.get("/ws")
        assert answer.status == 426
        assert answer.headers["upgrade"] == "websocket"
        assert answer.json["type"] == "/problems/upgrade-required"
        assert (await client.request("POST", "/ws")).status == 405
        assert (await client.request("POST", "/stream")).status == 405


# ---- ends ----


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_a_client_that_leaves_gives_up_its_place(questions, server, reset):
    async with event_source(server.port) as source, web_socket(server.port) as messages:
        assert questions.stream.clients == 2
        for stream in (source.stream, messages.stream):
            if reset:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            stream.socket.close()
        await eventually(lambda: questions.stream.clients == 0)


async def test_a_client_that_asks_something_else_meanwhile(questions, server):
    """Its request waits behind the endless stream; but its disconnect is still noticed."""
    async with event_source(server.port) as source:
        await source.stream.send_all(b"GET /symbols HTTP/1.1\r\nHost: h\r\n\r\n" * 1_000)
        questions.stream.tell(EVENT)
        assert (await source.price()).data == DATA
    with trio.fail_after(15):
        while questions.stream.clients:
            questions.stream.tell()
            await trio.sleep(0.01)


async def test_a_web_socket_is_closed_by_its_client(questions, server):
    async with web_socket(server.port) as messages:
        await messages.close()
        assert messages.closed == (1000, "")
        await eventually(lambda: questions.stream.clients == 0)


async def test_what_a_client_says_is_read_and_forgotten(questions, server):
    """All of it is read, since otherwise its close would not be noticed."""
    async with web_socket(server.port) as messages:
        for n in range(50):
            await messages.send(TextMessage(f"message {n}"))
            await messages.send(BytesMessage(b"\xff" * 1_000))
        await messages.send(Ping(b"there?"))
        questions.stream.tell(EVENT)
        pong_or_message = [await messages.next_event() for _ in range(2)]
        assert {type(event).__name__ for event in pong_or_message} == {"Pong", "TextMessage"}
        await messages.close()
        await eventually(lambda: questions.stream.clients == 0)


async def test_too_large_a_message_ends_it(questions, server):
    async with web_socket(server.port) as messages:
        await messages.send(TextMessage(LARGE))
        assert await messages.message() is None
        assert messages.closed[0] == 1009
        await eventually(lambda: questions.stream.clients == 0)


async def test_too_large_a_message_ends_it_also_if_the_client_does_not_heed(questions, server):
    async with web_socket(server.port) as messages:
        await messages.send(TextMessage(LARGE))
        await eventually(lambda: questions.stream.clients == 1)
        while questions.stream.clients:
            questions.stream.tell(EVENT)
            await trio.sleep(0.01)


async def test_no_web_socket_frames(questions, server):
    async with web_socket(server.port) as messages:
        await messages.stream.send_all(b"\xff" * 100)
        await eventually(lambda: questions.stream.clients == 0)


async def test_both_end_when_the_stream_does(questions, server):
    """Events end in order, messages with the matching close code, without a wait for the client."""
    async with event_source(server.port) as source, web_socket(server.port) as messages:
        server.stop.set()
        questions.stream.end()
        with within(2):
            await source.body()
            assert source.ended
            assert await messages.message() is None
            assert messages.closed == (1001, "the service is stopping")
            await server.stopped.wait()


async def test_a_client_that_does_not_answer_the_close_is_not_waited_for_long(questions, server):
    async with web_socket(server.port):
        server.stop.set()
        questions.stream.end()
        with trio.fail_after(15):
            await server.stopped.wait()


# ---- clients that do not read ----


class Endless:
    """A stream that always has new events, and counts the calls."""

    def __init__(self):
        self.told = 0
        self.clients = 0

    @contextmanager
    def subscribed(self, *_):
        self.clients += 1
        try:
            yield self
        finally:
            self.clients -= 1

    async def receive(self):
        await trio.lowlevel.checkpoint()
        self.told += 1
        return [PriceEvent(self.told, Latest("BTCUSDT", "exchange1", 1.0, self.told, "memory"))] * 15

    async def stalled(self):
        """Wait until it was not called for a while."""
        told = -1
        while told != self.told:
            told = self.told
            await trio.sleep(0.2)


@pytest.fixture
def endless(questions, monkeypatch):
    """An endless stream, whose clients have the longer time limit of streams."""
    monkeypatch.setattr(http_server, "UNREAD_TIMEOUT_MS", 300)
    questions.stream = Endless()
    return questions.stream


@pytest.mark.parametrize("connect", [event_source, web_socket])
async def test_a_slow_client_is_not_far_behind_and_not_dropped(questions, endless, connect):
    """Little waits for it in the kernel; when it reads again it continues with the newest."""
    async with (
        serving(questions.app()) as server,
        connect(server.port, receive_buffer=4_096) as client,
    ):
        await endless.stalled()
        behind = endless.told
        assert behind * 15 * 100 < 100_000
        await trio.sleep(1.5)
        assert endless.told == behind
        assert endless.clients == 1
        timestamp = 0
        with trio.fail_after(10):
            while timestamp < behind + 100:
                told = (await client.price()).data if connect is event_source else await client.message()
                assert told["timestamp"] >= timestamp
                timestamp = told["timestamp"]


@pytest.mark.parametrize("connect", [event_source, web_socket])
@pytest.mark.parametrize("cancel", [False, True], ids=["stop", "cancel"])
async def test_a_client_that_does_not_read_cannot_hold_the_stop(questions, endless, connect, cancel):
    """The longer time limit of streams does not apply at a stop."""
    async with (
        serving(questions.app(), graceful_timeout=0.2) as server,
        connect(server.port, receive_buffer=4_096),
    ):
        await endless.stalled()
        if cancel:
            server.cancel()
        else:
            server.stop.set()
        with trio.fail_after(15):
            await server.stopped.wait()
    assert endless.clients == 0
