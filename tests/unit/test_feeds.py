from __future__ import annotations

import itertools
import math
import random
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from marketflow.adapters.exchange.fair import FairPrices
from marketflow.adapters.exchange.generator import GeneratorSource
from marketflow.adapters.exchange.lines import LINE_LIMIT
from marketflow.adapters.exchange.pacing import LITTLE, Pace
from marketflow.adapters.exchange.reading import LineReader
from marketflow.app.ingest.backoff import Backoff
from marketflow.app.ingest.feeds import Feed
from marketflow.app.instruments.clocks import Beat

CLOSED = b""
REFUSED = ConnectionRefusedError("refused")


class WallClock:
    def now(self) -> int:
        return 1_000_000 + round(trio.current_time() * 1_000)


PACE = 0.025
STANDSTILL = object()
"""The process is stopped until the receive times out: Trio cancels it, although data has arrived."""


class ScriptedSource:
    """An exchange in memory that sends lines. Each connection plays a script; after the last comes `after`.

    A script is an error to raise on connecting, or a list of steps: bytes are received, a number is a wait of
    that many seconds, an error is raised, `STANDSTILL` is a standstill of our own process. After its script a
    connection is silent for ever.
    """

    exchange = "exchange1"

    def __init__(self, *scripts, after=REFUSED, pace: float | None = PACE) -> None:
        self._scripts = iter(scripts)
        self._after = after
        self._reader = LineReader(WallClock(), Pace([(LITTLE, Beat(pace))] if pace else ()))
        self.attempts: list[float] = []
        self.closed: list[float] = []
        self.received: list[list[bytes]] = []
        """The bytes that each connection gave; empty bytes at the end if it ended by itself."""

    async def run(self, intake):
        async with AsyncExitStack() as stack:
            connection = await intake.outside(partial(stack.enter_async_context, self.connect()))
            if connection is not None and not intake.stopping:
                intake.connected()
                await self._reader.read(intake, connection)

    @asynccontextmanager
    async def connect(self):
        self.attempts.append(trio.current_time())
        script = next(self._scripts, self._after)
        await trio.lowlevel.checkpoint()
        if isinstance(script, OSError):
            raise script
        if script is None:
            await trio.sleep_forever()
        self.received.append([])
        try:
            yield self._Connection(self.received[-1], list(script))
        finally:
            self.closed.append(trio.current_time())

    class _Connection:
        def __init__(self, received, steps) -> None:
            self._received = received
            self._steps = steps
            self._pause_ends = math.inf

        def has_come(self) -> bool:
            return bool(self._steps) and not isinstance(self._steps[0], (int, float))

        async def receive(self) -> bytes:
            while self._steps:
                step = self._steps[0]
                if step is STANDSTILL:
                    del self._steps[0]
                    await trio.sleep_forever()
                if isinstance(step, (int, float)):
                    # It goes on where it was, if a call is cancelled.
                    self._pause_ends = min(self._pause_ends, trio.current_time() + step)
                    await trio.sleep_until(self._pause_ends)
                    self._pause_ends = math.inf
                else:
                    # Like a socket: available data is returned, even with a short timeout.
                    await trio.lowlevel.checkpoint_if_cancelled()
                    await trio.lowlevel.cancel_shielded_checkpoint()
                del self._steps[0]
                if isinstance(step, BaseException):
                    self._received.append(CLOSED)
                    raise step
                if isinstance(step, bytes):
                    self._received.append(step)
                    return step
            return await trio.sleep_forever()


class LongestWait(random.Random):
    """Always gives the longest back-off."""

    def uniform(self, a, b):
        assert a == 0
        return b


def feed_of(source, *, last_well=lambda: None, idle_timeout=30.0, rng=None) -> Feed:
    return Feed(
        source,
        backoff=Backoff(0.25, 2.0, rng or LongestWait()),
        idle_timeout=idle_timeout,
        last_well=last_well,
    )


async def chunks_until(feed: Feed, stop_after: float):
    """All chunks of a feed that is stopped after so many seconds; checks that the stop takes no time."""
    send, receive = trio.open_memory_channel(1_000)
    stopping, first = trio.Event(), feed.next_chunk
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.run, send, stopping)
        await trio.sleep(stop_after)
        stopped_at = trio.current_time()
        stopping.set()
        async with receive:
            chunks = [chunk async for chunk in receive]
    assert trio.current_time() == pytest.approx(stopped_at, abs=0.005)
    assert [chunk.number for chunk in chunks] == list(range(first, first + len(chunks)))
    assert feed.next_chunk == first + len(chunks)
    return chunks


def since(feed: Feed) -> float | None:
    return feed.state.since if feed.connected else None


def content(chunks) -> bytes:
    return b"".join(chunk.payload.lines for chunk in chunks)


# ---- chunks ----


async def test_lines_become_chunks(autojump_clock):
    """Chunks have whole lines only, with the times of their receipt."""
    start = trio.current_time()
    source = ScriptedSource([1, b"a\nb", 1, b"b\nc\nhalf", 1, b"d"])
    chunks = await chunks_until(feed_of(source), 10)
    assert [chunk.payload.lines for chunk in chunks] == [b"a\n", b"bb\nc\n"]
    assert [chunk.payload.received_monotonic - start for chunk in chunks] == pytest.approx(
        [1, 2], abs=2 * PACE
    )
    assert [chunk.payload.received_at for chunk in chunks] == [
        1_000_000 + round(chunk.payload.received_monotonic * 1_000) for chunk in chunks
    ]
    assert {chunk.exchange for chunk in chunks} == {"exchange1"}


@pytest.mark.parametrize("end", [CLOSED, ConnectionResetError("reset"), 31])
async def test_the_rest_is_a_line_of_its_own_when_a_connection_ends(autojump_clock, end):
    """It is never joined with the first line of the next connection; numbers go on."""
    source = ScriptedSource([b"a\nhalf", end], [b"b\n"])
    chunks = await chunks_until(feed_of(source), 50)
    assert [chunk.payload.lines for chunk in chunks] == [b"a\n", b"half\n", b"b\n"]


async def test_a_chunk_may_tell_of_an_oversized_line_only(autojump_clock):
    source = ScriptedSource([b"x" * 40_000, b"x" * 40_000, b"x" * 40_000, b"\na\n"])
    chunks = await chunks_until(feed_of(source), 1)
    assert [(chunk.payload.lines, chunk.payload.oversized) for chunk in chunks] == [(b"", 1), (b"a\n", 0)]


async def test_the_middle_of_a_giant_line_does_not_eat_the_next_connection(autojump_clock):
    source = ScriptedSource([b"x" * (LINE_LIMIT + 1), CLOSED], [b"a\n"])
    chunks = await chunks_until(feed_of(source), 1)
    assert [(chunk.payload.lines, chunk.payload.oversized) for chunk in chunks] == [(b"", 1), (b"a\n", 0)]


# ---- connecting again ----


async def test_back_off_doubles_up_to_its_maximum(autojump_clock):
    source = ScriptedSource(after=REFUSED)
    await chunks_until(feed_of(source), 10)
    waits = [after - before for before, after in zip(source.attempts, source.attempts[1:], strict=False)]
    assert waits == pytest.approx([0.25, 0.5, 1, 2, 2, 2, 2])


async def test_back_off_is_jittered_over_its_whole_length(autojump_clock):
    source = ScriptedSource(after=REFUSED)
    await chunks_until(feed_of(source, rng=random.Random(1)), 1_000)
    waits = [after - before for before, after in zip(source.attempts, source.attempts[1:], strict=False)]
    for wait, most in zip(waits, [0.25, 0.5, 1], strict=False):
        assert 0 <= wait <= most
    assert 0.9 < sum(waits) / len(waits) < 1.1
    assert min(waits) < 0.1
    assert 1.9 < max(waits) <= 2


async def test_back_off_never_overflows(autojump_clock):
    """Days of an outage would be more doublings than a float can represent."""
    feed = feed_of(source := ScriptedSource(after=REFUSED))
    await chunks_until(feed, 5_000)
    assert len(source.attempts) > 2_000


@pytest.mark.parametrize("end", [CLOSED, ConnectionResetError("reset"), 31])
@pytest.mark.parametrize(("good_for", "next_waits"), [(5.0, [0.25, 0.5]), (4.9, [2, 2])])
async def test_back_off_is_reset_after_good_lines(autojump_clock, end, good_for, next_waits):
    """It takes 5 s of good lines: a connection alone does not prove health."""
    accepted = None

    source = ScriptedSource(REFUSED, REFUSED, REFUSED, REFUSED, [b"a\n", good_for, b"b\n", end])
    feed = feed_of(source, last_well=lambda: accepted)
    send, receive = trio.open_memory_channel(10)
    stopping = trio.Event()
    async with trio.open_nursery() as nursery, receive:
        nursery.start_soon(feed.run, send, stopping)
        for _ in range(2):
            accepted = (await receive.receive()).payload.received_monotonic
        await trio.sleep(60)
        stopping.set()
    [closed] = source.closed
    attempts = [closed, *source.attempts[5:7]]
    assert [attempts[1] - attempts[0], attempts[2] - attempts[1]] == pytest.approx(next_waits)


async def test_a_long_life_without_good_lines_is_no_health(autojump_clock):
    source = ScriptedSource(REFUSED, REFUSED, REFUSED, [100 * b"garbage\n", 25, b"x\n", 25, b"x\n", CLOSED])
    await chunks_until(feed_of(source, last_well=lambda: 1.0), 60)
    assert source.attempts[4] - source.closed[0] == pytest.approx(2)


async def test_an_idle_connection_is_dropped_and_made_again(autojump_clock):
    """This happens after the idle timeout without a byte; any byte restarts it."""
    start = trio.current_time()
    source = ScriptedSource([29, b"\n", 29, b"x"], [b"a\n"])
    feed = feed_of(source)
    chunks = await chunks_until(feed, 100)
    assert source.closed[0] - start == pytest.approx(29 + 29 + 30, abs=3 * PACE)
    assert content(chunks) == b"\nx\na\n"
    assert feed.state.last_error == "nothing received for 30 s"


async def test_what_has_come_in_during_a_standstill_is_read_first(autojump_clock):
    """The idle timeout has passed, but we stood still; only a second silence ends the connection."""
    start = trio.current_time()
    source = ScriptedSource([b"a\n", STANDSTILL, b"b\n", b"c\n", 5, b"d\n", STANDSTILL, CLOSED], [b"e\n"])
    feed = feed_of(source)
    chunks = await chunks_until(feed, 100)
    assert content(chunks) == b"a\nb\nc\nd\ne\n"
    # A standstill lasts until the time limit of the wait is over. The second one began after the first.
    assert source.closed[0] - start == pytest.approx(30 + 30, abs=6 * PACE)
    assert source.received[0] == [b"a\n", b"b\n", b"c\n", b"d\n", CLOSED]


async def test_what_comes_in_little_by_little_comes_together(autojump_clock):
    """All feeds read at the same moments; only the first bytes after a pause are read at once."""
    start = trio.current_time()
    ticks = [part for n in range(40) for part in (0.003, b"%d\n" % n)]
    source = ScriptedSource([1.0101, b"first\n", *ticks])
    chunks = await chunks_until(feed_of(source), 10)
    assert content(chunks).startswith(b"first\n0\n")
    times = [chunk.payload.received_monotonic - start for chunk in chunks]
    assert times[0] == pytest.approx(1.0101)
    assert all(late - early > 0.0025 for early, late in itertools.pairwise(times))
    beats = {round(when / PACE, 6) for when in times[1:]}
    assert len(beats) == len(chunks) - 1


async def test_without_a_beat_nothing_is_waited_for(autojump_clock):
    """Generated prices may have many ticks a second."""
    clock = WallClock()
    source = GeneratorSource("test1", FairPrices("test1", ("BTCUSDT",), 1), 250, clock, decode=None)
    chunks = await chunks_until(feed_of(source), 3)
    assert content(chunks).count(b"\n") == pytest.approx(750, abs=3)


async def test_who_sends_much_is_read_without_a_pause(autojump_clock):
    much = b"x" * 1_023 + b"\n"
    source = ScriptedSource([1, *[much * 32] * 100])
    chunks = await chunks_until(feed_of(source), 5)
    assert len(chunks) == 100
    assert len({chunk.payload.received_monotonic for chunk in chunks}) == 1


async def test_state(autojump_clock):
    start = trio.current_time()
    source = ScriptedSource(REFUSED, [b"a\n", 10, ConnectionResetError("reset")], [b"b\n"])
    feed = feed_of(source)
    assert (feed.connected, since(feed), feed.reconnects, feed.state.last_error) == (False, None, 0, None)
    stopping = trio.Event()
    send, receive = trio.open_memory_channel(10)
    async with trio.open_nursery() as nursery, receive:
        nursery.start_soon(feed.run, send, stopping)
        await trio.sleep(0.1)
        assert (feed.connected, feed.reconnects, feed.state.last_error) == (False, 0, "refused")
        await trio.sleep(1)
        assert (feed.connected, feed.reconnects) == (True, 0)
        assert since(feed) == pytest.approx(start + 0.25)
        await trio.sleep(9.2)
        assert (feed.connected, since(feed), feed.state.last_error) == (False, None, "reset")
        await trio.sleep(5)
        assert (feed.connected, feed.reconnects) == (True, 1)
        stopping.set()
    assert (feed.connected, since(feed)) == (False, None)


@pytest.mark.parametrize("end", [CLOSED, ConnectionResetError("reset")])
async def test_an_exchange_that_has_gone_is_not_connected_while_its_last_line_waits(autojump_clock, end):
    """The workers are behind. The pause before the next try comes after that, and is as long as ever."""
    source = ScriptedSource([5.0, b"a\nhalf", end], [b"b\n"])
    feed = feed_of(source)
    send, receive = trio.open_memory_channel(1)
    stopping = trio.Event()
    with capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed.run, send, stopping)
            await trio.sleep(60)
            assert (feed.connected, feed.state.state) == (False, "backing off")
            assert feed.state.last_error == (str(end) if end else "closed by the exchange")
            assert len(source.attempts) == 1
            async with receive:
                assert [(await receive.receive()).payload.lines for _ in range(3)] == [
                    b"a\n",
                    b"half\n",
                    b"b\n",
                ]
                assert source.attempts[1] == pytest.approx(60.25)
                assert (feed.connected, feed.reconnects) == (True, 1)
                stopping.set()
    told = [(line["event"], line.get("seconds")) for line in lines]
    assert told == [("connected", None), ("disconnected", pytest.approx(5.0, abs=0.1)), ("connected", None)]


# ---- the stop ----


@pytest.mark.parametrize(
    ("scripts", "attempts"),
    [
        ((None,), 1),
        (([b"a\nb", 1e9],), 1),
        ((REFUSED, REFUSED, REFUSED, REFUSED, REFUSED), 5),
        (([b"a\n"],), 1),
    ],
    ids=["connecting", "receiving", "backing off", "silent"],
)
async def test_a_stop_ends_every_wait_at_once(autojump_clock, scripts, attempts):
    """`chunks_until` checks that the stop takes no time and that the channel is closed."""
    source = ScriptedSource(*scripts)
    feed = feed_of(source)
    chunks = await chunks_until(feed, 4)
    assert content(chunks) in {b"", b"a\n"}
    assert len(source.attempts) == attempts
    assert not feed.connected


async def test_nothing_is_read_when_the_stop_came_first(autojump_clock):
    source = ScriptedSource([b"a\n"])
    send, receive = trio.open_memory_channel(10)
    stopping = trio.Event()
    stopping.set()
    await feed_of(source).run(send, stopping)
    assert [chunk async for chunk in receive] == []
    assert source.attempts == []


async def test_what_was_received_arrives_also_through_a_full_channel(autojump_clock):
    """The stop waits for the send; data that has arrived by then is received once more."""
    source = ScriptedSource([b"a\n", b"b\n", b"c\n"])
    send, receive = trio.open_memory_channel(0)
    stopping = trio.Event()
    async with trio.open_nursery() as nursery, receive:
        nursery.start_soon(feed_of(source).run, send, stopping)
        await trio.testing.wait_all_tasks_blocked()
        stopping.set()
        await trio.sleep(100)
        assert source.closed == []
        assert content([chunk async for chunk in receive]) == b"a\nb\n"
    assert source.received == [[b"a\n", b"b\n"]]
    assert len(source.closed) == 1


async def test_a_rest_arrives_also_when_the_stop_comes_while_it_is_sent(autojump_clock):
    source = ScriptedSource([b"half", CLOSED])
    send, receive = trio.open_memory_channel(0)
    stopping = trio.Event()
    async with trio.open_nursery() as nursery, receive:
        nursery.start_soon(feed_of(source).run, send, stopping)
        await trio.testing.wait_all_tasks_blocked()
        stopping.set()
        await trio.sleep(1)
        assert content([chunk async for chunk in receive]) == b"half\n"


async def test_cancelling_closes_everything(autojump_clock):
    source = ScriptedSource([b"a\n"])
    send, receive = trio.open_memory_channel(10)
    feed = feed_of(source)
    with trio.move_on_after(5):
        await feed.run(send, trio.Event())
    assert content([chunk async for chunk in receive]) == b"a\n"
    assert len(source.closed) == 1
    assert not feed.connected


steps = st.lists(
    st.sampled_from([b"a\n", b"b", b"\nc", b"d\ne\n", 0.1, 0.3, CLOSED, ConnectionResetError("reset")]),
    max_size=12,
)


@given(
    scripts=st.lists(steps | st.just(REFUSED), max_size=4),
    stop_after=st.floats(0, 3) | st.sampled_from([0, 0.1, 0.2, 0.3, 0.4, 0.6]),
    slow=st.sampled_from([0, 0.05, 0.5]),
    room=st.integers(0, 2),
    schedule=st.random_module(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_no_received_byte_is_lost(autojump_clock, scripts, stop_after, slow, room, schedule):
    """This holds for a stop at any time and slow workers, except for a line without its end."""
    source = ScriptedSource(*scripts)
    send, receive = trio.open_memory_channel(room)
    stopping = trio.Event()
    chunks = []

    async def work():
        async for chunk in receive:
            await trio.sleep(slow)
            chunks.append(chunk)

    async with receive, trio.open_nursery() as nursery:
        nursery.start_soon(feed_of(source).run, send, stopping)
        nursery.start_soon(work)
        await trio.sleep(stop_after)
        stopping.set()
        reads = sum(map(len, source.received))
    expected = b""
    for received in source.received:
        *lines, rest = b"".join(received).split(b"\n")
        if rest and received[-1] == CLOSED:
            lines.append(rest)
        expected += b"".join(line + b"\n" for line in lines)
    assert content(chunks) == expected
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    # One receive that ended at the moment of the stop, and one for data that had arrived by then.
    assert sum(map(len, source.received)) - reads <= 2


async def test_it_runs_again_after_a_stop(autojump_clock):
    """As after two switches of the mode: the back-off starts over, numbers go on, and it is logged."""
    source = ScriptedSource([b"a\n"], REFUSED, REFUSED, [b"b\n", b"c\n"])
    with capture_logs() as logs:
        feed = feed_of(source)
        assert content(await chunks_until(feed, 1)) == b"a\n"
        again = trio.current_time()
        assert content(await chunks_until(feed, 2)) == b"b\nc\n"
    assert source.attempts[1:] == pytest.approx([again, again + 0.25, again + 0.75])
    assert [entry["event"] for entry in logs if entry["log_level"] == "info"] == ["connected", "connected"]
    assert feed.reconnects == 0, "the first connection of a run is none"


# ---- the log ----


async def test_a_long_outage_does_not_flood_the_log(autojump_clock):
    """It logs the first failure, then one line a minute with the number of attempts, and the end at once."""
    with capture_logs() as logs:
        source = ScriptedSource([b"a\n", CLOSED], *[REFUSED] * 2_000, [b"b\n"])
        await chunks_until(feed_of(source), 4_010)
    told = [entry for entry in logs if entry["log_level"] != "debug"]
    assert [entry["event"] for entry in told[:3]] == ["connected", "disconnected", "cannot connect"]
    failures = [entry for entry in told if entry["event"] == "cannot connect"]
    assert len(failures) == pytest.approx(4_000 / 60, abs=2)
    assert failures[0]["attempts"] == 2
    assert failures[1]["attempts"] > 20
    assert {entry["log_level"] for entry in failures} == {"warning"}
    assert failures[0]["error"] == "refused"
    assert (told[-1]["event"], told[-1]["connection"], told[-1]["exchange"]) == ("connected", 2, "exchange1")
    assert told[-1]["last_error"] == "refused"


async def test_a_connection_that_comes_and_goes_does_not_flood_the_log(autojump_clock):
    with capture_logs() as logs:
        await chunks_until(feed_of(ScriptedSource(after=[b"a\n", CLOSED])), 600)
    told = [entry for entry in logs if entry["log_level"] != "debug"]
    assert 18 <= len(told) <= 22
    assert len(logs) > 500
