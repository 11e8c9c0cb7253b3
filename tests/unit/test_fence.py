"""The fence of a term: it is looked at before anything is written, and later ones are left alone."""

from __future__ import annotations

import pytest

from marketflow.app.instruments.stores import StoreState
from marketflow.app.ports import Fenced, Sight, StoreAway, Term
from marketflow.app.share.fence import Fence, Held, Seen, fence_of, seen

TERM = Term("exchange1", 4, "t4")


class Window:
    """The part of the port that a fence uses."""

    def __init__(self) -> None:
        self.fence: str | None = None
        self.looks = 0
        self.away = False
        self.changes_meanwhile = False

    async def look(self) -> Sight:
        self.looks += 1
        if self.away:
            raise StoreAway("away")
        return Sight(self.fence, None)

    async def take(self, found: Sight) -> bool:
        if self.changes_meanwhile:
            self.fence = "9:t9"
        if self.fence != found.holder:
            return False
        self.fence = fence_of(TERM)
        return True


class World:
    def __init__(self) -> None:
        self.window = Window()
        self.state = StoreState("redis")
        self.confirmed = True
        held = Held(TERM, lambda: self.confirmed)
        self.fence = Fence(self.window, held=held, state=self.state)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fence", "found"),
    [
        (None, Seen.EARLIER),
        ("3:t3", Seen.EARLIER),
        ("something else", Seen.EARLIER),
        ("4:t4", Seen.OURS),
        ("4:other", Seen.LATER),
        ("5:t5", Seen.LATER),
        ("40:t4", Seen.LATER),
    ],
)
def test_a_fence_is_compared_by_its_epoch(fence: str | None, found: Seen) -> None:
    assert seen(fence, TERM) is found


@pytest.mark.parametrize("fence", [None, "3:t3"])
async def test_a_fence_that_is_gone_or_older_is_sealed_once(fence: str | None) -> None:
    world = World()
    world.window.fence = fence
    await world.fence.ensure()
    world.state.answered()
    await world.fence.ensure()
    assert world.window.fence == "4:t4"
    assert world.window.looks == 1


@pytest.mark.parametrize("fence", [None, "3:t3", "4:t4"])
async def test_nothing_is_sealed_or_written_before_the_database_has_confirmed_the_term(
    fence: str | None,
) -> None:
    world = World()
    world.window.fence, world.confirmed = fence, False
    with pytest.raises(StoreAway, match="still ours"):
        await world.fence.ensure()
    assert world.window.fence == fence
    world.confirmed = True
    await world.fence.ensure()
    assert world.window.fence == "4:t4"


@pytest.mark.parametrize("fence", ["5:t5", "4:other"])
async def test_a_later_fence_is_the_end(fence: str) -> None:
    world = World()
    world.window.fence = fence
    for _ in range(2):
        with pytest.raises(Fenced) as caught:
            await world.fence.ensure()
        assert caught.value.epoch == int(fence.partition(":")[0])
    assert world.window.fence == fence
    assert world.window.looks == 1
    assert world.fence.another


async def test_after_a_failure_it_is_looked_at_again_and_the_database_asked() -> None:
    world = World()
    await world.fence.ensure()
    world.state.answered()
    world.state.failed(StoreAway("no answer"))
    world.confirmed = False
    with pytest.raises(StoreAway, match="still ours"):
        await world.fence.ensure()
    world.confirmed = True
    await world.fence.ensure()
    world.window.fence = "5:t5"
    world.state.failed(StoreAway("no answer"))
    with pytest.raises(Fenced):
        await world.fence.ensure()


async def test_a_fence_that_changes_while_it_is_sealed_is_looked_at_again() -> None:
    world = World()
    world.window.changes_meanwhile = True
    with pytest.raises(StoreAway, match="meanwhile"):
        await world.fence.ensure()
    with pytest.raises(Fenced):
        await world.fence.ensure()


async def test_once_given_back_nothing_is_written() -> None:
    world = World()
    await world.fence.ensure()
    await world.fence.release()
    world.state.answered()
    with pytest.raises(Fenced):
        await world.fence.ensure()
    assert world.window.fence == "4:t4"
