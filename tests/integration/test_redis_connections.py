"""Connections to Redis: how they are made, what is said on them first, and when they end."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import attrs
import pytest
import redis
import trio
import trio.lowlevel
import trustme
from builders import until
from slow_machine import within
from test_window_contract import NOON, PAIR, InRedis, every_call, put, run_of
from tls_front import tls_front

from marketflow.app.ports import Flush, StoreAway, StoreRefuses
from marketflow.domain.periods import Span

TIMEOUT = 10.0
"""Of calls that must not wait for it, in seconds."""
AT_ONCE = 1.5
"""For a call that fails before that, in seconds of the slow clock."""
SPAN = [(PAIR, Span(NOON, NOON + 1))]
"""A question of one command: its reply is a number."""
Behave = Callable[[int, trio.SocketStream], Awaitable[None]]
"""Gets the number of the connection, and serves it; the connection is closed afterwards."""


@attrs.define
class Peer:
    """A server that is no Redis."""

    port: int = 0
    connections: int = 0
    open: int = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


@asynccontextmanager
async def peer(behave: Behave) -> AsyncIterator[Peer]:
    made = Peer()

    async def serve(stream: trio.SocketStream) -> None:
        made.connections += 1
        made.open += 1
        with suppress(trio.BrokenResourceError):
            await behave(made.connections, stream)
        await trio.aclose_forcefully(stream)
        made.open -= 1

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        made.port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield made
        nursery.cancel_scope.cancel()


async def until_closed(stream: trio.SocketStream) -> None:
    while await stream.receive_some():
        pass


async def fails_in_time(call, match: str | None = None) -> None:
    with within(AT_ONCE), pytest.raises(StoreAway, match=match):
        await call()


# ---- the first commands ----


@pytest.fixture
def users(own_redis):
    """A Redis with a user and a password for all others."""
    with redis.Redis.from_url(own_redis.url) as client:
        client.execute_command("ACL", "SETUSER", "someone", "on", ">s3cret/!", "~*", "&*", "+@all")
        client.config_set("requirepass", "def@ult")
    return own_redis


LOGINS = {
    "user in the URL": ("someone:s3cret%2F!@", ""),
    "user in the query": ("", "username=someone&password=s3cret%2F!&"),
    "default user": (":def%40ult@", ""),
    "default user in the query": ("", "password=def%40ult&"),
}


@pytest.mark.parametrize("login", LOGINS)
@pytest.mark.parametrize("over", ["tcp", "unix"])
async def test_login_name_and_database(users, login, over):
    """Each connection logs in, has its name, and is in the database that the URL names."""
    authority, query = LOGINS[login]
    query += "client_name=mine&db=3"
    plain = f"redis://{{}}127.0.0.1:{users.port}" if over == "tcp" else users.unix_url.replace("//", "//{}")
    url = f"{plain.partition('?')[0].format(authority)}?{query}"
    async with InRedis(url, TIMEOUT).open("boot1") as window:
        await put(window, run_of([NOON]))
        assert await window.counts(SPAN) == [1]
        with redis.Redis(port=users.port, password="def@ult", db=3) as client:  # noqa: S106
            assert client.zcard("prices:exchange1:BTCUSDT") == 1
            ours = [each for each in client.client_list() if each["name"] == "mine"]
            assert [each["db"] for each in ours] == ["3", "3"]
            user = "someone" if "user in the" in login and "default" not in login else "default"
            assert {each["user"] for each in ours} == {user}


@pytest.mark.parametrize("login", ["someone:wr0ng@", ":wr0ng@", "nobody:wr0ng@", ""])
async def test_a_wrong_login_is_away(users, login):
    """The error gives the reason without the password, and no connection stays open."""
    async with InRedis(f"redis://{login}127.0.0.1:{users.port}/0", TIMEOUT).open("boot1") as window:
        for call in every_call(window):
            with pytest.raises(StoreAway, match=r"WRONGPASS|NOAUTH") as caught:
                await call()
            assert not isinstance(caught.value, StoreRefuses)
            assert "wr0ng" not in str(caught.value)
        with redis.Redis(port=users.port, password="def@ult") as client:  # noqa: S106
            await until(lambda: len(client.client_list()) == 1)


async def test_a_database_that_is_none_is_away(redis_url):
    async with InRedis(redis_url.replace("/0", "/9999"), TIMEOUT).open("boot1") as window:
        await fails_in_time(lambda: put(window), "DB index is out of range")


@pytest.mark.parametrize("over", ["tcp", "unix"])
async def test_no_thread_is_used_for_an_update(monkeypatch, redis_server, redis_url, over):
    """Not to connect, to write, or for a short answer."""

    async def fail(*_, **__):
        raise AssertionError("a thread")

    monkeypatch.setattr(trio.to_thread, "run_sync", fail)
    url = redis_url if over == "tcp" else redis_server.unix_url
    async with InRedis(url, TIMEOUT).open("boot1") as window:
        for call in every_call(window):
            await call()
        await window.post(window.encode(Flush([run_of([NOON] * 50_000)], [])))
        await window.collect()


# ---- what Redis answers ----


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", True),
        ("READONLY You can't write against a read only replica.", True),
        ("MOVED 1 127.0.0.1:1", True),
        ("MOVED x", True),
        ("NOPERM this user has no permissions", True),
        ("CLUSTERDOWN Hash slot not served", True),
        ("LOADING Redis is loading the dataset in memory", False),
        ("NOAUTH Authentication required.", False),
        ("ERR max number of clients reached", False),
    ],
)
async def test_an_error_refuses_a_command_or_ends_the_connection(error, refused):
    """After a refusal the connection goes on, after the others a new one is made."""

    async def behave(_: int, stream: trio.SocketStream) -> None:
        # Nothing but the marker is written: SET, GET, PEXPIRE.
        while await stream.receive_some():
            await stream.send_all(b"$-1\r\n$-1\r\n-%b\r\n" % error.encode())

    async with peer(behave) as there, InRedis(there.url, TIMEOUT).open("boot1") as window:
        for _ in range(3):
            with pytest.raises(StoreAway) as caught:
                await put(window)
            assert isinstance(caught.value, StoreRefuses) is refused
            assert error in str(caught.value)
        assert there.connections == (1 if refused else 3)


async def test_replies_come_in_pieces_of_one_byte():
    """Several writes on their way, whose replies come byte by byte."""
    answers = b"$-1\r\n$7\r\nboot2\r\n\r\n:1\r\n$7\r\nboot1:1\r\n$-1\r\n:0\r\n"

    async def behave(_: int, stream: trio.SocketStream) -> None:
        await stream.receive_some()
        for place in range(len(answers)):
            await stream.send_all(answers[place : place + 1])
            await trio.lowlevel.checkpoint()
        await until_closed(stream)

    async with peer(behave) as there, InRedis(there.url, TIMEOUT).open("boot1") as window:
        nothing = window.encode(Flush((), ()))
        assert await window.post(nothing)
        assert not await window.post(nothing), "another marker, or none, was found by the first"
        assert window.met.holder == "boot2\r\n"
        assert await window.collect()
        assert window.met.holder is None


# ---- cancelled, hanging, closed ----


@pytest.mark.parametrize("half", [b"", b":", b":4", b":41\r"])
async def test_a_question_that_is_cancelled_in_the_middle_of_its_reply(half):
    """Its connection is closed at once: the next question does not take the rest for its reply."""
    received = trio.Event()

    async def behave(number: int, stream: trio.SocketStream) -> None:
        await stream.receive_some()
        if number == 1:
            await stream.send_all(half)
            received.set()
            await until_closed(stream)
        else:
            await stream.send_all(b":7\r\n")
            await until_closed(stream)

    async with peer(behave) as there, InRedis(there.url, TIMEOUT).open("boot1") as window:
        with within(AT_ONCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(window.counts, SPAN)
                await received.wait()
                nursery.cancel_scope.cancel()
        await until(lambda: there.open == 0)
        assert await window.counts(SPAN) == [7]
        assert await window.counts(SPAN[:0]) == []
        assert there.connections == 2


@pytest.mark.parametrize("at", ["the question", "the login", "connecting", "waiting for a turn"])
async def test_a_cancelled_question_leaves_nothing_behind(at):
    async def behave(_: int, stream: trio.SocketStream) -> None:
        if at != "the login":
            await stream.receive_some()
        await until_closed(stream)

    async with peer(behave) as there:
        url = there.url.replace("//", "//:secret@") if at == "the login" else there.url
        async with InRedis(url, TIMEOUT).open("boot1") as window:
            if at == "connecting":
                with trio.move_on_after(0):
                    await window.counts(SPAN)
            else:
                async with trio.open_nursery() as nursery:
                    for _ in range(6 if at == "waiting for a turn" else 1):
                        nursery.start_soon(window.counts, SPAN)
                    await until(lambda: there.open == (4 if at == "waiting for a turn" else 1))
                    nursery.cancel_scope.cancel()
            await until(lambda: there.open == 0)


PHASES = ["connecting", "TLS", "login", "reply", "half a reply"]


@asynccontextmanager
async def full_backlog(host: str = "127.0.0.1") -> AsyncIterator[int]:
    """The port of a listener that the kernel makes no more connections to."""
    with socket.create_server(
        (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET
    ) as listener:
        listener.listen(0)
        filler = socket.create_connection(listener.getsockname()[:2])
        yield listener.getsockname()[1]
        filler.close()


@asynccontextmanager
async def hanging(phase: str, *, closes: bool = False) -> AsyncIterator[str]:
    """The URL of a server that hangs in this phase, or closes the connection."""

    async def behave(_: int, stream: trio.SocketStream) -> None:
        await stream.receive_some()
        if phase == "half a reply":
            await stream.send_all(b"$100\r\nabc")
        if not closes:
            await until_closed(stream)

    async with peer(behave) as there, full_backlog() as full:
        match phase:
            case "connecting":
                yield f"redis://127.0.0.1:{full}/0"
            case "TLS":
                yield there.url.replace("redis:", "rediss:")
            case "login":
                yield there.url.replace("//", "//:secret@")
            case _:
                yield there.url


@pytest.mark.parametrize("phase", PHASES)
async def test_a_server_that_hangs_is_away_in_time(phase):
    async with hanging(phase) as url, InRedis(url, 0.2).open("boot1") as window:
        for call in every_call(window):
            await fails_in_time(call, "in time")
        with trio.move_on_after(0.05) as scope:
            await window.counts(SPAN)
        assert scope.cancelled_caught


@pytest.mark.parametrize("phase", PHASES[1:])
async def test_a_server_that_closes_is_away_at_once(phase):
    async with hanging(phase, closes=True) as url, InRedis(url, TIMEOUT).open("boot1") as window:
        for call in every_call(window):
            await fails_in_time(call)


async def test_a_limit_of_the_url_for_connecting_is_kept():
    """It covers all steps: here the login."""
    async with hanging("login") as url, InRedis(f"{url}?socket_connect_timeout=0.1", 30).open("boot1") as w:
        for call in every_call(w):
            # Without a processor for so long, even an earlier step is over time.
            await fails_in_time(call, "no connection in time")


async def test_a_connection_that_was_closed_while_idle_is_replaced(redis_url):
    """Nobody notices: neither the next write nor the next question fails."""
    async with InRedis(redis_url, TIMEOUT).open("boot1") as window:
        with redis.Redis.from_url(redis_url) as client:
            for _ in range(3):
                await put(window, run_of([NOON]))
                assert await window.counts(SPAN) == [1]
                client.client_kill_filter(skipme=True)
                await until(lambda: len(client.client_list()) == 1)


async def test_what_nobody_asked_for_ends_a_connection():
    """Else it would be taken for the next reply."""

    async def behave(number: int, stream: trio.SocketStream) -> None:
        while await stream.receive_some():
            await stream.send_all(b":%d\r\n:99\r\n" % number)

    async with peer(behave) as there, InRedis(there.url, TIMEOUT).open("boot1") as window:
        for number in range(1, 4):
            assert await window.counts(SPAN) == [number]


async def test_a_reply_that_is_far_too_long_is_away(monkeypatch):
    """It is given up before it fills the memory, and long before the time limit."""
    monkeypatch.setattr("marketflow.adapters.cache.connection.MOST_REPLIED", 2_000_000)
    sent = 0

    async def behave(_: int, stream: trio.SocketStream) -> None:
        nonlocal sent
        await stream.receive_some()
        await stream.send_all(b"$536870912\r\n")
        while True:
            await stream.send_all(bytes(65_536))
            sent += 65_536

    async with peer(behave) as there, InRedis(there.url, 30).open("boot1") as window:
        for call in every_call(window):
            sent = 0
            await fails_in_time(call, "more than 2,000,000 bytes|unexpected answer")
            assert sent < 20_000_000  # the kernel's buffers have the rest
        await until(lambda: there.open == 0)


# ---- addresses ----


@pytest.mark.parametrize("host", ["127.0.0.1%25x", "127.0.0.1.example", "1.2.3.4.5", "[fe80::1%25nowhere]"])
async def test_only_an_address_is_looked_up_without_a_thread(monkeypatch, host):
    """Whatever is none may ask a name server, and would stop the whole service meanwhile."""
    real, threads = socket.getaddrinfo, []

    def getaddrinfo(*args, flags=0, **kwargs):
        if not flags & socket.AI_NUMERICHOST:
            threads.append(threading.current_thread())
            raise socket.gaierror(socket.EAI_NONAME, "no such host")
        return real(*args, flags=flags, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    async with InRedis(f"redis://{host}:1/0", TIMEOUT).open("boot1") as window:
        await fails_in_time(lambda: put(window), "no such host|not known")
    assert threading.main_thread() not in threads


def resolving_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> str:
    """The URL of a host with these addresses."""
    real = socket.getaddrinfo

    def getaddrinfo(host, port, *args, **kwargs):
        if host == "several.example":
            return [found for where in addresses for found in real(*where, type=socket.SOCK_STREAM)]
        return real(host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return "redis://several.example/0"


async def test_the_next_address_is_tried_soon(monkeypatch, redis_server, redis_url):
    """The first does not answer, the second refuses: the third is used, well within the time limit."""
    async with full_backlog() as port:
        good = ("127.0.0.1", redis_server.port)
        url = resolving_to(monkeypatch, ("127.0.0.1", port), ("127.0.0.1", 1), good)
        async with InRedis(url, 5).open("boot1") as window:
            with within(3):
                await put(window, run_of([NOON]))
            assert await window.counts(SPAN) == [1]


async def test_ipv4_is_tried_soon_while_ipv6_does_not_answer(monkeypatch, redis_server):
    """All addresses of IPv6 come first, as from most resolvers, and lead nowhere."""
    async with full_backlog("::1") as port:
        url = resolving_to(monkeypatch, *[("::1", port)] * 8, ("127.0.0.1", redis_server.port))
        async with InRedis(url, 5).open("boot1") as window:
            with within(1.5):
                await put(window, run_of([NOON]))


async def test_no_address_answers(monkeypatch):
    url = resolving_to(monkeypatch, ("127.0.0.1", 1), ("::1", 1))
    async with InRedis(url, TIMEOUT).open("boot1") as window:
        await fails_in_time(lambda: put(window), "several.example:6379: .*refused")


@pytest.mark.parametrize("path", ["/nowhere/redis.sock", f"/{'x' * 200}"])
async def test_a_unix_socket_that_is_none_is_away(path):
    async with InRedis(f"unix://{path}", TIMEOUT).open("boot1") as window:
        for call in every_call(window):
            await fails_in_time(call, "redis.sock|path too long")


async def test_a_unix_socket_that_vanishes_is_away_until_it_is_there_again(own_redis):
    path = Path(urlsplit(own_redis.unix_url).path)
    gone = path.with_suffix(".gone")
    async with InRedis(own_redis.unix_url, TIMEOUT).open("boot1") as window:
        await put(window, run_of([NOON]))
        os.replace(path, gone)  # noqa: PTH105 - pathlib counts as blocking in a coroutine
        await put(window)  # A connection outlives the name of its socket.
        with redis.Redis.from_url(own_redis.url) as client:
            client.client_kill_filter(skipme=True)
        for call in every_call(window):
            await fails_in_time(call, f"{path}: No such file")
        os.replace(gone, path)  # noqa: PTH105 - the same
        await put(window)
        assert await window.counts(SPAN) == [1]


# ---- TLS ----


async def test_a_key_with_a_password_and_a_client_without(tmp_path, redis_server, redis_url):
    """With a wrong password or none, or a key alone, Redis is away."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - trustme's own

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    mine = authority.issue_cert("client")
    mine.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    key = serialization.load_pem_private_key(mine.private_key_pem.bytes(), None)
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"hunter2"),
        )
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(server)
    server.verify_mode = ssl.CERT_REQUIRED

    async with tls_front(redis_server.port, server) as there:
        base = f"rediss://127.0.0.1:{there.port}/0?ssl_ca_certs={tmp_path}/ca.pem"
        mine_is = f"{base}&ssl_certfile={tmp_path}/cert.pem&ssl_keyfile={tmp_path}/key.pem"
        async with InRedis(f"{mine_is}&ssl_password=hunter2", TIMEOUT).open("boot1") as window:
            await put(window, run_of([NOON]))
            assert await window.counts(SPAN) == [1]
        for wrong in (f"{mine_is}&ssl_password=wr0ng", mine_is, base, f"{base}&ssl_keyfile=/nowhere.pem"):
            async with InRedis(wrong, TIMEOUT).open("boot1") as window:
                with within(AT_ONCE), pytest.raises(StoreAway) as caught:
                    await put(window)
                assert "wr0ng" not in str(caught.value)


async def test_an_odd_answer_while_another_write_is_on_its_way():
    """Its connection ends, or the next write would get the replies to the one that was given up."""

    async def behave(number: int, stream: trio.SocketStream) -> None:
        good = b"$-1\r\n$-1\r\n:0\r\n"
        await stream.receive_some()
        await stream.send_all(b"+PONG\r\n" + good if number == 1 else good)
        while await stream.receive_some():
            await stream.send_all(good)

    async with peer(behave) as there, InRedis(there.url, TIMEOUT).open("boot1") as window:
        nothing = window.encode(Flush((), ()))
        await window.post(nothing)
        with pytest.raises(StoreAway, match="unexpected answer"):
            await window.post(nothing)
        for _ in range(3):
            await put(window)
        assert there.connections == 2


class Joining(trio.abc.HalfCloseableStream):
    """Holds back what is sent while `held` is not None."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.held: bytes | None = None

    async def send_all(self, data):
        if self.held is None:
            await self.stream.send_all(data)
        else:
            self.held += bytes(data)

    async def release(self):
        data, self.held = self.held, None
        await self.stream.send_all(data)

    async def receive_some(self, max_bytes=None):
        return await self.stream.receive_some(max_bytes)

    async def wait_send_all_might_not_block(self):
        await self.stream.wait_send_all_might_not_block()

    async def send_eof(self):
        await self.stream.send_eof()

    async def aclose(self):
        await self.stream.aclose()


async def test_what_nobody_asked_for_ends_a_connection_with_tls(tmp_path):
    """It may be decrypted only when it is asked for: the socket has nothing more then."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    async def behave(number: int, stream: trio.SocketStream) -> None:
        below = Joining(stream)
        secure = trio.SSLStream(below, context, server_side=True)
        while await secure.receive_some():
            below.held = b""
            await secure.send_all(b":%d\r\n" % number)
            await secure.send_all(b":99\r\n")
            await below.release()

    async with peer(behave) as there:
        url = f"{there.url.replace('redis:', 'rediss:')}?ssl_ca_certs={tmp_path}/ca.pem"
        async with InRedis(url, 5).open("boot1") as window:
            for number in range(1, 4):
                assert await window.counts(SPAN) == [number]
