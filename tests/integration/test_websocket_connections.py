"""WebSockets over real sockets: TLS, proxies, handshakes, frames, and how connections end."""

from __future__ import annotations

import base64
import json
import math
import random
import ssl
from contextlib import suppress
from functools import partial
from typing import Any

import attrs
import pytest
import trio
import trustme

from marketflow.adapters.exchange.checks import Checks
from marketflow.adapters.exchange.pacing import LITTLE, Pace
from marketflow.adapters.exchange.venues.venue import Rate
from marketflow.adapters.exchange.websocket.budget import Budget
from marketflow.adapters.exchange.websocket.codec import VenueDecoder
from marketflow.adapters.exchange.websocket.connection import Connection
from marketflow.adapters.exchange.websocket.opening import Opener
from marketflow.adapters.exchange.websocket.plain_http import MOST_BODY
from marketflow.adapters.exchange.websocket.proxy import Proxy
from marketflow.adapters.exchange.websocket.source import WebSocketSource
from marketflow.adapters.exchange.websocket.turns import Turns
from marketflow.app.ingest.backoff import Backoff
from marketflow.app.ingest.feeds import Feed
from marketflow.app.instruments.clocks import Beat, SystemClock
from tests.websocket_exchange import GONE, Exchange, PlainVenue, TokenVenue

HOST = "localhost"


@pytest.fixture(autouse=True)
async def limit():
    """No test here may hang."""
    with trio.fail_after(30):
        yield


@attrs.define
class Certificates:
    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="module")
def certificates():
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert(HOST).configure_cert(server)
    authority.configure_trust(client)
    return Certificates(server, client)


async def served(nursery, handler, tls=None):
    """The port on which connections are given to `handler`, under TLS if wanted."""

    async def serve(stream):
        async with stream:
            with suppress(*GONE):
                await handler(stream)

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    if tls is not None:
        secure = [trio.SSLListener(each, tls, https_compatible=True) for each in listeners]
        nursery.start_soon(trio.serve_listeners, serve, secure)
    else:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
    return listeners[0].socket.getsockname()[1]


class HttpProxy:
    """Makes tunnels, and notes for what it was asked."""

    def __init__(self):
        self.heads: list[bytes] = []
        self.answer = b"HTTP/1.1 200 Connection established\r\n\r\n"
        self.to: int | None = None
        """The port behind, which is that of the request otherwise."""

    async def handle(self, stream):
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive_some(1_000)
        self.heads.append(head)
        await stream.send_all(self.answer)
        if b" 200 " not in self.answer:
            return
        port = int(head.split(b" ")[1].rpartition(b":")[2])
        async with await trio.open_tcp_stream("127.0.0.1", port) as behind, trio.open_nursery() as nursery:
            nursery.start_soon(self.forward, behind, stream, nursery.cancel_scope)
            await self.forward(stream, behind, nursery.cancel_scope)

    async def forward(self, source, target, scope):
        with suppress(*GONE):
            while data := await source.receive_some(65_536):
                await target.send_all(data)
        scope.cancel()


@pytest.fixture
async def opened():
    """Opens connections, and closes their sockets in the end."""
    streams = []

    async def open_one(url, opener=None):
        made = await (opener or Opener()).open(url)
        streams.append(made.stream)
        return Connection(made.stream, made.protocol, early=made.early)

    yield open_one
    for stream in streams:
        await trio.aclose_forcefully(stream)


async def messages(connection, count=1):
    found = []
    while len(found) < count:
        found += await connection.receive()
    return found


# ---- the way there ----


async def test_tls_a_proxy_and_the_handshake(nursery, certificates, opened):
    exchange, proxy = Exchange(nursery), HttpProxy()
    port = await served(nursery, exchange.serve, certificates.server)
    through = await served(nursery, proxy.handle)
    opener = Opener(proxy=Proxy.parsed(f"http://user:p%40ss@localhost:{through}"), tls=certificates.client)
    connection = await opened(f"wss://{HOST}:{port}/stream?a=1", opener)
    (peer,) = exchange.peers
    await peer.say({"a": 1})
    assert await messages(connection) == [b'{"a": 1}']
    assert peer.request.path == "/stream?a=1"
    assert peer.request.headers["User-Agent"].startswith("marketflow/")
    assert peer.request.headers["Sec-WebSocket-Extensions"].startswith("permessage-deflate")
    credentials = base64.b64encode(b"user:p@ss")
    assert proxy.heads[0].startswith(b"CONNECT localhost:%d HTTP/1.1\r\n" % port)
    assert b"Basic " + credentials in proxy.heads[0]


async def test_an_untrusted_certificate_is_refused(nursery, certificates, opened):
    port = await served(nursery, Exchange(nursery).serve, certificates.server)
    with pytest.raises(OSError, match=r"localhost: its certificate is not trusted: .*"):
        await opened(f"wss://{HOST}:{port}/")


async def test_no_tls_where_it_is_wanted(nursery, opened):
    async def handler(stream):
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    port = await served(nursery, handler)
    with pytest.raises(OSError, match="localhost: TLS: "):
        await opened(f"wss://{HOST}:{port}/")


async def test_nobody_listens(opened):
    with trio.socket.socket() as taken:
        await taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=r"^localhost: Connection refused$"):
            await opened(f"ws://{HOST}:{port}/")
        with pytest.raises(OSError, match=r"^exchange.test: the proxy: Connection refused$"):
            await opened("ws://exchange.test/", Opener(proxy=Proxy(HOST, port)))


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            b"HTTP/1.1 429 Slow down\r\nContent-Length: 0\r\n\r\n",
            "the handshake was answered 429 Too Many Req",
        ),
        (b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", "was answered 302 Found"),
        (b"HTTP/1.1 599 Odd\r\nContent-Length: 0\r\n\r\n", "the handshake was answered 599$"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "the handshake was answered 200 OK"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "the handshake failed: .*Connection"),
        (b"SSH-2.0-OpenSSH\r\n", "the handshake failed: "),
        (b"", "the handshake failed: connection closed"),
    ],
)
async def test_a_handshake_that_is_refused_says_why(nursery, answer, text, opened):
    async def handler(stream):
        await stream.receive_some()
        await stream.send_all(answer)

    port = await served(nursery, handler)
    with pytest.raises(OSError, match=text):
        await opened(f"ws://{HOST}:{port}/")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n", "the proxy answered 407 Proxy Authentication Req"),
        (b"HTTP/1.1 200 OK\r\n\r\nmore", "the proxy sent more than its answer"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "no HTTP answer: "),
    ],
)
async def test_a_proxy_that_refuses_says_why(nursery, answer, text, opened):
    proxy = HttpProxy()
    proxy.answer = answer
    opener = Opener(proxy=Proxy(HOST, await served(nursery, proxy.handle), "user:secret"))
    with pytest.raises(OSError, match=text) as caught:
        await opened("ws://exchange.test/", opener)
    assert "secret" not in repr(caught.value) + repr(opener)


@pytest.mark.parametrize("url", ["ftp://a/", "ws://", "ws://a:b/", "ws://a b/", f"ws://{'a' * 70}/"])
async def test_a_bad_address_is_an_outage(url, opened):
    """An exchange that gives tokens gives addresses, too."""
    with pytest.raises(OSError):  # noqa: PT011 - the words differ
        await opened(url, Opener(connect_timeout=1.0))


@pytest.mark.parametrize("url", ["ws://a b/", "wss://.a/", "ws://\u00e4/"])
async def test_a_bad_address_is_an_outage_also_through_a_proxy(nursery, opened, url):
    opener = Opener(proxy=Proxy(HOST, await served(nursery, HttpProxy().handle)), connect_timeout=1.0)
    with pytest.raises(OSError):  # noqa: PT011 - the words differ
        await opened(url, opener)


@pytest.mark.parametrize("stage", ["tcp", "tls", "proxy", "handshake", "post"])
async def test_each_step_ends_in_time(nursery, certificates, stage):
    closed = trio.Event()

    async def mute(stream):
        while await stream.receive_some():
            pass
        closed.set()

    async def never(_host, _port):
        await trio.sleep_forever()

    port = await served(nursery, mute)
    opener = Opener(connect_timeout=0.2)
    match stage:
        case "tcp":
            opener = attrs.evolve(opener, connect=never)
            closed.set()
        case "proxy":
            opener = attrs.evolve(opener, proxy=Proxy(HOST, port))
    if stage == "post":
        call = partial(opener.post, f"http://{HOST}:{port}/token")
    else:
        call = partial(opener.open, f"{'wss' if stage == 'tls' else 'ws'}://{HOST}:{port}/")
    with pytest.raises(TimeoutError, match=r"^localhost: no connection within 0.2 s$"):
        await call()
    await closed.wait()  # nothing is left behind


@pytest.mark.parametrize("stage", ["tls", "proxy", "handshake"])
async def test_a_cancelled_opening_leaves_nothing_behind(nursery, stage):
    came, closed = trio.Event(), trio.Event()

    async def mute(stream):
        while await stream.receive_some():
            came.set()
        closed.set()

    port = await served(nursery, mute)
    opener = Opener(proxy=Proxy(HOST, port) if stage == "proxy" else None)
    async with trio.open_nursery() as inner:
        inner.start_soon(opener.open, f"{'wss' if stage == 'tls' else 'ws'}://{HOST}:{port}/")
        await came.wait()
        inner.cancel_scope.cancel()
    await closed.wait()


# ---- frames ----


@pytest.fixture
async def pair(nursery, opened):
    """A connection and its peer."""
    exchange = Exchange(nursery)
    port = await served(nursery, exchange.serve)
    connection = await opened(f"ws://{HOST}:{port}/")
    return connection, exchange.peers[0]


async def test_messages_of_one_receive_come_together_in_order(pair):
    connection, peer = pair
    await peer.say(*[{"n": number} for number in range(500)])
    found = await messages(connection, 500)
    assert found == [json.dumps({"n": number}).encode() for number in range(500)]


async def test_fragments_are_put_together(pair):
    """Also with a ping between two fragments, and for binary messages."""
    connection, peer = pair
    peer.protocol.send_text(b'{"a":', fin=False)
    peer.protocol.send_ping(b"")
    peer.protocol.send_continuation(b"", fin=False)
    peer.protocol.send_continuation(b"1}", fin=True)
    peer.protocol.send_binary(b'{"b"', fin=False)
    peer.protocol.send_continuation(b":2}", fin=True)
    peer.protocol.send_binary(b"{}")
    await peer.flush()
    assert await messages(connection, 3) == [b'{"a":1}', b'{"b":2}', b"{}"]
    assert connection.pings == 1


async def test_messages_are_compressed(pair):
    connection, peer = pair
    text = json.dumps(["the same"] * 10_000).encode()
    peer.protocol.send_text(text)
    writes = peer.protocol.data_to_send()
    assert len(b"".join(writes)) < len(text) / 50
    await peer.stream.send_all(b"".join(writes))
    assert await messages(connection) == [text]


@pytest.mark.parametrize("how", ["at once", "in fragments", "compressed"])
async def test_a_message_that_is_too_large_ends_the_connection(pair, how):
    connection, peer = pair
    peer.protocol.extensions = peer.protocol.extensions if how == "compressed" else []
    peer.protocol.send_text(b"[]")
    if how == "in fragments":
        peer.protocol.send_text(b"x" * 600_000, fin=False)
        peer.protocol.send_continuation(b"x" * 600_000, fin=True)
    else:
        peer.protocol.send_text(b"x" * 1_100_000)
    async with trio.open_nursery() as inner:
        inner.start_soon(peer.flush)
        assert await messages(connection) == [b"[]"]
        with pytest.raises(ConnectionError, match=r"^the exchange sent a message that is too large"):
            await messages(connection)
        await connection.close()
        inner.cancel_scope.cancel()
    while peer.close_code is None:  # noqa: ASYNC110 - the peer has no event
        await trio.sleep(0.01)
    assert peer.close_code == 1009


async def test_what_is_no_frame_ends_the_connection(pair):
    connection, peer = pair
    await peer.stream.send_all(b"\xff\xff\xff\xff")
    with pytest.raises(ConnectionError, match=r"^the exchange does not keep to the WebSocket protocol: "):
        await messages(connection)


@pytest.mark.parametrize(
    ("code", "reason", "text"),
    [
        (1000, "", "1000"),
        (1001, "bye", "1001 bye"),
        (1008, "too fast", "1008 too fast"),
        (4000, "x", "4000 x"),
    ],
)
async def test_the_close_has_its_code_and_reason(pair, code, reason, text):
    connection, peer = pair
    peer.protocol.send_text(b"{}")
    await peer.close(code, reason)
    assert await messages(connection) == [b"{}"]
    with pytest.raises(ConnectionError, match=rf"^closed by the exchange: {text}$") as caught:
        await messages(connection)
    assert connection.end is caught.value
    await connection.close()
    while peer.close_code is None:  # noqa: ASYNC110 - the peer has no event
        await trio.sleep(0.01)
    assert peer.close_code == code


async def test_an_end_without_a_close_says_so(pair):
    connection, peer = pair
    await peer.stream.aclose()
    with pytest.raises(ConnectionError, match=r"^closed by the exchange without a reason$"):
        await messages(connection)
    assert not await connection.send(lambda: b"{}")


async def test_all_records_that_have_come_are_received_together(nursery, certificates):
    """Exchanges send each message in a record of its own. In memory all of them have come for certain."""
    exchange = Exchange(nursery)

    async def connect(_host, _port):
        ours, theirs = trio.testing.memory_stream_pair()
        secure = trio.SSLStream(theirs, certificates.server, server_side=True, https_compatible=True)
        nursery.start_soon(exchange.serve, secure)
        return ours

    made = await Opener(tls=certificates.client, connect=connect).open(f"wss://{HOST}/")
    for number in range(100):
        await exchange.peers[0].say(b"%d" % number)
    connection = Connection(made.stream, made.protocol, early=made.early)
    assert await connection.receive() == [b"%d" % number for number in range(100)]


@attrs.define
class NotedPace(Pace):
    """Notes what it is to receive from."""

    noted: list[Any] = attrs.field(factory=list)

    def paced(self, connection, stopping):
        self.noted.append(connection)
        return super().paced(connection, stopping)


@pytest.mark.parametrize("secure", [False, True])
async def test_it_is_known_before_a_receive_whether_something_has_come(nursery, certificates, secure):
    """Then an exchange that sends little is not woken at beats at which there is nothing."""
    exchange, pace = Exchange(nursery), NotedPace()
    port = await served(nursery, exchange.serve, certificates.server if secure else None)
    made = await Opener(tls=certificates.client).open(f"{'wss' if secure else 'ws'}://{HOST}:{port}/")
    connection = Connection(made.stream, made.protocol, early=made.early, pace=pace)
    (paced,), (peer,) = pace.noted, exchange.peers
    for number in range(3):
        assert not paced.has_come()
        await peer.say(b"[%d]" % number)
        await until(paced.has_come)
        assert await messages(connection) == [b"[%d]" % number]
    assert not paced.has_come()
    await trio.aclose_forcefully(peer.stream)
    await until(paced.has_come)
    with pytest.raises(ConnectionError):
        await messages(connection)
    await trio.aclose_forcefully(made.stream)


@pytest.mark.parametrize("beats", [(), [(LITTLE, Beat(0.002))]], ids=["at once", "at a beat"])
async def test_a_cancelled_receive_loses_nothing(nursery, certificates, beats):
    """Under TLS, in the middle of frames and records, and of pauses."""
    exchange = Exchange(nursery)
    port = await served(nursery, exchange.serve, certificates.server)
    made = await Opener(tls=certificates.client).open(f"wss://{HOST}:{port}/")
    connection = Connection(made.stream, made.protocol, early=made.early, pace=Pace(beats))
    peer = exchange.peers[0]
    count = 300

    async def send():
        for number in range(count):
            peer.protocol.send_text(b"%d" % number)
            data = b"".join(peer.protocol.data_to_send())
            middle = number % len(data)
            await peer.stream.send_all(data[:middle])
            await trio.sleep(0.0005)
            await peer.stream.send_all(data[middle:])

    nursery.start_soon(send)
    found, cancelled, entropy = [], 0, random.Random(1)
    while len(found) < count:
        with trio.move_on_after(entropy.random() / 2_000) as scope:
            found += await connection.receive()
        cancelled += scope.cancelled_caught
    assert found == [b"%d" % number for number in range(count)]
    assert cancelled > 20
    await trio.aclose_forcefully(made.stream)


async def test_what_came_with_the_handshake_is_received(nursery, opened):
    exchange = Exchange(nursery, greetings=[{"welcome": True}])
    port = await served(nursery, exchange.serve)
    connection = await opened(f"ws://{HOST}:{port}/")
    assert await messages(connection) == [b'{"welcome": true}']


async def test_nothing_is_sent_once_we_have_closed_and_the_rest_is_received(pair, nursery):
    connection, peer = pair
    nursery.start_soon(connection.answer)
    assert await connection.send(lambda: b"{}")
    await peer.say(b"[1]")
    await connection.close()
    assert not await connection.send(lambda: b"{}")
    assert await messages(connection) == [b"[1]"]
    with pytest.raises(ConnectionError, match="closed by the exchange: 1000"):
        await messages(connection)
    assert peer.received == [{}]


# ---- the whole source ----


@attrs.define(eq=False)
class Running:
    feed: Feed
    source: WebSocketSource
    stopping: trio.Event
    ids: list[str]


async def run_source(nursery, venue, url, opener):
    names = {"a-usd": "AUSD", "b-usd": "BUSD"}
    source = WebSocketSource(
        "exchange1",
        venue,
        names,
        VenueDecoder(venue, names, Checks(frozenset(names.values()), 60_000, 120_000)),
        opener=opener,
        budget=Budget(Turns(Rate(50, 1.0))),
        clock=SystemClock(),
        entropy=random.Random(1),
        url=url,
    )
    feed = Feed(
        source,
        backoff=Backoff(0.01, 0.02, random.Random(1)),
        idle_timeout=math.inf,
        last_well=lambda: None,
    )
    run = Running(feed, source, trio.Event(), [])
    send, receive = trio.open_memory_channel(8)

    async def work():
        async for chunk in receive:
            for updates in feed.decode(chunk.payload).updates:
                run.ids += updates.columns.ids

    nursery.start_soon(work)
    nursery.start_soon(feed.run, send, run.stopping)
    return run


async def until(condition):
    while not condition():  # noqa: ASYNC110 - a test polls
        await trio.sleep(0.005)


def trade(number):
    return {"trades": [["a-usd", 1.5, SystemClock().now(), number]]}


async def test_a_source_under_tls_comes_back_and_stops(nursery, certificates):
    exchange = Exchange(nursery)
    port = await served(nursery, exchange.serve, certificates.server)
    run = await run_source(nursery, PlainVenue(), f"wss://{HOST}:{port}/", Opener(tls=certificates.client))
    await until(lambda: run.source.activity == "live")
    await exchange.peers[0].say(trade(1))
    await until(lambda: run.ids == ["1"])
    await exchange.peers[0].stream.transport_stream.aclose()
    await until(lambda: len(exchange.peers) == 2 and run.source.activity == "live")
    await exchange.peers[1].say(trade(2))
    await until(lambda: run.ids == ["1", "2"])
    # What has arrived before the stop is taken.
    await exchange.peers[1].say(trade(3))
    run.stopping.set()
    await until(lambda: run.feed.state.state == "stopped")
    await until(lambda: run.ids == ["1", "2", "3"])
    await until(lambda: exchange.peers[1].gone)
    assert exchange.peers[1].close_code == 1000


class Tokens:
    """Answers POSTs for a token, each time with another one."""

    def __init__(self, port):
        self.port = port
        self.heads: list[bytes] = []
        self.answer = None

    async def handle(self, stream):
        self.heads.append(await stream.receive_some(10_000))
        url = f"ws://{HOST}:{self.port}/?token={len(self.heads)}"
        body = json.dumps({"url": url, "ping_every": 0.05}).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
        await stream.send_all(head + body if self.answer is None else self.answer)


async def test_each_attempt_has_a_fresh_token(nursery):
    exchange = Exchange(nursery)
    tokens = Tokens(await served(nursery, exchange.serve))
    port = await served(nursery, tokens.handle)
    run = await run_source(nursery, TokenVenue(), f"http://{HOST}:{port}", Opener())
    await until(lambda: run.source.activity == "live")
    await until(lambda: {"ping": 2} in exchange.peers[0].received)  # as the endpoint wants
    await exchange.peers[0].close(1001)
    await until(lambda: len(exchange.peers) == 2 and exchange.peers[1].request)
    assert [peer.request.path for peer in exchange.peers] == ["/?token=1", "/?token=2"]
    assert tokens.heads[0].startswith(b"POST /token HTTP/1.1\r\n")
    run.stopping.set()


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            b"HTTP/1.1 429 Oh\r\nContent-Length: 0\r\n\r\n",
            "the request for a token was answered 429 Too Many",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "no endpoint in the answer"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            + (b"fff0\r\n" + b"x" * 0xFFF0 + b"\r\n") * 2,
            "is too long",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}", "no HTTP answer: "),
    ],
)
async def test_a_token_that_is_refused_says_why(nursery, answer, text):
    assert len(answer) < MOST_BODY or text == "is too long"
    tokens = Tokens(0)
    tokens.answer = answer
    port = await served(nursery, tokens.handle)
    run = await run_source(nursery, TokenVenue(), f"http://{HOST}:{port}", Opener())
    await until(partial(getattr, run.feed.state, "last_error"))
    assert text in run.feed.state.last_error
    assert run.feed.bugs == 0
    run.stopping.set()


async def test_an_endpoint_without_tls_is_refused(nursery, certificates):
    tokens = Tokens(1)
    port = await served(nursery, tokens.handle, certificates.server)
    run = await run_source(nursery, TokenVenue(), f"https://{HOST}:{port}", Opener(tls=certificates.client))
    await until(partial(getattr, run.feed.state, "last_error"))
    assert run.feed.state.last_error.endswith("has no TLS")
    run.stopping.set()
