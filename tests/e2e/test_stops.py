"""The real program gets a stop signal: it loses nothing, reports what it did, and ends in time."""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from signal import SIGINT, SIGTERM, Signals
from urllib.parse import urlsplit

import pytest
import redis
import trio
from asking import adds_up, eventually, stored_rows
from exchange_server import HOST, ExchangeServer
from program import Program, program
from serving import running
from slow_machine import SlowClock
from traffic import SYMBOLS, line, now

from marketflow.adapters.cache.bar_fields import read_bar, read_field
from marketflow.config import Settings

Exchanges = dict[str, ExchangeServer]
Environment = dict[str, object]

RATE = 20_000
"""Updates a second, all exchanges together."""
NOWHERE = 9
"""A port on which nothing listens: only root could."""


@pytest.fixture
def environment(redis_url: str, postgres_dsn: str, tmp_path: Path, exchanges: Exchanges) -> Environment:
    """Settings of a program between the exchanges and the stores."""
    return {
        "EXCHANGES": [{"name": name, "host": HOST, "port": each.port} for name, each in exchanges.items()],
        "REDIS__URL": redis_url,
        "POSTGRES__DSN": postgres_dsn,
        "HTTP__PORT": 0,
        "AGGREGATION__INTERVAL": 2,
        "AGGREGATION__GRACE": 0.2,
        "STATE_DIR": str(tmp_path / "state"),
    }


@asynccontextmanager
async def serve(directory: Path, environment: Environment) -> AsyncIterator[Program]:
    async with program(directory, "serve", "--log-format", "json", environment=environment) as run:
        yield run


async def flow(exchanges: Exchanges, rng: random.Random, rate: int = RATE) -> None:
    """Send that many updates a second, as fast as the readers take them, to every client. Never ends."""

    async def play(exchange: ExchangeServer) -> None:
        per_chunk = rate // len(exchanges) // 50
        placeholder = 10**12
        chunk = b"".join(line(SYMBOLS[i % 5], rng.uniform(1, 2), placeholder) for i in range(per_chunk))
        due = trio.current_time()
        while True:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # the next client will come
                await exchange.send(chunk.replace(b"%d" % placeholder, b"%d" % now()))
            due = max(due + 0.02, trio.current_time() - 0.1)
            await trio.sleep_until(due)

    async with trio.open_nursery() as nursery:
        for exchange in exchanges.values():
            nursery.start_soon(play, exchange)


def members(window: redis.Redis) -> int:
    return sum(window.zcard(key) for key in window.keys("prices:*"))


def counted(window: redis.Redis) -> int:
    """The number of updates in all one-second bars."""
    return sum(
        read_bar(value, read_field(field)[0]).count
        for key in window.keys("bars:*")
        for field, value in window.hgetall(key).items()
    )


@pytest.mark.parametrize("number", [SIGTERM, SIGINT])
async def test_a_stop_in_mid_stream_loses_nothing(
    tmp_path: Path,
    environment: Environment,
    exchanges: Exchanges,
    window: redis.Redis,
    rng: random.Random,
    number: Signals,
) -> None:
    """At 20,000 updates/s it exits with 0 well within 10 s, and the ledger equals the content of Redis."""
    async with serve(tmp_path, environment) as run, trio.open_nursery() as nursery:
        client = await run.serving()
        nursery.start_soon(flow, exchanges, rng)

        async def flowing() -> bool:
            return (await client.health())["updates"]["accepted"] > 1.2 * RATE

        await eventually(flowing)
        ledger = await run.stopped(number, within=5)
        nursery.cancel_scope.cancel()
    assert ledger["accepted"] > 1.2 * RATE
    assert adds_up(ledger)
    assert (ledger["rejected"], ledger["dropped"], ledger["pending"]) == ({}, {}, 0)
    assert ledger["expired"] == 0
    assert members(window) == ledger["cached"] == ledger["accepted"]
    assert counted(window) == ledger["accepted"], "bars count every accepted update"


async def test_a_restart_in_mid_stream_makes_no_row_wrong(
    tmp_path: Path,
    settings: Settings,
    environment: Environment,
    exchanges: Exchanges,
    window: redis.Redis,
    rng: random.Random,
) -> None:
    """After stops and a start in full flow, each row counts what Redis counts."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flow, exchanges, rng)
        ledgers = []
        for _ in range(2):
            async with serve(tmp_path, environment) as run:
                client = await run.serving()

                async def flowing() -> bool:
                    return (await client.health())["updates"]["accepted"] > RATE / 4  # noqa: B023

                await eventually(flowing)
                ledgers.append(await run.stopped())
        nursery.cancel_scope.cancel()
    accepted = sum(ledger["accepted"] for ledger in ledgers)
    assert members(window) == accepted
    async with running(settings):
        dsn = settings.postgres.effective_dsn
        await eventually(lambda: sum(row.count for row in stored_rows(dsn).values()) == accepted)


async def test_a_stop_with_nothing_there(tmp_path: Path, environment: Environment) -> None:
    """Without exchanges, Redis and PostgreSQL it serves, and it stops at once."""
    environment |= {
        "EXCHANGES": [{"name": "exchange1", "host": HOST, "port": NOWHERE}],
        "REDIS__URL": f"redis://{HOST}:{NOWHERE}/0",
        "POSTGRES__DSN": f"postgresql://marketflow@{HOST}:{NOWHERE}/marketflow",
    }
    async with serve(tmp_path, environment) as run:
        client = await run.serving()
        assert (await client.get("/health/ready"))[0] == 200
        assert (await client.health())["status"] == "degraded"
        ledger = await run.stopped(within=5)
    assert ledger["received"] == 0


async def test_a_stop_with_silent_exchanges(
    settings: Settings, exchanges: Exchanges, clock: SlowClock
) -> None:
    """Silent connections are ended at once; a line without its end was not received."""
    async with running(settings) as service:
        for exchange in exchanges.values():
            await exchange.send(b'{"symbol":"BTCUSDT"')
        began = clock.seconds
    assert clock.seconds - began < 2
    with trio.fail_after(10):
        for exchange in exchanges.values():
            await exchange.left()
    assert service.report().updates.received == 0


@pytest.mark.parametrize(("number", "seconds"), [(SIGTERM, 0.0), (SIGINT, 0.1)])
async def test_a_stop_during_the_start(
    tmp_path: Path, environment: Environment, number: Signals, seconds: float
) -> None:
    """It stops cleanly if the signal comes so many seconds after its first log line."""
    async with serve(tmp_path, environment) as run:
        await run.logged("starting")
        await trio.sleep(seconds)
        run.signal(number)
        assert await run.ended(within=5) == 0
        assert run.events  # every line is an event, so there is no traceback


async def test_a_stop_while_waiting_for_another_service(
    tmp_path: Path, settings: Settings, environment: Environment
) -> None:
    """It stops while it waits, and the running service is not affected."""
    async with running(settings) as first, serve(tmp_path, environment) as second:
        await second.logged("lease on PostgreSQL awaited")
        second.signal(SIGTERM)
        assert await second.ended(within=5) == 0
        assert first.report().postgres.status == "up"


async def test_a_client_that_does_not_read_cannot_hold_the_stop(
    tmp_path: Path, environment: Environment, exchanges: Exchanges, window: redis.Redis, rng: random.Random
) -> None:
    """Nor can idle clients or half requests; and no update is lost because of them."""
    async with AsyncExitStack() as stack:
        run = await stack.enter_async_context(serve(tmp_path, environment))
        nursery = await stack.enter_async_context(trio.open_nursery())
        client = await run.serving()
        nursery.start_soon(flow, exchanges, rng, 2_000)
        for _ in range(3):
            await stack.enter_async_context(await connect(client.address))
        half = await stack.enter_async_context(await connect(client.address))
        await half.send_all(b"POST /mode/test HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
        stuck = await stack.enter_async_context(await connect(client.address))
        request = b"GET /health HTTP/1.1\r\nHost: x\r\nX: %b\r\n\r\n" % (b"x" * 8_000)
        with trio.move_on_after(40) as limit:
            while True:
                # Its answers are unread, so the service finally stops reading its requests.
                with trio.move_on_after(0.5) as patience:
                    await stuck.send_all(request)
                if patience.cancelled_caught:
                    break
        assert not limit.cancelled_caught
        ledger = await run.stopped(within=8)
        assert adds_up(ledger)
        assert ledger["dropped"] == {}
        assert members(window) == ledger["cached"] == ledger["accepted"] > 0
        nursery.cancel_scope.cancel()


async def connect(address: str) -> trio.SocketStream:
    """A connection with small buffers."""
    url = urlsplit(f"//{address}")
    connection = trio.socket.socket()
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        connection.setsockopt(socket.SOL_SOCKET, option, 4_096)
    await connection.connect((url.hostname, url.port))
    return trio.SocketStream(connection)


async def test_a_second_signal_leaves_at_once(tmp_path: Path, environment: Environment) -> None:
    """It ends even if something hangs, here a request that never ends."""
    async with serve(tmp_path, environment) as run:
        client = await run.serving()
        async with await connect(client.address) as half:
            await half.send_all(b"POST /mode/test HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
            # This answer comes after the service has received the other request.
            await client.health()
            run.signal(SIGTERM)
            await run.logged("stopping")
            run.signal(SIGINT)
            assert await run.ended(within=1) == 1
    assert run.events[-1]["event"] == "leaving at once"


async def test_during_the_stop_it_says_so_and_takes_no_new_questions(
    tmp_path: Path, environment: Environment
) -> None:
    async with serve(tmp_path, environment) as run:
        client = await run.serving()
        async with await connect(client.address) as half:
            await half.send_all(b"POST /mode/test HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
            await client.health()
            run.signal(SIGTERM)
            await run.logged("stopping")

            async def refused() -> bool:
                try:
                    status, _ = await client.get("/health")
                except OSError:
                    return True
                assert status == 503
                return False

            await eventually(refused, within=1)
        assert await run.ended() == 0


async def test_another_interval_than_the_database_remembers_is_refused(
    tmp_path: Path, settings: Settings, environment: Environment
) -> None:
    """It prints one clear line, with the exit code of a wrong configuration."""
    async with running(settings):
        pass
    environment |= {"AGGREGATION__INTERVAL": 5}
    async with program(tmp_path, "serve", "--log-level", "error", environment=environment) as run:
        assert await run.ended() == 2
    (said,) = run.stderr.splitlines()
    assert said.startswith("marketflow: aggregation.interval: ")
