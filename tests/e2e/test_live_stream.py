"""The live stream of the whole service, over Server-Sent Events and over WebSockets."""

from __future__ import annotations

import http.client
import random
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import groupby
from pathlib import Path
from signal import SIGTERM
from typing import Any

import attrs
import trio
from asking import Client, eventually
from exchange_server import HOST, ExchangeServer
from program import program
from serving import running
from slow_machine import within
from stream_clients import EventSource, event_source, web_socket
from traffic import NAMES, SYMBOLS, Sent, lines, now

from marketflow.config import Settings
from marketflow.config.settings import HttpSettings

Exchanges = dict[str, ExchangeServer]
TEST_NAMES = ("test1", "test2", "test3")


def port_of(client: Client) -> int:
    return int(client.address.rpartition(":")[2])


def as_told(sent: Sent) -> dict[str, Any]:
    """The fields that the stream sends for an update."""
    return attrs.asdict(sent) | {"source": "memory", "volume": None}


@asynccontextmanager
async def flowing(exchanges: Exchanges, rng: random.Random, *, pause: float = 0.01, times: int = 1):
    """Each exchange sends that many updates of each symbol, again and again."""

    async def play(name: str, exchange: ExchangeServer) -> None:
        while True:
            sent = [Sent(name, symbol, rng.uniform(1, 2), now()) for symbol in SYMBOLS * times]
            try:
                await exchange.send(lines(sent))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                continue  # it will reconnect
            finally:
                await trio.sleep(pause)

    async with trio.open_nursery() as nursery:
        for name, exchange in exchanges.items():
            nursery.start_soon(play, name, exchange)
        yield
        nursery.cancel_scope.cancel()


async def test_updates_come_out_as_they_went_in(settings: Settings, exchanges: Exchanges) -> None:
    """At a rate that a client can follow it gets every update, with the fields of /prices/latest."""
    async with running(settings) as service:
        port = port_of(service.client)
        async with (
            event_source(port, "/stream") as events,
            web_socket(port, "/ws?symbol=BTCUSDT&exchange=exchange2") as messages,
        ):
            ids = []
            with trio.fail_after(30):
                for n in range(5):
                    for name, exchange in exchanges.items():
                        sent = Sent(name, "BTCUSDT", 100_000 + n / 7, now())
                        await exchange.send(lines([sent]))
                        event = await events.price()
                        assert event.data == as_told(sent)
                        ids.append(event.id)
                        if name == "exchange2":
                            assert await messages.message() == as_told(sent)
            assert ids == sorted(set(ids))


async def test_a_client_that_comes_again_gets_what_is_new(settings: Settings, exchanges: Exchanges) -> None:
    """From the same boot it gets the changes since its last event, from the next boot all. Ids grow."""

    async def send(name: str, symbol: str, price: float) -> Sent:
        sent = Sent(name, symbol, price, now())
        await exchanges[name].send(lines([sent]))
        return sent

    async with running(settings) as service, event_source(port_of(service.client)) as events:
        known = [await send("exchange1", "BTCUSDT", 1.0), await send("exchange2", "ETHUSDT", 2.0)]
        with trio.fail_after(30):
            told = await events.prices(2)
        assert {event.data["exchange"]: event.data for event in told} == {
            sent.exchange: as_told(sent) for sent in known
        }
        had = [("Last-Event-ID", str(told[-1].id))]
    async with running(settings) as service:
        port = port_of(service.client)
        new = await send("exchange3", "BTCUSDT", 3.0)
        await service.accepted(1)
        with trio.fail_after(30):
            async with event_source(port, headers=had) as events:
                told = await events.prices(3)
            assert min(event.id for event in told) > int(had[0][1])
            found = sorted((event.data for event in told), key=lambda each: each["price"])
            assert found == [as_told(sent) for sent in (*known, new)]
            async with event_source(port, headers=[("Last-Event-ID", str(told[0].id))]) as events:
                assert await events.prices(2) == told[1:]


async def test_a_client_that_does_not_read_gets_the_newest(
    settings: Settings, exchanges: Exchanges, rng: random.Random
) -> None:
    """A client that reads again skips the missed updates and is up to date."""
    async with running(settings) as service:
        port = port_of(service.client)
        async with event_source(port, "/stream?exchange=exchange1", receive_buffer=4_096) as events:

            def accepted() -> int:
                return service.report().exchanges["exchange1"].updates.accepted

            async with flowing(exchanges, rng, times=10):
                await eventually(lambda: accepted() > 5_000, within=60)
            last = Sent("exchange1", "BTCUSDT", 7.0, now() + 1)
            await exchanges["exchange1"].send(lines([last]))
            count = 0
            with trio.fail_after(30):
                while (await events.price()).data != as_told(last):
                    count += 1
            assert count < 500


def post(client: Client, path: str) -> int:
    connection = http.client.HTTPConnection(client.address, timeout=10)
    try:
        connection.request("POST", path)
        return connection.getresponse().status
    finally:
        connection.close()


async def test_the_mode_is_switched_there_and_back(
    settings: Settings, exchanges: Exchanges, rng: random.Random
) -> None:
    """The stream goes on with the other mode's exchanges, and never mixes the two."""
    told: list[str] = []
    named: list[str] = []

    async def listen(source: EventSource, names: list[str]) -> None:
        while True:
            names.append((await source.price()).data["exchange"])

    async with running(settings) as service, flowing(exchanges, rng):
        port = port_of(service.client)
        async with (
            event_source(port) as source,
            event_source(port, "/stream?exchange=test2") as of_one,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(listen, source, told)
            nursery.start_soon(listen, of_one, named)
            await eventually(lambda: set(told) == set(NAMES))
            for mode, names in (("test", TEST_NAMES), ("live", NAMES), ("test", TEST_NAMES)):
                assert await trio.to_thread.run_sync(post, service.client, f"/mode/{mode}") == 200
                seen = len(told)
                await eventually(lambda: set(told[seen:]) >= set(names))  # noqa: B023 - waited for
            nursery.cancel_scope.cancel()
    modes = [mode for mode, _ in groupby("test" if name in TEST_NAMES else "live" for name in told)]
    assert modes == ["live", "test", "live", "test"]
    assert set(named) == {"test2"}


async def test_two_hundred_clients(settings: Settings, exchanges: Exchanges, rng: random.Random) -> None:
    """All of them get prices all the time, and their places are free when they have left."""
    limited = attrs.evolve(settings, http=HttpSettings(port=0, max_stream_clients=200))

    async def listen(port: int, number: int) -> None:
        if number % 2:
            async with event_source(port) as events:
                await events.prices(20)
        else:
            async with web_socket(port) as messages:
                await messages.messages(20)

    async with running(limited) as service, flowing(exchanges, rng, pause=0.05):
        port = port_of(service.client)
        for _ in range(2):
            with trio.fail_after(30):
                async with trio.open_nursery() as nursery:
                    for number in range(200):
                        nursery.start_soon(listen, port, number)

            async def free() -> bool:
                async with event_source(port) as events:
                    return events.status == 200

            await eventually(free)


async def test_as_many_clients_as_may_be(settings: Settings, exchanges: Exchanges) -> None:
    limited = attrs.evolve(settings, http=HttpSettings(port=0, max_stream_clients=2))
    async with running(limited) as service:
        port = port_of(service.client)
        async with event_source(port), web_socket(port) as messages:
            async with event_source(port) as refused:
                assert refused.status == 503
                assert int(refused.headers["retry-after"]) > 0
            async with web_socket(port) as also:
                assert also.status == 503
            await messages.close()
            async with event_source(port) as again:
                assert again.status == 200


async def test_a_stop_ends_all_streams_at_once(
    redis_url: str, postgres_dsn: str, tmp_path: Path, exchanges: Exchanges, rng: random.Random
) -> None:
    """Clients that read get an orderly end; one that does not read delays the stop only for its grace."""
    environment = {
        "EXCHANGES": [{"name": name, "host": HOST, "port": each.port} for name, each in exchanges.items()],
        "REDIS__URL": redis_url,
        "POSTGRES__DSN": postgres_dsn,
        "HTTP__PORT": 0,
        "STATE_DIR": str(tmp_path / "state"),
    }
    async with program(tmp_path, "serve", "--log-format", "json", environment=environment) as run:
        port = port_of(await run.serving())
        async with flowing(exchanges, rng), AsyncExitStack() as stack:
            events = await stack.enter_async_context(event_source(port))
            messages = await stack.enter_async_context(web_socket(port))
            for connect in (event_source, web_socket):
                await stack.enter_async_context(connect(port, receive_buffer=4_096))
            await events.price()
            await trio.sleep(1)  # unread data has filled its buffers

            async def read_events() -> None:
                await events.body()
                assert events.ended

            async def read_messages() -> None:
                while await messages.message() is not None:
                    pass
                assert messages.closed == (1001, "the service is stopping")

            with within(4):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(read_events)
                    nursery.start_soon(read_messages)
                    run.signal(SIGTERM)
                assert await run.ended() == 0
        assert [each for each in run.events if each["level"] not in {"info", "debug"}] == []
