"""Every call to Redis ends in time, with an answer or with StoreAway, with any server in its place."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import redis
import trio
from builders import until
from slow_machine import answered, within
from test_window_contract import NOON, PAIR, InRedis, every_call, put, run_of

from marketflow.adapters.cache.reading import PAIRS_PER_READ
from marketflow.app.ports import Flush, StoreAway
from marketflow.domain.periods import Span

TIMEOUT = 0.5


@asynccontextmanager
async def in_place_of_redis(serve) -> AsyncIterator[str]:
    """The URL of a server that behaves as the test wants."""
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield f"redis://127.0.0.1:{listeners[0].socket.getsockname()[1]}/0"
        nursery.cancel_scope.cancel()


async def answering(answer: bytes, stream: trio.SocketStream) -> None:
    """The same answer to every command."""
    try:
        async for part in stream:
            await stream.send_all(answer * sum(line.startswith(b"*") for line in part.split(b"\r\n")))
    except trio.BrokenResourceError:
        return


ODD_ANSWERS = {
    "a status": b"+QUEUED\r\n",
    "a number": b":1\r\n",
    "a negative number": b":-1\r\n",
    "nothing": b"$-1\r\n",
    "an empty text": b"$0\r\n\r\n",
    "a text": b"$3\r\n\xff\xfe\x00\r\n",
    "a list": b"*1\r\n$1\r\na\r\n",
    "no list": b"*-1\r\n",
    "lists of lists": b"*2\r\n*1\r\n:1\r\n*0\r\n",
    "a list of errors": b"*2\r\n-ERR inside\r\n-ERR inside\r\n",
    "an error": b"-ERR no\r\n",
    "an error without a text": b"-\r\n",
    "an error that is no UTF-8": b"-ERR \xff\xfe\r\n",
    "moved": b"-MOVED 1 127.0.0.1:1\r\n",
    "a map": b"%1\r\n$1\r\na\r\n:1\r\n",
    "a double": b",1.5\r\n",
    "a boolean": b"#t\r\n",
    "a big number": b"(123456789012345678901234567890\r\n",
    "a push": b">1\r\n$1\r\na\r\n",
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "too many": b":1\r\n:1\r\n:1\r\n",
}


@pytest.mark.parametrize("answer", ODD_ANSWERS)
async def test_an_odd_answer_is_away(answer):
    """With a proxy, another server or protocol, no error of redis-py or of ours gets through."""
    serve = partial(answering, ODD_ANSWERS[answer])
    async with in_place_of_redis(serve) as url, InRedis(url, TIMEOUT).open("boot1") as window:
        for call in (*every_call(window), *every_call(window)):
            with trio.fail_after(20):
                await check_call(call)


async def check_call(call) -> None:
    """The call fails as it should, unless the bytes happen to be an answer, such as a count of 1."""
    found = None
    with suppress(StoreAway):
        found = await call()
    match found:
        case None | bool() | tuple():
            return
        case dict():
            assert found.keys() <= {PAIR}
        case list():
            assert all(isinstance(each, int | list) for each in found)
        case _:
            raise AssertionError(found)


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..b", "no-such.invalid"])
async def test_a_host_that_is_none_is_away(host):
    """Some names never reach the resolver, and redis-py lets that error through."""
    async with InRedis(f"redis://{host}/0", TIMEOUT).open("boot1") as window:
        for call in every_call(window):
            with pytest.raises(StoreAway):
                await call()


@pytest.fixture
def silent_resolver(monkeypatch):
    """A resolver that does not answer until the test wants it; returns the number of lookups."""
    released, real, waiting = threading.Event(), socket.getaddrinfo, []

    def getaddrinfo(host, *args, **kwargs):
        if host == "silent.example":
            waiting.append(threading.get_ident())
            released.wait(30)
            waiting.pop()
            host = "127.0.0.1"
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield released, waiting
    released.set()


async def test_a_resolver_that_does_not_answer_is_away_in_time(silent_resolver, redis_url):
    """The number of waiting threads is bounded, and afterwards everything works again."""
    released, waiting = silent_resolver
    async with InRedis(redis_url.replace("127.0.0.1", "silent.example"), 0.2).open("boot1") as window:
        for call in every_call(window):
            with within(2), pytest.raises(StoreAway, match="in time"):
                await call()
        assert 1 <= len(waiting) <= 4
        with trio.move_on_after(0.05) as scope:
            await put(window)
        assert scope.cancelled_caught, "a stop does not wait for it"
        released.set()
        await until(lambda: not waiting)
        await answered(lambda: put(window, run_of([NOON])))
        assert await answered(lambda: window.counts([(PAIR, Span(NOON, NOON + 1))])) == [1]
        with redis.Redis.from_url(redis_url) as client:
            # Connections that abandoned threads still made are closed.
            await until(lambda: len(client.client_list()) <= 3)


async def test_a_peer_that_does_not_read_is_away_in_time():
    """A write that exceeds the kernel's buffers ends, and nothing more of it is sent."""

    async def never_reading(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    runs = [run_of([NOON] * 250_000)]
    async with in_place_of_redis(never_reading) as url, InRedis(url, TIMEOUT).open("boot1") as window:
        flush = window.encode(Flush(runs, []))
        for _ in range(2):
            with within(4), pytest.raises(StoreAway):
                await window.write(flush)
        assert not at_work()


async def test_a_peer_that_takes_or_gives_a_byte_now_and_then_is_away_in_time():
    """Each byte restarts the socket's time limit, but not ours."""

    async def trickling(stream: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(give, stream)
            try:
                while await stream.receive_some(1):  # noqa: ASYNC110 - a byte now and then
                    await trio.sleep(0.05)
            except trio.BrokenResourceError:
                nursery.cancel_scope.cancel()

    async def give(stream: trio.SocketStream) -> None:
        try:
            await stream.send_all(b"$1000000\r\n")
            while True:
                await stream.send_all(b"x")
                await trio.sleep(0.05)
        except trio.BrokenResourceError:
            return

    async with in_place_of_redis(trickling) as url, InRedis(url, TIMEOUT).open("boot1") as window:
        for call in (*every_call(window), *every_call(window)):
            with within(4 * TIMEOUT + 1), pytest.raises(StoreAway):
                await call()
        await until(lambda: not at_work())


def at_work() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("trio.to_thread")]


@pytest.mark.parametrize(
    "options",
    ["socket_timeout=30", "socket_connect_timeout=30", "socket_timeout=30&client_name=me&socket_keepalive=1"],
)
async def test_options_of_the_url_do_not_undo_the_time_limit(options, own_redis):
    async with InRedis(f"{own_redis.url}?{options}", TIMEOUT).open("boot1") as window:
        await answered(lambda: put(window))
        own_redis.pause()
        try:
            for call in every_call(window)[:4]:
                with within(3 * TIMEOUT), pytest.raises(StoreAway):
                    await call()
        finally:
            own_redis.resume()


async def test_options_of_the_url_are_applied(redis_url):
    host = redis_url.removesuffix("/0").replace("redis://", "REDIS://")
    url = f"{host}?db=3&client_name=mine&socket_keepalive=yes&socket_timeout=0.4"
    async with InRedis(url, TIMEOUT).open("boot1") as window:
        await answered(lambda: put(window, run_of([NOON])))
        with redis.Redis.from_url(redis_url.replace("/0", "/3")) as client:
            assert client.zcard("prices:exchange1:BTCUSDT") == 1
            assert "mine" in {each["name"] for each in client.client_list()}


@pytest.mark.parametrize(
    "option",
    ["protocol=3", "decode_responses=True", "timeout=5", "ssl_cert_reqs=none", "%64ecode_responses=1"],
)
async def test_an_option_that_is_not_allowed_is_refused(option, redis_url):
    with pytest.raises(ValueError, match="has no option"):
        async with InRedis(f"{redis_url}?{option}").open("boot1"):
            pass


async def test_each_part_of_all_bars_has_the_whole_time_limit():
    """An hour of many pairs takes longer. The next part is asked for before the last was answered."""
    asked, ahead = 0, []

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal asked
        answered = 0

        async def answer() -> None:
            nonlocal answered
            while True:
                await trio.sleep(0.6 * TIMEOUT)
                if answered < asked:
                    answered += PAIRS_PER_READ
                    ahead.append(asked - answered)
                    await stream.send_all(b"*0\r\n" * PAIRS_PER_READ)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            async for part in stream:
                asked += part.count(b"HGETALL")
                if b"CONFIG" in part:
                    await stream.send_all(b"*0\r\n")
            nursery.cancel_scope.cancel()

    pairs = [(PAIR[0], f"S{number}USDT") for number in range(3 * PAIRS_PER_READ)]
    async with in_place_of_redis(serve) as url, InRedis(url, TIMEOUT).open("boot1") as window:
        assert await window.all_bars(pairs) == {pair: {} for pair in pairs}
    assert asked == len(pairs)
    assert ahead == [PAIRS_PER_READ, PAIRS_PER_READ, 0]
