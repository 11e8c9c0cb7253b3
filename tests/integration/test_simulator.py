from __future__ import annotations

import json
import random
import socket
import struct
from collections.abc import Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from marketflow.adapters.exchange.checks import Checks
from marketflow.adapters.exchange.fair import FairPrices
from marketflow.adapters.exchange.faults import GARBAGE, Faults
from marketflow.adapters.exchange.lines import LineFramer, Lines
from marketflow.adapters.exchange.pacing import LITTLE, Pace
from marketflow.adapters.exchange.reading import LineReader
from marketflow.adapters.exchange.simulator import _Pace, simulate
from marketflow.adapters.exchange.tcp import TcpSource
from marketflow.adapters.exchange.wire import Decoder
from marketflow.app.ingest.backoff import Backoff
from marketflow.app.ingest.feeds import Feed
from marketflow.app.instruments.clocks import Beat, SystemClock
from marketflow.app.ports import Chunk
from marketflow.domain.prices import DUPLICATE, REASONS, SYMBOLS, UNDECIDED

LIMIT_SECONDS = 40


@pytest.fixture
async def limit():
    """No test here may hang."""
    with trio.fail_after(LIMIT_SECONDS):
        yield


@pytest.fixture
def virtual_clock():
    """Time stands still while bytes are on their way: exact, however busy the machine is."""
    return MockClock(autojump_threshold=0.01)


class VirtualWallClock:
    def now(self) -> int:
        return 1_795_343_351_549 + round(trio.current_time() * 1_000)


@asynccontextmanager
async def exchange(**settings):
    """A simulated exchange; gives its port."""
    async with trio.open_nursery() as nursery:
        settings = {"name": "exchange1", "host": "127.0.0.1", "port": 0, "seed": 1} | settings
        port = await nursery.start(partial(simulate, **settings))
        yield port
        nursery.cancel_scope.cancel()


async def read_until(stream: trio.SocketStream, enough: Callable[[bytes], bool]) -> bytes:
    """Read until the condition is met or the connection ends; returns the bytes."""
    received = bytearray()
    while not enough(received):
        data = await stream.receive_some(65_536)
        if not data:
            break
        received += data
    return bytes(received)


async def lines_from(port: int, count: int) -> list[bytes]:
    """The first whole lines of a new connection."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        received = await read_until(stream, lambda data: data.count(b"\n") >= count)
    return received.splitlines(keepends=True)[:count]


async def test_lines_and_pace_of_the_real_ones(limit, virtual_clock):
    """Five lines every 100 ms, with the current time, in exactly the form of the real ones."""
    start = VirtualWallClock().now()
    async with (
        exchange(clock=VirtualWallClock()) as port,
        await trio.open_tcp_stream("127.0.0.1", port) as stream,
    ):
        received = await read_until(stream, lambda data: data.count(b"\n") >= 30)
    updates = [json.loads(line) for line in received.splitlines()]
    assert [update["symbol"] for update in updates] == list(SYMBOLS) * 6
    assert [update["timestamp"] - start for update in updates] == [
        pytest.approx(100 * tick, abs=1) for tick in range(6) for _ in range(5)
    ]
    assert received == b"".join(
        b'{"symbol":"%s","price":%s,"timestamp":%d}\n'
        % (update["symbol"].encode(), repr(update["price"]).encode(), update["timestamp"])
        for update in updates
    )


@pytest.mark.parametrize("rate", [0.5, 100, 130, 20_000])
async def test_any_rate_is_kept(limit, virtual_clock, rate):
    """At high rates several ticks share a write."""
    ticks = max(5, rate // 4)
    start = trio.current_time()
    async with exchange(rate=rate) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await read_until(stream, lambda data: data.count(b"\n") >= 5 * ticks)
    assert trio.current_time() - start == pytest.approx((ticks - 1) / rate, abs=0.011)


async def test_the_wall_clock_is_the_default(limit):
    before = SystemClock().now()
    async with exchange() as port:
        [line] = await lines_from(port, 1)
    assert before <= json.loads(line)["timestamp"] <= SystemClock().now()


@pytest.mark.parametrize("walk", ["free", "fair"])
async def test_volumes(limit, walk):
    """If wanted each line tells one, with a side. Two exchanges of a market trade different things."""
    found = []
    for settings in ({}, {"volumes": True}, {"volumes": True}, {"volumes": True, "name": "exchange2"}):
        clock = VirtualWallClock()
        clock.now = lambda: 1_795_343_351_549
        async with exchange(walk=walk, clock=clock, **settings) as port:
            found.append([json.loads(line) for line in await lines_from(port, 10)])
    silent, telling, again, other = found
    assert telling == again
    assert [line["price"] for line in telling] == [line["price"] for line in silent]
    assert not any("volume" in line for line in silent)
    assert all(line["volume"] > 0 and line["side"] in ("buy", "sell") for line in telling)
    assert (walk == "fair") == ([line["volume"] for line in telling] != [line["volume"] for line in other])


@pytest.mark.parametrize("volumes", [False, True])
async def test_full_speed(limit, volumes):
    """It sends as fast as it is read: only good lines, in large pieces, with the current time."""
    decode = Decoder(Checks(frozenset(SYMBOLS), 60_000, 120_000))
    framer = LineFramer()
    accepted = reads = 0
    async with (
        exchange(rate=0, volumes=volumes) as port,
        await trio.open_tcp_stream("127.0.0.1", port) as stream,
    ):
        last = SystemClock().now()
        while accepted < 300_000:
            data = await stream.receive_some(65_536)
            reads += 1
            lines, oversized = framer.push(data)
            batch = decode(Lines(lines, oversized, SystemClock().now(), 0.0))
            assert batch.received == batch.accepted
            accepted += batch.accepted
            for updates in batch.updates:
                assert min(updates.columns.timestamps) >= last - 1_000
                assert max(updates.columns.timestamps) <= SystemClock().now()
                assert (updates.columns.volumes is not None) == volumes
    assert reads < accepted / 100


async def test_the_same_seed_gives_the_same_prices(limit):
    prices = []
    for seed in (1, 1, 2):
        async with exchange(seed=seed, rate=100) as port:
            prices.append([json.loads(line)["price"] for line in await lines_from(port, 10)])
    assert prices[0] == prices[1] != prices[2]


async def test_prices_walk_on_for_the_next_connection(limit):
    # With this seed prices are far from their start after 450 steps, and for thousands more.
    async with exchange(rate=1_000, symbols=("NEW",), seed=7) as port:
        first = [json.loads(line)["price"] for line in await lines_from(port, 500)]
        second = [json.loads(line)["price"] for line in await lines_from(port, 1)]
    assert first[0] == pytest.approx(100, rel=0.01)
    assert second[0] != pytest.approx(100, rel=0.1)
    assert second[0] not in first


async def test_given_clock_and_symbols(limit):
    class Stopped:
        def now(self) -> int:
            return 17_000

    async with exchange(symbols=("SOLUSDT",), clock=Stopped()) as port:
        [line] = await lines_from(port, 1)
    assert line.endswith(b',"timestamp":17000}\n')


async def test_a_taken_port_is_an_error(limit):
    async with exchange() as port:
        with pytest.RaisesGroup(OSError, flatten_subgroups=True, allow_unwrapped=True):
            async with exchange(port=port):
                pytest.fail("two listen on one port")


async def test_clients_that_go_away_end_only_their_connection(limit):
    """Any number of clients may leave, by a close or a reset."""
    async with exchange(rate=0) as port, await trio.open_tcp_stream("127.0.0.1", port) as steady:
        for attempt in range(20):
            client = await trio.open_tcp_stream("127.0.0.1", port)
            await client.receive_some(1_000)
            if attempt % 2:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await client.aclose()
        assert len(await lines_from(port, 10)) == 10
        assert await steady.receive_some(10)


@pytest.mark.parametrize("rate", [0, 1_000])
@pytest.mark.parametrize("walk", ["free", "fair"])
async def test_all_clients_are_sent_the_same(limit, rate, walk):
    """From the moment that each connected, all get the same bytes, garbage included."""
    settings = {"rate": rate, "walk": walk, "faults": Faults(garbage=0.05)}
    async with exchange(**settings) as port, await trio.open_tcp_stream("127.0.0.1", port) as early:
        before = await read_until(early, lambda data: data.count(b"\n") >= 500)
        async with await trio.open_tcp_stream("127.0.0.1", port) as late:
            sent: dict[trio.SocketStream, bytes] = {}

            async def read(stream: trio.SocketStream) -> None:
                sent[stream] = await read_until(stream, lambda data: len(data) > 3_000_000)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, early)
                nursery.start_soon(read, late)
    whole = before + sent[early]
    begin = whole.index(sent[late][:200_000])
    assert whole[begin - 1 : begin] == b"\n"
    shared = min(len(whole) - begin, len(sent[late]))
    assert shared > 1_000_000
    assert whole[begin : begin + shared] == sent[late][:shared]


async def test_half_lines_split_the_same_content_for_each_client(limit, virtual_clock):
    """Connections differ in where writes end, but not in the content."""
    pieces: dict[int, list[bytes]] = {1: [], 2: []}

    async def read(port: int, client: int) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            while data := await stream.receive_some(65_536):
                pieces[client].append(data)

    async with (
        exchange(rate=100, faults=Faults(half_lines=0.5, close_every=0.505)) as port,
        trio.open_nursery() as nursery,
    ):
        for client in pieces:
            nursery.start_soon(read, port, client)
    first, second = (b"".join(pieces[client]) for client in pieces)
    shared = min(len(first), len(second))
    assert shared > 10_000
    assert first[:shared] == second[:shared]
    assert pieces[1] != pieces[2]


async def test_the_sequence_goes_on_while_nobody_is_connected(limit, virtual_clock):
    """It keeps its schedule, and does not depend on connections."""

    async def sent(ticks: dict[float, int]) -> list[bytes]:
        """The bytes for clients that connect at these moments and read so many ticks."""
        lines: list[bytes] = []
        start = trio.current_time()
        async with exchange(clock=VirtualWallClock(), rate=10) as port:
            for moment, number in ticks.items():
                await trio.sleep_until(start + moment)
                lines += await lines_from(port, 5 * number)
        return [line.partition(b',"timestamp"')[0] for line in lines]

    steady = await sent({0: 51})
    now_and_then = await sent({0: 1, 2.45: 1, 4.95: 1})
    assert now_and_then == steady[:5] + steady[5 * 25 : 5 * 26] + steady[5 * 50 :]


@pytest.mark.parametrize("rate", [0, 1_000])
async def test_a_slow_reader_slows_only_itself(limit, rate):
    async with exchange(rate=rate) as port, await trio.open_tcp_stream("127.0.0.1", port) as stuck:
        assert await stuck.receive_some(10)
        assert len(await lines_from(port, 100_000 if rate == 0 else 2_000)) > 0


async def test_a_reader_that_is_too_slow_is_disconnected(limit, virtual_clock):
    """It got an unbroken beginning; the other reader gets everything, at the full rate."""
    async with (
        exchange(rate=20_000) as port,
        await trio.open_tcp_stream("127.0.0.1", port) as stuck,
        await trio.open_tcp_stream("127.0.0.1", port) as prompt,
    ):
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        start = trio.current_time()
        received = await read_until(prompt, lambda data: len(data) >= 14_000_000)
        ticks = received.count(b"\n") / 5
        assert trio.current_time() - start == pytest.approx(ticks / 20_000, abs=0.1)
        beginning = await read_until(stuck, lambda _: False)
    assert 0 < len(beginning) < len(received)
    assert received[1_000:100_000] in beginning[:200_000]


async def test_a_reader_that_is_stuck_is_disconnected_at_full_speed(limit):
    """Other readers wait for it. A reader that is only slow is not disconnected."""
    async with (
        exchange(rate=0) as port,
        await trio.open_tcp_stream("127.0.0.1", port) as stuck,
        await trio.open_tcp_stream("127.0.0.1", port) as slow,
        await trio.open_tcp_stream("127.0.0.1", port) as prompt,
        trio.open_nursery() as nursery,
    ):
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)

        async def read_slowly() -> None:
            async for _ in slow:
                await trio.sleep(0.01)
            pytest.fail("disconnected")

        nursery.start_soon(read_slowly)
        received = 0
        while received < 15_000_000:
            received += len(await prompt.receive_some(262_144))
        assert await read_until(stuck, lambda _: False)
        nursery.cancel_scope.cancel()


async def test_a_lone_reader_may_pause_at_full_speed(limit, virtual_clock):
    """It may pause, since no other reader waits for it."""
    async with exchange(rate=0) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.receive_some(10)
        await trio.sleep(10)
        assert len(await read_until(stream, lambda data: len(data) > 30_000_000)) > 30_000_000


@pytest.mark.parametrize("rate", [0, 50])
@pytest.mark.parametrize("skew", [0.0, 3.0])
async def test_fair_prices_are_those_of_the_time(limit, rate, skew):
    """So exchanges in several processes are of one market, even if one clock is wrong."""
    expected = FairPrices("exchange2", SYMBOLS, 7)
    settings = {"name": "exchange2", "walk": "fair", "seed": 7}
    async with exchange(rate=rate, faults=Faults(skew=skew), **settings) as port:
        updates = [json.loads(line) for line in await lines_from(port, 50)]
    for update in updates:
        prices = dict(expected.at(update["timestamp"] - round(skew * 1_000)))
        assert update["price"] == prices[update["symbol"]]


async def test_fair_exchanges_without_a_seed_are_of_one_market(limit):
    prices = []
    for name in ("exchange1", "exchange2", "exchange3"):
        async with exchange(name=name, walk="fair", seed=None) as port:
            prices.append([json.loads(line)["price"] for line in await lines_from(port, 5)])
    for of_symbol in zip(*prices, strict=True):
        assert max(of_symbol) / min(of_symbol) < 1.01


async def test_what_a_process_missed_that_was_held_up_is_left_out(autojump_clock):
    """Only the last half second is sent later; then the schedule goes on."""
    pace = _Pace(rate=1_000, silence=0)
    assert await pace.due() == 1
    await trio.sleep(1_000)
    assert await pace.due() == pytest.approx(501, abs=1)
    resumed = trio.current_time()
    assert sum([await pace.due() for _ in range(10)]) == pytest.approx(
        (trio.current_time() - resumed) * 1_000, abs=2
    )


async def test_close_every(limit, virtual_clock):
    """Each connection is closed in time; the next one is accepted, and gets what is sent from then on."""
    async with exchange(faults=Faults(close_every=0.32)) as port:
        for ticks in (4, 3):  # at 0 to 0.3 s, and at 0.4 to 0.6
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                start = trio.current_time()
                received = await read_until(stream, lambda _: False)
                assert trio.current_time() - start == pytest.approx(0.32)
                assert received.count(b"\n") == 5 * ticks


async def test_close_every_also_where_no_one_reads(limit, virtual_clock):
    async with (
        exchange(rate=0, faults=Faults(close_every=0.2)) as port,
        await trio.open_tcp_stream("127.0.0.1", port) as stuck,
    ):
        await trio.sleep(0.3)
        assert await read_until(stuck, lambda _: False)


@pytest.mark.parametrize("rate", [0, 2_000])
async def test_garbage(limit, rate):
    """Each garbage line is one rejected line; all reasons occur, and the fraction is the configured one."""
    decode = Decoder(Checks(frozenset(SYMBOLS), 60_000, 120_000))
    framer = LineFramer()
    reasons: dict[str, int] = dict.fromkeys(REASONS, 0)
    del reasons[DUPLICATE]  # lines have no ids
    del reasons[UNDECIDED]  # only in a cluster
    received = accepted = 0
    async with (
        exchange(rate=rate, faults=Faults(garbage=0.1)) as port,
        await trio.open_tcp_stream("127.0.0.1", port) as stream,
    ):
        while received < 5_000:
            lines, oversized = framer.push(await stream.receive_some(65_536))
            batch = decode(Lines(lines, oversized, SystemClock().now(), 0.0))
            received += batch.received
            accepted += batch.accepted
            for reason, count in batch.rejected.items():
                reasons[reason] += count
    assert 1 - accepted / received == pytest.approx(0.1, abs=0.03)
    assert all(reasons.values())


def test_garbage_is_of_many_kinds_and_each_is_one_line():
    assert len(set(GARBAGE)) == len(GARBAGE) > 20
    assert not any(b"\n" in kind or not kind.strip() for kind in GARBAGE)


@pytest.mark.parametrize("rate", [50, 1])
async def test_silence(limit, virtual_clock, rate):
    """Traffic and silence of the same length alternate, even if ticks are rare."""
    async with (
        exchange(rate=rate, faults=Faults(silence=2.3)) as port,
        await trio.open_tcp_stream("127.0.0.1", port) as stream,
    ):
        start = trio.current_time()
        arrivals: list[float] = []
        while not arrivals or arrivals[-1] < 10:
            await stream.receive_some(65_536)
            arrivals.append(trio.current_time() - start)
    assert not [at for at in arrivals if at % 4.6 > 2.31]
    assert len([at for at in arrivals if at < 4.59]) == pytest.approx(2.3 * rate, abs=1)
    assert [at for at in arrivals if 4.59 < at < 4.61]
    assert [at for at in arrivals if 9.19 < at < 9.21]


async def test_half_lines(limit, virtual_clock):
    """Writes end within lines, but no byte is missing; at the close a half line stays incomplete."""
    pieces = []
    async with (
        exchange(rate=100, faults=Faults(half_lines=1.0, close_every=0.505)) as port,
        await trio.open_tcp_stream("127.0.0.1", port) as stream,
    ):
        while data := await stream.receive_some(65_536):
            pieces.append(data)
    assert len(pieces) > 40
    assert not any(piece.endswith(b"\n") for piece in pieces)
    *lines, rest = b"".join(pieces).split(b"\n")
    assert [json.loads(line)["symbol"] for line in lines] == [
        SYMBOLS[index % 5] for index in range(len(lines))
    ]
    assert rest


@pytest.mark.parametrize("skew", [-3_600.0, 4.5])
async def test_skew(limit, skew):
    async with exchange(faults=Faults(skew=skew)) as port:
        [line] = await lines_from(port, 1)
        assert json.loads(line)["timestamp"] - SystemClock().now() == pytest.approx(skew * 1_000, abs=200)


async def test_cancelling_closes_the_connections(limit):
    """This includes connections that nobody reads; the port is free at once."""
    async with exchange(rate=0) as port:
        stuck = await trio.open_tcp_stream("127.0.0.1", port)
        await stuck.receive_some(10)
    await read_until(stuck, lambda _: False)
    await stuck.aclose()
    async with exchange(port=port):
        assert len(await lines_from(port, 1)) == 1


async def test_a_feed_reads_it_through_all_faults(limit):
    """With feed, TCP and decoder, connections come and go, and every line is accounted for."""
    decode = Decoder(Checks(frozenset(SYMBOLS), 60_000, 120_000))
    last_accepted = None
    faults = Faults(close_every=0.2, garbage=0.1, half_lines=0.5)
    reader = LineReader(SystemClock(), Pace([(LITTLE, Beat(0.025))]))
    stopping = trio.Event()
    send, receive = trio.open_memory_channel[Chunk[Lines]](0)
    accepted = numbers = 0
    async with exchange(rate=200, faults=faults) as port, trio.open_nursery() as nursery:
        feed = Feed(
            TcpSource("exchange1", "127.0.0.1", port, decode, reader),
            backoff=Backoff(0.01, 0.05, random.Random(1)),
            idle_timeout=5,
            last_well=lambda: last_accepted,
        )
        nursery.start_soon(feed.run, send, stopping)
        async for chunk in receive:
            batch = decode(chunk.payload)
            assert chunk.number == numbers
            assert batch.received == batch.accepted + sum(batch.rejected.values())
            numbers += 1
            accepted += batch.accepted
            last_accepted = chunk.payload.received_monotonic
            if feed.reconnects >= 3 and accepted > 500:
                stopping.set()
    assert accepted > 500
    assert feed.state.last_error == "closed by the exchange"
