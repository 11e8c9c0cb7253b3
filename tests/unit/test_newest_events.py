"""The events of the live stream: one for each newest update."""

from __future__ import annotations

from builders import EXCHANGES, NOON, SYMBOLS, World, batch_of

from marketflow.app.stream.newest_events import NewestEvents
from marketflow.domain.bars import Bar

PAIR = (EXCHANGES[0], SYMBOLS[0])


def events_of(world):
    news = NewestEvents(world.bars, world.pairs)
    news.refresh()
    return news


async def test_an_update_that_is_renumbered_is_no_new_event(autojump_clock):
    """Our clock was behind at the start, so that our updates get greater sequences once others' are known."""
    world = World()
    world.book.apply(batch_of(PAIR[0], [(PAIR[1], 7.0, NOON)]))
    news = events_of(world)
    (before,) = news.events
    other = Bar.of([NOON - 1], [3.0], NOON * 1_000 + 10**9)
    world.book.bars.adopt(("test1", SYMBOLS[0]), {(NOON - 1_000, "other"): other})
    sequence = world.bars.newest(PAIR).close_sequence
    world.book.follow_others()
    assert world.bars.newest(PAIR).close_sequence > sequence
    news.refresh()
    assert [event.latest.price for event in news.events] == [7.0, 3.0]
    assert news.events[0] is before


async def test_another_price_of_the_same_timestamp_is_a_new_event(autojump_clock):
    world = World()
    world.book.apply(batch_of(PAIR[0], [(PAIR[1], 7.0, NOON)]))
    news = events_of(world)
    world.book.apply(batch_of(PAIR[0], [(PAIR[1], 8.0, NOON)]))
    cursor = news.last_id
    news.refresh()
    assert [event.latest.price for event in news.after(cursor)] == [8.0]
