"""The service on real stores, with an exchange of the second kind (tests/framed.py) and one of lines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import attrs
import trio
from framed import PATIENCE, FramedCodec, FramedSource, Framer, frame, frame_of, trade
from rig import (
    Exchange,
    Sent,
    all_sent,
    eventually,
    exchanges,
    now_ms,
    playing,
    rows_are_right,
    service,
    settings_for,
    window_differences,
    window_is_whole,
)
from structlog.testing import capture_logs

from marketflow.adapters.exchange.checks import Checks
from marketflow.app.instruments.clocks import SystemClock
from marketflow.config import Settings
from marketflow.outside import real_outside


class FramedExchange(Exchange):
    """Sends two messages in each frame, and a heartbeat with each, to clients that have subscribed."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.garbage = 0
        """The number of bad messages sent."""

    async def _serve(self, stream: trio.SocketStream) -> None:
        framer = Framer()
        opened = 0, stream
        try:
            while True:
                with trio.fail_after(PATIENCE):
                    data = await stream.receive_some()
                if not data:
                    return
                for body in framer.push(data)[0]:
                    if b"subscribe" in body:
                        await stream.send_all(frame_of(["subscribed"]))
                        self.connections += 1
                        opened = self.connections, stream
                        self._open.append(opened)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            return
        finally:
            if opened in self._open:
                self._open.remove(opened)

    async def send(self, updates: Sequence[Sent]) -> None:
        if not self._open:
            return
        number, stream = self._open[-1]
        pairs = zip(updates[::2], updates[1::2], strict=False)
        rest = [(updates[-1],)] if len(updates) % 2 else []
        data = b"".join(
            frame_of(*[trade(each.symbol, each.price, each.timestamp) for each in frame], ["h"])
            for frame in [*pairs, *rest]
        )
        try:
            self.sent.extend(attrs.evolve(update, connection=number) for update in updates)
            with trio.move_on_after(5, shield=True):  # complete writes only, even when the playing ends
                await stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async def send_garbage(self) -> None:
        """Send four bad messages on the open connection, one of them a whole frame."""
        self.garbage += 4
        await self._open[-1][1].send_all(frame(b"hello") + frame_of(["t"], ["h"], [], ["t", "X", "NaN", 1]))

    async def cut(self) -> None:
        """Close the connection within a frame, which counts as a bad message."""
        self.garbage += 1
        _, stream = self._open.pop()
        await stream.send_all(frame_of(["h"])[:-2])
        # Only our half: a close with unread pings is a reset, and takes back what was not received yet.
        await stream.send_eof()

    async def close(self) -> None:
        """Close the connection."""
        await self._open[-1][1].aclose()


@asynccontextmanager
async def outside_with(settings: Settings, other: FramedExchange, source: list[FramedSource]):
    """The real outside world, with one more live source."""
    async with real_outside(settings, SystemClock(), None) as outside:
        checks = Checks(
            frozenset(settings.symbols), settings.aggregation.interval, settings.aggregation.lateness
        )
        source.append(FramedSource(other.name, other.port, FramedCodec(checks), outside.clock))
        live = [*outside.sources["live"], source[0]]
        yield attrs.evolve(outside, sources={**outside.sources, "live": live})


@asynccontextmanager
async def framed_exchange(name: str) -> AsyncIterator[FramedExchange]:
    async with trio.open_nursery() as nursery:
        exchange = FramedExchange(name)
        exchange.telling = False  # its frames have no place for volumes
        await nursery.start(exchange.run)
        yield exchange
        nursery.cancel_scope.cancel()


async def test_another_kind_of_exchange_through_the_whole_service(redis_url, postgres_dsn, tmp_path):
    """It survives garbage, half frames, disconnects, a failing task, a bug, a switch of modes and a stop.

    Each update is in the window and in its row, each bad message is counted, and the exchange of lines is not
    affected.
    """
    sources: list[FramedSource] = []
    with capture_logs() as lines:
        async with exchanges("lines") as [other], framed_exchange("framed") as framed:
            players = [other, framed]
            settings = settings_for([other], redis_url, postgres_dsn, tmp_path)
            outside = outside_with(settings, framed, sources)
            async with (
                playing(*players),
                service(settings, players, outside=outside, all_received=False) as running,
            ):

                def health():
                    return running.running.report().exchanges["framed"]

                async def accepted():
                    await eventually(lambda: health().updates.accepted == len(framed.sent))

                await eventually(lambda: health().updates.accepted > 10)
                for cuts in range(1, 4):
                    async with framed.turn:
                        await framed.send_garbage()
                        await framed.cut()
                    await eventually(lambda cuts=cuts: framed.connections == cuts + 1)
                    await trio.sleep(0.2)
                for error in (OSError("REST is away"), KeyError("a bug")):
                    async with framed.turn:
                        await accepted()
                        await fail_once(sources[0], framed, error)
                    await eventually(lambda: health().status == "connected")
                    await trio.sleep(0.2)
                async with running.still():
                    assert health().updates.rejected == {"malformed": framed.garbage}
                    assert len(framed.sent) > 50
                    assert running.running.report().exchanges["lines"].reconnects == 0
                    await window_is_whole(redis_url, players, within=5)
                    assert (await running.post("/mode/test")).status == 200
                    assert health().status == "off"
                    assert (await running.post("/mode/live")).status == 200
                    await eventually(lambda: health().status == "connected")
                before = len(framed.sent)
                await eventually(lambda: len(framed.sent) > before + 20)
                stopped_at = now_ms()
        report = running.running.report()
    sent = [each for each in all_sent(players) if each.timestamp < stopped_at]
    accepted_in_all = sum(report.exchanges[each.name].updates.accepted for each in players)
    # The last updates may have been sent but not received before the stop.
    assert len(sent) - 20 <= accepted_in_all <= len(all_sent(players))
    assert window_differences(redis_url, sent, stopped_at - 1_000) == []
    await rows_are_right(postgres_dsn, sent, until=stopped_at - 2_500)
    failures = [line for line in lines if line["event"] == "source failed"]
    assert [type(line["exc_info"].exceptions[0]) for line in failures] == [KeyError]
    assert failures[0]["log_level"] == "error"


async def fail_once(source: FramedSource, framed: FramedExchange, error: Exception) -> None:
    """Make a task of the source's next connection fail, and wait until there is another connection."""
    failed = trio.Event()

    async def fail() -> None:
        source.beside = None
        failed.set()
        raise error

    before = framed.connections
    source.beside = fail
    await framed.close()
    await failed.wait()
    await eventually(lambda: framed.connections > before + 1)
