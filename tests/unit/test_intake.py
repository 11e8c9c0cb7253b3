from __future__ import annotations

import pytest
import trio

from marketflow.adapters.exchange.lines import Lines
from marketflow.app.ingest.intake import ChunkSender, Intake
from marketflow.app.ingest.waits import Waits

IDLE = 30.0


class Stage:
    """An intake with its channel and its stop."""

    def __init__(self, room: float = 100):
        self.stopping = trio.Event()
        self.waits = Waits(self.stopping)
        self.send, self.receive = trio.open_memory_channel(room)
        self.sender = ChunkSender("exchange1", self.send)
        self.connected = 0
        self.ends: list[Exception] = []
        self.intake = Intake(
            self.waits,
            self.sender,
            idle_timeout=IDLE,
            on_connected=self._connected,
            on_ended=self.ends.append,
        )

    def _connected(self):
        self.connected += 1

    def chunks(self):
        found = []
        while True:
            try:
                found.append(self.receive.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel):
                return found


@pytest.fixture
async def stage(nursery):
    stage = Stage()
    nursery.start_soon(stage.waits.end_at_stop)
    nursery.start_soon(stage.sender.run)
    with stage.send, stage.receive:
        yield stage
        stage.stopping.set()
        await trio.testing.wait_all_tasks_blocked()


def payload(text: bytes = b"a\n") -> Lines:
    return Lines(text, 0, 1, 2.0)


# ---- waits ----


async def test_a_wait_gives_its_result(autojump_clock, stage):
    async def answer():
        await trio.sleep(5)
        return 17

    assert await stage.intake.outside(answer) == 17
    assert await stage.intake.outside(answer, 6) == 17
    assert await stage.intake.outside(answer, 4) is None


async def test_the_stop_ends_the_waits_of_all_tasks_and_nothing_else(autojump_clock, stage):
    ended = []

    async def wait(number):
        assert await stage.intake.outside(trio.sleep_forever) is None
        ended.append((number, trio.current_time()))
        await trio.sleep(3)
        ended.append((number, trio.current_time()))

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(wait, number)
        await trio.sleep(10)
        assert ended == []
        stage.stopping.set()
    assert sorted(ended) == [(number, at) for number in range(3) for at in (10, 13)]


async def test_after_the_stop_what_is_there_is_taken_and_nothing_is_waited_for(autojump_clock, stage):
    stage.stopping.set()
    assert stage.intake.stopping

    async def there():
        await trio.lowlevel.checkpoint_if_cancelled()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return b"data"

    assert await stage.intake.outside(there) == b"data"
    assert await stage.intake.outside(trio.sleep_forever) is None
    assert trio.current_time() < 0.01


async def test_an_error_of_a_wait_comes_through(autojump_clock, stage):
    async def fail():
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        await stage.intake.outside(fail)


# ---- receiving ----


async def test_anything_received_is_life(autojump_clock, stage):
    """Even a heartbeat restarts the idle timeout, with or without a send."""
    pauses = iter([29, 29, 29, 31, 31])

    async def receive():
        await trio.sleep(next(pauses))
        return "heartbeat"

    received = []

    async def read():
        async for each in stage.intake.received(receive):
            received.append(each)  # noqa: PERF401 - what there is before the error counts

    with pytest.raises(TimeoutError, match="nothing received for 30 s"):
        await read()
    assert received == ["heartbeat"] * 3
    assert trio.current_time() == pytest.approx(29 * 3 + 30, abs=0.01)


@pytest.mark.parametrize("heartbeat", [None, b"a\n"])
async def test_anything_forwarded_is_life(heartbeat, autojump_clock, stage):
    """The time limit of a wait may have begun with an earlier receive."""
    due = [29, 29 * 2, 29 * 3, 29 * 3 + 31]

    async def receive():
        await trio.sleep_until(due[0])
        del due[0]
        return heartbeat and payload(heartbeat)

    with pytest.raises(TimeoutError, match="nothing received for 30 s"):
        await stage.intake.forward(receive)
    assert [chunk.payload for chunk in stage.chunks()] == [payload()] * 3 * bool(heartbeat)
    assert trio.current_time() == pytest.approx(29 * 3 + 30, abs=0.01)


async def test_what_the_workers_do_not_take_at_once_is_forwarded_in_order(autojump_clock):
    """A stop ends the receiving, and no send; what one more receive finds is sent as well."""
    stage = Stage(room=1)
    numbers = iter(range(100))

    async def receive():
        await trio.sleep(0 if stage.intake.stopping else 1)
        return payload(b"%d\n" % next(numbers))

    async def forward():
        await stage.intake.forward(receive)
        await stage.sender.drained()
        stage.send.close()

    with stage.receive:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.waits.end_at_stop)
            nursery.start_soon(stage.sender.run)
            nursery.start_soon(forward)
            await trio.sleep(50)
            stage.stopping.set()
            chunks = [chunk async for chunk in stage.receive]
            nursery.cancel_scope.cancel()
    assert [chunk.number for chunk in chunks] == [0, 1, 2]
    assert [chunk.payload.lines for chunk in chunks] == [b"0\n", b"1\n", b"2\n"]


async def test_each_connection_of_a_source_has_its_own_life(autojump_clock, stage):
    """A silent one is detected even if another one is not silent."""

    async def lively():
        await trio.sleep(1)
        return b"x"

    async def read(receive):
        async for _ in stage.intake.received(receive):
            pass

    with pytest.RaisesGroup(TimeoutError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, lively)
            nursery.start_soon(read, trio.sleep_forever)
    assert trio.current_time() == pytest.approx(30, abs=0.01)


async def test_the_time_that_a_send_takes_is_no_silence(autojump_clock):
    stage = Stage(room=0)

    async def receive():
        await trio.sleep(29)
        return b"a\n"

    async def work():
        for _ in range(3):
            await trio.sleep(100)
            await stage.receive.receive()
        stage.stopping.set()

    with stage.send, stage.receive:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.waits.end_at_stop)
            nursery.start_soon(stage.sender.run)
            nursery.start_soon(work)
            async for each in stage.intake.received(receive):
                await stage.intake.send(payload(each))
            nursery.cancel_scope.cancel()


async def test_a_stop_allows_one_more_receive_of_each_task(autojump_clock, stage):
    """This holds even if the task is not receiving when the stop comes."""
    taken = []

    async def read(name, pause):
        async def receive():
            if len([each for each in taken if each == name]) < 2:
                return name
            if stage.intake.stopping and len([each for each in taken if each == name]) == 2:
                return name
            return await trio.sleep_forever()

        async for each in stage.intake.received(receive):
            taken.append(each)
            await trio.sleep(pause)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, "waits", 0)
        nursery.start_soon(read, "busy", 8)
        await trio.sleep(10)
        stage.stopping.set()
    assert taken.count("waits") == 3
    assert taken.count("busy") == 3


# ---- sending ----


async def test_payloads_of_all_tasks_are_numbered_in_the_order_of_their_sends(autojump_clock):
    stage = Stage(room=0)

    async def source(name):
        for number in range(20):
            await stage.intake.send(payload(b"%d %d\n" % (name, number)))

    chunks = []
    with stage.send, stage.receive:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.sender.run)
            for name in range(5):
                nursery.start_soon(source, name)
            for _ in range(100):
                chunks.append(await stage.receive.receive())  # noqa: PERF401
            nursery.cancel_scope.cancel()
    assert sorted(chunk.number for chunk in chunks) == list(range(100))
    chunks.sort(key=lambda chunk: chunk.number)
    for name in range(5):
        numbers = [
            int(chunk.payload.lines.split()[1])
            for chunk in chunks
            if chunk.payload.lines.startswith(b"%d " % name)
        ]
        assert numbers == list(range(20))


async def test_a_stop_does_not_end_a_send(autojump_clock):
    stage = Stage(room=0)
    with stage.send, stage.receive:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.waits.end_at_stop)
            nursery.start_soon(stage.sender.run)
            nursery.start_soon(stage.intake.send, payload())
            await trio.testing.wait_all_tasks_blocked()
            stage.stopping.set()
            await trio.sleep(100)
            assert stage.sender.waiting == 1
            assert (await stage.receive.receive()).payload == payload()
            await trio.testing.wait_all_tasks_blocked()
            assert stage.sender.waiting == 0
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("when", ["while it waits", "before it", "with room"])
async def test_a_cancelled_send_is_sent_all_the_same(autojump_clock, when):
    """Otherwise the book would wait for its number for ever."""
    stage = Stage(room=10 if when == "with room" else 0)
    with stage.send, stage.receive:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.sender.run)
            with trio.CancelScope() as scope:
                if when != "while it waits":
                    scope.cancel()
                scope.deadline = trio.current_time() + 1
                await stage.intake.send(payload(b"first\n"))
            assert scope.cancelled_caught == (when != "with room")
            nursery.start_soon(stage.intake.send, payload(b"second\n"))
            for number, text in enumerate([b"first\n", b"second\n"]):
                chunk = await stage.receive.receive()
                assert (chunk.number, chunk.payload.lines) == (number, text)
            await stage.sender.drained()
            nursery.cancel_scope.cancel()


async def test_drained_waits_for_what_had_no_room(autojump_clock):
    stage = Stage(room=0)
    with stage.send, stage.receive:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.sender.run)
            nursery.start_soon(stage.intake.send, payload())
            await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(100) as scope:
                await stage.sender.drained()
            assert scope.cancelled_caught
            await stage.receive.receive()
            await stage.sender.drained()
            nursery.cancel_scope.cancel()


async def test_an_error_of_ours_does_not_pass_through_the_source(autojump_clock):
    """The workers have gone. The send waits, and the task that passes chunks on fails."""
    stage = Stage()
    with stage.send:
        stage.receive.close()
        with trio.move_on_after(100) as scope:
            await stage.intake.send(payload())
        assert scope.cancelled_caught
        with pytest.raises(trio.BrokenResourceError):
            await stage.sender.run()


async def test_it_says_when_it_is_connected(stage):
    stage.intake.connected()
    stage.intake.connected()
    assert stage.connected == 2


async def test_it_says_why_a_connection_has_ended(stage):
    error = ConnectionResetError("gone")
    stage.intake.ended(error)
    assert stage.ends == [error]
