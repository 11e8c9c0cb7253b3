from __future__ import annotations

import math

import pytest
import trio

from marketflow.patience import SECOND_LOOK, within


async def test_it_returns_what_the_wait_returns(autojump_clock):
    async def wait() -> int:
        await trio.sleep(3)
        return 7

    start = trio.current_time()
    assert await within(5, wait) == 7
    assert trio.current_time() - start == 3


async def test_it_ends_soon_after_its_time(autojump_clock):
    start = trio.current_time()
    with pytest.raises(trio.TooSlowError):
        await within(5, trio.sleep_forever)
    assert trio.current_time() - start == pytest.approx(5 + SECOND_LOOK)


@pytest.mark.parametrize("late", [0, SECOND_LOOK / 2])
async def test_what_is_seen_only_after_the_deadline_is_taken(autojump_clock, nursery, late):
    """After a standstill the deadline has passed before Trio has polled the sockets."""
    come = trio.Event()

    async def send() -> None:
        await trio.sleep(5 + late)
        come.set()

    nursery.start_soon(send)
    await within(5, come.wait)


async def test_no_time_at_all_is_still_a_look(autojump_clock):
    assert await within(0, trio.lowlevel.checkpoint) is None


async def test_an_error_is_raised_as_it_is(autojump_clock):
    """It is not in a group."""

    async def wait() -> None:
        await trio.sleep(1)
        raise KeyError("x")

    with pytest.raises(KeyError, match="x"):
        await within(math.inf, wait)


async def test_a_cancellation_from_outside_is_no_time_out(autojump_clock):
    with trio.move_on_after(1) as outer:
        await within(5, trio.sleep_forever)
    assert outer.cancelled_caught


async def test_a_result_is_not_lost_to_a_cancellation_in_the_same_moment(autojump_clock):
    """It may be a connection that nothing else would close."""
    with trio.CancelScope() as outer:

        async def wait() -> str:
            await trio.lowlevel.checkpoint()
            outer.cancel()
            return "connection"

        assert await within(5, wait) == "connection"
        await trio.lowlevel.checkpoint()
    assert outer.cancelled_caught
