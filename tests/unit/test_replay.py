from __future__ import annotations

from marketflow.adapters.cache.memory import UPDATE_SIZE, MemoryFlush
from marketflow.app.ports import Flush, Written
from marketflow.app.share.replay import Replay
from marketflow.domain.bars import Bar
from marketflow.domain.columns import Columns


def flush_of(number, count=1):
    updates = Written("exchange1", "BTCUSDT", range(count), Columns([number] * count, [1.0] * count))
    bars = [(("exchange1", "BTCUSDT"), (0, "boot1"), Bar.of([number], [1.0]))]
    return MemoryFlush(Flush([updates], bars))


def numbers(replay):
    return [flush.flush.updates[0].columns.timestamps[0] for flush in replay.flushes()]


def test_flushes_are_kept_oldest_first_without_their_bars():
    """The bars have changed since, and older values must not replace them."""
    replay = Replay(length=100, memory=10**6)
    for number in range(3):
        replay.keep(flush_of(number), number)
    assert numbers(replay) == [0, 1, 2]
    assert all(not flush.flush.bars for flush in replay.flushes())
    assert replay.size == 3 * UPDATE_SIZE


def test_what_has_left_the_window_is_forgotten():
    """It is exact to the ms: updates that a question may still need are kept."""
    replay = Replay(length=100, memory=10**6)
    for number in range(10):
        replay.keep(flush_of(number), number)
    replay.forget_before(103)
    assert numbers(replay) == list(range(3, 10))
    replay.forget_before(1_000)
    assert (numbers(replay), replay.size) == ([], 0)


def test_the_oldest_go_first_where_memory_ends():
    replay = Replay(length=100, memory=5 * UPDATE_SIZE)
    for number in range(10):
        replay.keep(flush_of(number, count=2), number)
        assert replay.size <= 5 * UPDATE_SIZE
    assert numbers(replay) == [8, 9]
    replay.keep(flush_of(10, count=6), 10)
    assert (numbers(replay), replay.size) == ([], 0)
