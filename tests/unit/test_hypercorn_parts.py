"""What `hypercorn_parts` depends on, and the faults for which it exists.

Each test of the second half shows a fault of a library without our workaround. If one fails after an update,
the library may have fixed it: check whether the workaround that the test names can be removed.
"""

from __future__ import annotations

import inspect
from contextlib import asynccontextmanager

import h11
import pytest
import trio
import trio.testing
from hypercorn.config import Config
from hypercorn.events import Closed, RawData, Updated
from hypercorn.protocol.h11 import H2CProtocolRequiredError, H2ProtocolAssumedError, H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import TrioSingleTask, WorkerContext
from hypercorn.utils import wrap_app
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection, TrioASGIWebsocketConnection

GET = b"GET / HTTP/1.1\r\nHost: h\r\n"
HANDSHAKE = (
    GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
END = b"\r\n"


def frame(first: int, payload: bytes) -> bytes:
    """A client's short frame, masked with zeros."""
    return bytes([first, 0x80 | len(payload)]) + bytes(4) + payload


class Spoken:
    """A conversation with the real Hypercorn."""

    def __init__(self, protocol, events):
        self.protocol = protocol
        self.events = events
        """The events of Hypercorn, in order."""

    async def receive(self, data):
        await self.protocol.handle(RawData(data))
        await trio.testing.wait_all_tasks_blocked()

    @property
    def sent(self):
        return [event.data for event in self.events if isinstance(event, RawData)]


async def accepting(scope, receive, send):
    """An application that accepts a WebSocket and waits for its end, or answers a request."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
    else:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


@asynccontextmanager
async def plain(app=accepting):
    events = []

    async def send(event):
        events.append(event)

    with trio.fail_after(20), trio.CancelScope() as scope:
        async with TaskGroup() as tasks:
            protocol = H11Protocol(
                app=wrap_app(app, 0, "asgi"),
                config=Config(),
                context=WorkerContext(None),
                task_group=tasks,
                connection_state={},
                ssl=False,
                client=None,
                server=None,
                send=send,
            )
            yield Spoken(protocol, events)
            scope.cancel()


# ---- what is relied on ----


def test_the_parts_have_the_shape_that_is_used():
    parameters = list(inspect.signature(H11Protocol).parameters)
    assert parameters == [
        *["app", "config", "context", "task_group", "connection_state", "ssl", "client", "server", "send"]
    ]
    assert list(inspect.signature(TaskGroup).parameters) == []
    assert list(inspect.signature(TaskGroup().spawn).parameters) == ["func", "args"]
    assert list(inspect.signature(wrap_app).parameters) == ["app", "wsgi_max_body_size", "mode"]
    assert {"next_event", "our_state", "trailing_data"} <= set(dir(h11.Connection))


async def test_it_is_told_when_a_request_comes_and_when_it_is_answered():
    async with plain() as spoken:
        await spoken.receive(GET + END)
    assert [event for event in spoken.events if isinstance(event, Updated)] == [
        Updated(idle=False),
        Updated(idle=True),
    ]


async def test_the_parser_of_a_connection_can_be_set():
    """Hypercorn reads everything through it."""

    class Parser(h11.Connection):
        def next_event(self):
            raise h11.RemoteProtocolError("refused", error_status_hint=418)

    async with plain() as spoken:
        spoken.protocol.connection = Parser(h11.SERVER)
        await spoken.receive(GET + END)
    assert spoken.sent[0].startswith(b"HTTP/1.1 418 ")
    assert spoken.events[-1] == Closed()


async def test_each_frame_is_sent_by_a_call_of_its_own():
    """`hypercorn_parts` recognises the closing one by its first byte."""
    async with plain() as spoken:
        await spoken.receive(HANDSHAKE + END)
        await spoken.receive(frame(0x89, b"?") + frame(0x88, b"\x03\xe8"))
    assert [data[:1] for data in spoken.sent[1:]] == [b"\x8a", b"\x88"]


# ---- faults that are cured by hypercorn_parts, strict_http, peers and wire ----


async def test_hypercorn_changes_to_http_2_where_that_is_offered():
    """Workaround: `StrictHttp` drops the offer. There is no setting, and none of this works with HTTP/2."""
    async with plain() as spoken:
        with pytest.raises(H2CProtocolRequiredError):
            await spoken.receive(GET + b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + END)


async def test_hypercorn_speaks_http_2_without_being_asked():
    """Workaround: `StrictHttp` refuses its beginning."""
    async with plain() as spoken:
        with pytest.raises(H2ProtocolAssumedError):
            await spoken.receive(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")


async def test_hypercorn_compresses_a_web_socket():
    """Workaround: `StrictHttp` drops the client's offer."""
    assert [name for name in dir(Config) if "compress" in name or "extension" in name] == []
    async with plain() as spoken:
        await spoken.receive(HANDSHAKE + b"Sec-WebSocket-Extensions: permessage-deflate\r\n" + END)
    assert b"permessage-deflate" in spoken.sent[0]


async def test_hypercorn_fails_on_a_handshake_that_is_not_ascii():
    """Workaround: `StrictHttp` refuses it."""
    async with plain() as spoken:
        with pytest.raises(UnicodeDecodeError):
            await spoken.receive(HANDSHAKE + b"Sec-WebSocket-Protocol: \xff\r\n" + END)


@pytest.mark.parametrize(
    "sent",
    [HANDSHAKE.replace(b"13", b"99") + END, HANDSHAKE + END + frame(0x81, b"early")],
    ids=["version", "frames before the answer"],
)
async def test_hypercorn_leaves_a_refused_handshake_open(sent):
    """Workaround: `StrictHttp` refuses it, or `Conversation.receive` ends the connection."""

    async def silent(scope, receive, send):
        await trio.sleep_forever()

    async with plain(silent) as spoken:
        await spoken.receive(sent)
        assert spoken.sent[0].startswith(b"HTTP/1.1 400 ")
        assert Closed() not in spoken.events


async def test_hypercorn_accepts_a_handshake_with_a_body():
    """Workaround: `StrictHttp` refuses it."""
    async with plain() as spoken:
        await spoken.receive(HANDSHAKE + b"Content-Length: 5\r\n" + END)
    assert spoken.sent[0].startswith(b"HTTP/1.1 101 ")


async def test_hypercorn_keeps_what_follows_too_large_a_message():
    """Workaround: `Conversation.receive` drops it."""
    async with plain() as spoken:
        spoken.protocol.config.websocket_max_message_size = 10
        await spoken.receive(HANDSHAKE + END)
        spoken.protocol.stream.buffer.max_length = 10
        for _ in range(100):
            await spoken.receive(frame(0x01 if _ == 0 else 0x00, b"x" * 100))
        assert spoken.protocol.stream.buffer.length > 5_000


async def test_with_two_lengths_h11_keeps_the_connection():
    """Workaround: `HttpRequest` closes it (RFC 9112, 6.1)."""
    async with plain() as spoken:
        await spoken.receive(
            GET + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n" + END + b"0\r\n" + END
        )
    assert b"connection: close" not in spoken.sent[0].lower()
    assert Closed() not in spoken.events


@asynccontextmanager
async def served(config):
    """Hypercorn's own server of one connection; gives it and the client's end."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener:
            client = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
            stream = await listener.accept()
        async with client, stream:
            yield (
                TCPServer(wrap_app(accepting, 0, "asgi"), config, WorkerContext(None), {}, stream),
                client,
            )
        nursery.cancel_scope.cancel()


async def test_hypercorn_keeps_a_connection_whose_client_has_left():
    """Workaround: `Peer` ends the timer when reading ends."""
    config = Config()
    config.keep_alive_timeout = 0.5
    async with served(config) as (server, client):
        began = trio.current_time()
        await client.aclose()
        await server.run()
        assert trio.current_time() - began > 0.4


async def test_an_error_at_the_close_leaves_hypercorns_connection():
    """Workaround: `server.py` accepts connections and runs each behind a `Fence`."""

    async def fails():
        raise OSError("at the close")

    async with served(Config()) as (server, client):
        await client.aclose()
        server.config.keep_alive_timeout = 0.01
        close, server.stream.aclose = server.stream.aclose, fails
        try:
            with pytest.raises(OSError, match="at the close"):
                await server.run()
        finally:
            server.stream.aclose = close


async def test_hypercorns_send_cannot_be_cancelled():
    """Workaround: `Sending` has a time limit inside of the shield."""
    async with served(Config()) as (server, client), trio.open_nursery() as nursery:

        async def leave_later():
            await trio.sleep(0.5)
            await client.aclose()

        nursery.start_soon(leave_later)
        began = trio.current_time()
        # If the client has left it raises, since it has no protocol to notify yet.
        with trio.move_on_after(0.05), pytest.raises(AttributeError):
            await server.protocol_send(RawData(b"x" * 50_000_000))
        assert trio.current_time() - began > 0.4


async def test_hypercorn_starts_a_task_after_each_answer(autojump_clock):
    """Workaround: `IdleTimer` is one task."""
    begun = []

    async def action():
        begun.append(trio.lowlevel.current_task())
        await trio.sleep_forever()

    async with plain() as spoken:
        timer = TrioSingleTask()
        for _ in range(3):
            await timer.restart(spoken.protocol.task_group, action)
            await trio.testing.wait_all_tasks_blocked()
    assert len(set(begun)) == 3


async def test_hypercorn_keeps_an_interrupt_back_that_comes_in_a_group():
    """Workaround: `App` raises it outside of the group."""

    async def interrupted(scope, receive, send):
        raise BaseExceptionGroup("two tasks", [KeyboardInterrupt()])

    async with plain(interrupted) as spoken:
        await spoken.receive(GET + END)
    assert spoken.sent[0].startswith(b"HTTP/1.1 500 ")


async def test_a_cancellation_gets_out_of_hypercorns_nursery():
    """Workaround: `Peer` puts its own cancel scope around it."""

    async def cancel_siblings():
        trio.lowlevel.current_task().parent_nursery.cancel_scope.cancel()

    async def in_its_nursery():
        async with TaskGroup() as tasks:
            tasks.spawn(cancel_siblings)
            await trio.sleep_forever()

    with pytest.raises(trio.Cancelled):
        await in_its_nursery()


# ---- faults of quart-trio ----


async def test_quart_trio_takes_two_tasks_for_a_request_without_a_body():
    """Workaround: `HttpRequest`."""
    app, tasks = QuartTrio("test"), []

    @app.get("/")
    async def count():
        tasks.extend(trio.lowlevel.current_task().parent_nursery.child_tasks)
        return ""

    app.asgi_http_class = TrioASGIHTTPConnection
    async with plain(app) as spoken:
        await spoken.receive(GET + END)
    assert len(tasks) == 2


async def test_quart_trio_does_not_notice_a_disconnect_behind_ten_messages(autojump_clock):
    """Workaround: `without_messages`."""
    events = [{"type": "websocket.receive", "text": "hello"}] * 11 + [{"type": "websocket.disconnect"}]

    async def receive():
        return events.pop(0)

    connection = TrioASGIWebsocketConnection(QuartTrio("test"), {"type": "websocket"})
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(1) as scope:
            await connection.handle_messages(nursery, receive)
    assert scope.cancelled_caught
    assert len(events) == 1
