"""The lease of an exchange, as its holder reckons it."""

from __future__ import annotations

from marketflow.app.cluster.hold import Hold
from marketflow.app.ports import SeenLease, Term

TERM = Term("exchange1", 4, "t4")
OURS = SeenLease(TERM, "a", "boot1", 3_000, 0)


class Elapsed:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def taken() -> tuple[Hold, Elapsed]:
    """Asked for at 100 s, begun at 100.5 s, for 3 s."""
    elapsed = Elapsed()
    hold = Hold(TERM, elapsed)
    elapsed.now = 100.5
    hold.taken(100.0, 3.0)
    return hold, elapsed


async def test_it_is_sure_of_it_from_before_the_question_was_sent() -> None:
    hold, elapsed = taken()
    assert hold.begun
    assert hold.confirmed()
    elapsed.now = 102.99
    assert hold.confirmed()
    elapsed.now = 103.0
    assert not hold.confirmed()
    assert not hold.lost.is_set()


async def test_before_it_is_taken_it_is_sure_of_nothing() -> None:
    hold = Hold(TERM, Elapsed())
    assert not hold.begun
    assert not hold.confirmed()
    hold.seen(None, 1_000.0, 3.0)
    assert not hold.lost.is_set()


async def test_a_renewal_counts_from_when_it_was_sent() -> None:
    hold, elapsed = taken()
    elapsed.now = 104.0
    hold.seen(OURS, 102.0, 3.0)
    assert hold.confirmed()
    elapsed.now = 105.0
    assert not hold.confirmed()


async def test_a_look_renews_nothing() -> None:
    hold, elapsed = taken()
    elapsed.now = 102.9
    hold.seen(OURS, 102.8, None)
    elapsed.now = 103.0
    assert not hold.confirmed()


async def test_it_is_lost_if_another_has_it_or_nobody_knows_of_it() -> None:
    for lease in (
        None,
        SeenLease(Term("exchange1", 5, "t5"), "b", "boot2", 3_000, 0),
        SeenLease(Term("exchange1", 3, "t3"), "b", "boot2", 3_000, 0),
        SeenLease(TERM, "a", "boot1", 3_000, 0, released=True),
    ):
        hold, _ = taken()
        hold.seen(lease, 100.6, 3.0)
        assert hold.lost.is_set()
        assert not hold.confirmed()


async def test_what_was_asked_before_it_was_taken_tells_nothing() -> None:
    hold, _ = taken()
    hold.seen(None, 100.4, 3.0)
    assert not hold.lost.is_set()
    assert hold.confirmed()
