"""Any failure of a source affects only its own connection."""

from __future__ import annotations

import random

import attrs
import pytest
import trio
from structlog.testing import capture_logs

from marketflow.adapters.exchange.lines import Lines
from marketflow.app.ingest.backoff import Backoff
from marketflow.app.ingest.feeds import STOP_PATIENCE, Feed
from marketflow.app.ingest.outage_log import LOG_INTERVAL
from marketflow.app.ports import Decoded
from marketflow.patience import SECOND_LOOK


@attrs.define
class PlannedSource:
    """Does what the test wants with each connection; after the last it waits for the stop."""

    plan: list
    exchange: str = "exchange1"
    decode: object = None
    runs: int = 0

    async def run(self, intake):
        self.runs += 1
        step = self.plan.pop(0) if self.plan else quiet
        await step(intake)


async def quiet(intake):
    intake.connected()
    await intake.outside(trio.sleep_forever)


def payload(text=b"a\n"):
    return Lines(text, 0, 1, 2.0)


def feed_of(source, idle_timeout=30.0):
    return Feed(
        source,
        backoff=Backoff(1.0, 1.0, random.Random(1)),
        idle_timeout=idle_timeout,
        last_well=lambda: None,
    )


async def run_for(feed, seconds, room=1_000):
    """The chunks of a feed that is stopped after so long, and its log."""
    send, receive = trio.open_memory_channel(room)
    stopping = trio.Event()
    with capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed.run, send, stopping)
            await trio.sleep(seconds)
            stopping.set()
            async with receive:
                chunks = [chunk async for chunk in receive]
    return chunks, lines


def raising(*errors, connected=True):
    """A step whose inner tasks raise these errors."""

    async def run(intake):
        if connected:
            intake.connected()
            await intake.send(payload())

        async def fail(error):
            with trio.CancelScope(shield=True):  # all of them fail
                await trio.sleep(1)
            raise error

        async with trio.open_nursery() as nursery:
            for error in errors:
                nursery.start_soon(fail, error)

    return run


OUTAGES = {
    "os error": OSError("gone"),
    "reset": ConnectionResetError("gone"),
    "timeout": TimeoutError("gone"),
    "a stream of Trio's": trio.BrokenResourceError("gone"),
    "a time limit of Trio's": trio.TooSlowError("gone"),
    "a group": ExceptionGroup("", [OSError("gone"), ExceptionGroup("", [TimeoutError("too")])]),
}


@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize("error", OUTAGES.values(), ids=OUTAGES)
async def test_an_outage_in_an_inner_task_costs_that_connection(autojump_clock, error, connected):
    source = PlannedSource([raising(error, connected=connected)] * 2)
    feed = feed_of(source)
    chunks, lines = await run_for(feed, 60)
    assert source.runs == 3
    assert len(chunks) == 2 * connected
    assert (feed.state.last_error, feed.state.bugs, feed.reconnects) == ("gone", 0, 2 * connected)
    failed = [line for line in lines if line["log_level"] == "warning"]
    assert [line["event"] for line in failed] == ["disconnected" if connected else "cannot connect"]
    assert "exc_info" not in failed[0]


class OddError(BaseException):
    pass


BUGS = {
    "alone": (ValueError("bug"),),
    "beside an outage": (OSError("gone"), ValueError("bug")),
    "in a group": (ExceptionGroup("", [OSError("gone"), ExceptionGroup("", [KeyError("bug")])]),),
    "without words": (AssertionError(),),
    "memory": (MemoryError("bug"),),
    "recursion": (RecursionError("bug"),),
}


@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize("errors", BUGS.values(), ids=BUGS)
async def test_a_bug_costs_that_connection_and_has_one_traceback_in_an_interval(
    autojump_clock, errors, connected
):
    source = PlannedSource([raising(*errors, connected=connected)] * 100)
    feed = feed_of(source)
    chunks, lines = await run_for(feed, LOG_INTERVAL * 2.5)
    assert 60 < feed.state.bugs <= 101
    assert 0 <= source.runs - feed.state.bugs <= 1
    assert len(chunks) == min(source.runs, 100) * connected
    told = [line for line in lines if line["log_level"] == "error"]
    assert len(told) == 3
    for line in told:
        assert line["event"] == "source failed"
        assert isinstance(line["exc_info"], Exception)
        assert line["exc_info"].__traceback__ is not None
        assert line["where"] is None or line["where"].endswith("in fail")
    assert told[-1]["bugs"] > 30
    assert feed.state.last_error in {"bug", "'bug'", "AssertionError"}


async def test_a_bug_before_the_first_wait_does_not_spin(autojump_clock):
    """The back-off is kept, even for a source that returns at once."""

    async def at_once(_intake):
        raise ValueError("bug")

    async def returns(_intake):
        return

    for step in (at_once, returns):
        source = PlannedSource([step] * 1_000)
        _, lines = await run_for(feed_of(source), 20)
        assert 10 < source.runs < 100
        assert lines[0]["log_level"] == ("error" if step is at_once else "warning")


async def test_what_ends_the_program_is_no_bug_of_a_source(autojump_clock):
    source = PlannedSource([raising(OddError())])
    send, receive = trio.open_memory_channel(10)
    async with receive:
        with pytest.RaisesGroup(OddError, flatten_subgroups=True):
            await feed_of(source).run(send, trio.Event())
    assert source.runs == 1


async def test_a_cancellation_from_outside_is_none_either(autojump_clock):
    """This holds even together with an error that a task of the source raises on its way out."""

    async def run(intake):
        intake.connected()

        async def fail_at_the_end():
            try:
                await trio.sleep_forever()
            finally:
                raise OSError("while closing")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_at_the_end)
            await trio.sleep_forever()

    source = PlannedSource([run])
    feed = feed_of(source)
    send, receive = trio.open_memory_channel(10)
    async with receive:
        with trio.move_on_after(5) as scope:
            await feed.run(send, trio.Event())
        assert scope.cancelled_caught
    assert source.runs == 1
    assert feed.state.state == "stopped"


async def test_an_error_of_ours_ends_the_feed_and_is_no_fault_of_the_source(autojump_clock):
    """Here the workers' channel is closed."""

    async def run(intake):
        intake.connected()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(intake.send, payload())

    source = PlannedSource([run] * 5)
    feed = feed_of(source)
    send, receive = trio.open_memory_channel(10)
    receive.close()
    with capture_logs() as lines, pytest.RaisesGroup(trio.BrokenResourceError, flatten_subgroups=True):
        await feed.run(send, trio.Event())
    assert source.runs == 1
    assert [line["event"] for line in lines] == ["connected"]
    assert feed.state.bugs == 0


@pytest.mark.parametrize("how", ["a sibling fails", "a time limit of its own"])
async def test_a_send_that_the_source_gives_up_leaves_no_gap(autojump_clock, how):
    """The workers are behind, so its chunk waits. The connections after it are read as ever."""

    async def run(intake):
        intake.connected()
        if how == "a time limit of its own":
            for text in (b"1\n", b"2\n"):
                with trio.move_on_after(1):
                    await intake.send(payload(text))
            raise OSError("gone")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(intake.send, payload(b"1\n"))
            nursery.start_soon(intake.send, payload(b"2\n"))
            await trio.sleep(1)
            raise OSError("gone")

    async def last(intake):
        intake.connected()
        await intake.send(payload(b"3\n"))
        await intake.outside(trio.sleep_forever)

    source = PlannedSource([run, last])
    chunks, lines = await run_for(feed_of(source), 10, room=0)
    texts = [chunk.payload.lines for chunk in chunks]
    assert (sorted(texts[:2]), texts[2:]) == ([b"1\n", b"2\n"], [b"3\n"])
    assert [chunk.number for chunk in chunks] == [0, 1, 2]
    assert [line["event"] for line in lines] == ["connected", "disconnected", "connected"]


@pytest.mark.parametrize("grouped", [False, True])
async def test_a_bug_that_was_reported_counts_once(autojump_clock, grouped):
    async def run(intake):
        intake.connected()
        bug = ValueError("a bug")
        intake.ended(bug)
        await trio.sleep(1)
        raise ExceptionGroup("", [bug]) if grouped else bug

    feed = feed_of(PlannedSource([run]))
    _, lines = await run_for(feed, 10)
    assert feed.state.bugs == 1
    assert [line["event"] for line in lines] == ["connected", "source failed", "connected"]


async def test_a_source_that_comes_back_by_itself_is_one_connection(autojump_clock):
    async def run(intake):
        intake.connected()
        await trio.sleep(5)
        intake.connected()
        await intake.outside(trio.sleep_forever)

    feed = feed_of(PlannedSource([run]))
    _, lines = await run_for(feed, 10)
    assert [line["event"] for line in lines] == ["connected"]
    assert feed.reconnects == 0


# ---- the stop ----


async def test_tasks_of_a_source_send_what_they_have_before_it_ends(autojump_clock):
    """This holds with slow workers, and for a stop that comes while all tasks wait."""

    async def run(intake):
        intake.connected()

        async def read(number):
            async for _ in intake.received(trio.sleep_forever):
                pass
            await intake.send(payload(b"%d\n" % number))

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(read, number)

    feed = feed_of(PlannedSource([run]))
    chunks, _ = await run_for(feed, 10, room=0)
    assert sorted(chunk.payload.lines for chunk in chunks) == [b"%d\n" % number for number in range(5)]


async def test_a_source_that_forgets_the_stop_is_abandoned_between_two_sends(autojump_clock):
    """Otherwise a switch of the mode would wait for ever."""

    async def run(intake):
        intake.connected()
        while True:
            await trio.sleep(7)
            await intake.send(payload())

    feed = feed_of(PlannedSource([run]))
    send, receive = trio.open_memory_channel(0)
    stopping = trio.Event()
    chunks = []

    async def work():
        async with receive:
            async for chunk in receive:
                await trio.sleep(20)
                chunks.append(chunk)

    with capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            nursery.start_soon(feed.run, send, stopping)
            await trio.sleep(1)
            stopping.set()
    assert [line["event"] for line in lines] == ["connected", "source did not stop"]
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    assert 1 + STOP_PATIENCE < trio.current_time() < 1 + STOP_PATIENCE + SECOND_LOOK + 2 * 20
    assert feed.state.state == "stopped"
    assert (lines[-1]["log_level"], lines[-1]["bugs"], feed.bugs) == ("error", 1, 1)


@pytest.mark.parametrize("early", [0.0005, 0.0, 0.0015])
async def test_a_source_that_keeps_the_rules_is_never_abandoned(autojump_clock, early):
    """Workers that are behind take its last payload when it has been looked at for half a minute already.

    Then it receives once more. It is looked at just then, whenever that is.
    """
    held = iter([b"b\n", b"c\n", b"d\n"])

    async def receive_some():
        await trio.lowlevel.checkpoint_if_cancelled()
        await trio.sleep(0.0008)
        return next(held)

    async def run(intake):
        intake.connected()
        await intake.send(payload(b"a\n"))
        async for data in intake.received(receive_some):
            await intake.send(payload(data))

    feed = feed_of(PlannedSource([run]))
    send, receive = trio.open_memory_channel(0)
    stopping = trio.Event()
    with capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed.run, send, stopping)
            await trio.sleep(1)
            stopping.set()
            await trio.sleep(STOP_PATIENCE + SECOND_LOOK - early)
            async with receive:
                chunks = [await receive.receive()]
                await trio.sleep(60)
                chunks += [chunk async for chunk in receive]
    assert [line["event"] for line in lines] == ["connected"]
    assert [chunk.payload.lines for chunk in chunks] == [b"a\n", b"b\n"]


async def test_a_source_that_sends_for_ever_is_abandoned(autojump_clock):
    async def run(intake):
        intake.connected()
        while True:
            await trio.sleep(0.3)
            await intake.send(payload())

    began = trio.current_time()
    _, lines = await run_for(feed_of(PlannedSource([run])), 10)
    assert lines[-1]["event"] == "source did not stop"
    assert trio.current_time() - began < 10 + STOP_PATIENCE + 5


# ---- the codec ----


async def test_a_codec_that_raises_costs_its_payload_which_is_counted(autojump_clock):
    """All its lines count, except for blank ones, and so do the oversized ones."""

    def decode(given):
        if b"bug" in given.lines:
            raise ValueError("bug")
        return Decoded(received=1, rejected={"price": 1}, updates=())

    feed = feed_of(PlannedSource([], decode=decode))
    with capture_logs() as lines:
        assert feed.decode(payload()).rejected == {"price": 1}
        for _ in range(3):
            decoded = feed.decode(Lines(b"a\n\n \r\nbug\n", 2, 1, 2.0))
            assert decoded == Decoded(received=4, rejected={"malformed": 4}, updates=())
        assert feed.decode(payload()).rejected == {"price": 1}
    assert feed.state.bugs == 3
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("codec failed", "error"),
        ("codec failed", "debug"),
        ("codec failed", "debug"),
    ]
    assert isinstance(lines[0]["exc_info"], ValueError)
