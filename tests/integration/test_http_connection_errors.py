"""An unknown error at any stage of a connection costs only that connection."""

from __future__ import annotations

import struct
from contextlib import AsyncExitStack, suppress

import attrs
import h11
import hypercorn.protocol.ws_stream
import pytest
import trio
import wsproto.connection
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.protocol.ws_stream import Handshake, WSStream
from structlog.testing import capture_logs
from test_http_fakes import TIME, FakeStream, eventually, serving

from marketflow.adapters.http import app as http_app
from marketflow.adapters.http import asgi, hypercorn_parts
from marketflow.adapters.http import server as http_server
from marketflow.adapters.http.app import App
from marketflow.adapters.http.asgi import HttpRequest
from marketflow.adapters.http.connection_errors import LOG_EVERY, ConnectionErrors, Fence
from marketflow.adapters.http.ending import Ending
from marketflow.adapters.http.hypercorn_parts import Conversation, Hypercorn
from marketflow.adapters.http.idle import IdleTimer
from marketflow.adapters.http.peers import Peer, Peers
from marketflow.adapters.http.sending import Sending
from marketflow.adapters.http.strict_http import StrictHttp
from marketflow.adapters.http.wire import ClientWire
from marketflow.app.answers import Latest, PriceEvent


class UnknownError(Exception):
    """An error that no list of exceptions has."""


class AlienError(BaseException):
    """The same from a library whose error is not even an `Exception`."""


GET = b"GET /symbols HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST /symbols HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}"
LAST = b"GET /symbols HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
EVENTS = b"GET /stream HTTP/1.1\r\nHost: h\r\n\r\n"
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def frame(opcode: int, payload: bytes) -> bytes:
    """A client's frame, masked with zeros."""
    length = len(payload)
    size = struct.pack("!B", 0x80 | length) if length < 126 else struct.pack("!BH", 0x80 | 126, length)
    return bytes([0x80 | opcode]) + size + bytes(4) + payload


HELLO = frame(1, b"hello")
PING = frame(9, b"ping")
CLOSE = frame(8, struct.pack("!H", 1000))
TOO_LARGE = frame(1, b"x" * 20_000)


@attrs.frozen
class Stage:
    """The place where an error is raised, and the bytes with which a client gets there."""

    owner: object
    name: str
    sent: bytes
    then: bytes = b""
    """Bytes to send after the answer."""
    is_async: bool = True
    of_server: bool = False
    """Whether the class is also used by the test's clients: then only the server's own object must fail."""

    def __str__(self) -> str:
        what = "WebSocket" if self.sent.startswith(HANDSHAKE) else "HTTP/1.1"
        return f"{what} {getattr(self.owner, '__name__', self.owner)}.{self.name}"


STAGES = [
    # ---- HTTP/1.1: set up, read, parse, ask, answer, send, keep, close ----
    Stage(Peers, "serve", GET),
    Stage(Peer, "__init__", GET, is_async=False),
    Stage(ClientWire, "__init__", GET, is_async=False),
    Stage(Peer, "run", GET),
    Stage(Peer, "answering", GET, is_async=False),
    Stage(Hypercorn, "tasks", GET, is_async=False),
    Stage(Hypercorn, "converse", GET, is_async=False),
    Stage(hypercorn_parts, "parse_socket_addr", GET, is_async=False),
    Stage(StrictHttp, "__init__", GET, is_async=False),
    Stage(trio.SocketStream, "receive_some", GET, of_server=True),
    Stage(Conversation, "receive", GET),
    Stage(h11.Connection, "receive_data", GET, is_async=False, of_server=True),
    Stage(h11.Connection, "next_event", GET, is_async=False, of_server=True),
    Stage(StrictHttp, "next_event", GET, is_async=False),
    Stage(ClientWire, "busy", GET),
    Stage(IdleTimer, "busy", GET, is_async=False),
    Stage(HTTPStream, "handle", GET),
    Stage(http_app, "origin_form", GET, is_async=False),
    Stage(HttpRequest, "__init__", GET, is_async=False),
    Stage(HttpRequest, "__call__", GET),
    Stage(HttpRequest, "__call__", POST),
    Stage(App, "handle_request", GET),
    Stage(App, "handle_request", POST),
    Stage(App, "handle_request", EVENTS),
    Stage(asgi, "encode_headers", GET, is_async=False),
    Stage(asgi, "encode_headers", POST, is_async=False),
    Stage(ClientWire, "hold", GET, is_async=False),
    Stage(ClientWire, "release", GET),
    Stage(ClientWire, "release", POST),
    Stage(ClientWire, "send", GET),
    Stage(ClientWire, "send", EVENTS),
    Stage(Sending, "hold", GET, is_async=False),
    Stage(Sending, "release", GET),
    Stage(Sending, "send", GET),
    Stage(Ending, "shielded", GET, is_async=False),
    Stage(h11.Connection, "send", GET, is_async=False, of_server=True),
    Stage(trio.SocketStream, "send_all", GET, of_server=True),
    Stage(trio.SocketStream, "send_all", POST, of_server=True),
    Stage(trio.SocketStream, "send_all", EVENTS, of_server=True),
    Stage(trio.SocketStream, "send_all", b"nonsense\r\n\r\n", of_server=True),
    Stage(h11.Connection, "start_next_cycle", GET, is_async=False, of_server=True),
    Stage(ClientWire, "idle", GET),
    Stage(IdleTimer, "idle", GET, is_async=False),
    Stage(IdleTimer, "run", GET),
    Stage(trio.SocketStream, "aclose", GET, of_server=True),
    Stage(ClientWire, "close", LAST),
    Stage(Sending, "close", LAST),
    Stage(Ending, "soon", LAST, is_async=False),
    Stage(Conversation, "broken", LAST),
    Stage(Conversation, "received_all", LAST),
    Stage(IdleTimer, "end", LAST, is_async=False),
    Stage(trio.SocketStream, "send_eof", LAST, of_server=True),
    Stage(trio.SocketStream, "aclose", LAST, of_server=True),
    # ---- WebSocket: handshake, accept, read, parse, tell, send, close ----
    Stage(Handshake, "__init__", HANDSHAKE, is_async=False),
    Stage(StrictHttp, "next_event", HANDSHAKE, is_async=False),
    Stage(WSStream, "handle", HANDSHAKE),
    Stage(http_app, "without_messages", HANDSHAKE),
    Stage(App, "handle_websocket", HANDSHAKE),
    Stage(FakeStream, "subscribed", HANDSHAKE, is_async=False),
    Stage(Handshake, "accept", HANDSHAKE, is_async=False),
    Stage(trio.SocketStream, "receive_some", HANDSHAKE, HELLO, of_server=True),
    Stage(Conversation, "receive", HANDSHAKE, HELLO),
    Stage(wsproto.connection.Connection, "receive_data", HANDSHAKE, HELLO, is_async=False),
    Stage(wsproto.connection.Connection, "events", HANDSHAKE, HELLO, is_async=False),
    Stage(wsproto.connection.Connection, "send", HANDSHAKE, PING, is_async=False),
    Stage(wsproto.connection.Connection, "send", HANDSHAKE, CLOSE, is_async=False),
    Stage(wsproto.connection.Connection, "send", HANDSHAKE, TOO_LARGE, is_async=False),
    Stage(hypercorn.protocol.ws_stream.WebsocketBuffer, "extend", HANDSHAKE, HELLO, is_async=False),
    Stage(StrictHttp, "close_web_socket", HANDSHAKE, TOO_LARGE, is_async=False),
    Stage(ClientWire, "send_last", HANDSHAKE, TOO_LARGE),
    Stage(Sending, "send_last", HANDSHAKE, CLOSE),
    Stage(trio.SocketStream, "send_eof", HANDSHAKE, TOO_LARGE, of_server=True),
    Stage(trio.SocketStream, "send_all", HANDSHAKE, of_server=True),
    Stage(trio.SocketStream, "aclose", HANDSHAKE, CLOSE, of_server=True),
]


def failing(stage: Stage, monkeypatch, port: int, error: BaseException):
    """Make the stage fail from now on; returns a function that counts the failures."""
    raised = []
    original = getattr(stage.owner, stage.name)

    def is_servers(this) -> bool:
        if isinstance(this, h11.Connection):
            return this.our_role is h11.SERVER
        return this.socket.fileno() != -1 and this.socket.getsockname()[1] == port

    def fails(*args) -> bool:
        if stage.of_server and not is_servers(args[0]):
            return False
        raised.append(args)
        return True

    def sync(*args, **options):
        if fails(*args):
            raise error
        return original(*args, **options)

    async def not_sync(*args, **options):
        if fails(*args):
            raise error
        return await original(*args, **options)

    monkeypatch.setattr(stage.owner, stage.name, not_sync if stage.is_async else sync)
    return raised


async def told(server) -> str:
    """The server's own metrics, read over a good connection."""
    while True:
        # On a busy machine the short idle timer of a test may end a connection before it has asked.
        with suppress(trio.BrokenResourceError):
            async with await server.connect() as client:
                return (await client.get("/metrics")).body.decode()


async def ended(stream) -> None:
    """Wait until the server ends the connection, by a close or a reset."""
    with trio.fail_after(20), suppress(trio.BrokenResourceError):
        while await stream.receive_some():
            pass


async def provoke(stage: Stage, server, patch, error: BaseException):
    """Send what the stage is about, wait until the server ends the connection; returns what was raised."""
    raised = [] if stage.then else failing(stage, patch, server.port, error)
    async with await server.connect() as client:
        with suppress(trio.BrokenResourceError):
            if stage.then:
                await client.stream.send_all(stage.sent)
                if not (answer := await client.stream.receive_some()):
                    return raised
                assert b" 101 " in answer
                raised = failing(stage, patch, server.port, error)
            await client.stream.send_all(stage.then or stage.sent)
        await ended(client.stream)
    with trio.move_on_after(1):  # The last stages come after the end.
        await eventually(lambda: raised)
    return raised


@pytest.mark.parametrize("kind", [UnknownError, AlienError], ids=["Exception", "BaseException"])
@pytest.mark.parametrize("stage", STAGES, ids=str)
async def test_an_unknown_error_costs_its_own_connection_only(questions, monkeypatch, stage, kind):
    if kind is AlienError and stage.owner is FakeStream:
        pytest.skip("a route is asked by Quart, which takes such an error for the end of the process")
    monkeypatch.setattr(http_server, "IDLE_TIMEOUT", 0.3)
    with capture_logs() as logs:
        async with serving(questions.app()) as server, await server.connect() as other:
            assert (await other.get("/symbols")).status == 200
            with monkeypatch.context() as patch:
                raised = []
                while not raised:  # On a busy machine the idle timer may end a connection before the stage.
                    raised = await provoke(stage, server, patch, kind("never seen before"))
            assert not server.stopped.is_set()
            count = "marketflow_http_connection_errors_total "
            (line,) = [line for line in (await told(server)).splitlines() if line.startswith(count)]
            assert float(line.removeprefix(count)) >= 1
    logged = {each["event"] for each in logs if each["log_level"] == "error"}
    assert logged & {"connection failed", "http server logged", "request failed"}


async def test_others_do_not_notice(questions, monkeypatch):
    """Clients that are being answered, or read the stream at that moment, are not affected."""
    failing(Stage(Handshake, "__init__", b"", is_async=False), monkeypatch, 0, UnknownError())
    async with AsyncExitStack() as stack:
        stack.enter_context(capture_logs())
        server = await stack.enter_async_context(serving(questions.app()))
        streaming = await stack.enter_async_context(await server.connect())
        asking = await stack.enter_async_context(await server.connect())
        await streaming.stream.send_all(EVENTS)
        await eventually(lambda: questions.stream.clients)
        for _ in range(20):
            async with await server.connect() as client:
                await client.stream.send_all(HANDSHAKE)
                await ended(client.stream)
            assert (await asking.get("/symbols")).status == 200
        questions.stream.tell(PriceEvent(1, Latest("BTCUSDT", "exchange1", 1.0, TIME, "memory")))
        answer = b""
        while b"BTCUSDT" not in answer:
            answer += await streaming.stream.receive_some()


@pytest.mark.parametrize(
    "header",
    [
        b"Sec-WebSocket-Protocol: \xff",
        b"Sec-WebSocket-Protocol: chat, \xc3\xa9",
        b"Sec-WebSocket-Extensions: permessage-deflate; \xe2\x82\xac",
        b"Connection: Upgrade, \xff",
        b"Sec-WebSocket-Key: \xff\xfe",
        b"Sec-WebSocket-Version: \xb2",
    ],
)
async def test_a_handshake_that_is_not_ascii_is_refused(questions, header):
    """It does not count as an error: it is a bad request."""
    request = HANDSHAKE.removesuffix(b"\r\n") + header + b"\r\n\r\n"
    async with serving(questions.app()) as server:
        async with await server.connect() as client:
            await client.stream.send_all(request)
            assert (await client.read_to_end()).startswith(b"HTTP/1.1 400 ")
        assert "marketflow_http_connection_errors_total 0.0" in await told(server)


async def test_errors_without_end_are_counted_and_not_all_logged(autojump_clock):
    """A client can cause one after the other; the log must not grow with each."""
    errors = ConnectionErrors()
    with capture_logs() as logs:
        for _ in range(1_000):
            errors.add(UnknownError())
        await trio.sleep(LOG_EVERY)
        errors.add(UnicodeError("nonsense"))
    assert errors.count == 1_001
    assert [(each["log_level"], each["others_since"]) for each in logs] == [("error", 0), ("warning", 999)]


async def test_two_sends_at_a_time_are_a_mistake_of_ours(autojump_clock):
    """A client cannot cause it: only one task of a connection sends at a time."""
    ours, _theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        ours.send_stream.send_all_hook = trio.sleep_forever
        nursery.start_soon(ours.send_all, b"x")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError) as caught:
            await ours.send_all(b"y")
        nursery.cancel_scope.cancel()
    with capture_logs() as logs:
        ConnectionErrors().add(ExceptionGroup("", [h11.RemoteProtocolError("nonsense"), caught.value]))
    assert [each["log_level"] for each in logs] == ["error"]
    assert logs[0]["exc_info"].exceptions[1] is caught.value


# ---- the fence itself ----


async def fails_while_cancelled():
    """One task fails while another one is being cancelled."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        try:
            await trio.sleep_forever()
        finally:
            raise UnknownError


async def test_a_cancellation_passes_the_fence_and_an_error_beside_it_does_not():
    reported = []
    with trio.CancelScope() as scope:
        scope.cancel()
        with Fence(reported.append):
            await fails_while_cancelled()
    assert len(reported) == 1
    scope.cancel()
    with trio.CancelScope() as scope:
        scope.cancel()
        with Fence(reported.append):
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert len(reported) == 1


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_process_passes_the_fence(end):
    reported = []
    with pytest.raises(end), Fence(reported.append):
        raise end
    assert reported == []
    mixed = BaseExceptionGroup("two tasks", [end(), ExceptionGroup("", [UnknownError()])])
    with pytest.RaisesGroup(end), Fence(reported.append):
        raise mixed
    assert [repr(each) for each in reported[0].exceptions] == ["ExceptionGroup('', [UnknownError()])"]


@pytest.mark.parametrize("sent", [GET, POST], ids=["alone", "in a group"])
async def test_an_interrupt_in_a_request_ends_the_server(questions, monkeypatch, sent):
    """Hypercorn would swallow it if it came in a group."""
    ended = pytest.RaisesGroup(KeyboardInterrupt, flatten_subgroups=True, allow_unwrapped=True)
    with ended:
        async with serving(questions.app()) as server, await server.connect() as client:
            failing(Stage(App, "handle_request", sent), monkeypatch, server.port, KeyboardInterrupt())
            await client.stream.send_all(sent)
            await eventually(server.stopped.is_set)
