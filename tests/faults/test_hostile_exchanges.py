"""Faulty and hostile exchanges: their faults are counted, and affect no other exchange."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
import redis
import trio
from exchange_server import HOST, ExchangeServer, open_exchange
from rig import (
    BASE,
    Exchange,
    Sent,
    Service,
    all_sent,
    check_ledger,
    eventually,
    exchanges,
    now_ms,
    playing,
    rows_are_right,
    service,
    settings_for,
    window_differences,
)
from structlog.testing import capture_logs

from marketflow.config.settings import ExchangeSettings

MAD = "mad"
HOUR = 3_600_000
"""In ms."""
_orders = itertools.count(1_000_000)


@attrs.frozen
class Stage:
    """A service, two well-behaved exchanges, and the model to compare with."""

    service: Service
    players: list[Exchange]
    redis_url: str
    dsn: str

    @property
    def mad(self) -> Any:
        """The health of the exchange under test."""
        return self.service.running.report().exchanges[MAD]

    async def others_are_well(self) -> None:
        """Check that all updates of the other two are accepted, on their first connections, and stored."""
        for each in self.players:
            async with each.turn:
                of_it = self.service.running.report().exchanges
                await eventually(
                    lambda each=each: (
                        self.service.running.report().exchanges[each.name].updates.accepted == len(each.sent)
                    )
                )
                assert each.sent
                assert each.connections == 1
                assert of_it[each.name].status == "connected"
        sent = all_sent(self.players)
        await rows_are_right(
            self.dsn, sent, until=now_ms() - 2_000, only=[each.name for each in self.players]
        )

    async def mad_is_right(self, sent: Iterable[Sent], rejected: dict[str, int]) -> None:
        """Check that exactly these updates of it were accepted, once each, and exactly so many rejected."""
        sent = list(sent)
        await eventually(lambda: self.mad.updates.cached == len(sent), what=f"{len(sent)} cached")
        updates = self.mad.updates
        assert (updates.accepted, updates.rejected) == (len(sent), rejected)
        check_ledger(attrs.asdict(updates))
        assert await trio.to_thread.run_sync(window_differences, self.redis_url, sent, now_ms() + HOUR) == []


@pytest.fixture
async def stage(redis_url: str, postgres_dsn: str, tmp_path: Path) -> Any:
    """Makes a stage with the exchange under test at a port."""

    @asynccontextmanager
    async def made(port: int, **feeds: int) -> AsyncIterator[Stage]:
        async with exchanges("exchange1", "exchange2") as players:
            settings = settings_for(players, redis_url, postgres_dsn, tmp_path, feeds=feeds)
            mad = ExchangeSettings(MAD, HOST, port)
            settings = attrs.evolve(settings, exchanges=(*settings.exchanges, mad))
            async with service(settings, players, all_received=False) as it, playing(*players):
                yield Stage(it, players, redis_url, postgres_dsn)

    return made


def update(timestamp: int, *, symbol: str = "BTCUSDT", price: float | None = None) -> Sent:
    """An update of the exchange under test."""
    price = BASE[symbol] if price is None else price
    return Sent(MAD, symbol, price, timestamp, next(_orders), time.monotonic())


def data(sent: Iterable[Sent]) -> bytes:
    return b"".join(each.line for each in sent)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# ---- connections ----


@pytest.mark.parametrize("end", [ExchangeServer.close, ExchangeServer.reset], ids=["orderly", "reset"])
async def test_one_that_flaps_every_100_ms(stage, end) -> None:
    """Updates before each orderly close count, nothing piles up, and the log is not flooded."""
    with capture_logs() as logs:
        async with open_exchange() as server, stage(server.port, backoff_min=10, backoff_max=20) as it:
            await server.connected(1)
            sent: list[Sent] = []
            before = descriptors(), threading.active_count()
            for count in range(1, 31):
                with trio.fail_after(20):
                    await server.connected(count)
                # Else the connection may end before it counts as one: the machine may be busy.
                await eventually(lambda n=count: it.mad.reconnects == n - 1, within=2)
                sent.append(update(now_ms()))
                await server.send(sent[-1].line)
                await trio.sleep(0.1)
                end(server)
            await eventually(lambda: it.mad.reconnects == 30, within=2)
            assert it.mad.status == "connected"
            if end is ExchangeServer.close:
                await it.mad_is_right(sent, rejected={})
            else:  # data in the kernel at the reset is lost
                assert it.mad.updates.accepted <= len(sent)
            await it.others_are_well()
            after = descriptors(), threading.active_count()
            # A request for /health and an idle thread of Trio may exist or not.
            assert all(now <= then + 4 for now, then in zip(after, before, strict=True)), (before, after)
    loud = [each for each in logs if each.get("exchange") == MAD and each["log_level"] != "debug"]
    assert 0 < len(loud) <= 4, loud


async def test_one_that_hangs_and_wakes_up(stage) -> None:
    """While it hangs the kernel accepts connections. Each silent one is given up, and the last one works.

    The same happens if a peer has vanished without a FIN.
    """
    with socket.create_server((HOST, 0), backlog=64) as listener:
        port = listener.getsockname()[1]
        async with stage(port, stale_after=300, idle_timeout=400) as it:
            await eventually(lambda: it.mad.status == "stale", within=3)
            await eventually(lambda: it.mad.reconnects >= 3, within=5)
            await it.others_are_well()

            hung = trio.socket.from_stdlib_socket(listener)
            woken: list[trio.SocketStream] = []
            sent: list[Sent] = []
            while not it.mad.updates.accepted:
                connection, _ = await hung.accept()
                woken.append(trio.SocketStream(connection))
                sent.append(update(now_ms(), price=float(len(woken))))
                with suppress(trio.BrokenResourceError):
                    await woken[-1].send_all(sent[-1].line)
                with trio.move_on_after(0.2):
                    await eventually(lambda: it.mad.updates.accepted)
            assert len(sent) > 3
            await it.mad_is_right(sent[-1:], rejected={})
            assert it.mad.status == "connected"
            for stream in woken:
                await stream.aclose()


async def test_one_byte_a_write(stage) -> None:
    """Lines that are split at every place are accepted; a bad one costs only itself."""
    sent: list[Sent] = []
    async with open_exchange() as server, stage(server.port) as it:
        wire = b""
        for number in range(100):
            at = now_ms()
            sent.append(update(at, price=number + 0.5, symbol=("BTCUSDT", "DOGEUSDT")[number % 2]))
            wire += sent[-1].line + (b'{"symbol":\r\n' if number % 10 == 0 else b"\n")
        for place in range(len(wire)):
            await server.send(wire[place : place + 1])
        await it.mad_is_right(sent, rejected={"malformed": 10})
        assert server.connections == 1
        await it.others_are_well()


# ---- what they say ----


async def test_a_clock_that_is_an_hour_off(stage) -> None:
    """In either direction its updates are counted and reported, and harm no bar; later all is well."""
    async with open_exchange() as server, stage(server.port, stale_after=300) as it:
        sent: list[Sent] = []
        wrong = {"future": 0, "late": 0}

        async def say(off: int) -> None:
            """Send every 50 ms for a while, with a clock that is so many ms off."""
            for _ in range(12):
                updates = [update(now_ms() + off, price=price) for price in (1.0, 2.0)]
                if off:
                    wrong["future" if off > 0 else "late"] += len(updates)
                else:
                    sent.extend(updates)
                await server.send(data(updates))
                await trio.sleep(0.05)

        await say(0)
        for off in (HOUR, -HOUR):
            await say(off)
            await eventually(lambda: it.mad.status == "stale", within=2)
            await say(0)
            await eventually(lambda: it.mad.status == "connected", within=2)
        await it.mad_is_right(sent, rejected=wrong)
        assert server.connections == 1
        await rows_are_right(it.dsn, sent, within=8, only=[MAD])
        await it.others_are_well()


async def test_one_that_repeats_itself_backwards(stage) -> None:
    """Each line is an update, even equal and old ones; after a reconnect all are sent again."""
    async with open_exchange() as server, stage(server.port) as it:
        at = now_ms()
        once = [update(at - number // 2, price=float(1 + number % 3)) for number in range(3_000)]
        await server.send(data(once))
        server.close()
        await server.connected(2)
        await server.send(data(once))
        again = [attrs.evolve(each, order=next(_orders)) for each in once]
        await it.mad_is_right([*once, *again], rejected={})
        await rows_are_right(it.dsn, [*once, *again], within=8, only=[MAD])
        await it.others_are_well()


HOSTILE_SYMBOLS = [
    *["exchange1:BTCUSDT", "BTCUSDT:exchange1", ":", "BTC USDT", " BTCUSDT", "BTCUSDT\t", "BTCUSDT\n", "*"],
    *["../BTCUSDT", "BTCUSDT\u0000", "\uff22TCUSDT", "\u0412TCUSDT", "btcusdt", "'; DROP TABLE x; --", "{}"],
    *["\r\nFLUSHALL\r\n", "%s", "$1", "\ud800", "\u202eTDSUCTB", "BTCUSDT" * 5_000],
]


async def test_names_that_are_no_symbols(stage) -> None:
    """Blanks, colons, look-alikes, statements and names of a megabyte never get into a store."""
    async with open_exchange() as server, stage(server.port) as it:
        await server.send(data([update(now_ms(), symbol="BTCUSDT")]))
        for symbol in HOSTILE_SYMBOLS:
            line = attrs.evolve(update(now_ms()), symbol=symbol).line
            assert line.count(b"\n") == 1
            await server.send(line)
        for _ in range(3):
            await server.send(attrs.evolve(update(now_ms()), symbol="X" * 2**20).line)
        await server.send(data([update(now_ms(), symbol="DOGEUSDT")]))
        await eventually(lambda: it.mad.updates.cached == 2)
        # A lone surrogate is not valid text.
        rejected = {"symbol": len(HOSTILE_SYMBOLS) - 1, "malformed": 1, "oversized": 3}
        assert it.mad.updates.rejected == rejected
        assert server.connections == 1
        await it.others_are_well()
        with redis.Redis.from_url(it.redis_url) as client:
            keys = {key.decode() for key in client.keys("*") if b":" in key}
        pairs = itertools.product((MAD, "exchange1", "exchange2"), BASE)
        known = {f"{kind}:{name}:{symbol}" for name, symbol in pairs for kind in ("prices", "bars")}
        assert {key for key in keys if key.startswith(("prices:", "bars:"))} == known
        assert all("BTCUSDT" not in key for key in keys - known)
